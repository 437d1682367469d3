/** What a check reports: plain JSON. */
import type { Environment } from '../environment.js';
import type { Precision } from '../precision.js';
import type { SlotsRow } from '../slots.js';
import type { Ceilings, Pass, Spread, Timings } from '../timings.js';

/** The parts of a check, in their order. */
export const PARTS = ['kernels', 'curves', 'slots', 'timing'] as const;
export type PartName = (typeof PARTS)[number];

/** How a part went. */
export interface Part<Found> {
  ok: boolean;
  seconds: number;
  /** A line for each thing that is wrong. */
  failures: string[];
  /** What was measured; `null` where nothing could be. */
  found: Found | null;
}

/** Kernels against their references in f64. */
export interface KernelsFound {
  /** The program that was run, and the devices that it was told. */
  program: string;
  devices: string[];
  /** Only tests whose names contain one of these; empty: all. */
  filter: string[];
  passed: number;
  failed: number;
  ignored: number;
  tests: { name: string; ok: boolean; message?: string }[];
}

/** The loss of every step in one precision. */
export interface Curve {
  precision: Precision;
  losses: number[];
  /** Mean of the last steps. */
  final: number;
  /** Relative to fp32's. */
  distance: number | null;
  seconds: number;
}
export interface CurvesFound {
  network: string;
  batch: number;
  seed: number;
  /** How many steps at the end are averaged, and how far apart the means may be. */
  window: number;
  tolerance: number;
  curves: Curve[];
}

/** One slot against two. */
export interface Placement {
  devices: string[];
  against: string[];
  /** How data crosses, in words. */
  link: string | null;
  rows: SlotsRow[];
  /** The largest distances of any step. */
  worst: { loss: number; momentum: number };
  /** Per step: what the plan counts, and what was timed. */
  planned: { transfers: number; bytes: number };
  transfers: { count: number; bytes: number; seconds: number; bytesPerSecond: number };
}
export interface SlotsFound {
  network: string;
  batch: number;
  precision: Precision;
  tolerance: number;
  placements: Placement[];
}

/** A pass of a row of the table. */
export interface PassTime {
  seconds: Spread;
  flops: number;
  bytes: number;
  /** The seconds that the device's ceilings allow; `null` where one that matters was not measured. */
  floor: number | null;
  /** `floor` over the median of `seconds`. */
  share: number | null;
}
/** A layer with those behind it that work element by element. */
export interface LayerTime {
  layer: string;
  passes: Partial<Record<Pass, PassTime>>;
}
export interface PrecisionTiming {
  precision: Precision;
  ceilings: Ceilings;
  timings: Timings;
  layers: LayerTime[];
}
export interface TimingFound {
  network: string;
  classes: number;
  batch: number;
  device: string;
  precisions: PrecisionTiming[];
}

/** The machine's state, as far as `nvidia-smi` tells: a line for each device. */
export interface Gpus {
  before: string[] | null;
  after: string[] | null;
}

/** Everything. */
export interface GpuCheckReport {
  date: string;
  /** What computed. Only `cuda` says anything about a GPU. */
  kind: 'cuda' | 'emulated' | 'cpu';
  devices: { name: string; description: string }[];
  /** The version of CUDA that the driver supports. */
  driver: string | null;
  gpus: Gpus;
  environment: Environment;
  /** Whether the amounts were reduced. */
  quick: boolean;
  precisions: Precision[];
  ok: boolean;
  seconds: number;
  /** Those of all parts. */
  failures: string[];
  parts: {
    kernels?: Part<KernelsFound>;
    curves?: Part<CurvesFound>;
    slots?: Part<SlotsFound>;
    timing?: Part<TimingFound>;
  };
}

/** What is found while it is found, so that a failure leaves what was there before. */
export interface Findings<Found> {
  found: Found | null;
  failures: string[];
}
