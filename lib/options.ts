/**
 * What the calls of the API take: a name that none of them knows, or a value of another type, is ERR_USAGE before anything is done. What is `any` here
 * is checked where it is used.
 */
import { z } from 'zod';

import type { BenchOptions } from './bench/index.js';
import type { LatencyOptions } from './bench/latency.js';
import type { LoaderOptions } from './bench/loader.js';
import { check, cropsSchema, recipeSchema } from './config.js';
import type { EvaluateOptions } from './engine.js';
import { AlexnodeError, usage } from './errors.js';
import type { ExportCall, ExportOnnxCall } from './export.js';
import type { GpuCheckOptions } from './gpu-check/index.js';
import type { LiveOptions } from './live/index.js';
import type { FeatureOptions, ModelOptions } from './model.js';
import type { PresetOptions } from './models/preset.js';
import type { RehearseCall } from './rehearse.js';
import type { ReportCall } from './report/index.js';
import type { TrainerOptions } from './settle.js';
import type { CeilingsOptions, ProfileOptions, TimingOptions } from './timings.js';
import type { TrainCall } from './train.js';
import type { TrainerRunOptions } from './trainer.js';

/** A schema for every field of `T`, so that none is forgotten. */
type Shape<T> = Record<keyof T, z.ZodType>;

const text = z.string().min(1).optional();
const count = z.int().positive().optional();
const whole = z.int().nonnegative().optional();
const flag = z.boolean().optional();
const positive = z.number().positive().optional();
const texts = z.array(z.string().min(1)).optional();
const devices = z.array(z.string()).min(1).max(2).optional();
const any = z.unknown().optional();

const what = {
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
};

const trainSchema = z.strictObject({
  ...what,
  out: z.union([text, z.custom<(name: string) => string>((value) => typeof value === 'function')]),
  resume: text,
  steps: whole,
  signal: any,
} satisfies Shape<TrainCall>);

const rehearseSchema = z.strictObject({ ...what, out: text, resume: text } satisfies Shape<RehearseCall>);

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

/** Of `Trainer.train()`. */
export const runSchema = z.strictObject({
  run: any,
  steps: whole,
  signal: any,
  resumed: any,
  warnings: any,
} satisfies Shape<TrainerRunOptions>);

/** Of `Trainer.evaluate()`. */
export const testSchema = z.strictObject({
  split: z.enum(['val', 'train']).optional(),
  crops: cropsSchema.optional(),
  limit: count,
  signal: any,
} satisfies Shape<EvaluateOptions & { signal: AbortSignal }>);

const measured = { rounds: count, sampleSeconds: z.number().min(0).max(1).optional() };

/** Of `Trainer.timings()`. */
export const timingSchema = z.strictObject({ ...measured, signal: any } satisfies Shape<
  TimingOptions & { signal: AbortSignal }
>);

/** Of `Trainer.profile()`. */
export const profileSchema = z.strictObject({
  mode: z.enum(['train', 'evaluate']),
  steps: z.int().positive(),
  signal: any,
} satisfies Shape<ProfileOptions & { signal: AbortSignal }>);

/** Of `measureCeilings()`. */
export const ceilingsSchema = z.strictObject({
  ...measured,
  precision: text,
  threads: count,
  notices: flag,
} satisfies Shape<CeilingsOptions>);

const model = { devices, threads: count, precision: text, batch: count, notices: flag } satisfies Shape<ModelOptions>;

/** Of `report()`. */
export const reportSchema = z.strictObject({
  ...model,
  run: z.string().min(1),
  data: text,
  onBadImage: z.enum(['error', 'skip']).optional(),
  limit: whole,
  signal: any,
} satisfies Shape<ReportCall>);

/** Of `serveLive()`. */
export const liveSchema = z.strictObject({
  port: z.int().min(0).max(65_535).optional(),
} satisfies Shape<LiveOptions>);

/** Of `model.features()`. */
export const featureSchema = z.strictObject({ layer: text, signal: any } satisfies Shape<FeatureOptions>);

const file = { model: z.string().min(1), file: z.string().min(1) };

/** Of `exportSafetensors()`. */
export const exportSchema = z.strictObject(file satisfies Shape<ExportCall>);

/** Of `exportOnnx()`. */
export const exportOnnxSchema = z.strictObject({ ...file, embedPreprocessing: flag } satisfies Shape<ExportOnnxCall>);

/** Of `preset()`. */
export const presetSchema = z.strictObject({ classes: z.int().positive() } satisfies Shape<PresetOptions>);

/** Of `verifyPack()`. */
export const verifySchema = z.strictObject({ threads: count, signal: any });

const places = z.record(z.string(), any).optional();

/** Of `bench()`. */
export const benchSchema = z.strictObject({
  preset: text,
  batch: count,
  devices,
  precision: text,
  threads: count,
  layers: texts,
  rounds: count,
  turn: positive,
  peers: texts,
  places,
  seed: whole,
  notices: flag,
  signal: any,
} satisfies Shape<BenchOptions>);

/** Of `benchLoader()`. */
export const loaderSchema = z.strictObject({
  data: text,
  count,
  rounds: count,
  places,
  signal: any,
} satisfies Shape<LoaderOptions>);

/** Of `benchLatency()`. */
export const latencySchema = z.strictObject({
  preset: text,
  devices,
  precision: text,
  threads: count,
  samples: count,
  signal: any,
} satisfies Shape<LatencyOptions>);

/** Of `gpuCheck()`. */
export const gpuCheckSchema = z.strictObject({
  devices,
  precisions: texts,
  parts: texts,
  quick: flag,
  kernels: text,
  seed: whole,
  threads: count,
  notices: flag,
  signal: any,
} satisfies Shape<GpuCheckOptions>);

/** What `train()` takes. A field of the recipe that stands beside it is told where it belongs. */
export function checkTrain(options: TrainCall): void {
  inTheRecipe(() => check(trainSchema, options, 'train'), options);
}

/** The same for `rehearse()`. */
export function checkRehearse(options: RehearseCall): void {
  inTheRecipe(() => check(rehearseSchema, options, 'rehearse'), options);
}

function inTheRecipe(checked: () => void, options: object): void {
  try {
    checked();
  } catch (error) {
    const stray = Object.keys(options ?? {}).find((key) => Object.hasOwn(recipeSchema.shape, key));
    if (stray === undefined || !(error instanceof AlexnodeError) || !error.message.includes(`.${stray}: no such`)) {
      throw error;
    }
    throw usage(error.message, `It is a field of the recipe: { recipe: { ${stray}: ... } }.`);
  }
}
