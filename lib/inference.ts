/** The addon's model with types and our errors: one promise per call, nothing else. */
import { NativeModel } from '#native';
import { type Dataset, innerDataset } from './data.js';
import type { Evaluation } from './engine.js';
import { nativeAsync } from './errors.js';
import { type Images, innerImages } from './images.js';
import type { NetworkSpec } from './layers.js';
import type { Precision } from './precision.js';
import type { Layout } from './torchvision.js';

/** What a model is made of. */
export interface InferenceConfig {
  weights: { path: string; layout?: Layout };
  network: NetworkSpec;
  devices: string[];
  threads?: number;
  /** The most images that are computed at a time. */
  batch: number;
  precision: Precision;
  notices: boolean;
}

/** A trained network on its devices: weights and one evaluation at a time, neither gradients nor momentum. */
export class Inference {
  readonly #inner: NativeModel;

  private constructor(inner: NativeModel) {
    this.#inner = inner;
  }

  static async create(config: InferenceConfig): Promise<Inference> {
    return new Inference(await nativeAsync(() => NativeModel.create(JSON.stringify(config))));
  }

  /** Probabilities of all classes, a row per image. */
  async probabilities(images: Images, crops: 1 | 10): Promise<Float32Array> {
    return nativeAsync(() => this.#inner.probabilities(innerImages(images), crops));
  }

  /** What a layer puts out for the central crop of each image, a row per image: [channel][row][column]. */
  async outputs(images: Images, layer: string): Promise<Float32Array> {
    return nativeAsync(() => this.#inner.outputs(innerImages(images), layer));
  }

  async evaluate(
    data: Dataset,
    options: { split: 'train' | 'val'; crops: 1 | 10; seed: number; limit?: number },
  ): Promise<Evaluation> {
    const report = await nativeAsync(() => this.#inner.evaluate(innerDataset(data), JSON.stringify(options)));
    const { samples, loss, top1Error, top5Error, seconds } = JSON.parse(report) as Evaluation;
    return { samples, loss, top1Error, top5Error, seconds };
  }

  /** What is under way ends early, with ERR_ABORTED. */
  cancel(): void {
    this.#inner.cancel();
  }

  async dispose(): Promise<void> {
    await nativeAsync(() => this.#inner.dispose());
  }
}
