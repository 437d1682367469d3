/** What a trainer is made of, checked and with every default filled in. */
import { z } from 'zod';
import { check, checkRecipe, seedSchema } from './config.js';
import type { Dataset, DatasetConfig } from './data.js';
import { usage } from './errors.js';
import type { InitReport } from './events.js';
import type { NetworkSpec } from './layers.js';
import { suggestion } from './nearest.js';
import { applyRecipe, parametricLayers } from './network.js';
import { any, count, devices, flag, positive, type Shape, text } from './options.js';
import type { Precision } from './precision.js';
import type { Recipe } from './recipe.js';

/** Everything that decides what a run computes. Stored in `run.json` and in every checkpoint. */
export interface RunConfig {
  /** Name of the preset; `null` for a network of the user's own. */
  preset: string | null;
  network: NetworkSpec;
  recipe: Recipe;
  data: DatasetConfig;
  devices: string[];
  /** CPU threads of the computation; `null`: as many as there are. The result does not depend on it. */
  threads: number | null;
  seed: number;
  precision: Precision;
  /** Wall-clock seconds between checkpoints inside an epoch; `null`: only at the end of epochs. */
  saveEvery: number | null;
  /** What other network's weights it started from; `null` or absent where it drew its own. */
  init?: InitReport | null;
  /** Whether it writes event files for TensorBoard. */
  tensorboard?: boolean;
}

/** What a trainer is made of. */
export interface TrainerOptions {
  network: NetworkSpec;
  recipe: Recipe;
  data: Dataset;
  /** One device, or two for the two towers; default `['cpu']`. */
  devices?: string[];
  /** CPU threads; default all. The result does not depend on it. */
  threads?: number;
  /** Of weights, order, augmentation and dropout; default 1. */
  seed?: number;
  precision?: Precision;
  /** Wall-clock seconds between checkpoints inside an epoch; default: only at the end of epochs. */
  saveEvery?: number;
  /** Whether stderr is told of what takes long, such as the first compilation of kernels; default `false`. */
  notices?: boolean;
  /** Name of the preset that network and recipe come from; only noted. */
  preset?: string;
  /** What it starts from; only noted: `adopt` takes it over. */
  init?: InitReport;
  /** Event files for TensorBoard in the run folder; default `false`. */
  tensorboard?: boolean;
}

/** Of `Trainer.create()`. */
export const trainerSchema = z.strictObject({
  network: any,
  recipe: any,
  data: any,
  devices,
  threads: count,
  seed: any,
  precision: text,
  saveEvery: positive,
  notices: flag,
  preset: text,
  init: any,
  tensorboard: flag,
} satisfies Shape<TrainerOptions>);

/** The configuration that `options` ask for. ERR_USAGE where network and data do not fit together. */
export function settle(options: TrainerOptions): RunConfig {
  const { data } = options;
  const recipe = checkRecipe(options.recipe);
  const config: RunConfig = {
    preset: options.preset ?? null,
    network: applyRecipe(options.network, recipe),
    recipe,
    data: data.config,
    devices: options.devices ?? ['cpu'],
    threads: options.threads ?? null,
    seed: check(seedSchema, options.seed ?? 1, 'seed'),
    precision: options.precision ?? 'fp32',
    saveEvery: options.saveEvery ?? null,
    init: options.init ?? null,
    tensorboard: options.tensorboard ?? false,
  };
  const { network } = config;
  checkLayerNames(network, recipe);
  const { classes, imageSize } = data.info;
  if (network.classes !== classes.length) {
    throw usage(
      `${network.name}: the network has ${network.classes} classes, the data has ${classes.length}`,
      `Make the network with { classes: ${classes.length} }.`,
    );
  }
  if (network.input.imageSize !== imageSize) {
    throw usage(
      `${network.name}: the network takes images of ${network.input.imageSize} pixels, the data has ${imageSize}`,
      `Open the data with { imageSize: ${network.input.imageSize} }.`,
    );
  }
  return config;
}

/** A rate for a layer that there is not would silently do nothing. */
function checkLayerNames(network: NetworkSpec, recipe: Recipe): void {
  const names = parametricLayers(network);
  for (const field of ['layerRates', 'layerSchedules', 'freezeAt'] as const) {
    for (const name of Object.keys(recipe[field] ?? {})) {
      if (names.includes(name)) continue;
      throw usage(
        `recipe.${field}.${name}: ${network.name} has no layer with weights of this name`,
        suggestion(name, names),
      );
    }
  }
}
