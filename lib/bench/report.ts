/** What a bench reports: plain JSON. */
import type { Environment } from '../environment.js';
import { fromNative } from '../errors.js';
import type { Precision } from '../precision.js';
import type { Ceilings, Pass, Spread } from '../timings.js';

/** The parts of a step. Their milliseconds add up to those of the step: they are what lies between the stamps of one and the same step. */
export const STEP_PARTS = [
  'upload',
  'input',
  'forward',
  'loss',
  'dataGradient',
  'weightGradient',
  'update',
  'transfer',
  'other',
] as const;
/** `upload` brings the minibatch to the device, `transfer` is between devices, `other` lies before the first stamp and behind the last. */
export type StepPart = (typeof STEP_PARTS)[number];

/** A layer, with those behind it that work element by element, on paper. */
export interface BenchShape {
  name: string;
  /** The layers of the row. */
  layers: string[];
  /** Output: height, width, channels. */
  shape: [number, number, number];
  /** Multiplications and additions of a forward pass of the minibatch, in billions. */
  gflop: number;
  /** Bytes of its output, for the minibatch. */
  outputBytes: number;
  /** Bytes of weights, biases and their momentum. */
  parameterBytes: number;
}

/** One pass of one row. */
export interface BenchLayer {
  /** As in `shapes`, or `input` or `loss`. */
  name: string;
  pass: Pass;
  /** Median over all steps. */
  ms: number;
  /** Of the same. */
  spread: Spread;
  /** Billions of multiplications and additions per second; `null` for what multiplies no matrices. */
  gflops: number | null;
  /** Billions of bytes per second that its kernels' arguments span. */
  gbs: number;
  /** Share of what the ceilings allow, 0 to 1; more where data stays in a cache, or where an algorithm needs fewer multiplications. */
  roofline: number | null;
  /** Operations per byte. */
  intensity: number;
  /** The same pass of the same row elsewhere, in the fastest of the settings. */
  peers: Record<string, { ms: number }>;
}

/** A rate, and how it was reached. */
export interface BenchRate {
  /** Median. */
  ms: number;
  imagesPerSecond: number;
  /** Milliseconds of all that were timed. */
  spread: Spread;
  samples: number;
}

/** The training step. */
export interface BenchStep extends BenchRate {
  /** Of the step that took `ms`: the one in the middle. */
  parts: Record<StepPart, number>;
  /** Billions of multiplications and additions per second. */
  gflops: number;
}

/** A peer in one setting. */
export interface BenchSetting {
  setting: string;
  details: string;
  step: BenchRate;
  inference: BenchRate;
  peakBytes: number;
  /** Rows and passes that were timed; none where the peer cannot tell. */
  layers: { name: string; pass: Pass; ms: number }[];
  /** How far its outputs are from ours: relative L2, on the same weights and images. */
  difference: number;
}

/** A peer: the rates of its fastest setting. */
export interface BenchPeer {
  version: string;
  /** The setting with the fastest step. */
  fastest: string;
  batch: number;
  step: BenchRate;
  inference: BenchRate;
  settings: BenchSetting[];
  /** Multiplications and additions per second of its product of matrices. */
  gemm: number | null;
  /** This package's images per second over its own: in each round, the median of them. */
  ratio: { step: number; inference: number; spread: { step: Spread; inference: Spread } };
}

/** A peer that could not take part. */
export interface MissingPeer {
  peer: string;
  why: string;
  /** What installs it; `null` where it is there, and failed. */
  remedy: string | null;
}

/** Everything. */
export interface BenchReport {
  type: 'bench';
  date: string;
  preset: string;
  classes: number;
  batch: number;
  devices: { name: string; description: string }[];
  precision: Precision;
  threads: number | null;
  rounds: number;
  environment: Environment;
  /** Clocks of the processor in MHz while it computed, where the system tells; of GPUs `nvidia-smi` does. */
  clocks: { megahertz: Spread | null; gpus: string[] | null; driver: string | null };
  /** Share of the processors' time, 0 to 1, that other programs took while something was timed; `null` where the system does not tell. */
  others: Spread | null;
  ceilings: Ceilings;
  shapes: BenchShape[];
  layers: BenchLayer[];
  step: BenchStep;
  inference: BenchRate;
  peers: Record<string, BenchPeer>;
  missing: MissingPeer[];
  /** Against the fastest peer; `null` without one. */
  ratio: { step: number; inference: number } | null;
  /** What the plan counts, and what this process held at most. */
  counters: { launches: number; transfers: number; transferBytes: number; memoryBytes: number[]; peakBytes: number };
  /** The images per second of the 2012 paper. */
  of2012: { least: number; most: number };
  /** How long the recipe's epochs would take in such steps. */
  forecast: { epochs: number; images: number; seconds: number };
  seconds: number;
}

/** A peer that `error` kept from taking part. */
export function missingPeer(peer: string, error: unknown): MissingPeer {
  const { message, hint } = fromNative(error);
  return { peer, why: message, remedy: hint ?? null };
}

/** A number of samples as their middle and ends. */
export function spreadOf(samples: readonly number[]): Spread {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (index: number) => sorted[index] ?? Number.NaN;
  const middle = (sorted.length - 1) / 2;
  const median = (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2;
  return { median, least: at(0), most: at(sorted.length - 1) };
}

/** A rate from the seconds of each step. */
export function rateOf(seconds: readonly number[], batch: number): BenchRate {
  const spread = spreadOf(seconds.map((one) => one * 1e3));
  const ms = spread.median;
  return { ms, imagesPerSecond: (batch / ms) * 1e3, spread, samples: seconds.length };
}
