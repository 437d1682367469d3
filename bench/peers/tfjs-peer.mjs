/**
 * The network of a bench in TensorFlow.js (its `cpu` backend: the others cannot train without a browser or a download), under the clock of the bench.
 * A JSON object per line on stdin, one in answer on stdout:
 *
 *     open    network, batch, momentum, weights (a checkpoint)         ->  ready
 *     check   pixels (bytes: images, rows, columns, RGB), images        ->  outputs of the last layer
 *     train   steps: forward, cross-entropy, backward, momentum         ->  seconds of each
 *     infer   steps: forward                                            ->  seconds of each
 *     layers, gemm                                                      ->  nothing: it cannot tell
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

import { answer, serve } from './wire.mjs';

const modules = resolve(process.env.ALEXNODE_MODULES ?? '.');
// What the library prints must not be taken for an answer.
console.log = console.info = console.warn = console.error;

let tf;
try {
  tf = createRequire(join(modules, 'peer.cjs'))('@tensorflow/tfjs');
} catch (problem) {
  answer({ type: 'missing', message: `${modules} has no TensorFlow.js: ${problem.message.split('\n')[0]}` });
  process.exit(0);
}

/** The tensors of a safetensors file: a length, a table as JSON, the data. */
function tensorsOf(path) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const table = JSON.parse(file.subarray(8, 8 + length).toString('utf8'));
  const found = new Map();
  for (const [name, entry] of Object.entries(table)) {
    if (name === '__metadata__' || entry.dtype !== 'F32') continue;
    const [begin, end] = entry.data_offsets;
    const bytes = Uint8Array.prototype.slice.call(file, 8 + length + begin, 8 + length + end);
    found.set(name, { shape: entry.shape, values: new Float32Array(bytes.buffer, 0, bytes.length / 4) });
  }
  return found;
}

/** Padding before and behind, such that the last, incomplete window counts where the layer says so. */
function windowOf({ kernelSize, stride = 1, padding = 0, ceilMode = true }, size) {
  const span = size + 2 * padding - kernelSize;
  const steps = ceilMode ? Math.ceil(span / stride) : Math.floor(span / stride);
  return { before: padding, behind: Math.max(0, steps * stride + kernelSize - size - padding) };
}

const padded = (x, { before, behind }, value = 0) =>
  before === 0 && behind === 0
    ? x
    : tf.pad(
        x,
        [
          [0, 0],
          [before, behind],
          [before, behind],
          [0, 0],
        ],
        value,
      );

/** A layer as a function of images (rows, columns, channels last), and its trained variables. */
function layerOf(spec, stored, shape, training) {
  const [size, , channels] = shape;
  switch (spec.type) {
    case 'conv2d': {
      const { groups = 1, stride = 1, outChannels } = spec;
      const bounds = windowOf(spec, size);
      const side = Math.floor((size + bounds.before + bounds.behind - spec.kernelSize) / stride) + 1;
      const weight = stored.get(`${spec.name}.weight`);
      // From output, input, row, column.
      const kernel = tf.variable(tf.transpose(tf.tensor(weight.values, weight.shape), [2, 3, 1, 0]));
      const bias = tf.variable(tf.tensor1d(stored.get(`${spec.name}.bias`).values));
      const run = (x) => {
        if (groups === 1) return tf.add(tf.conv2d(padded(x, bounds), kernel, stride, 'valid'), bias);
        // There are no groups: a convolution for each.
        const inputs = tf.split(padded(x, bounds), groups, 3);
        const kernels = tf.split(kernel, groups, 3);
        const outputs = inputs.map((input, index) => tf.conv2d(input, kernels[index], stride, 'valid'));
        return tf.add(tf.concat(outputs, 3), bias);
      };
      return { run, shape: [side, side, outChannels], variables: [kernel, bias] };
    }
    case 'linear': {
      const weight = stored.get(`${spec.name}.weight`);
      const kernel = tf.variable(
        tf.transpose(tf.tensor2d(weight.values, [weight.shape[0], weight.values.length / weight.shape[0]])),
      );
      const bias = tf.variable(tf.tensor1d(stored.get(`${spec.name}.bias`).values));
      // Files have the inputs as channel, row, column.
      const flat = (x) => tf.reshape(x.rank === 4 ? tf.transpose(x, [0, 3, 1, 2]) : x, [x.shape[0], -1]);
      return {
        run: (x) => tf.add(tf.matMul(flat(x), kernel), bias),
        shape: [1, 1, spec.outFeatures],
        variables: [kernel, bias],
      };
    }
    case 'maxPool2d':
    case 'avgPool2d': {
      const bounds = windowOf(spec, size);
      const side = Math.floor((size + bounds.before + bounds.behind - spec.kernelSize) / spec.stride) + 1;
      const { kernelSize, stride } = spec;
      const sum = (x) => tf.avgPool(padded(x, bounds), kernelSize, stride, 'valid');
      const run =
        spec.type === 'maxPool2d'
          ? (x) => tf.maxPool(padded(x, bounds, -3e38), kernelSize, stride, 'valid')
          : // The mean of the pixels inside: the padded mean over the share of the window that is inside.
            (x) => tf.div(sum(x), sum(tf.onesLike(x)));
      return { run, shape: [side, side, channels], variables: [] };
    }
    case 'relu':
      return { run: tf.relu, shape, variables: [] };
    case 'tanh':
      return { run: tf.tanh, shape, variables: [] };
    case 'dropout': {
      const keep = 1 - spec.p;
      const run = (x) => {
        const y = training() && spec.p > 0 ? tf.dropout(x, spec.p) : x;
        return spec.inverted ? y : tf.mul(y, keep);
      };
      return { run, shape, variables: [] };
    }
    case 'localResponseNorm': {
      const { size: width, k, beta, groups = 1, alphaDividedBySize = true } = spec;
      const alpha = spec.alpha / (alphaDividedBySize ? width : 1);
      const norm = (x) => tf.localResponseNormalization(x, (width - 1) / 2, k, alpha, beta);
      const run = (x) => (groups === 1 ? norm(x) : tf.concat(tf.split(x, groups, 3).map(norm), 3));
      return { run, shape, variables: [] };
    }
    case 'mapResponseNorm': {
      const { size: width, k, beta, alphaDividedBySize = true } = spec;
      const alpha = spec.alpha * (alphaDividedBySize ? 1 : width ** 2);
      const reach = Math.floor(width / 2);
      const mean = (x) => tf.avgPool(padded(tf.square(x), { before: reach, behind: reach }), width, 1, 'valid');
      return { run: (x) => tf.mul(x, tf.pow(tf.add(k, tf.mul(alpha, mean(x))), -beta)), shape, variables: [] };
    }
    default:
      throw new Error(`TensorFlow.js has no layer of the type ${spec.type} (${spec.name})`);
  }
}

let peer;

const VERBS = {
  async open({ network, batch, momentum, weights }) {
    await tf.setBackend('cpu');
    await tf.ready();
    const stored = tensorsOf(weights);
    const { cropSize } = network.input;
    peer = { network, training: false };
    let shape = [cropSize, cropSize, 3];
    peer.layers = network.layers.map((spec) => {
      const layer = layerOf(spec, stored, shape, () => peer.training);
      shape = layer.shape;
      return layer;
    });
    const mean = stored.get('input.mean');
    peer.mean = tf.tensor(mean.values, mean.shape);
    peer.forward = (x) => peer.layers.reduce((value, { run }) => run(value), x);
    peer.variables = peer.layers.flatMap(({ variables }) => variables);
    peer.optimiser = tf.train.momentum(1e-6, momentum);
    peer.x = tf.randomUniform([batch, cropSize, cropSize, 3], -128, 127);
    const labels = tf.randomUniform([batch], 0, network.classes, 'int32');
    peer.labels = tf.oneHot(labels, network.classes);
    return { type: 'ready', version: tf.version_core, details: `backend ${tf.getBackend()}, one thread` };
  },
  async check({ pixels, images }) {
    const { imageSize, cropSize, scale } = peer.network.input;
    const begin = Math.floor((imageSize - cropSize) / 2);
    const outputs = tf.tidy(() => {
      const all = tf.tensor(new Float32Array(readFileSync(pixels)), [images, imageSize, imageSize, 3]);
      const crops = tf.slice(all, [0, begin, begin, 0], [images, cropSize, cropSize, 3]);
      return peer.forward(tf.mul(tf.sub(crops, peer.mean), scale));
    });
    return { type: 'checked', outputs: await outputs.array() };
  },
  async train({ steps }) {
    peer.training = true;
    return timed(steps, async () => {
      const loss = peer.optimiser.minimize(
        () => tf.losses.softmaxCrossEntropy(peer.labels, peer.forward(peer.x)),
        true,
        peer.variables,
      );
      await loss.data();
      loss.dispose();
    });
  },
  async infer({ steps }) {
    peer.training = false;
    return timed(steps, async () => {
      const outputs = tf.tidy(() => peer.forward(peer.x));
      await outputs.data();
      outputs.dispose();
    });
  },
  layers: () => ({ type: 'layers' }),
  gemm: () => ({ type: 'gemm' }),
};

async function timed(steps, run) {
  const seconds = [];
  for (let step = 0; step < steps; step += 1) {
    const begin = performance.now();
    await run();
    seconds.push((performance.now() - begin) / 1000);
  }
  return { type: 'samples', seconds, peakBytes: process.resourceUsage().maxRSS * 1024 };
}

await serve(VERBS);
