/** From what the user asked for to what is trained: preset, data, devices, recipe; fresh, or on top of an earlier run. */

import { resolve } from 'node:path';
import { z } from 'zod';
import { changeRecipe, check, parseDuration, parseSettings, RECIPE_DEFAULTS, seedSchema } from './config.js';
import { type Dataset, type DatasetOptions, openDataset } from './data.js';
import { usage } from './errors.js';
import type { Change, InitReport } from './events.js';
import { type Adoption, adopt, freezeLayers, rehead, scaleRates } from './init.js';
import type { NetworkSpec } from './layers.js';
import { type PresetName, preset } from './models/index.js';
import { chooseDevices } from './network.js';
import { any, count, devices, flag, type Shape, text, texts } from './options.js';
import type { Precision } from './precision.js';
import type { Recipe } from './recipe.js';
import type { Manifest } from './run.js';
import { openWeights, UNKNOWN_SOURCE, type Weights } from './weights.js';

/** What to train. Everything has a default: with none of it the `demo` preset is trained on the generated data. */
export interface TrainOptions {
  /** Name of a preset. Default: `demo` without `data`, with `data` `small` on a CPU and `paper` on CUDA. */
  preset?: PresetName;
  /** A network of your own instead of a preset's: for the classes of the data, which are known when they are read. */
  network?: NetworkSpec | ((classes: number) => NetworkSpec);
  /** Changes to the preset's recipe (or to the paper's, for a network of your own). `lr` alone takes `biasLr` along. */
  recipe?: Partial<Recipe>;
  /** The same as text, `key=value`: what `--set` gives. */
  set?: string[];
  /** `generated`, a folder, a .tar, the CIFAR-10 binaries. Default `generated`. */
  data?: string;
  /** Train on the first N images of the seeded order. */
  limit?: number;
  valFraction?: number;
  /** With `sample` an epoch has equally many images of each class, with `loss` those of small classes count more in the loss. Default `none`. */
  balance?: 'none' | 'sample' | 'loss';
  onBadImage?: 'error' | 'skip';
  /** A list of files to leave out, as a scan writes it. */
  quarantine?: string;
  cacheDir?: string;
  /** Default: the first usable CUDA device, otherwise the CPU. */
  devices?: string[];
  threads?: number;
  /** Default 1. */
  seed?: number;
  /** Default `fp32`, the only one of the processor. */
  precision?: Precision;
  /** Whether stderr is told of what takes long, such as the first compilation of kernels; default `false`. */
  notices?: boolean;
  /** Wall-clock time between checkpoints inside an epoch, in seconds or as `10m`. Default: only at the end of epochs. */
  saveEvery?: number | string;
  /**
   * Start from the weights of another network: a run folder, a checkpoint, exported weights, or torchvision's `alexnet` as safetensors. Without `preset`
   * and `network` its network and recipe are trained, for the classes of the data.
   */
  init?: string;
  /** Layers that stay as they are, by name or pattern: `['conv*']`. */
  freeze?: string[];
  /** Factors on the rates of layers, by name or pattern: `{ fc8: 10 }`. */
  lrScale?: Record<string, number>;
  /** Write event files for TensorBoard into the run folder; default `false`. */
  tensorboard?: boolean;
}

/** @internal The fields of {@link TrainOptions}, for calls that take more. */
export const trainFields = {
  preset: text,
  network: any,
  recipe: any,
  set: z.array(z.string()).optional(),
  data: text,
  limit: any,
  valFraction: any,
  balance: any,
  onBadImage: any,
  quarantine: text,
  cacheDir: text,
  devices,
  threads: count,
  seed: any,
  precision: text,
  notices: flag,
  saveEvery: any,
  init: text,
  freeze: texts,
  lrScale: z.record(z.string(), z.number()).optional(),
  tensorboard: flag,
} satisfies Shape<TrainOptions>;

/** What is trained, with the reasons for what the user left open. */
export interface Prepared {
  network: NetworkSpec;
  recipe: Recipe;
  data: Dataset;
  devices: string[];
  threads: number | undefined;
  seed: number;
  precision: Precision;
  notices: boolean;
  saveEvery: number | undefined;
  tensorboard: boolean;
  /** What it starts from, and, unless it is resumed, what is to be taken over. */
  init: InitReport | undefined;
  adoption: Adoption | undefined;
  preset: string | undefined;
  why: { preset: string; devices: string };
  /** Against the configuration of the run that is resumed. */
  changed: Change[];
}

interface Model {
  name: string | null;
  why: string;
  imageSize: number;
  make(classes: number): { network: NetworkSpec; recipe: Recipe };
}

function chooseModel(options: TrainOptions, devices: string[], init: Weights | undefined): Model {
  const { network } = options;
  if (init !== undefined && network === undefined && options.preset === undefined) {
    const { preset, network } = init.metadata.config;
    const { imageSize } = network.input;
    return { name: preset, why: 'that of the file given', imageSize, make: (classes) => rehead(init, classes) };
  }
  if (network !== undefined) {
    if (options.preset !== undefined)
      throw usage('both a preset and a network of your own were given', 'Give one of them.');
    const make = typeof network === 'function' ? network : () => network;
    const { imageSize } = make(2).input;
    return {
      name: null,
      why: 'a network of your own',
      imageSize,
      make: (n) => ({ network: make(n), recipe: RECIPE_DEFAULTS }),
    };
  }
  const name = options.preset ?? defaultPreset(options.data, devices);
  const { network: sample } = preset(name, { classes: 2 });
  const where = devices.some((device) => device.startsWith('cuda')) ? 'CUDA' : 'a CPU';
  return {
    name,
    why:
      options.preset !== undefined
        ? 'as asked for'
        : name === 'demo'
          ? 'the default without --data'
          : `the default for data of your own on ${where}; --preset chooses another`,
    imageSize: sample.input.imageSize,
    make: (classes) => preset(name, { classes }),
  };
}

function defaultPreset(data: string | undefined, devices: string[]): PresetName {
  if (data === undefined || data === 'generated') return 'demo';
  return devices.some((device) => device.startsWith('cuda')) ? 'paper' : 'small';
}

/** @internal The source of a data set as it is noted: the path of its own, wherever the process is started the next time. */
export function resolveSource(data: string): string {
  return data === 'generated' ? data : resolve(data);
}

/** @internal The images to look at: those that a caller names, else those of the weights. ERR_USAGE where neither are known. */
export function sourceFor(given: string | undefined, own: string): string {
  if (given !== undefined) return resolveSource(given);
  if (own !== UNKNOWN_SOURCE) return own;
  throw usage('the file does not tell which images it was trained on', 'Name some with --data (`data`).');
}

function recipeOf(base: Recipe, options: TrainOptions): Recipe {
  const changed = changeRecipe(base, { ...options.recipe });
  const settings = options.set ?? [];
  return settings.length === 0 ? changed : changeRecipe(changed, parseSettings(changed, settings), '--set');
}

function saveEverySeconds(options: TrainOptions): number | undefined {
  return options.saveEvery === undefined ? undefined : parseDuration(options.saveEvery, 'saveEvery');
}

/** A new run. */
export async function prepare(options: TrainOptions): Promise<Prepared> {
  const seed = check(seedSchema, options.seed ?? 1, 'seed');
  const saveEvery = saveEverySeconds(options);
  const choice = options.devices === undefined ? chooseDevices() : { devices: options.devices, why: 'as asked for' };
  const init = options.init === undefined ? undefined : await openWeights(options.init);
  const model = chooseModel(options, choice.devices, init);
  // What is mistyped must not wait for the scan of a million images.
  tuned(model.make(2), options);
  // Where a file names the same classes its order is kept, so that its last layer fits.
  const named = init?.named === true ? { classes: init.metadata.classes } : {};
  const data = await openDataset({ ...dataOptions(options, seed, model.imageSize), ...named });
  try {
    const { network, recipe } = tuned(model.make(data.classes.length), options);
    const adoption = init === undefined ? undefined : adopt(init, network, data.classes);
    return {
      network,
      recipe,
      data,
      devices: choice.devices,
      threads: options.threads,
      seed,
      precision: options.precision ?? 'fp32',
      notices: options.notices ?? false,
      saveEvery,
      tensorboard: options.tensorboard ?? false,
      init: adoption?.report,
      adoption,
      preset: model.name ?? undefined,
      why: { preset: model.why, devices: choice.why },
      changed: [],
    };
  } catch (error) {
    data.close();
    throw error;
  }
}

/** A network with its recipe, as the options change them. */
function tuned({ network, recipe }: { network: NetworkSpec; recipe: Recipe }, options: TrainOptions) {
  return {
    network: freezeLayers(network, options.freeze ?? []),
    recipe: scaleRates(recipeOf(recipe, options), network, options.lrScale ?? {}),
  };
}

function dataOptions(options: TrainOptions, seed: number, imageSize: number): DatasetOptions {
  const { limit, valFraction, balance, onBadImage, quarantine, threads, cacheDir } = options;
  return {
    source: resolveSource(options.data ?? 'generated'),
    imageSize,
    seed,
    ...(limit === undefined ? {} : { limit }),
    ...(valFraction === undefined ? {} : { valFraction }),
    ...(balance === undefined ? {} : { balance }),
    ...(onBadImage === undefined ? {} : { onBadImage }),
    ...(quarantine === undefined ? {} : { quarantine: resolve(quarantine) }),
    ...(threads === undefined ? {} : { threads }),
    ...(cacheDir === undefined ? {} : { cacheDir }),
  };
}

/** What a resume may not change: it would be another run. */
const FIXED = ['preset', 'network', 'seed', 'limit', 'valFraction', 'balance'] as const;

/** An earlier run, with changes; its classes keep their numbers, in whatever order the data has them. ERR_USAGE for what a run cannot change. */
export async function prepareResume(
  { config: before, data: { classes } }: Pick<Manifest, 'config' | 'data'>,
  options: TrainOptions,
): Promise<Prepared> {
  for (const key of FIXED) {
    if (options[key] === undefined) continue;
    const own = key === 'limit' || key === 'valFraction' || key === 'balance' ? before.data[key] : before[key];
    if (options[key] === own) continue;
    const shown = key === 'network' ? '' : ` (${JSON.stringify(own ?? null)})`;
    throw usage(`${key}: a resumed run keeps its own${shown}`, 'Start a new run to change it.');
  }
  for (const key of ['init', 'freeze'] as const) {
    if (options[key] !== undefined)
      throw usage(`${key}: a resumed run goes on with its own weights and layers`, 'Start a new run to change it.');
  }
  const recipe = scaleRates(recipeOf(before.recipe, options), before.network, options.lrScale ?? {});
  const saveEvery = saveEverySeconds(options) ?? before.saveEvery ?? undefined;
  const threads = options.threads ?? before.threads ?? undefined;
  const devices = options.devices ?? before.devices;
  const precision = options.precision ?? before.precision;
  const source = options.data === undefined ? before.data.source : resolveSource(options.data);
  const onBadImage = options.onBadImage ?? before.data.onBadImage;
  const quarantine = options.quarantine === undefined ? before.data.quarantine : resolve(options.quarantine);
  const changed = changes(
    {
      ...before.recipe,
      devices: before.devices,
      precision: before.precision,
      data: before.data.source,
      onBadImage: before.data.onBadImage,
      quarantine: before.data.quarantine,
      saveEvery: before.saveEvery,
    },
    { ...recipe, devices, precision, data: source, onBadImage, quarantine, saveEvery: saveEvery ?? null },
  );
  const data = await openDataset({
    ...before.data,
    classes,
    source,
    onBadImage,
    ...(quarantine === undefined ? {} : { quarantine }),
    ...(threads === undefined ? {} : { threads }),
  });
  return {
    network: before.network,
    recipe,
    data,
    devices,
    threads,
    seed: before.seed,
    precision,
    notices: options.notices ?? false,
    saveEvery,
    tensorboard: options.tensorboard ?? before.tensorboard ?? false,
    init: before.init ?? undefined,
    adoption: undefined,
    preset: before.preset ?? undefined,
    why: { preset: "the run's own", devices: options.devices === undefined ? "the run's own" : 'as asked for' },
    changed,
  };
}

function changes(before: Record<string, unknown>, after: Record<string, unknown>): Change[] {
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return keys
    .filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key]))
    .map((key) => ({ key, from: before[key] ?? null, to: after[key] ?? null }));
}
