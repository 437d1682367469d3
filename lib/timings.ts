/** Times of a training step and of its parts, and what the device could do at most. */
import { z } from 'zod';
import { measureCeilings as measureNative } from '#native';
import { check } from './config.js';
import { nativeAsync } from './errors.js';
import { any, count, flag, type Shape, text } from './options.js';
import type { Precision } from './precision.js';

/** How carefully to measure. */
export interface TimingOptions {
  /** Samples of everything; default 7. */
  rounds?: number;
  /** Seconds that a sample lasts at least, 0 to 1; what is shorter runs several times in it. Default 0.002. */
  sampleSeconds?: number;
}

/** The middle of several samples, the smallest and the largest of them. */
export interface Spread {
  median: number;
  least: number;
  most: number;
}

/** A part of a step. `loss` is softmax and cross-entropy with their gradient, `transfer` what crosses between devices. */
export type Pass = 'input' | 'forward' | 'loss' | 'dataGradient' | 'weightGradient' | 'update' | 'transfer';

/** One kernel or copy. */
export interface OperationTiming {
  /** The kernel's name; `copy` for a copy. */
  name: string;
  /** Index of the device on which it runs; of a copy between two, on which it arrives. */
  slot: number;
  /** How often it ran in a sample. */
  repeats: number;
  /** Seconds of one run. */
  seconds: Spread;
  /** Bytes that its arguments span: once for what is read, once for what is written; no scratch memory. */
  bytes: number;
}

/** One pass of one layer. */
export interface PartTiming {
  /** `null` for the input. */
  layer: string | null;
  pass: Pass;
  /** The sum over its operations, on the device that takes longest. */
  seconds: Spread;
  /** Two for each multiply-add, of the whole layer and batch; 0 for what multiplies no matrices. */
  flops: number;
  /** The sum over all operations. */
  bytes: number;
  operations: OperationTiming[];
}

/** A device as it describes itself. */
export interface SlotName {
  device: string;
  description: string;
}

/** A training step, timed. */
export interface Timings {
  slots: SlotName[];
  batch: number;
  rounds: number;
  /** Seconds of the whole step on a minibatch that lies on the devices, run again and again. */
  step: Spread;
  /** Images per second in such steps: without reading, decoding and uploading them. */
  imagesPerSecond: Spread;
  /** In the order in which they run. Operations are timed alone, with warm caches: their sum may be less than the step. */
  parts: PartTiming[];
}

/** What is run for a profile: training steps, or evaluations of one view. */
export type ProfileMode = 'train' | 'evaluate';

/** What to profile. */
export interface ProfileOptions {
  mode: ProfileMode;
  /** How often, at least once. */
  steps: number;
}

/** What lies between two stamps of a device. */
export interface Interval {
  /** `null` for the input. */
  layer: string | null;
  pass: Pass;
  /** The kernel's name; `copy` for a copy; `wait` while a device is held back by a copy that another one makes of its memory. */
  name: string;
  /** Index of the device. */
  slot: number;
  /** As those of an operation. */
  bytes: number;
}

/** One step, in seconds. */
export interface ProfiledStep {
  /** From before the upload of the minibatch until the last device is done. */
  seconds: number;
  /** The upload of the minibatch. */
  upload: number;
  /** Each interval. Those of a device and the upload are no more than the step: stamps of one step never overlap. */
  intervals: number[];
}

/** Some steps with stamps between their operations. */
export interface Profile {
  slots: SlotName[];
  batch: number;
  intervals: Interval[];
  steps: ProfiledStep[];
}

/** What a device can do at most. */
export interface Ceilings {
  slot: SlotName;
  /** Bytes per second, read and written, of a copy within its memory. */
  copy: Spread;
  /** Multiplications and additions per second on registers: in fp32, and in the precision asked for where it is another one. */
  multiply: Partial<Record<Precision, Spread>>;
  /** Multiplications and additions per second of a product of large matrices, by the kernel of linear layers; `null` on CUDA devices. */
  gemm: Spread | null;
}

/** What to measure. */
export interface CeilingsOptions extends TimingOptions {
  /** Default `fp32`. */
  precision?: Precision;
  /** CPU threads; default all. */
  threads?: number;
  /** Whether stderr is told of what takes long; default `false`. */
  notices?: boolean;
}

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

const ceilingsSchema = z.strictObject({
  ...measured,
  precision: text,
  threads: count,
  notices: flag,
} satisfies Shape<CeilingsOptions>);

/** Measures `device`, which must have some memory left. ERR_DEVICE where it cannot be used. */
export async function measureCeilings(device: string, options: CeilingsOptions = {}): Promise<Ceilings> {
  check(ceilingsSchema, options, 'ceilings');
  const { precision, threads, notices, ...rest } = options;
  const request = JSON.stringify({ device, precision, threads, notices, options: rest });
  return JSON.parse(await nativeAsync(() => measureNative(request))) as Ceilings;
}
