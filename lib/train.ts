/** `train()`: one call from options to a running, recorded, resumable training. */

import { statfs } from 'node:fs/promises';
import { basename } from 'node:path';
import { z } from 'zod';
import type { CheckpointMetadata } from './checkpoint.js';
import type { Dataset } from './data.js';
import { environment } from './environment.js';
import { usage } from './errors.js';
import type { TrainEvent, TrainResult, WarningEvent } from './events.js';
import { any, checkCall, type Shape, text, whole } from './options.js';
import { type Prepared, prepare, prepareResume, type TrainOptions, trainFields } from './prepare.js';
import { type Manifest, Run } from './run.js';
import { Trainer } from './trainer.js';

/** What `train()` takes: what to train, where to write, where to go on, when to stop. */
export interface TrainCall extends TrainOptions {
  /** Run folder to make, or how to name it after the preset (`network` for one of your own). Absent: nothing is written. */
  out?: string | ((name: string) => string);
  /** Run folder to go on with, to its planned end and with its own configuration; other options change that. */
  resume?: string;
  /** Stop after this many steps. */
  steps?: number;
  /** Finish the running step, save, end. */
  signal?: AbortSignal;
}

/** A training that is ready to start: iterate it to train. */
export class Training implements AsyncIterable<TrainEvent>, AsyncDisposable {
  readonly trainer: Trainer;
  readonly data: Dataset;
  /** Absent where nothing is written. */
  readonly run: Run | undefined;
  /** Why this preset and these devices. */
  readonly why: Prepared['why'];
  /** The checkpoint gone on from. */
  readonly resumed: string | undefined;
  readonly #iterate: () => AsyncGenerator<TrainEvent, TrainResult>;
  #result: TrainResult | undefined;

  /** @internal */
  constructor(
    parts: { trainer: Trainer; data: Dataset; run: Run | undefined; why: Prepared['why']; resumed: string | undefined },
    iterate: () => AsyncGenerator<TrainEvent, TrainResult>,
  ) {
    this.trainer = parts.trainer;
    this.data = parts.data;
    this.run = parts.run;
    this.why = parts.why;
    this.resumed = parts.resumed;
    this.#iterate = iterate;
  }

  /** The outcome, once the `end` event was told. */
  get result(): TrainResult | undefined {
    return this.#result;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TrainEvent, TrainResult> {
    const events = this.#iterate();
    for await (const event of events) {
      if (event.type === 'end') this.#result = event.result;
      yield event;
    }
    if (this.#result === undefined) throw usage('the training ended without a result');
    return this.#result;
  }

  /** Finish the running step, save, end. */
  stop(): void {
    this.trainer.stop();
  }

  /** Wait after the running segment, or (`false`) go on. The result does not depend on it. */
  pause(paused = true): void {
    this.trainer.pause(paused);
  }

  /** Save a checkpoint now, go on. */
  requestSave(): void {
    this.trainer.requestSave();
  }

  /** Gives devices, data and the run folder back. */
  async dispose(): Promise<void> {
    await this.trainer.dispose();
    this.data.close();
    await this.run?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

const trainSchema = z.strictObject({
  ...trainFields,
  out: z.union([text, z.custom<(name: string) => string>((value) => typeof value === 'function')]),
  resume: text,
  steps: whole,
  signal: any,
} satisfies Shape<TrainCall>);

/**
 * Prepares a training: reads the data, plans the network, takes the devices, makes or opens the run folder. Nothing is trained until
 * the result is iterated:
 *
 * ```ts
 * await using training = await train({ data: 'photos', out: 'runs/photos' });
 * for await (const event of training) if (event.type === 'epoch') console.log(event.val);
 * ```
 */
export async function train(options: TrainCall = {}): Promise<Training> {
  checkCall(trainSchema, options, 'train');
  const { out, resume, steps, signal, ...what } = options;
  if (resume === undefined) return start(what, out, steps, signal);
  if (out !== undefined)
    throw usage(
      'both a new run folder and one to resume were given',
      'Leave --out away: a resumed run stays in its folder.',
    );
  return goOn(what, resume, steps, signal);
}

async function start(
  options: TrainOptions,
  out: TrainCall['out'],
  steps: number | undefined,
  signal: AbortSignal | undefined,
): Promise<Training> {
  await using undo = new Undo();
  const prepared = await prepare(options);
  undo.add(() => prepared.data.close());
  const trainer = await makeTrainer(prepared);
  undo.add(() => trainer.dispose());
  let run: Run | undefined;
  if (out !== undefined) {
    const folder = typeof out === 'string' ? out : out(prepared.preset ?? 'network');
    const opened = await Run.create(folder, await newManifest(basename(folder), trainer));
    undo.add(() => opened.close());
    await opened.startSession({ startedAt: new Date().toISOString(), resumed: null, changed: [] }, {}, 0);
    run = opened;
  }
  const warnings = [
    ...(prepared.adoption?.warnings ?? []),
    ...(run === undefined ? [] : await diskWarnings(run.folder, trainer.info.parameters)),
  ];
  undo.keep();
  const parts = { trainer, data: prepared.data, run, why: prepared.why, resumed: undefined };
  return new Training(parts, () => trainer.train({ warnings, ...defined({ run, steps, signal }) }));
}

async function goOn(
  options: TrainOptions,
  folder: string,
  steps: number | undefined,
  signal: AbortSignal | undefined,
): Promise<Training> {
  await using undo = new Undo();
  const run = await Run.open(folder);
  undo.add(() => run.close());
  const warnings: WarningEvent[] = [];
  const { path, metadata } = await run.checkpoints.newest((broken, error) => {
    warnings.push({
      type: 'warning',
      code: 'CHECKPOINT_BROKEN',
      message: error.message,
      hint: `It is kept as ${broken}.broken; the run goes on from the checkpoint before it.`,
      evidence: { path: broken },
    });
  });
  const prepared = await prepareResume(run.manifest, options);
  const { data, changed } = prepared;
  undo.add(() => data.close());
  if (metadata.data.fingerprint !== data.info.fingerprint) warnings.push(dataChanged(metadata, data));
  const trainer = await makeTrainer(prepared);
  undo.add(() => trainer.dispose());
  await trainer.load(path);
  warnings.push(...(await diskWarnings(run.folder, trainer.info.parameters)));
  await run.startSession(
    { startedAt: new Date().toISOString(), resumed: path, changed },
    { config: trainer.config, data: describeData(data), environment: await environment() },
    trainer.cursor.epoch,
    trainer.cursor.step,
  );
  undo.keep();
  const resumed = { path, changed };
  return new Training({ trainer, data, run, why: prepared.why, resumed: path }, () =>
    trainer.train({ run, resumed, warnings, ...defined({ steps, signal }) }),
  );
}

/** @internal */
export async function makeTrainer(prepared: Prepared): Promise<Trainer> {
  const { network, recipe, data, devices, threads, seed, precision, notices, saveEvery, tensorboard } = prepared;
  const { preset, init, adoption } = prepared;
  const trainer = await Trainer.create({
    network,
    recipe,
    data,
    devices,
    seed,
    precision,
    notices,
    tensorboard,
    ...defined({ threads, saveEvery, preset, init }),
  });
  try {
    if (adoption !== undefined) await trainer.adopt(adoption);
    return trainer;
  } catch (error) {
    await trainer.dispose();
    throw error;
  }
}

/** Without the fields that are `undefined`. */
function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as never;
}

/** @internal */
export function describeData(data: Dataset): Manifest['data'] {
  const { kind, source, classes, train: images, val, imageSize, split, fingerprint, skipped, quarantined } = data.info;
  return { kind, source, classes, train: images, val, imageSize, split, fingerprint, skipped, quarantined };
}

/** @internal */
export async function newManifest(name: string, trainer: Trainer): Promise<Manifest> {
  return {
    format: 'alexnode-run',
    version: 1,
    name,
    createdAt: new Date().toISOString(),
    config: trainer.config,
    data: describeData(trainer.data),
    network: { parameters: trainer.info.parameters, macs: trainer.info.macs },
    environment: await environment(),
    sessions: [],
    result: null,
  };
}

function dataChanged(metadata: CheckpointMetadata, data: Dataset): WarningEvent {
  const { train: images, val } = data.info;
  return {
    type: 'warning',
    code: 'DATA_CHANGED',
    message: `the images are not those the run was trained on (then ${metadata.data.train} + ${metadata.data.val}, now ${images} + ${val})`,
    hint: 'The run goes on with the images of now; it is no longer the run that it would have been.',
    evidence: { before: metadata.data.fingerprint, now: data.info.fingerprint },
  };
}

/** Weights and momentum, in four bytes each. */
const CHECKPOINT_BYTES_PER_PARAMETER = 8;
/** @internal Checkpoints on the disk at once: the three newest, the best, and the one that is being written. */
export const MOST_CHECKPOINTS = 5;

async function diskWarnings(folder: string, parameters: number): Promise<WarningEvent[]> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  const needed = parameters * CHECKPOINT_BYTES_PER_PARAMETER * MOST_CHECKPOINTS;
  if (free >= needed) return [];
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  return [
    {
      type: 'warning',
      code: 'DISK_LOW',
      message: `${folder}: the checkpoints of this run take up to ${megabytes(needed)}, ${megabytes(free)} are free`,
      hint: 'Free some space, or choose a folder on another disk with --out.',
      evidence: { neededBytes: needed, freeBytes: free },
    },
  ];
}

/** Undoes what was done so far, last first, unless everything went well. */
class Undo implements AsyncDisposable {
  #steps: (() => void | Promise<void>)[] = [];

  add(step: () => void | Promise<void>): void {
    this.#steps.push(step);
  }

  keep(): void {
    this.#steps = [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const step of this.#steps.reverse()) await step();
  }
}
