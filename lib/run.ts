/** A run folder: what was asked for, what happened, what came of it. */
import { type FileHandle, open, readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { Checkpoints } from './checkpoint.js';
import type { DatasetInfo } from './data.js';
import type { Environment } from './environment.js';
import { AlexnodeError, reason, usage } from './errors.js';
import type { Change, EpochEvent, TrainEvent, TrainResult } from './events.js';
import { makeFolder, readIfThere, TEMPORARY, writeAtomic } from './files.js';
import { type Lock, takeLock } from './lock.js';
import { metricsRows, metricsText } from './metrics.js';
import type { RunConfig } from './settle.js';
import { EventFile } from './tensorboard.js';

/** One start of a trainer in a run. */
export interface Session {
  startedAt: string;
  /** The checkpoint that it went on from. */
  resumed: string | null;
  /** What it changed in the configuration. */
  changed: Change[];
}

/** `run.json`. */
export interface Manifest {
  format: 'alexnode-run';
  version: 1;
  name: string;
  createdAt: string;
  config: RunConfig;
  data: Omit<DatasetInfo, 'perClass' | 'classWeights' | 'keptTogether' | 'takenApart' | 'mean' | 'seconds'>;
  network: { parameters: number; macs: number };
  environment: Environment;
  sessions: Session[];
  /** `null` while the run is going on, or where it was killed. */
  result: TrainResult | null;
}

/** How often step events are logged; the caller gets all of them. A run of days would otherwise fill the disk with them. */
const STEP_LOG_MS = 5_000;

/** An open run folder, locked against other trainers. */
export class Run implements AsyncDisposable {
  readonly folder: string;
  readonly checkpoints: Checkpoints;
  readonly #lock: Lock;
  #manifest: Manifest;
  #rows: EpochEvent[] = [];
  #log: FileHandle | undefined;
  #tensorboard: EventFile | undefined;
  #lastStepLog = 0;

  private constructor(folder: string, manifest: Manifest, lock: Lock) {
    this.folder = folder;
    this.checkpoints = new Checkpoints(join(folder, 'checkpoints'));
    this.#manifest = manifest;
    this.#lock = lock;
  }

  /** Makes a new run in `folder`, which must not hold one. ERR_USAGE where it does, or where another trainer has it. */
  static async create(folder: string, manifest: Manifest): Promise<Run> {
    const path = resolve(folder);
    await makeFolder(path, `${folder}: the run folder cannot be made`);
    const lock = await takeLock(join(path, 'lock'), folder);
    try {
      if ((await readIfThere(join(path, 'run.json'))) !== undefined) {
        throw usage(
          `${folder}: there is a run in it already`,
          `Continue it with --resume ${folder}, or choose another folder with --out.`,
        );
      }
      const run = new Run(path, manifest, lock);
      await run.#begin();
      return run;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Opens the run in `folder` to go on with it. ERR_CHECKPOINT where there is none. */
  static async open(folder: string): Promise<Run> {
    const path = resolve(folder);
    // Read before the lock is taken: a mistyped name must not leave a lock file somewhere.
    await readManifest(folder);
    const lock = await takeLock(join(path, 'lock'), folder);
    try {
      const run = new Run(path, await readManifest(folder), lock);
      await run.#begin();
      return run;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** What `run.json` says. */
  get manifest(): Readonly<Manifest> {
    return this.#manifest;
  }

  /** The epochs so far, oldest first. */
  get rows(): readonly EpochEvent[] {
    return this.#rows;
  }

  async #begin(): Promise<void> {
    for (const name of await readdir(this.folder)) {
      // The lock's own temporary files belong to trainers which are starting right now.
      if (name.endsWith(TEMPORARY) && !name.startsWith('lock')) await rm(join(this.folder, name), { force: true });
    }
    await this.checkpoints.prepare();
    const csv = await readIfThere(join(this.folder, 'metrics.csv'));
    this.#rows = metricsRows(csv ?? '');
    this.#log = await open(join(this.folder, 'events.ndjson'), 'a+');
    const { size } = await this.#log.stat();
    // A killed run may have left half a line.
    if (size > 0 && (await this.#log.read(Buffer.alloc(1), 0, 1, size - 1)).buffer[0] !== 0x0a) {
      await this.#log.appendFile('\n');
    }
  }

  /**
   * Writes `run.json` for a session that starts with `epochs` epochs and `step` steps done. Rows of epochs which the checkpoint does not have (the
   * run was killed after it had noted them) are dropped: they come again.
   */
  async startSession(session: Session, changes: Partial<Manifest>, epochs: number, step = 0): Promise<void> {
    this.#manifest = {
      ...this.#manifest,
      ...changes,
      sessions: [...this.#manifest.sessions, session],
      result: null,
    };
    if (this.#manifest.config?.tensorboard === true) {
      this.#tensorboard = await EventFile.create(join(this.folder, 'tensorboard'), step);
    }
    this.#rows = this.#rows.filter((row) => row.epoch <= epochs);
    await this.#writeRows();
    await this.#writeManifest();
  }

  /** Notes an event: a line of `events.ndjson`, for an epoch a row of `metrics.csv`, for the end the result in `run.json`. */
  async record(event: TrainEvent): Promise<void> {
    if (event.type === 'step') {
      const now = performance.now();
      if (this.#lastStepLog !== 0 && now - this.#lastStepLog < STEP_LOG_MS) return;
      this.#lastStepLog = now;
    }
    await this.#append(`${JSON.stringify({ time: new Date().toISOString(), ...event })}\n`);
    await this.#tensorboard?.record(event);
    if (event.type === 'epoch') {
      this.#rows.push(event);
      await this.#writeRows();
    } else if (event.type === 'end') {
      this.#manifest = { ...this.#manifest, result: event.result };
      await this.#writeManifest();
    }
  }

  async #append(line: string): Promise<void> {
    try {
      await this.#log?.appendFile(line);
    } catch (error) {
      const path = join(this.folder, 'events.ndjson');
      throw new AlexnodeError('ERR_DATA', `${path}: cannot be written: ${reason(error)}`, { cause: error });
    }
  }

  async #writeRows(): Promise<void> {
    await writeAtomic(join(this.folder, 'metrics.csv'), metricsText(this.#rows));
  }

  async #writeManifest(): Promise<void> {
    await writeAtomic(join(this.folder, 'run.json'), `${JSON.stringify(this.#manifest, null, 2)}\n`);
  }

  /** Closes the log and gives the folder back. Does nothing the second time. */
  async close(): Promise<void> {
    await this.#log?.close();
    this.#log = undefined;
    await this.#tensorboard?.close();
    this.#tensorboard = undefined;
    await this.#lock.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** `run.json` of a run folder. ERR_CHECKPOINT where the folder holds no run. */
export async function readManifest(folder: string): Promise<Manifest> {
  const path = join(resolve(folder), 'run.json');
  let text: string | undefined;
  try {
    text = await readIfThere(path);
  } catch (error) {
    throw new AlexnodeError('ERR_CHECKPOINT', `${path}: cannot be read: ${reason(error)}`, { cause: error });
  }
  if (text === undefined) {
    throw new AlexnodeError('ERR_CHECKPOINT', `${folder}: there is no run in it (no run.json)`, {
      hint: 'Check the path; a run folder is what `alexnode train` names at its start.',
    });
  }
  try {
    const manifest = JSON.parse(text) as Manifest;
    if (manifest.format === 'alexnode-run' && manifest.version === 1) return manifest;
  } catch (error) {
    throw new AlexnodeError('ERR_CHECKPOINT', `${path}: not readable: ${reason(error)}`, { cause: error });
  }
  throw new AlexnodeError('ERR_CHECKPOINT', `${path}: not a run of this version of alexnode`);
}
