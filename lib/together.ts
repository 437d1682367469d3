/** Several models on the same images of a data set. */
import { resolve } from 'node:path';

import { check, seedSchema } from './config.js';
import { checkClassNames, type Dataset, openDataset } from './data.js';
import { AlexnodeError, usage } from './errors.js';
import { type Images, passOver } from './images.js';
import { inferenceOf, loadModelAs, type Model, type ModelOptions } from './model.js';
import { sourceFor } from './prepare.js';

/** On what to measure. */
export interface MeasureOptions extends ModelOptions {
  /** Default: the data that the (first) model was trained on. */
  data?: string;
  onBadImage?: 'error' | 'skip';
  /** Default: the list of the first model, if it was trained with one. */
  quarantine?: string;
  split?: 'val' | 'train';
  /** 1: the central crop; 10: corners and centre with their mirror images, probabilities averaged. */
  crops?: 1 | 10;
  /** At most this many images. */
  limit?: number;
  /** Images at a time; default: as in the training of each model. */
  batch?: number;
  signal?: AbortSignal;
}

/** An image with what each model makes of it. */
export interface Judged {
  /** Inside the split. */
  id: number;
  /** Index into the classes of the first model. */
  label: number;
  /** Probabilities of all classes, by model; in the order of the first model's classes. */
  rows: Float32Array[];
}

/** Models and the images to measure them on, opened at the size that each of them takes. */
export class Together implements AsyncDisposable {
  readonly models: Model[];
  readonly #data: Map<number, Dataset>;
  /** For each model the place of every class of the first one; none where the order is the same. */
  readonly #places: (number[] | undefined)[] = [];

  private constructor(models: Model[], data: Map<number, Dataset>) {
    this.models = models;
    this.#data = data;
  }

  /**
   * Loads models and opens their data, its classes in the order of the first model's: labels are names, and their order does not matter. ERR_CHECKPOINT where one is missing or damaged, ERR_DATA where the classes of the data are not those of all
   * models.
   */
  static async open(paths: string[], options: MeasureOptions): Promise<Together> {
    if (options.signal?.aborted === true) throw stopped();
    const together = new Together([], new Map());
    try {
      for (const path of paths) {
        together.models.push(await loadModelAs(path, options, ({ recipe }) => recipe.batch));
      }
      const first = together.models[0];
      if (first === undefined) throw usage('no model was named');
      const { limit: _, ...own } = first.metadata.config.data;
      const { threads } = options;
      for (const { checkpoint, network, classes } of together.models) {
        const { imageSize } = network.input;
        let data = together.#data.get(imageSize);
        if (data === undefined) {
          data = await openDataset({
            ...own,
            imageSize,
            classes: [...first.classes],
            source: sourceFor(options.data, own.source),
            seed: check(seedSchema, own.seed, 'seed'),
            onBadImage: options.onBadImage ?? own.onBadImage,
            ...(options.quarantine === undefined ? {} : { quarantine: resolve(options.quarantine) }),
            ...(threads === undefined ? {} : { threads }),
          });
          together.#data.set(imageSize, data);
        }
        checkClassNames(checkpoint, classes, data.classes);
        const same = first.classes.every((name, index) => name === classes[index]);
        const numbers = new Map(classes.map((name, index) => [name, index]));
        together.#places.push(same ? undefined : first.classes.map((name) => numbers.get(name) ?? 0));
      }
      return together;
    } catch (error) {
      await together.dispose();
      throw error;
    }
  }

  /** The data as `model` sees it. */
  dataOf(model: Model): Dataset {
    const data = this.#data.get(model.network.input.imageSize);
    if (data === undefined) throw usage('the models have been disposed');
    return data;
  }

  /** The seed that draws the images where there is a limit. */
  get seed(): number {
    return this.models[0]?.metadata.config.seed ?? 1;
  }

  /** Goes through the images of a split; the order is that of their ids, or with `limit` that of an evaluation with the same limit. */
  async *judge(options: MeasureOptions): AsyncGenerator<Judged, void> {
    const { split = 'val', crops = 1, limit, signal } = options;
    const batch = Math.max(1, ...this.models.map((model) => model.batch));
    const pass = { split, batch, seed: this.seed, ...(limit === undefined ? {} : { limit }) };
    const passes = new Map([...this.#data].map(([size, data]) => [size, passOver(data, pass)]));
    try {
      for (;;) {
        const batches = new Map<number, Images>();
        for (const [size, images] of passes) {
          const next = await images.next();
          if (next.done !== true) batches.set(size, next.value);
        }
        const [first] = batches.values();
        if (first === undefined) return;
        const { ids, labels } = first;
        const rows: Float32Array[] = [];
        for (const model of this.models) {
          if (signal?.aborted === true) throw stopped();
          const images = batches.get(model.network.input.imageSize);
          if (images !== undefined) rows.push(await inferenceOf(model).probabilities(images, crops));
        }
        for (const [index, id] of ids.entries()) {
          const row = (all: Float32Array, model: number) => {
            const width = all.length / ids.length;
            const own = all.subarray(index * width, (index + 1) * width);
            const places = this.#places[model];
            return places === undefined ? own : Float32Array.from(places, (place) => own[place] ?? 0);
          };
          yield { id, label: labels[index] ?? 0, rows: rows.map(row) };
        }
      }
    } finally {
      for (const pass of passes.values()) await pass.return();
    }
  }

  /** Gives devices and data back. */
  async dispose(): Promise<void> {
    for (const model of this.models) await model.dispose();
    for (const data of this.#data.values()) data.close();
    this.#data.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/** ERR_ABORTED. */
export function stopped(): AlexnodeError {
  return new AlexnodeError('ERR_ABORTED', 'the evaluation was stopped');
}
