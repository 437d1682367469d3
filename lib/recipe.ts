/**
 * The vocabulary shared by presets (`lib/models`), schedules (`lib/schedule.ts`) and the trainer: how a network is
 * trained, apart from what the network is. Everything here is plain JSON: it is stored in `run.json` and in every
 * checkpoint. Nothing in this file computes.
 */

/**
 * How a learning rate moves. All epochs count from 0; a rate is always `base * f(progress)`.
 *
 * - `constant`: f = 1.
 * - `step`: from epoch `at[i]` on, f = `factor ** (i + 1)`; the hand-driven drops of the 2012 logs.
 * - `plateau`: the paper's heuristic (section 5): when the validation error has not improved by more than `minDelta` for
 *   `patience` epochs, f is multiplied by `factor`, at most `drops` times.
 * - `dexp`: the 2012 code's: `steps` equal parts of the run, f = `(1 / factor) ** (i / (steps - 1))` in part i; a progress of
 *   exactly i/steps still belongs to the part on its left.
 */
export type ScheduleSpec =
  | { type: 'constant' }
  | { type: 'step'; at: number[]; factor: number }
  | { type: 'plateau'; factor: number; patience: number; drops: number; minDelta: number }
  | { type: 'dexp'; factor: number; steps: number };

/** A rate for the weights and one for the biases of a layer. */
export interface RatePair {
  weight: number;
  bias: number;
}

/** How a network is trained. Presets give all of it; `--set key=value` and the API change single fields. */
export interface Recipe {
  /** Images per optimiser step. The last batch of an epoch may be short. */
  batch: number;
  /** Planned passes over the training images. */
  epochs: number;
  /** Momentum of the update rule; the learning rate is inside the velocity (paper, section 5). */
  momentum: number;
  /** Base learning rate of the weights. */
  lr: number;
  /** Base learning rate of the biases. */
  biasLr: number;
  /** How `lr` moves over the run. */
  schedule: ScheduleSpec;
  /** How `biasLr` moves; absent: as `schedule` does. */
  biasSchedule?: ScheduleSpec;
  /** Factors on both rates of single layers (`{ conv1: 0.1 }`), or on the rates of its weights and biases apart. */
  layerRates?: Record<string, number | RatePair>;
  /** Layers whose weight rate moves by a schedule of its own instead of `schedule`; the rates of their biases are as elsewhere. */
  layerSchedules?: Record<string, ScheduleSpec>;
  /** From the given epoch on the layer's rates are 0: no update, no decay (`{ conv1: 72 }`). */
  freezeAt?: Record<string, number>;
  /** Standard deviation of the colour noise, in units of the data's principal components; 0 = off, 0.1 in the paper. */
  colourNoise: number;
  /** Share of the planned epochs, 0 to 1, after which the colour noise is off; absent: it stays on. */
  colourNoiseOffAt?: number;
  /** Random crops and (where the network's input asks for them) flips; false: central crops. */
  augment: boolean;
  /** When given, replaces the weight decay of every layer of the network that has one. */
  weightDecay?: number;
  /** When given, replaces the probability of every dropout layer of the network; 0 switches dropout off. */
  dropout?: number;
}

/** Where a run stands, as a schedule sees it. */
export interface Progress {
  /** Current epoch, from 0. */
  epoch: number;
  /** Index of the next batch inside the epoch, from 0. */
  batch: number;
  /** Batches per epoch. */
  batches: number;
  /** Planned epochs. */
  epochs: number;
}

/** What holds for one optimiser step. */
export interface Rates extends RatePair {
  /** Colour noise of the step (constant during an epoch). */
  colourNoise: number;
  /** Absolute rates of the layers that differ from `weight` and `bias`. */
  layers: Record<string, RatePair>;
}

/** What a schedule remembers between epochs; plain JSON, stored in every checkpoint. */
export type ScheduleState = Record<string, unknown>;

/** Made by `createSchedule(recipe)` in `lib/schedule.ts`. */
export interface Schedule {
  /** The rates of the step at `progress`: a pure function of the recipe, `progress` and the state. */
  rates(progress: Progress): Rates;
  /** Called once after each epoch with the validation top-1 error, 0 to 1 (`undefined`: not validated). */
  observe(valError: number | undefined): void;
  /** Everything `observe` has learnt. */
  state(): ScheduleState;
  /** Takes over an earlier `state()`; ERR_CHECKPOINT if it is not one of this kind of schedule. */
  restore(state: ScheduleState): void;
}
