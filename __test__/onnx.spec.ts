import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { InferenceSession, Tensor } from 'onnxruntime-node';

import {
  AlexnodeError,
  avgPool2d,
  conv2d,
  dropout,
  exportOnnx,
  exportSafetensors,
  he,
  linear,
  loadModel,
  local2d,
  localResponseNorm,
  mapResponseNorm,
  maxPool2d,
  type NetworkSpec,
  PRESETS,
  preset,
  relu,
  tanh,
} from '../lib/index.js';
import { temporary } from './helpers.js';
import { type Picture, pictures, weightsFile } from './random-network.js';

/** The processes of the specs share the cores. */
const SESSION: InferenceSession.SessionOptions = { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3 };
const IMAGES = 32;

/** A preset with its windows, groups and order of layers, and few channels. */
function thin(network: NetworkSpec): NetworkSpec {
  const layers = network.layers.map((layer) => {
    if (layer.type === 'conv2d' || layer.type === 'local2d') return { ...layer, outChannels: layer.outChannels / 8 };
    if (layer.type === 'linear' && layer.outFeatures > 64) return { ...layer, outFeatures: 64 };
    // As strong as in trained networks: it must be seen in the result.
    if (layer.type === 'localResponseNorm' || layer.type === 'mapResponseNorm') return { ...layer, alpha: 0.5 };
    return layer;
  });
  return { ...network, input: { ...network.input, scale: 1 / 64 }, layers };
}

/** The central crops as planes. */
function crops({ input: { imageSize, cropSize } }: NetworkSpec, all: Picture[]): Tensor {
  const data = new Float32Array(all.length * 3 * cropSize * cropSize);
  const border = Math.floor((imageSize - cropSize) / 2);
  let place = 0;
  for (const { data: bytes } of all) {
    for (let colour = 0; colour < 3; colour += 1) {
      for (let row = 0; row < cropSize; row += 1) {
        for (let column = 0; column < cropSize; column += 1) {
          data[place] = bytes[((row + border) * imageSize + column + border) * 3 + colour] ?? 0;
          place += 1;
        }
      }
    }
  }
  return new Tensor('float32', data, [all.length, 3, cropSize, cropSize]);
}

function stored({ input: { imageSize } }: NetworkSpec, all: Picture[]): Tensor {
  return new Tensor('uint8', Buffer.concat(all.map(({ data }) => data)), [all.length, imageSize, imageSize, 3]);
}

/** Exports `network` both ways and compares what ONNX Runtime makes of 32 images with what we do. */
async function compare(t: ExecutionContext, network: NetworkSpec): Promise<void> {
  const weights = weightsFile(network);
  const all = pictures(network, IMAGES);
  await using model = await loadModel(weights, { devices: ['cpu'] });
  const topK = Math.min(5, network.classes);
  const expected = new Map<number, number[]>();
  for await (const prediction of model.predictAll(all, { topK: network.classes })) {
    if ('error' in prediction) throw prediction.error;
    const row: number[] = [];
    for (const { label, probability } of prediction.top) row[model.classes.indexOf(label)] = probability;
    expected.set(expected.size, row);
  }
  for (const embedPreprocessing of [false, true]) {
    const file = join(temporary(), 'model.onnx');
    const written = await exportOnnx({ model: weights, file, embedPreprocessing });
    t.is(written.dtype, embedPreprocessing ? 'uint8' : 'float32');
    const session = await InferenceSession.create(file, SESSION);
    const { probabilities } = await session.run({
      images: embedPreprocessing ? stored(network, all) : crops(network, all),
    });
    const rows = probabilities?.data as Float32Array;
    t.is(rows.length, IMAGES * network.classes);
    let widest = 0;
    for (const [image, row] of expected) {
      const own = rows.subarray(image * network.classes, (image + 1) * network.classes);
      const order = (values: ArrayLike<number>) =>
        Array.from(values, (_, k) => k).sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0));
      for (const [k, value] of row.entries()) widest = Math.max(widest, Math.abs(value - (own[k] ?? Number.NaN)));
      // Where two are the same to rounding, either order is right.
      const [first, second] = [order(row).slice(0, topK), order(own).slice(0, topK)];
      const close = (k: number) => Math.abs((row[first[k] ?? 0] ?? 0) - (row[second[k] ?? 0] ?? 0)) < 1e-6;
      t.true(
        first.every((label, k) => label === second[k] || close(k)),
        `${network.name}: top ${topK} of image ${image}`,
      );
    }
    t.true(widest < 1e-4, `${network.name}: ${widest}`);
    await session.release();
  }
  // What is compared must differ between images and classes.
  const first = [...expected.values()].map((row) => row[0] ?? 0);
  t.true(Math.max(...first) - Math.min(...first) > 0.01, `${network.name}: all images look alike`);
}

for (const name of Object.keys(PRESETS)) {
  test(`ONNX Runtime finds what we do: ${name}`, async (t) => {
    t.timeout(180_000);
    await compare(t, thin(preset(name, { classes: 8 }).network));
  });
}

test('the same for layers in forms and places that no preset has', async (t) => {
  const layers = [
    localResponseNorm('even', { size: 4, alpha: 0.5, groups: 3 }),
    conv2d('conv1', { outChannels: 6, kernelSize: 4, stride: 3, padding: 1, groups: 3 }),
    tanh('tanh1'),
    dropout('drop1', { p: 0.25 }),
    mapResponseNorm('map1', { size: 4, k: 2, alpha: 0.01, beta: 0.6, alphaDividedBySize: false }),
    localResponseNorm('odd', { size: 3, k: 1, alpha: 0.2, beta: 0.5, alphaDividedBySize: false, groups: 2 }),
    avgPool2d('pool1', { kernelSize: 3, stride: 2, padding: 1 }),
    local2d('local1', { outChannels: 4, kernelSize: 3, stride: 2, padding: 1, groups: 2 }),
    maxPool2d('pool2', { kernelSize: 2, stride: 2, padding: 1, ceilMode: false }),
    dropout('drop2', { p: 0.25, inverted: true }),
    linear('fc1', { outFeatures: 12 }),
    relu('relu1'),
    conv2d('conv2', { outChannels: 8, kernelSize: 1 }),
    localResponseNorm('last', { alpha: 1 }),
    dropout('drop3', { p: 0.4 }),
    linear('fc2', { outFeatures: 5, weightInit: he() }),
  ];
  const input = { imageSize: 25, cropSize: 20, flip: false, noiseDivisor: 1, scale: 1 / 32 };
  await compare(t, { name: 'odd', classes: 5, input, layers });
});

test('labels and preprocessing are in the metadata, and no file is overwritten', async (t) => {
  const { network } = preset('cifar-80sec', { classes: 3 });
  const weights = weightsFile(thin(network));
  const file = join(temporary(), 'model.onnx');
  await exportOnnx({ model: weights, file });
  const bytes = readFileSync(file).toString('latin1');
  t.true(bytes.includes(JSON.stringify(['"<b>0\n', '"<b>1\n', '"<b>2\n'])));
  t.true(bytes.includes('"centralSquare":32'));
  for (const call of [exportOnnx, exportSafetensors]) {
    const error = await t.throwsAsync(call({ model: weights, file }), { instanceOf: AlexnodeError });
    t.is(error?.code, 'ERR_USAGE');
  }
});

test('exported weights are read again, and answer the same', async (t) => {
  const { network } = preset('cifar-80sec', { classes: 3 });
  const weights = weightsFile(thin(network));
  const file = join(temporary(), 'copy.safetensors');
  const { sha256 } = await exportSafetensors({ model: weights, file });
  const [picture] = pictures(network, 1);
  if (picture === undefined) throw new Error('no picture');
  await using model = await loadModel(weights, { devices: ['cpu'] });
  await using copy = await loadModel(file, { devices: ['cpu'] });
  t.is(copy.sha256, sha256);
  t.deepEqual(await copy.predict(picture), await model.predict(picture));
});
