/** A trained network that answers: what is on a picture, and what its layers make of it. */
import { z } from 'zod';
import { Batcher, type Question } from './batcher.js';
import type { CheckpointMetadata } from './checkpoint.js';
import { check, modelSchema, predictSchema } from './config.js';
import { AlexnodeError, usage } from './errors.js';
import { checkImage, type ImageInput, prepareImages } from './images.js';
import { Inference } from './inference.js';
import type { NetworkSpec } from './layers.js';
import { suggestion } from './nearest.js';
import { chooseDevices, lastHidden } from './network.js';
import { any, type Shape, text } from './options.js';
import { ordered, type Started } from './ordered.js';
import type { Precision } from './precision.js';
import type { RunConfig } from './settle.js';
import { largest } from './statistics.js';
import { fileOf, openWeights, type Weights } from './weights.js';

/** Where a model computes. */
export interface ModelOptions {
  /** Default: the first usable CUDA device, otherwise the CPU. */
  devices?: string[];
  /** Threads that compute, and as many that decode; default: all. */
  threads?: number;
  /** Default: as in training on CUDA devices, `fp32` on the CPU. */
  precision?: Precision;
  /** The most images that are computed at a time; default 32. Memory grows with it. */
  batch?: number;
  /** Whether stderr is told of what takes long, such as the first compilation of kernels; default `false`. */
  notices?: boolean;
}

/** A class and how probable it is. */
export interface Guess {
  label: string;
  /** 0 to 1. */
  probability: number;
}

/** How to predict. */
export interface PredictOptions {
  /** The most probable classes that are told; default 5, or all where there are fewer. */
  topK?: number;
  /** 1: the central crop; 10: corners and centre with their mirror images, probabilities averaged. Default 1. */
  crops?: 1 | 10;
  /** ERR_ABORTED where it is aborted. */
  signal?: AbortSignal;
}

/** What came of an image: the most probable classes, or the reason why it cannot be used. */
export type Prediction =
  | { image: ImageInput; top: Guess[]; error?: undefined }
  | { image: ImageInput; error: AlexnodeError; top?: undefined };

/** Whose output to take. */
export interface FeatureOptions {
  /** A layer of the network. Its output is taken as it leaves that layer alone: of `fc7` before the ReLU, of `relu7` after it. Default: `hiddenLayer`. */
  layer?: string;
  /** ERR_ABORTED where it is aborted. */
  signal?: AbortSignal;
}

const INNER = Symbol('inference');
/** Images at a time, where nobody says. */
const BATCH = 32;

const featureSchema = z.strictObject({ layer: text, signal: any } satisfies Shape<FeatureOptions>);

/** A trained network on its devices. Calls may overlap: images that wait at the same time are computed together. */
export class Model implements AsyncDisposable {
  /** The checkpoint file. */
  readonly checkpoint: string;
  readonly metadata: CheckpointMetadata;
  /** SHA-256 of the checkpoint's data, hexadecimal. */
  readonly sha256: string;
  readonly devices: readonly string[];
  readonly precision: Precision;
  /** The most images that are computed at a time. */
  readonly batch: number;
  readonly [INNER]: Inference;
  readonly #batcher: Batcher;

  /** @internal */
  constructor(
    inference: Inference,
    weights: Weights,
    where: { devices: string[]; precision: Precision; batch: number; threads: number | undefined },
  ) {
    this[INNER] = inference;
    this.checkpoint = weights.path;
    this.metadata = weights.metadata;
    this.sha256 = weights.sha256;
    this.devices = where.devices;
    this.precision = where.precision;
    this.batch = where.batch;
    const { imageSize } = this.network.input;
    this.#batcher = new Batcher(
      {
        prepare: (images) => prepareImages(images, imageSize, where.threads),
        compute: (images, question) =>
          'layer' in question
            ? inference.outputs(images, question.layer)
            : inference.probabilities(images, question.crops),
      },
      where.batch,
    );
  }

  /** Names of the classes. */
  get classes(): readonly string[] {
    return this.metadata.classes;
  }

  get network(): NetworkSpec {
    return this.metadata.config.network;
  }

  /** The last hidden layer: what the last layer sees, before any dropout. */
  get hiddenLayer(): string {
    return lastHidden(this.network);
  }

  /** Images that were predicted or described by features, and in how many batches. */
  get counters(): Readonly<{ images: number; batches: number }> {
    return this.#batcher.counters;
  }

  /** The most probable classes of a picture, the most probable first. ERR_DATA where it cannot be decoded. */
  async predict(image: ImageInput, options: PredictOptions = {}): Promise<Guess[]> {
    for await (const prediction of this.predictAll([image], options)) {
      if (prediction.error !== undefined) throw prediction.error;
      return prediction.top;
    }
    throw new AlexnodeError('ERR_ABORTED', 'the prediction was stopped');
  }

  /**
   * The same for many pictures, a batch at a time, in their order; each is told as soon as it is known. One that cannot be decoded has an `error`
   * (ERR_DATA) and does not keep the others from being predicted.
   */
  async *predictAll(
    images: Iterable<ImageInput> | AsyncIterable<ImageInput>,
    options: PredictOptions = {},
  ): AsyncGenerator<Prediction, void> {
    const { topK, crops } = check(predictSchema, options, 'predict');
    const start = (image: ImageInput): Started<Prediction> => {
      const { answer, cancel } = this.#ask(image, { crops });
      const result = answer.then(
        (row) => ({ image, top: this.#guesses(row, topK) }),
        (error: unknown) => {
          if (error instanceof AlexnodeError && error.code === 'ERR_DATA') return { image, error };
          throw error;
        },
      );
      return { result, cancel };
    };
    for await (const [, prediction] of ordered(images, 2 * this.batch, start, options.signal)) yield prediction;
  }

  /**
   * What a layer makes of the central crop of each picture, in their order, as [channel][row][column] (`describeNetwork` tells the shape). ERR_DATA names
   * the first one that cannot be decoded.
   */
  async *features(
    images: Iterable<ImageInput> | AsyncIterable<ImageInput>,
    options: FeatureOptions = {},
  ): AsyncGenerator<Float32Array, void> {
    check(featureSchema, options, 'features');
    const layer = options.layer ?? this.hiddenLayer;
    this.#checkLayer(layer);
    const start = (image: ImageInput): Started<Float32Array> => {
      const { answer, cancel } = this.#ask(image, { layer });
      return { result: answer, cancel };
    };
    for await (const [, row] of ordered(images, 2 * this.batch, start, options.signal)) yield row;
  }

  #ask(image: ImageInput, question: Question) {
    checkImage(image);
    return this.#batcher.ask(image, question);
  }

  #checkLayer(layer: string): void {
    const names = this.network.layers.map(({ name }) => name);
    if (!names.includes(layer)) throw usage(`${this.network.name} has no layer '${layer}'`, suggestion(layer, names));
  }

  #guesses(row: Float32Array, topK: number): Guess[] {
    return largest(row, topK).map((index) => ({ label: this.classes[index] ?? '', probability: row[index] ?? 0 }));
  }

  /** Stops what is under way and gives devices and memory back. Does nothing the second time. */
  async dispose(): Promise<void> {
    this.#batcher.close();
    await this[INNER].dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/** @internal The model's engine, for what goes through whole data sets. */
export function inferenceOf(model: Model): Inference {
  return model[INNER];
}

/**
 * Loads a trained network to predict with it: a run folder (its best checkpoint, or the newest where none was validated), a checkpoint file, exported
 * weights, or torchvision's `alexnet` in a safetensors file.
 * Several may live in one process, and a worker thread may have its own. ERR_CHECKPOINT where it is missing or damaged, ERR_DEVICE where memory is short.
 *
 * ```ts
 * await using model = await loadModel('runs/photos');
 * const [best] = await model.predict('cat.jpg');
 * ```
 */
export async function loadModel(path: string, options: ModelOptions = {}): Promise<Model> {
  return loadModelAs(path, check(modelSchema, options, 'model') as ModelOptions);
}

/** @internal The same with options that were checked, and with another default of the batch. */
export async function loadModelAs(
  path: string,
  options: ModelOptions,
  defaultBatch: (config: RunConfig) => number = () => BATCH,
): Promise<Model> {
  const weights = await openWeights(path);
  const { config } = weights.metadata;
  const devices = options.devices ?? chooseDevices().devices;
  const precision = options.precision ?? (devices[0] === 'cpu' ? 'fp32' : config.precision);
  const batch = options.batch ?? defaultBatch(config);
  const { threads, notices = false } = options;
  const { network } = config;
  const limits = threads === undefined ? {} : { threads };
  const inference = await Inference.create({
    weights: fileOf(weights),
    network,
    devices,
    batch,
    precision,
    notices,
    ...limits,
  });
  return new Model(inference, weights, { devices, precision, batch, threads });
}
