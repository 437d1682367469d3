/** A look at a whole folder of images before anything is trained on it. Nothing in the folder is changed. */
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { NativeSurvey } from '#native';

import { check, countSchema } from './config.js';
import { AlexnodeError, native, nativeAsync } from './errors.js';
import { makeFolder, writeAtomic } from './files.js';

/** What a quarantine list may hold beside unreadable files. */
export const LEAVE_OUT = ['tiny', 'huge', 'duplicates', 'nearDuplicates', 'leaks', 'unmatchedClasses'] as const;

/**
 * One of `LEAVE_OUT`. Of `duplicates` and `nearDuplicates` the first of each split stays, and none where they are in several classes; of
 * `leaks` the images in val stay; `unmatchedClasses` are those that only one of train and val has.
 */
export type LeaveOut = (typeof LEAVE_OUT)[number];

const scanSchema = z.strictObject({
  source: z.string().min(1),
  tiny: z.int().nonnegative().max(65_535).default(32),
  huge: z.number().nonnegative().default(25),
  leaveOut: z.array(z.enum(LEAVE_OUT)).default([]),
  threads: countSchema.optional(),
  cacheDir: z.string().min(1).optional(),
});

/**
 * What to scan. Only `source`, a folder, is needed.
 *
 * - `tiny` (32): images whose shorter side has fewer pixels; `huge` (25): those of more millions of pixels.
 * - `leaveOut` (nothing): what the quarantine list holds beside unreadable files.
 * - `threads`: decoding threads; `cacheDir`: where findings are kept between scans.
 */
export type ScanOptions = z.input<typeof scanSchema>;

/** A file, relative to the folder, and what is wrong with it. */
export interface MarkedFile {
  path: string;
  reason: string;
}

/** What was found. All paths are relative to the folder, with `/`. */
export interface ScanReport {
  /** Picture files, the unreadable ones among them. */
  images: number;
  /** In class order, with their usable images. Where the folder has no val of its own, all of them count as train. */
  classes: { name: string; train: number; val: number }[];
  /** Empty, cut off, damaged, of a format that is not read, or no pictures at all. */
  unreadable: MarkedFile[];
  /** Named as another format than they are. */
  wrongExtension: string[];
  /** Of four inks, CMYK or YCCK. */
  cmyk: string[];
  /** Of one channel. */
  grey: string[];
  /** Stored in another position than they are to be seen in. */
  exifRotated: string[];
  tiny: string[];
  huge: string[];
  /** Class folders without a usable image. */
  emptyClasses: string[];
  /** Folders that are not looked into, such as `.ipynb_checkpoints`. */
  hiddenFolders: string[];
  /** Files with the same bytes. */
  duplicates: string[][];
  /** Images that look the same in other bytes; of duplicates, the first stands for all. */
  nearDuplicates: string[][];
  /** Duplicates and near-duplicates that are both in train and in val. */
  leaks: string[][];
  /** Training images of the largest class for each of the smallest one that has any; 1 where they are even, 0 without any. */
  imbalance: number;
}

/** What else there is to say. */
export interface ScanSummary {
  /** Whether the folder itself says what is train and what is val. */
  given: boolean;
  /** Of all picture files. */
  bytes: number;
  /** Usable images of each format: `JPEG`, `PNG`, `WebP`, `GIF`, `BMP`. */
  formats: Record<string, number>;
  /** Pixels of the shorter side: smallest, median, largest; `null` without usable images. */
  shortSides: [number, number, number] | null;
  /** Picture files outside of all class folders. */
  outside: number;
  /** Classes that only one side has, where there are two. */
  onlyTrain: string[];
  onlyVal: string[];
  /** Groups of duplicates, and of near-duplicates, in several classes. */
  conflicts: number;
  nearConflicts: number;
}

/** Everything that a scan has found. */
export interface ScanFindings {
  report: ScanReport;
  summary: ScanSummary;
  /** The files to leave out, with the reasons. */
  quarantine: MarkedFile[];
}

/** How far a scan has come. */
export interface ScanProgress {
  /** Files looked at, by earlier scans among others. */
  done: number;
  images: number;
}

/** A scan: iterate over `run()`, then ask for `findings()`. */
export class Scan implements AsyncDisposable {
  /** The folder, absolute. */
  readonly folder: string;
  /** Files to look at, and those that an earlier scan has looked at and that have not changed since. */
  readonly images: number;
  readonly done: number;
  /** Where a quarantine list goes when nobody says where: in the cache folder; `null` where there is none. */
  readonly quarantinePath: string | null;
  readonly #survey: NativeSurvey;

  /** @internal */
  constructor(survey: NativeSurvey, folder: string) {
    this.#survey = survey;
    this.folder = folder;
    const begin = JSON.parse(native(() => survey.begin())) as ScanProgress & { quarantine: string | null };
    this.images = begin.images;
    this.done = begin.done;
    this.quarantinePath = begin.quarantine;
  }

  /** Looks at all files. ERR_ABORTED where `signal` ends it; the next scan of the folder goes on from there. */
  async *run(options: { signal?: AbortSignal } = {}): AsyncGenerator<ScanProgress, void> {
    for (;;) {
      const progress = await this.#until(options.signal, () => this.#survey.step());
      if (progress === null) return;
      yield JSON.parse(progress) as ScanProgress;
    }
  }

  /** What was found. ERR_USAGE before `run()` has come to its end; ERR_ABORTED where `signal` ends it. */
  async findings(options: { signal?: AbortSignal } = {}): Promise<ScanFindings> {
    return JSON.parse(await this.#until(options.signal, () => this.#survey.findings())) as ScanFindings;
  }

  /** A call that `signal` ends. */
  async #until<T>(signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T> {
    const stopped = (cause?: unknown) =>
      new AlexnodeError('ERR_ABORTED', 'the scan was stopped', {
        hint: 'What was found is kept: the same command goes on where it stopped.',
        cause,
      });
    const isAborted = () => signal?.aborted === true;
    if (isAborted()) throw stopped();
    const cancel = () => native(() => this.#survey.cancel());
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      return await nativeAsync(call);
    } catch (error) {
      throw isAborted() ? stopped(error) : error;
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Gives threads and memory back. Does nothing the second time. */
  async close(): Promise<void> {
    await nativeAsync(() => this.#survey.close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Lists a folder to be scanned. ERR_DATA where it cannot be read or has no images. */
export async function scanFolder(options: ScanOptions): Promise<Scan> {
  const { source, ...rest } = check(scanSchema, options, 'scan');
  const folder = resolve(source);
  return new Scan(await nativeAsync(() => NativeSurvey.open(JSON.stringify({ source: folder, ...rest }))), folder);
}

/** Writes the report as JSON. ERR_DATA where it cannot be written. */
export async function writeScanReport(path: string, report: ScanReport): Promise<void> {
  await writeAtomic(resolve(path), `${JSON.stringify(report, null, 2)}\n`);
}

/**
 * Writes the list that `quarantine` of a training takes: a line of JSON for each file. ERR_DATA or ERR_USAGE where it cannot be written.
 */
export async function writeQuarantine(path: string, files: readonly MarkedFile[]): Promise<void> {
  const full = resolve(path);
  await makeFolder(dirname(full), 'quarantine');
  await writeAtomic(full, files.map((file) => `${JSON.stringify(file)}\n`).join(''));
}
