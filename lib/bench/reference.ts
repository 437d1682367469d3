/** Whether a peer computes the same network: its outputs for a few pictures of noise beside ours, on the same weights. */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { NetworkSpec } from '../layers.js';
import { loadModel } from '../model.js';
import type { Peer } from './peers.js';

const PICTURES = 2;

/** What the network makes of pictures. */
export interface Reference {
  /** A file of bytes: pictures, rows, columns, RGB. */
  pixels: string;
  /** What the last layer puts out. */
  outputs: number[][];
}

/** The outputs of the network of `weights`, on the processor. */
export async function reference(network: NetworkSpec, folder: string, weights: string): Promise<Reference> {
  const { imageSize: side } = network.input;
  const pixels = join(folder, 'pixels');
  const bytes = side * side * 3;
  const data = randomBytes(PICTURES * bytes);
  await writeFile(pixels, data);
  await using model = await loadModel(weights, { devices: ['cpu'], precision: 'fp32', batch: PICTURES });
  const images = Array.from({ length: PICTURES }, (_, index) => ({
    data: new Uint8Array(data.subarray(index * bytes, (index + 1) * bytes)),
    width: side,
    height: side,
  }));
  const outputs: number[][] = [];
  for await (const row of model.features(images, { layer: network.layers.at(-1)?.name ?? '' })) outputs.push([...row]);
  return { pixels, outputs };
}

/** How far the outputs of `peer` are from ours: relative L2. */
export async function differenceOf(peer: Peer, { pixels, outputs }: Reference): Promise<number> {
  const theirs = (await peer.outputs(pixels, PICTURES)).flat();
  const ours = outputs.flat();
  const square = (of: (index: number) => number) => ours.reduce((sum, _, index) => sum + of(index) ** 2, 0);
  const apart = square((index) => (ours[index] ?? 0) - (theirs[index] ?? Number.NaN));
  return Math.sqrt(apart / square((index) => ours[index] ?? 0));
}
