/** `check:slots`: a preset on two lists of devices, by default on one processor slot and on two. */
import { resolve } from 'node:path';
import { Command } from 'commander';

import { list, oneOf, rate, whole } from '../cli/flags.js';
import { count, table } from '../cli/format.js';
import { changeRecipe } from '../config.js';
import { openDataset, PRECISIONS, PRESETS, type Precision, type PresetName, preset } from '../index.js';
import { agrees, compareSlots, type SlotsRow, TOLERANCE } from '../slots.js';

/** What to compare. */
export interface SlotsCheck {
  preset: PresetName;
  batch: number;
  steps: number;
  seed: number;
  /** As in `train`. */
  data: string;
  /** Default: one processor slot, and two. */
  devices?: string[];
  against?: string[];
  precision?: Precision;
  /** Instead of the preset's; the biases keep their ratio to it. */
  lr?: number | undefined;
  sameState?: boolean | undefined;
}

/** Trains the preset on both and tells of every step. */
export async function* comparePreset(options: SlotsCheck): AsyncGenerator<SlotsRow> {
  const { preset: name, batch, data: source, lr, devices = ['cpu'], against = ['cpu', 'cpu'], ...rest } = options;
  const { imageSize } = preset(name, { classes: 2 }).network.input;
  // No more images are looked at than the steps need.
  await using data = await openDataset({ source, imageSize, seed: rest.seed, limit: batch * rest.steps });
  const { network, recipe: own } = preset(name, { classes: data.classes.length });
  yield* compareSlots({ ...rest, network, recipe: changeRecipe(own, { batch, lr }), data, devices, against });
}

/** The command: a table of all steps; exit code 1 where one of them differs. */
export async function main(): Promise<void> {
  const command = new Command('check:slots')
    .description('Train on one list of devices and on another, and compare loss and momentum after every step.')
    .option('--preset <name>', 'what to train', oneOf(Object.keys(PRESETS) as PresetName[]), 'code2012')
    .option('--batch <n>', 'images per step', whole(1), 8)
    .option('--steps <n>', 'how many', whole(1), 20)
    .option('--seed <n>', 'of weights, order, augmentation and dropout', whole(0), 1)
    .option('--lr <rate>', "learning rate instead of the preset's", rate)
    .option('--data <source>', '"generated", a folder, a .tar, or the CIFAR-10 binaries', 'generated')
    .option('--devices <names>', 'one device, or two for the two towers', list, ['cpu'])
    .option('--against <names>', 'the others', list, ['cpu', 'cpu'])
    .option('--precision <name>', 'of both', oneOf(PRECISIONS), 'fp32')
    .option('--same-state', 'begin every step from the same state, instead of letting each go its own way')
    .parse();
  const flags = command.opts<SlotsCheck & { devices: string[]; against: string[] }>();
  const data = flags.data === 'generated' ? flags.data : resolve(flags.data);
  const rows: SlotsRow[] = [];
  for await (const row of comparePreset({ ...flags, data })) {
    rows.push(row);
    if (process.stderr.isTTY) process.stderr.write(`\rstep ${row.step + 1} of ${flags.steps}`);
  }
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  const [devices, against] = [flags.devices.join(','), flags.against.join(',')];
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
  console.log(table(['step', `loss, ${devices}`, against, 'distance', 'momentum', 'of', 'agree'], lines, 0));
  const good = rows.every((row) => agrees(row));
  console.log(
    `\n${flags.preset} at batch ${flags.batch}, ${count(rows.length)} steps${flags.sameState ? ' from the same state' : ''}: ${devices} and ${against} ` +
      `${good ? `agree to a relative L2 of ${TOLERANCE}` : `DIFFER by more than a relative L2 of ${TOLERANCE}`}`,
  );
  if (!good) process.exitCode = 1;
}
