/** Data sets: where the images come from, how they are split, what is known about them. */
import type { z } from 'zod';
import { NativeDataset, NativeSpool } from '#native';

import { check, dataSchema } from './config.js';
import { AlexnodeError, native, nativeAsync, usage } from './errors.js';

/**
 * Options of a data set. Only `source` and `imageSize` are needed.
 *
 * - `source`: `generated` (the embedded set of ten classes), or the path of
 *   - a folder with a folder per class, with or without `train` and `val` inside, or the same in a `.tar`;
 *   - a pack (`packDataset`);
 *   - a list, `.csv` or `.jsonl`, with `path`, `label` and perhaps `split`;
 *   - a WebDataset: a `.tar`, or a folder of them;
 *   - the archives of ILSVRC2012 beside their development kit, or the CIFAR-10 binaries;
 *
 *   or images of the program's own: an (async) iterable of `ImageWithLabel`.
 * - `imageSize`: short side in pixels at which images are kept (`network.input.imageSize`).
 * - `seed` (1): of the generated set and of the choice that `limit` makes.
 * - `valFraction` (0.1): share of the images for validation where the source has no split of its own. The SHA-256 of each file decides, and images that
 *   look nearly the same (a burst of photos, copies in another size) follow one of them, unless there are more than 1,000, or more than half of a class (and
 *   more than 10), or the class could not be on both sides else. Files that are added leave those that were there where they are, but for three: what looks
 *   nearly the same as a new one; the one that a class without any on a side had to give; a series that was most of its class until it grew.
 *   Every file is decoded once for it; what was found is kept in `cacheDir`.
 * - `onBadImage` (`error`): an undecodable file is an error, or is skipped and listed in `info.skipped`.
 * - `quarantine`: a list of files to leave out, as `writeQuarantine` writes it; `info.quarantined` counts those that were there.
 * - `balance` (`none`): with `sample` an epoch has equally many images of each class; those of small classes come several times, with other
 *   crops and colours each time. With `loss` it has every image once, and an image of class c counts N / (K n_c) in the loss, where n_c of N training images
 *   are of that class and K classes have any: the mean over the training images is 1. What is reported as the loss of a training is without these weights,
 *   and so is every validation.
 * - `classes`: the names of the classes in the order in which they are numbered, as a network knows them. A source with other names is numbered in its own order.
 * - `limit`: train on the first N images of the seeded order.
 * - `threads`: decoding threads; `cacheDir`: where statistics are kept.
 * - `keepBytes` (128 MiB): up to so many bytes of prepared images stay in memory, if that is a quarter of them at least.
 */
export type DatasetOptions = Omit<z.input<typeof dataSchema>, 'source'> & { source: string | ImageSource };

/** A picture that a program hands over: the bytes of its file, and the name of its class. */
export interface ImageWithLabel {
  bytes: Uint8Array;
  label: string;
  /** For all images or for none: without it the content decides. */
  split?: 'train' | 'val';
}

/** Images one after the other. They are read once, and kept in a temporary file until the data set is closed. */
export type ImageSource = AsyncIterable<ImageWithLabel> | Iterable<ImageWithLabel>;

/** `DatasetOptions` with every default filled in. */
export type DatasetConfig = z.output<typeof dataSchema>;

/** What the scan of a data set found. */
export interface DatasetInfo {
  kind: 'generated' | 'folder' | 'tar' | 'cifar10' | 'ilsvrc2012' | 'list' | 'webdataset' | 'stream' | 'pack';
  source: string;
  /** Names in class order: natural order, or that of the option `classes`. */
  classes: string[];
  /** Numbers of images. */
  train: number;
  val: number;
  imageSize: number;
  split: 'given' | 'by content hash' | 'generated';
  perClass: { train: number[]; val: number[] };
  /** With `balance: 'loss'` what an image of each class counts in the loss. */
  classWeights: number[] | null;
  /** Files that could not be decoded (`onBadImage: 'skip'`). */
  skipped: { path: string; reason: string }[];
  /** Files that the quarantine list leaves out. */
  quarantined: number;
  /** Different images that are on the side of others because they look nearly the same; 0 where the source has a split of its own. */
  keptTogether: number;
  /** Different images that look nearly the same as others, too, but were split one by one: their groups are too large, or too much of a class, to say anything. */
  takenApart: number;
  /** Mean colour, 0 to 255. */
  mean: [number, number, number];
  /** sha256 of the sorted list of images. */
  fingerprint: string;
  /** Time that opening took. */
  seconds: number;
}

const INNER = Symbol('native dataset');

/** An open data set. Several trainers may use one; it is closed by `close()` or `await using`. */
export class Dataset implements AsyncDisposable {
  readonly info: DatasetInfo;
  readonly config: DatasetConfig;
  readonly [INNER]: NativeDataset;

  /** @internal */
  constructor(inner: NativeDataset, config: DatasetConfig) {
    this[INNER] = inner;
    this.config = config;
    this.info = JSON.parse(native(() => inner.info())) as DatasetInfo;
  }

  /** Names in class order. */
  get classes(): readonly string[] {
    return this.info.classes;
  }

  /** Gives threads and memory back; trainers that still use the data keep it alive until they are disposed. */
  close(): void {
    native(() => this[INNER].close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/** Scans, splits and measures a data set. ERR_DATA names the folder, class or file that is wrong. */
export async function openDataset(options: DatasetOptions): Promise<Dataset> {
  const { source, ...rest } = options;
  if (typeof source === 'object' && source !== null) return openImages(source, rest);
  const config = check(dataSchema, options, 'data');
  const inner = await nativeAsync(() => NativeDataset.open(JSON.stringify(config)));
  return new Dataset(inner, config);
}

async function openImages(source: ImageSource, rest: Omit<DatasetOptions, 'source'>): Promise<Dataset> {
  const config = check(dataSchema, { ...rest, source: 'stream' }, 'data');
  const spool = await nativeAsync(() => NativeSpool.open());
  try {
    let count = 0;
    for await (const { bytes, label, split } of source) {
      if (!(bytes instanceof Uint8Array) || typeof label !== 'string' || label === '') {
        throw usage(`image ${count}: expected { bytes, label }`, 'Bytes of a file as a Uint8Array, and a class name.');
      }
      if (split !== undefined && split !== 'train' && split !== 'val') {
        throw usage(`image ${count}: the split is 'train' or 'val', not ${JSON.stringify(split)}`);
      }
      await nativeAsync(() => spool.add(bytes, label, split));
      count += 1;
    }
    return new Dataset(await nativeAsync(() => spool.finish(JSON.stringify(config))), config);
  } finally {
    await nativeAsync(() => spool.close());
  }
}

/** @internal The native handle, for the trainer. */
export function innerDataset(data: Dataset): NativeDataset {
  return data[INNER];
}

/** @internal How messages name images of a split: the paths of their files, where there are files. */
export function namesOf(data: Dataset, split: 'train' | 'val', ids: Uint32Array): string[] {
  return JSON.parse(native(() => data[INNER].names(split, ids))) as string[];
}

/** @internal Images of a split, brought to `size` pixels: `size * size * 3` bytes each (red, green, blue), in the order of `ids`. */
export async function imagesOf(
  data: Dataset,
  split: 'train' | 'val',
  ids: Uint32Array,
  size: number,
): Promise<Uint8Array[]> {
  const all = await nativeAsync(() => data[INNER].images(split, ids, size));
  const bytes = size * size * 3;
  return Array.from(ids, (_, index) => all.subarray(index * bytes, (index + 1) * bytes));
}

/**
 * @internal Reads `images` training images as a training does, in minibatches of shuffled epochs from `epoch` on, and does nothing with them. Seconds
 * that it took.
 */
export async function readThrough(
  data: Dataset,
  { batch, epoch, images }: { batch: number; epoch: number; images: number },
): Promise<number> {
  return nativeAsync(() => data[INNER].read(batch, epoch, images));
}

/** @internal ERR_DATA with the difference where the classes of a checkpoint are not those of the data, in whatever order. */
export function checkClassNames(path: string, saved: readonly string[], present: readonly string[]): void {
  const missing = saved.filter((name) => !present.includes(name));
  const extra = present.filter((name) => !saved.includes(name));
  if (missing.length > 0 || extra.length > 0) {
    const list = (names: string[]) =>
      names.slice(0, 5).join(', ') + (names.length > 5 ? `, ... (${names.length})` : '');
    const parts = [
      missing.length > 0 ? `missing: ${list(missing)}` : '',
      extra.length > 0 ? `new: ${list(extra)}` : '',
    ];
    throw new AlexnodeError(
      'ERR_DATA',
      `${path}: the data has other classes than it was trained on (${parts.filter(Boolean).join('; ')})`,
      {
        hint: 'Name the folder with the same class names, or train anew.',
      },
    );
  }
}

/** @internal Likewise; they must also be in the same order: a row of the last layer belongs to each. */
export function checkClasses(path: string, saved: readonly string[], present: readonly string[]): void {
  checkClassNames(path, saved, present);
  const moved = saved.findIndex((name, index) => name !== present[index]);
  if (moved >= 0) {
    throw new AlexnodeError(
      'ERR_DATA',
      `${path}: the data has its classes in another order than it was trained on: class ${moved} was ${saved[moved]}, and is ${present[moved]}`,
      {
        hint: 'Open the data with { classes }, those of the checkpoint.',
      },
    );
  }
}
