/**
 * The same training on two lists of devices, step by step: the mathematics must not depend on the placement.
 *
 * Each goes its own way. Where only convolutions and linear layers read both towers (`code2012`) the bits are the same on one processor slot and
 * on two. A norm over both towers (`paper`) sums in another order, and so do other devices; large networks at large rates then part, for a
 * reason that has nothing to do with slots: where rounding turns a maximum of a pooling window or the sign of a unit, the gradient jumps, and
 * the next steps amplify that. For these, `sameState` begins every step on the second list where the step on the first begins.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Dataset } from './data.js';
import { Engine } from './engine.js';
import type { NetworkSpec } from './layers.js';
import { parametricLayers } from './network.js';
import type { Precision } from './precision.js';
import type { Recipe } from './recipe.js';
import { createSchedule } from './schedule.js';
import { nextSegment } from './segment.js';

/** How far the two may be apart in fp32: their sums have another order. */
export const TOLERANCE = 1e-4;

/** What to compare. */
export interface SlotsComparison {
  network: NetworkSpec;
  recipe: Recipe;
  data: Dataset;
  /** The first devices, and the second. */
  devices: string[];
  against: string[];
  precision?: Precision;
  steps: number;
  seed: number;
  threads?: number;
  /** Begin every step on the second devices where the step on the first begins, instead of letting each go its own way. */
  sameState?: boolean | undefined;
  notices?: boolean;
}

/** How far apart they were after one step. */
export interface SlotsRow {
  step: number;
  /** Loss on the first devices, on the second, and their relative distance. */
  one: number;
  two: number;
  loss: number;
  /** The largest relative L2 distance among the momentum tensors, and whose. */
  momentum: number;
  tensor: string;
}

/** Trains both side by side and tells of every step. */
export async function* compareSlots(options: SlotsComparison): AsyncGenerator<SlotsRow> {
  const {
    network,
    recipe,
    data,
    steps,
    seed,
    threads,
    precision = 'fp32',
    notices = false,
    sameState = false,
  } = options;
  const { batch, momentum } = recipe;
  const batches = Math.ceil(data.info.train / batch);
  const layers = parametricLayers(network);
  const plan = { recipe, schedule: createSchedule(recipe), batches, layers };
  const names = layers.flatMap((layer) => [`momentum.${layer}.weight`, `momentum.${layer}.bias`]);
  const limits = threads === undefined ? {} : { threads };
  const make = (devices: string[]) =>
    Engine.create({ network, devices, batch, seed, momentum, precision, notices, ...limits }, data);
  const one = await make(options.devices);
  try {
    const two = await make(options.against);
    try {
      for (let step = 0; step < steps; step += 1) {
        if (step > 0 && sameState) await copyState(one, two);
        const cursor = { epoch: Math.floor(step / batches), batch: step % batches, step };
        const segment = nextSegment(plan, cursor, 1);
        // One after the other: both want all processors.
        const [a, b] = [await one.run(segment), await two.run(segment)];
        const worst = await farthest(one, two, names);
        yield { step, one: a.loss, two: b.loss, loss: Math.abs(a.loss - b.loss) / Math.abs(a.loss), ...worst };
      }
    } finally {
      await two.dispose();
    }
  } finally {
    await one.dispose();
  }
}

/** Weights and momentum, through a checkpoint. */
async function copyState(from: Engine, to: Engine): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'alexnode-slots-'));
  try {
    const path = join(folder, 'state.safetensors');
    await from.save(path, '{}');
    await to.load(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The tensor in which two engines differ most; one pair at a time, since all of them are a gigabyte in the networks of 2012. */
async function farthest(one: Engine, two: Engine, names: string[]): Promise<{ momentum: number; tensor: string }> {
  let worst = { momentum: -1, tensor: '' };
  for (const tensor of names) {
    const momentum = relativeL2((await one.tensor(tensor)).data, (await two.tensor(tensor)).data);
    // A NaN is as far as can be.
    if (!(momentum <= worst.momentum)) worst = { momentum, tensor: tensor.replace('momentum.', '') };
  }
  return worst;
}

/** |a - b| / |a|; two tensors of zeros are equal. */
export function relativeL2(a: Float32Array, b: Float32Array): number {
  let difference = 0;
  let norm = 0;
  for (let index = 0; index < a.length; index += 1) {
    const value = a[index] ?? Number.NaN;
    const other = b[index] ?? Number.NaN;
    difference += (value - other) ** 2;
    norm += value ** 2;
  }
  if (difference === 0 && a.length === b.length) return 0;
  return Math.sqrt(difference / norm);
}

/** Whether a step of both is the same within `tolerance`. */
export function agrees({ loss, momentum }: SlotsRow, tolerance = TOLERANCE): boolean {
  return loss <= tolerance && momentum <= tolerance;
}
