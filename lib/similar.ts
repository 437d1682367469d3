/** `similar()`: the training images that a network takes for most alike (paper, section 6.1 and figure 4). */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { check, seedSchema, similarCallSchema } from './config.js';
import { checkClasses, namesOf, openDataset } from './data.js';
import { AlexnodeError } from './errors.js';
import { trainingFeatures } from './features.js';
import type { ImageInput } from './images.js';
import { loadModelAs, type Model, type ModelOptions } from './model.js';
import { ordered } from './ordered.js';
import { sourceFor } from './prepare.js';

/** For which pictures, and among which images. */
export interface SimilarCall extends ModelOptions {
  /** A run folder (its best checkpoint, or the newest where none was validated) or a checkpoint file. */
  model: string;
  images: Iterable<ImageInput> | AsyncIterable<ImageInput>;
  /** The nearest images that are told; default 6, as in the paper's figure. */
  topK?: number;
  /** The layer whose output is compared; default: the last hidden layer. */
  layer?: string;
  /** Default: the data that it was trained on. */
  data?: string;
  onBadImage?: 'error' | 'skip';
  signal?: AbortSignal;
}

/** A training image near to a picture. */
export interface Neighbour {
  /** Its file, or what it is called in a source without files. */
  path: string;
  label: string;
  /** Euclidean distance of the layer's outputs. */
  distance: number;
}

/** What came of a picture: the training images nearest to it, the nearest first, or the reason why it cannot be used. */
export type Similar =
  | { image: ImageInput; similar: Neighbour[]; error?: undefined }
  | { image: ImageInput; error: AlexnodeError; similar?: undefined };

/**
 * Finds the training images most alike for all pictures at once. What the layer makes of the training images is kept in the run folder
 * (`features/`), so that the next call is quick. ERR_CHECKPOINT where the model is missing or damaged, ERR_DATA where its images are.
 */
export async function similar(options: SimilarCall): Promise<Similar[]> {
  const { topK } = check(similarCallSchema, options, 'similar');
  const { signal, threads } = options;
  await using model = await loadModelAs(options.model, options);
  const layer = options.layer ?? model.hiddenLayer;
  const queries = await describe(model, options.images, layer, signal);
  const wanted = queries.flatMap(({ row }) => row ?? []);
  const own = model.metadata.config.data;
  await using data = await openDataset({
    ...own,
    classes: [...model.classes],
    source: sourceFor(options.data, own.source),
    seed: check(seedSchema, own.seed, 'seed'),
    onBadImage: options.onBadImage ?? own.onBadImage,
    ...(threads === undefined ? {} : { threads }),
  });
  checkClasses(model.checkpoint, model.classes, data.classes);
  const nearest = wanted.map(() => new Nearest(topK));
  if (wanted.length > 0) {
    for await (const { ids, labels, rows } of trainingFeatures(model, data, layer, runFolder(model))) {
      if (signal?.aborted === true) throw new AlexnodeError('ERR_ABORTED', 'the search was stopped');
      for (const [index, query] of wanted.entries()) nearest[index]?.look(query, rows, ids, labels);
    }
  }
  const found = nearest.values();
  return queries.map(({ image, error }) => {
    if (error !== undefined) return { image, error };
    const hits = found.next().value?.hits ?? [];
    const paths = namesOf(
      data,
      'train',
      Uint32Array.from(hits, ({ id }) => id),
    );
    const neighbour = ({ label, square }: Hit, index: number): Neighbour => ({
      path: paths[index] ?? '',
      label: data.classes[label] ?? '',
      distance: Math.sqrt(square),
    });
    return { image, similar: hits.map(neighbour) };
  });
}

/** The folder of the run that a model's checkpoint belongs to. */
function runFolder(model: Model): string | undefined {
  const folder = dirname(dirname(model.checkpoint));
  return existsSync(join(folder, 'run.json')) ? folder : undefined;
}

interface Query {
  image: ImageInput;
  row?: Float32Array;
  error?: AlexnodeError;
}

/** What the layer makes of the pictures; each is tried, whatever becomes of the others. */
async function describe(
  model: Model,
  images: SimilarCall['images'],
  layer: string,
  signal: AbortSignal | undefined,
): Promise<Query[]> {
  const queries: Query[] = [];
  const limits = signal === undefined ? {} : { signal };
  const one = async (query: Query) => {
    try {
      for await (const row of model.features([query.image], { layer, ...limits })) query.row = row;
    } catch (error) {
      if (!(error instanceof AlexnodeError) || error.code !== 'ERR_DATA') throw error;
      query.error = error;
    }
    return query;
  };
  const start = (image: ImageInput) => ({ result: one({ image }), cancel: () => undefined });
  for await (const [, query] of ordered(images, 2 * model.batch, start, signal)) queries.push(query);
  return queries;
}

interface Hit {
  id: number;
  label: number;
  /** Of the distance. */
  square: number;
}

/** @internal The nearest images so far, the nearest first; of equal distances the lower id. */
export class Nearest {
  readonly hits: Hit[] = [];
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  look(query: Float32Array, rows: Float32Array, ids: Uint32Array, labels: Int32Array): void {
    const width = query.length;
    for (let index = 0; index < ids.length; index += 1) {
      let square = 0;
      for (let element = 0, at = index * width; element < width; element += 1, at += 1) {
        const difference = (query[element] ?? 0) - (rows[at] ?? 0);
        square += difference * difference;
      }
      const last = this.hits[this.#most - 1];
      if (last !== undefined && square >= last.square) continue;
      const place = this.hits.findIndex((hit) => square < hit.square);
      const hit = { id: ids[index] ?? 0, label: labels[index] ?? 0, square };
      this.hits.splice(place < 0 ? this.hits.length : place, 0, hit);
      if (this.hits.length > this.#most) this.hits.pop();
    }
  }
}
