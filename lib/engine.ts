/** The addon's trainer with types and our errors: one promise per call, nothing else. */
import { z } from 'zod';
import { NativeTrainer } from '#native';
import type { Saved } from './checkpoint.js';
import { check, cropsSchema, evaluateSchema } from './config.js';
import { type Dataset, innerDataset } from './data.js';
import { nativeAsync } from './errors.js';
import type { Metrics } from './events.js';
import type { NetworkSpec } from './layers.js';
import { any, count, type Shape } from './options.js';
import type { Precision } from './precision.js';
import type { Profile, ProfileOptions, TimingOptions, Timings } from './timings.js';
import type { Layout } from './torchvision.js';

/** What an engine is made of. */
export interface EngineConfig {
  network: NetworkSpec;
  devices: string[];
  threads?: number;
  batch: number;
  seed: number;
  momentum: number;
  precision: Precision;
  /** Whether stderr is told of what takes long, such as the compilation of kernels. */
  notices?: boolean;
}

/** Some consecutive steps under the same rates. */
export interface Segment {
  epoch: number;
  /** First batch inside the epoch. */
  batch: number;
  /** Optimiser steps of the run before it. */
  step: number;
  steps: number;
  /** Learning rates of weights and biases, by layer. */
  rates: Record<string, [number, number]>;
  colourNoise: number;
  augment: boolean;
}

/** What came of a segment; fewer steps than asked for only after `cancel()`. */
export interface SegmentReport extends Metrics {
  steps: number;
  samples: number;
  seconds: number;
  waitSeconds: number;
}

/** What to evaluate on. */
export interface EvaluateOptions {
  split?: 'val' | 'train';
  /** 1: the central crop; 10: corners and centre with their mirror images, probabilities averaged. */
  crops?: 1 | 10;
  /** At most this many images. */
  limit?: number;
}

/** Of `Trainer.evaluate()`. */
export const testSchema = z.strictObject({
  split: z.enum(['val', 'train']).optional(),
  crops: cropsSchema.optional(),
  limit: count,
  signal: any,
} satisfies Shape<EvaluateOptions & { signal: AbortSignal }>);

/** What an evaluation found. */
export interface Evaluation extends Metrics {
  samples: number;
  seconds: number;
}

/** An evaluation, image by image. */
export interface Judgement extends Evaluation {
  /** Most probable classes that are told of an image: 5, or all where there are fewer. */
  top: number;
  /** Ids in the split. */
  ids: Uint32Array;
  /** Their classes, and the probabilities of those. */
  labels: Int32Array;
  own: Float32Array;
  /** `top` classes for each image, the most probable first, and their probabilities. */
  classes: Int32Array;
  probabilities: Float32Array;
}

/** How a network is doing inside. */
export interface Statistics {
  /** Parameter tensors: root mean squares of elements and last updates, and the mean product of the two. */
  parameters: { name: string; weight: number; update: number; product: number }[];
  /** ReLU layers: units, those of them that are 0 everywhere on every image, share of outputs above 0. */
  relus: { layer: string; units: number; dead: number; active: number }[];
  /** Images that the units were looked at with. */
  images: number;
}

/** A tensor by value: weights of convolutions are [out][in / groups][height][width]. */
export interface Tensor {
  shape: number[];
  data: Float32Array;
}

/** A network with its optimiser on its devices. */
export class Engine {
  readonly #inner: NativeTrainer;

  private constructor(inner: NativeTrainer) {
    this.#inner = inner;
  }

  static async create(config: EngineConfig, data: Dataset): Promise<Engine> {
    return new Engine(await nativeAsync(() => NativeTrainer.create(JSON.stringify(config), innerDataset(data))));
  }

  /** How data gets from one device to another, and how fast, in words; `null` where there is nothing to tell. */
  get link(): string | null {
    return this.#inner.link;
  }

  async run(segment: Segment): Promise<SegmentReport> {
    return JSON.parse(await nativeAsync(() => this.#inner.run(JSON.stringify(segment)))) as SegmentReport;
  }

  async evaluate(options: EvaluateOptions): Promise<Evaluation> {
    const request = check(evaluateSchema, options, 'evaluate');
    const report = JSON.parse(await nativeAsync(() => this.#inner.evaluate(JSON.stringify(request)))) as Evaluation;
    // The addon reports the minibatches too, which are no optimiser steps here.
    const { samples, loss, top1Error, top5Error, seconds } = report;
    return { samples, loss, top1Error, top5Error, seconds };
  }

  /** The same, image by image. */
  async judge(options: EvaluateOptions): Promise<Judgement> {
    const request = { split: options.split ?? 'val', crops: options.crops ?? 1, limit: options.limit };
    const { report, ...images } = await nativeAsync(() => this.#inner.judge(JSON.stringify(request)));
    const { samples, loss, top1Error, top5Error, seconds } = JSON.parse(report) as Evaluation;
    return { samples, loss, top1Error, top5Error, seconds, ...images };
  }

  /** Looks at weights and updates, and with `limit` images of a split at the units. */
  async statistics(options: { split: 'val' | 'train'; limit: number }): Promise<Statistics> {
    return JSON.parse(await nativeAsync(() => this.#inner.statistics(JSON.stringify(options)))) as Statistics;
  }

  async timings(options: TimingOptions): Promise<Timings> {
    return JSON.parse(await nativeAsync(() => this.#inner.timings(JSON.stringify(options)))) as Timings;
  }

  async profile(options: ProfileOptions): Promise<Profile> {
    return JSON.parse(await nativeAsync(() => this.#inner.profile(JSON.stringify(options)))) as Profile;
  }

  async save(path: string, metadata: string): Promise<Saved> {
    return JSON.parse(await nativeAsync(() => this.#inner.save(path, metadata))) as Saved;
  }

  /** Loads weights and momentum; the checkpoint's metadata. */
  async load(path: string): Promise<string> {
    return nativeAsync(() => this.#inner.load(path));
  }

  /** Takes over tensors, and with `mean` the mean image, of another network. */
  async adopt(adoption: {
    weights: { path: string; layout?: Layout };
    parameters: string[];
    mean: boolean;
  }): Promise<void> {
    await nativeAsync(() => this.#inner.adopt(JSON.stringify(adoption)));
  }

  async tensor(name: string): Promise<Tensor> {
    return nativeAsync(() => this.#inner.tensor(name));
  }

  /** The running call ends after its step: `run` with a report, `evaluate`, `judge`, `statistics`, `timings` and `profile` with ERR_ABORTED. */
  cancel(): void {
    this.#inner.cancel();
  }

  async dispose(): Promise<void> {
    await nativeAsync(() => this.#inner.dispose());
  }
}
