/** Packs: a data set prepared once and for all, in files that other tools can read, too. */

import { mkdir, statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import prettyBytes from 'pretty-bytes';
import { z } from 'zod';
import { NativePacker, NativeVerifier } from '#native';
import { check, countSchema, dataSchema } from './config.js';
import { AlexnodeError, native, nativeAsync } from './errors.js';
import { takeLock } from './lock.js';
import { any, count } from './options.js';
import { resolveSource } from './prepare.js';

const packSchema = dataSchema
  .omit({ limit: true, imageSize: true, balance: true, classes: true, keepBytes: true })
  .extend({
    imageSize: countSchema.default(256),
    target: z.string().min(1),
    format: z.enum(['npy', 'tar']).default('npy'),
    shardImages: countSchema.optional(),
  });

/**
 * What to pack, and where to. Only `source` and `target` are needed.
 *
 * - `source`: whatever a training reads; `target`: a new or empty folder, or one where the same call was interrupted.
 * - `imageSize` (256): short side in pixels; trainings at this size or a smaller one can use the pack.
 * - `format` (`npy`): `npy` keeps pixels (3 bytes each) in arrays, `tar` keeps JPEGs of quality 95 in the form of WebDataset.
 * - `shardImages`: images per file; 2048 raw ones or 8192 JPEGs by default.
 * - the others as in `DatasetOptions`: `valFraction` decides the split for good where the source has none.
 */
export type PackOptions = z.input<typeof packSchema>;

/** What is about to be written. */
export interface PackForecast {
  /** Images of both splits, and those that an earlier call has written. */
  images: number;
  done: number;
  /** Bytes of the whole pack (for `tar` an estimate), those still to be written, and those that the disk has free. */
  bytes: number;
  left: number;
  free: number;
  /** Names in class order. */
  classes: string[];
  /** Images of train and val. */
  splits: [number, number];
  /** Files that are left out. */
  skipped: { path: string; reason: string }[];
  /** Whether the pack was complete before: then there is nothing to do. */
  complete: boolean;
}

/** How far packing has come. */
export interface PackProgress {
  /** Images written, and to write. */
  done: number;
  images: number;
  /** Bytes of images written. */
  bytes: number;
}

/** How far checking has come. */
export interface PackChecked {
  /** Files and bytes read, and files to read. */
  files: number;
  bytes: number;
  of: number;
  /** Files that are not what was written. */
  damaged: { file: string; reason: string }[];
}

interface Steps {
  step(): Promise<string | null>;
  cancel(): void;
  close(): Promise<void>;
}

/** The answers of `steps` until there are no more, or `signal` ends them. */
async function* answers<T>(steps: Steps, signal: AbortSignal | undefined, hint: string): AsyncGenerator<T, void> {
  const cancel = () => native(() => steps.cancel());
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    for (;;) {
      if (signal?.aborted === true) throw new AlexnodeError('ERR_ABORTED', 'stopped before the end', { hint });
      const answer = await nativeAsync(() => steps.step());
      if (answer === null) return;
      yield JSON.parse(answer) as T;
    }
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

/** Packing: what it is about to do, and, while it is iterated over, how far it has come. */
export class Packing implements AsyncDisposable {
  readonly target: string;
  readonly forecast: PackForecast;
  readonly #packer: NativePacker;

  /** @internal */
  constructor(packer: NativePacker, target: string, forecast: PackForecast) {
    this.#packer = packer;
    this.target = target;
    this.forecast = forecast;
  }

  /**
   * Packs. ERR_DATA names what cannot be read or written; ERR_ABORTED where `signal` ends it. The same call again goes on after the last
   * complete file, and the files come out the same.
   */
  async *run(options: { signal?: AbortSignal } = {}): AsyncGenerator<PackProgress, void> {
    await mkdir(dirname(this.target), { recursive: true });
    const lock = await takeLock(`${this.target}.lock`, this.target);
    try {
      yield* answers<PackProgress>(this.#packer, options.signal, 'The same command goes on where it stopped.');
    } finally {
      await lock.release();
    }
  }

  /** Gives threads and memory back. Does nothing the second time. */
  async close(): Promise<void> {
    await nativeAsync(() => this.#packer.close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Bytes that the disk of `path`, which need not exist yet, has free. */
async function freeBytes(path: string): Promise<number> {
  for (let folder = path; ; folder = dirname(folder)) {
    try {
      const { bavail, bsize } = await statfs(folder);
      return bavail * bsize;
    } catch (error) {
      if (folder === dirname(folder)) throw error;
    }
  }
}

/**
 * Looks at the source and forecasts; `run()` of the result packs. ERR_USAGE where the target is no place for this pack; ERR_DATA where the
 * disk is too small for it, with the numbers, or where the source cannot be read.
 */
export async function packDataset(options: PackOptions): Promise<Packing> {
  const { target, format, shardImages, ...data } = check(packSchema, options, 'pack');
  const folder = resolve(target);
  const packer = await nativeAsync(() =>
    NativePacker.open(
      JSON.stringify({
        data: { ...data, source: resolveSource(data.source) },
        target: folder,
        format,
        ...(shardImages === undefined ? {} : { shardImages }),
      }),
    ),
  );
  try {
    const free = await freeBytes(folder);
    const forecast = { ...(JSON.parse(native(() => packer.packing())) as Omit<PackForecast, 'free'>), free };
    if (forecast.left > free) {
      const [left, there] = [prettyBytes(forecast.left), prettyBytes(free)];
      const other = format === 'npy' ? 'pack JPEGs, which take about an eighth (format tar), ' : '';
      throw new AlexnodeError('ERR_DATA', `${folder}: the pack needs ${left} more, and the disk has ${there} free`, {
        hint: `Name a folder on a larger disk, ${other}or choose a smaller image size.`,
      });
    }
    return new Packing(packer, folder, forecast);
  } catch (error) {
    await nativeAsync(() => packer.close());
    throw error;
  }
}

const verifySchema = z.strictObject({ threads: count, signal: any });

/**
 * Compares every file of a pack with its SHA-256; yields what was found so far, the last time with everything. ERR_DATA where the folder
 * holds no pack.
 */
export async function* verifyPack(
  folder: string,
  options: { threads?: number; signal?: AbortSignal } = {},
): AsyncGenerator<PackChecked, void> {
  const { threads, signal } = check(verifySchema, options, 'verify') as typeof options;
  const verifier = await nativeAsync(() => NativeVerifier.open(resolve(folder), threads));
  try {
    yield* answers<PackChecked>(verifier, signal, 'Nothing was changed.');
  } finally {
    await nativeAsync(() => verifier.close());
  }
}
