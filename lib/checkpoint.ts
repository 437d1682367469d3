/** Checkpoints of a run: their names, which are kept, which one is intact, and what they say about themselves. */
import { copyFile, link, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { readHead as readHeadNative, readCheckpoint as readNative } from '#native';

import { AlexnodeError, native, nativeAsync, reason } from './errors.js';
import type { Cursor, Metrics, Totals } from './events.js';
import { readIfThere, TEMPORARY, writeAtomic } from './files.js';
import type { ScheduleState } from './recipe.js';
import type { RunConfig } from './settle.js';

/** The lowest validation error of a run. */
export interface Best {
  epoch: number;
  step: number;
  top1Error: number;
}

/** Sums over a whole run that no checkpoint may lose. */
export interface Progressed {
  /** Wall-clock seconds of training and validating. */
  seconds: number;
  /** Seconds inside training segments, and the images trained on in them. */
  trainSeconds: number;
  samples: number;
  /** Images trained on since the last validation. */
  sinceVal: number;
  /** The last full epoch's running means, and the last validation. */
  train: Metrics | null;
  val: Metrics | null;
  /** The running epoch so far. */
  totals: Totals;
  best: Best | null;
  /** Codes of the warnings that were given and are not to be repeated. */
  warned: string[];
}

/** What a checkpoint holds besides tensors: enough to go on, to evaluate, or to predict without the run folder. */
export interface CheckpointMetadata {
  format: 'alexnode-checkpoint';
  version: 1;
  alexnode: string;
  config: RunConfig;
  /** Class names; the row of fc8 (the last layer) of a class is its index here. */
  classes: string[];
  data: { fingerprint: string; train: number; val: number };
  cursor: Cursor;
  schedule: ScheduleState;
  progress: Progressed;
}

const metadataSchema = z.looseObject({
  format: z.literal('alexnode-checkpoint'),
  version: z.literal(1),
  config: z.looseObject({ network: z.looseObject({}), recipe: z.looseObject({}) }),
  classes: z.array(z.string()),
  cursor: z.strictObject({ epoch: z.int(), batch: z.int(), step: z.int() }),
  schedule: z.looseObject({}),
  progress: z.looseObject({}),
});

/** The metadata inside a checkpoint. ERR_CHECKPOINT where it is not one of ours. */
export function parseMetadata(path: string, text: string): CheckpointMetadata {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new AlexnodeError('ERR_CHECKPOINT', `${path}: its metadata is not JSON`, { cause: error });
  }
  const result = metadataSchema.safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw new AlexnodeError('ERR_CHECKPOINT', `${path}: not a checkpoint of this program`, {
      hint: `Its metadata field ${issue?.path.join('.') || '(root)'} does not fit: ${issue?.message ?? 'unknown'}.`,
    });
  }
  return value as CheckpointMetadata;
}

/** Reads a checkpoint's metadata after checking the sha256 of its tensors. ERR_CHECKPOINT where either is broken. */
export async function readCheckpoint(path: string): Promise<CheckpointMetadata> {
  return parseMetadata(path, await nativeAsync(() => readNative(path)));
}

/** What the header of a safetensors file says. */
export interface Head {
  strings: Record<string, string>;
  /** Shapes of its tensors. */
  shapes: Record<string, number[]>;
}

/** @internal Reads the header of a safetensors file of any program; its tensors are not looked at. ERR_CHECKPOINT. */
export function readHead(path: string): Head {
  return JSON.parse(native(() => readHeadNative(path))) as Head;
}

/** @internal Whether the strings of a header are those of a checkpoint or of exported weights. */
export function isOurs({ format }: Record<string, string>): boolean {
  return format === 'alexnode-checkpoint-1' || format === 'alexnode-weights-1';
}

/** A checkpoint written by a trainer. */
export interface Saved {
  path: string;
  bytes: number;
  sha256: string;
  seconds: number;
}

/** How many step checkpoints a run keeps besides the best one. */
const KEPT = 3;
const NAME = /^step-(\d+)\.safetensors$/;

/** The `checkpoints` folder of a run. */
export class Checkpoints {
  readonly folder: string;
  readonly best: string;

  constructor(folder: string) {
    this.folder = folder;
    this.best = join(folder, 'best.safetensors');
  }

  /** Makes the folder and removes what killed runs left half-written. */
  async prepare(): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    for (const name of await readdir(this.folder)) {
      if (name.includes(TEMPORARY)) await rm(join(this.folder, name), { force: true });
    }
  }

  /** Steps with a checkpoint, newest first. */
  async steps(): Promise<number[]> {
    const names = await readdir(this.folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    return names
      .flatMap((name) => NAME.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => b - a);
  }

  path(step: number): string {
    return join(this.folder, `step-${step}.safetensors`);
  }

  /**
   * Lets `save` write the checkpoint of `step`, names it in `last`, makes it the best one if it is, and removes all but the three
   * newest. At every moment of this an intact checkpoint is on the disk and `last` names one.
   */
  async store(step: number, best: boolean, save: (path: string) => Promise<Saved>): Promise<Saved> {
    const saved = await save(this.path(step));
    await writeAtomic(join(this.folder, 'last'), `${basename(saved.path)}\n`);
    if (best) await this.#markBest(saved.path);
    const older = (await this.steps()).filter((other) => other <= step);
    for (const old of older.slice(KEPT)) await rm(this.path(old), { force: true });
    return saved;
  }

  async #markBest(path: string): Promise<void> {
    const temporary = `${this.best}.${process.pid}${TEMPORARY}`;
    try {
      await rm(temporary, { force: true });
      // A second name costs no space; a file system without hard links gets a copy.
      await link(path, temporary).catch(() => copyFile(path, temporary));
      await rename(temporary, this.best);
    } catch (error) {
      await rm(temporary, { force: true });
      throw new AlexnodeError('ERR_CHECKPOINT', `${this.best}: cannot be written: ${reason(error)}`, { cause: error });
    }
  }

  /**
   * The newest intact checkpoint: the one that `last` names, then the others from new to old. Broken ones are reported through
   * `broken` and, unless `setAside` is false, set aside as `<name>.broken`. ERR_CHECKPOINT where none is left.
   */
  async newest(
    broken: (path: string, error: AlexnodeError) => void,
    { setAside = true } = {},
  ): Promise<{ path: string; metadata: CheckpointMetadata }> {
    const last = (await readIfThere(join(this.folder, 'last')))?.trim();
    const steps = await this.steps();
    const named = Number(NAME.exec(last ?? '')?.[1] ?? Number.NaN);
    const order = [...steps.filter((step) => step === named), ...steps.filter((step) => step !== named)];
    if (order.length === 0) {
      throw new AlexnodeError('ERR_CHECKPOINT', `${this.folder}: there is no checkpoint`, {
        hint: 'The run ended before its first checkpoint, or they were removed; start it again in a new folder.',
      });
    }
    for (const step of order) {
      const path = this.path(step);
      try {
        return { path, metadata: await readCheckpoint(path) };
      } catch (error) {
        if (!(error instanceof AlexnodeError) || error.code !== 'ERR_CHECKPOINT') throw error;
        broken(path, error);
        if (setAside) await rename(path, `${path}.broken`).catch(() => undefined);
      }
    }
    throw new AlexnodeError('ERR_CHECKPOINT', `${this.folder}: none of its checkpoints is intact`, {
      hint: `${setAside ? 'They are kept as *.broken; start' : 'Start'} the run again in a new folder.`,
    });
  }
}
