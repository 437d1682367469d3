/** `alexnode train`. */
import { type Command, Option } from 'commander';

import {
  AlexnodeError,
  type Live,
  PRESETS,
  type Precision,
  type PresetName,
  type Recipe,
  rehearse,
  report,
  type Status,
  serveLive,
  type TrainCall,
  type Training,
  type TrainOptions,
  train,
} from '../index.js';
import { rehearsalText } from './banner.js';
import { EXIT, printError, printJson } from './exit.js';
import { addCommonFlags, collect, duration, factors, layers, oneOf, rate, share, whole } from './flags.js';
import { shortPath } from './format.js';
import { JsonReporter, type Reporter, TextReporter } from './reporter.js';
import { Signals } from './signals.js';

interface Flags {
  preset?: PresetName;
  data?: string;
  devices?: string[];
  epochs?: number;
  batch?: number;
  lr?: number;
  seed?: number;
  precision?: Precision;
  out?: string;
  resume?: string;
  set?: string[];
  dryRun?: boolean;
  steps?: number;
  limit?: number;
  /** Commander's `--no-augment`: true unless it was given. */
  augment: boolean;
  valFraction?: number;
  balance?: 'none' | 'sample' | 'loss';
  saveEvery?: number;
  threads?: number;
  onBadImage?: 'error' | 'skip';
  quarantine?: string;
  init?: string;
  freeze?: string[];
  lrScale?: Record<string, number>;
  tensorboard?: boolean;
  ui?: boolean;
  uiPort?: number;
  json?: boolean;
}

/** Adds the verb. */
export function addTrain(program: Command, setCode: (code: number) => void): void {
  const names = Object.keys(PRESETS) as PresetName[];
  const command = program
    .command('train')
    .description('Train a network; with no flags, the demo: the paper in small on generated images.')
    .addOption(new Option('--preset <name>', `network and recipe: ${names.join(', ')}`).argParser(oneOf(names)));
  addCommonFlags(command)
    .option('--epochs <n>', 'planned passes over the training images', whole(1))
    .option('--batch <n>', 'images per step', whole(1))
    .option('--lr <rate>', 'learning rate of the weights; the biases keep their ratio to it', rate)
    .option('--seed <n>', 'of weights, order, augmentation, dropout and generated images (default: 1)', whole(0))
    .option('--out <folder>', 'run folder to make (default: runs/<preset>-<time>)')
    .option('--resume <run>', 'go on with the run in this folder, to its planned end')
    .option(
      '--set <key=value>',
      'change a field of the recipe, for example schedule.factor=0.5; may be repeated',
      collect,
    )
    .option(
      '--dry-run',
      'show layers and memory, rehearse steps, validation, checkpoint and resume, forecast, and stop',
    )
    .option('--steps <n>', 'stop after n steps', whole(1))
    .option('--limit <n>', 'train on the first n images of the seeded order', whole(1))
    .option('--val-fraction <share>', 'of the images for validation, where the data has no split (default: 0.1)', share)
    .addOption(
      new Option(
        '--balance <how>',
        '"sample": equally many images of each class in an epoch; "loss": images of small classes count more in the loss',
      ).argParser(oneOf(['none', 'sample', 'loss'])),
    )
    .option('--no-augment', 'no random crops, flips and colour noise')
    .option(
      '--init <model>',
      'start from the weights of a run, a checkpoint or a .safetensors file; then its network is the default',
    )
    .option('--freeze <layers>', 'layers that stay as they are, for example "conv*,fc6"; may be repeated', layers)
    .option(
      '--lr-scale <layers=factor>',
      'factors on the rates of layers, for example "fc7=5,fc8=10"; may be repeated',
      factors,
    )
    .option('--tensorboard', 'write event files for TensorBoard into the run folder')
    .option('--ui', 'serve the report on 127.0.0.1 while it trains, with pause, stop and snapshot')
    .option('--ui-port <port>', 'its port (default: a free one)', whole(1))
    .option('--save-every <time>', 'a checkpoint every so often inside an epoch, for example 10m', duration)
    .action(async (flags: Flags) => setCode(await runTrain(flags)));
}

async function runTrain(flags: Flags): Promise<number> {
  const { out, resume, steps, ui, uiPort, devices, threads, dryRun = false, json = false } = flags;
  const what = optionsOf(flags);
  if (dryRun) {
    const rehearsal = await rehearse({ ...what, ...given({ out, resume }) });
    if (json) printJson({ type: 'rehearsal', ...rehearsal });
    else process.stdout.write(rehearsalText(rehearsal));
    return EXIT.ok;
  }
  const call: TrainCall = { ...what, ...given({ resume, steps }) };
  if (resume === undefined) call.out = out ?? ((name) => `runs/${name}-${timestamp(new Date())}`);
  else if (out !== undefined) call.out = out;
  const reporter = json ? new JsonReporter() : new TextReporter(process.stdout);
  using signals = new Signals();
  const ended: Ended = { folder: undefined, status: undefined };
  let live: Live | undefined;
  try {
    await using training = await train(call);
    ended.folder = training.run?.folder;
    if (ui === true || uiPort !== undefined) live = await serveLive(training, given({ port: uiPort }));
    await show(training, reporter, signals, live);
    ended.status = training.result?.status;
  } finally {
    // Once the devices are free again.
    await writeReport(ended, { devices, threads }, reporter, signals);
    await live?.close();
  }
  return ended.status === 'interrupted' ? EXIT.interrupted : EXIT.ok;
}

/** A training that is over; without a status it failed. */
interface Ended {
  folder: string | undefined;
  status: Status | undefined;
}

/** The report of a training. Its failure is told, and is not that of the training. */
async function writeReport(
  { folder, status }: Ended,
  where: Pick<Flags, 'devices' | 'threads'>,
  reporter: Reporter,
  signals: Signals,
): Promise<void> {
  if (folder === undefined) return;
  const stop = new AbortController();
  signals.target = { stop: () => stop.abort(), requestSave: () => undefined };
  // Who stops a training is in a hurry, and what failed may fail again: no images are looked at then.
  const whole = status === 'completed';
  // Emulated devices show what is computed, and take minutes to evaluate anything.
  const devices = where.devices?.filter((name) => !name.startsWith('emulated:'));
  const options = { run: folder, ...given({ threads: where.threads, devices: devices?.length ? devices : undefined }) };
  try {
    const written = whole ? await report({ ...options, signal: stop.signal }).catch(unlessAborted) : undefined;
    reporter.report(written ?? (await report({ ...options, limit: 0 })));
  } catch (error) {
    printError(error, false);
    process.stderr.write(`  The run is complete without its report: alexnode report ${shortPath(folder)}\n`);
  }
}

/** A report that was interrupted is written without images. */
function unlessAborted(error: unknown): undefined {
  if (!(error instanceof AlexnodeError) || error.code !== 'ERR_ABORTED') throw error;
}

/** Trains to the end, and shows it. */
async function show(training: Training, reporter: Reporter, signals: Signals, live: Live | undefined): Promise<void> {
  // A second Ctrl-C leaves by process.exit: the terminal must get its modes back then, too.
  const restore = () => reporter.close();
  process.once('exit', restore);
  try {
    reporter.begin(training);
    if (live !== undefined) reporter.page(live.url);
    signals.target = training;
    for await (const event of training) {
      reporter.event(event);
      live?.event(event);
    }
  } finally {
    process.off('exit', restore);
    reporter.close();
  }
}

function optionsOf(flags: Flags): TrainOptions {
  const { preset, data, devices, epochs, batch, lr, seed, precision, set, limit, augment } = flags;
  const { valFraction, balance, saveEvery, threads, onBadImage, quarantine, init, freeze, lrScale, tensorboard } =
    flags;
  const recipe: Partial<Recipe> = given({ epochs, batch, lr });
  if (!augment) recipe.augment = false;
  return {
    recipe,
    notices: true,
    ...given({ preset, data, devices, seed, precision, set, limit, valFraction, balance, saveEvery, threads }),
    ...given({ onBadImage, quarantine, init, freeze, lrScale, tensorboard }),
  };
}

/** Without what was not given. */
function given<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as never;
}

/** `20261123-140501`, local time. */
function timestamp(now: Date): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  return `${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}
