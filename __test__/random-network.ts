/** Networks with random weights in files, and random pictures: the same every time. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describeNetwork, type NetworkSpec } from '../lib/index.js';
import { temporary } from './helpers.js';

/** Numbers between -1 and 1, the same every time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** A file of weights that tell every layer: He's deviation, biases, a mean image with a pattern. */
export function weightsFile(network: NetworkSpec): string {
  const { cropSize } = network.input;
  const next = random(7);
  const tensors: Record<string, [shape: number[], deviation: number]> = {
    'input.mean': [[cropSize, cropSize, 3], 0],
    'input.colour': [[4, 3], 0],
  };
  for (const layer of describeNetwork(network, { batch: 1, devices: ['cpu'] }).layers) {
    for (const [name, shape] of Object.entries(layer.tensors)) {
      const inputs = shape.slice(layer.type === 'Local2d' ? 3 : 1).reduce((a, b) => a * b, 1);
      tensors[name] = [shape, name.endsWith('bias') ? 0.3 : Math.sqrt(6 / inputs)];
    }
  }
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let end = 0;
  for (const name of Object.keys(tensors).sort()) {
    const [shape, deviation] = tensors[name] ?? [[], 0];
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    for (let i = 0; i < values.length; i += 1) values[i] = name === 'input.mean' ? 120 + (i % 41) : deviation * next();
    header[name] = { dtype: 'F32', shape, data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
    parts.push(Buffer.from(values.buffer));
  }
  const data = Buffer.concat(parts);
  const alexnode = JSON.stringify({
    format: 'alexnode-checkpoint',
    version: 1,
    config: { network, recipe: {}, precision: 'fp32' },
    classes: Array.from({ length: network.classes }, (_, index) => `"<b>${index}\n`),
    cursor: { epoch: 0, batch: 0, step: 3 },
    schedule: {},
    progress: {},
  });
  const sha256 = createHash('sha256').update(data).digest('hex');
  header.__metadata__ = { format: 'alexnode-weights-1', sha256, alexnode };
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const path = join(temporary(), 'weights.safetensors');
  writeFileSync(path, Buffer.concat([length, text, data]));
  return path;
}

/** Pixels, upright. */
export interface Picture {
  data: Uint8Array;
  width: number;
  height: number;
}

/** Pictures of the size that a network takes. */
export function pictures({ input: { imageSize } }: NetworkSpec, count: number): Picture[] {
  const next = random(3);
  return Array.from({ length: count }, () => {
    const bytes = new Uint8Array(imageSize * imageSize * 3);
    // Waves of a direction, length and colour of their own, with grain.
    const [across, down] = [(20 * next()) / imageSize, (20 * next()) / imageSize];
    const phases = [3 * next(), 3 * next(), 3 * next()];
    for (let i = 0; i < bytes.length; i += 1) {
      const pixel = Math.floor(i / 3);
      const wave = across * (pixel % imageSize) + down * Math.floor(pixel / imageSize) + (phases[i % 3] ?? 0);
      bytes[i] = 127 + 90 * Math.sin(wave) + 30 * next();
    }
    return { data: bytes, width: imageSize, height: imageSize };
  });
}
