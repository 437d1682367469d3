/**
 * The same training on one slot and on two, step by step: the mathematics must not depend on the placement.
 *
 * Each goes its own way. Where only convolutions and linear layers read both towers (`code2012`) the bits are the same. A norm over both
 * towers (`paper`) sums in another order; large networks at large rates then part, for a reason that has nothing to do with slots:
 * where rounding turns a maximum of a pooling window or the sign of a unit, the gradient jumps, and the next steps amplify that. For
 * these, `sameState` begins every step on two slots where the step on one begins.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Command } from 'commander';

import { oneOf, rate, whole } from '../cli/flags.js';
import { count, table } from '../cli/format.js';
import { changeRecipe } from '../config.js';
import type { Dataset } from '../data.js';
import { Engine } from '../engine.js';
import { openDataset, PRESETS, type PresetName, preset } from '../index.js';
import { parametricLayers } from '../network.js';
import { createSchedule } from '../schedule.js';
import { nextSegment } from '../segment.js';

/** How far one slot and two may be apart: their sums have another order. */
export const TOLERANCE = 1e-4;

/** What to compare. */
export interface SlotsCheck {
  preset: PresetName;
  batch: number;
  steps: number;
  seed: number;
  /** As in `train`. */
  data: string;
  /** Instead of the preset's; the biases keep their ratio to it. */
  lr?: number | undefined;
  /** Begin every step on two slots where the step on one begins, instead of letting each go its own way. */
  sameState?: boolean | undefined;
}

/** How far apart they were after one step. */
export interface SlotsRow {
  step: number;
  /** Loss on one slot, on two, and their relative distance. */
  one: number;
  two: number;
  loss: number;
  /** The largest relative L2 distance among the momentum tensors, and whose. */
  momentum: number;
  tensor: string;
}

/** Trains both side by side and tells of every step. */
export async function* compareSlots(options: SlotsCheck): AsyncGenerator<SlotsRow> {
  const { preset: name, batch, steps, seed, data: source, lr, sameState = false } = options;
  const { imageSize } = preset(name, { classes: 2 }).network.input;
  // No more images are looked at than the steps need.
  await using data = await openDataset({ source, imageSize, seed, limit: batch * steps });
  const { network, recipe: own } = preset(name, { classes: data.classes.length });
  const recipe = changeRecipe(own, { batch, lr });
  const batches = Math.ceil(data.info.train / batch);
  const layers = parametricLayers(network);
  const plan = { recipe, schedule: createSchedule(recipe), batches, layers };
  const names = layers.flatMap((layer) => [`momentum.${layer}.weight`, `momentum.${layer}.bias`]);
  const make = (devices: string[]) => makeEngine({ network, devices, batch, seed, momentum: recipe.momentum }, data);
  const one = await make(['cpu']);
  try {
    const two = await make(['cpu', 'cpu']);
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

function makeEngine(config: Omit<Parameters<typeof Engine.create>[0], 'precision'>, data: Dataset): Promise<Engine> {
  return Engine.create({ ...config, precision: 'fp32' }, data);
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

/** Whether a step of both is the same within the tolerance. */
export function agrees({ loss, momentum }: SlotsRow): boolean {
  return loss <= TOLERANCE && momentum <= TOLERANCE;
}

/** The command: a table of all steps; exit code 1 where one of them differs. */
export async function main(): Promise<void> {
  const command = new Command('check:slots')
    .description('Train on one slot and on two, and compare loss and momentum after every step.')
    .option('--preset <name>', 'what to train', oneOf(Object.keys(PRESETS) as PresetName[]), 'code2012')
    .option('--batch <n>', 'images per step', whole(1), 8)
    .option('--steps <n>', 'how many', whole(1), 20)
    .option('--seed <n>', 'of weights, order, augmentation and dropout', whole(0), 1)
    .option('--lr <rate>', "learning rate instead of the preset's", rate)
    .option('--data <source>', '"generated", a folder, a .tar, or the CIFAR-10 binaries', 'generated')
    .option('--same-state', 'begin every step from the same state, instead of letting each go its own way')
    .parse();
  const flags = command.opts<SlotsCheck>();
  const data = flags.data === 'generated' ? flags.data : resolve(flags.data);
  const rows: SlotsRow[] = [];
  for await (const row of compareSlots({ ...flags, data })) {
    rows.push(row);
    if (process.stderr.isTTY) process.stderr.write(`\rstep ${row.step + 1} of ${flags.steps}`);
  }
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  const short = (value: number) => value.toExponential(1);
  const lines = rows.map((row) => [
    count(row.step),
    row.one.toFixed(6),
    row.two.toFixed(6),
    short(row.loss),
    short(row.momentum),
    row.tensor,
    agrees(row) ? 'yes' : 'NO',
  ]);
  console.log(table(['step', 'loss, 1 slot', '2 slots', 'distance', 'momentum', 'of', 'agree'], lines, 0));
  const good = rows.every(agrees);
  console.log(
    `\n${flags.preset} at batch ${flags.batch}, ${count(rows.length)} steps${flags.sameState ? ' from the same state' : ''}: one slot and two ` +
      `${good ? `agree to a relative L2 of ${TOLERANCE}` : `DIFFER by more than a relative L2 of ${TOLERANCE}`}`,
  );
  if (!good) process.exitCode = 1;
}
