/** What a whole check trains. */
import type { NetworkSpec } from '../layers.js';
import { type Preset, preset } from '../models/index.js';
import { checkNetwork } from './network.js';

/** Of the generated data set. */
const GENERATED_CLASSES = 10;
/** Images of a step of the small network: one number, so that its kernels are compiled once. */
export const BATCH = 32;

/** The network that is timed on a GPU: the paper's, as it was trained. */
export function paper(): Preset {
  return preset('paper', { classes: 1000 });
}

/** A training, as far as it decides which kernels are compiled. */
export interface CheckedTraining {
  network: NetworkSpec;
  batch: number;
  momentum: number;
  /** On how many devices: one entry for each placement. */
  devices: number[];
}

/** What a whole check trains on GPUs, in every precision: whoever brings compiled kernels along brings those of these. */
export function checkedTrainings(): CheckedTraining[] {
  const small = checkNetwork({ classes: GENERATED_CLASSES });
  const { network, recipe } = paper();
  const { momentum } = small.recipe;
  return [
    { network: small.network, batch: BATCH, momentum, devices: [1, 2] },
    { network, batch: recipe.batch, momentum: recipe.momentum, devices: [1] },
  ];
}
