/** Event files that TensorBoard shows: numbers over steps. */
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { tensorboardRecord } from '#native';

import { AlexnodeError, native, reason } from './errors.js';
import type { Metrics, TrainEvent } from './events.js';

/** An event as the addon takes it. */
interface Note {
  step?: number;
  version?: boolean;
  restart?: boolean;
  scalars?: [string, number][];
}

/** One event file of a run; each session writes its own, and TensorBoard reads them as one. */
export class EventFile {
  readonly path: string;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  /** Makes a file in `folder` for a session that goes on at `step`: what an earlier one noted beyond it is forgotten. ERR_DATA. */
  static async create(folder: string, step: number): Promise<EventFile> {
    const seconds = Math.floor(Date.now() / 1000);
    const name = `events.out.tfevents.${String(seconds).padStart(10, '0')}.${hostname()}.${process.pid}.${step}`;
    const path = join(folder, name);
    try {
      await mkdir(folder, { recursive: true });
      const file = new EventFile(path, await open(path, 'a'));
      await file.#write({ version: true });
      if (step > 0) await file.#write({ step: step + 1, restart: true });
      return file;
    } catch (error) {
      throw unwritable(path, error);
    }
  }

  /** Notes what an event of a training has in numbers. ERR_DATA where the disk is full. */
  async record(event: TrainEvent): Promise<void> {
    const found = scalarsOf(event);
    if (found === undefined) return;
    try {
      await this.#write(found);
    } catch (error) {
      throw unwritable(this.path, error);
    }
  }

  async #write(note: Note): Promise<void> {
    const event = JSON.stringify({ wallTime: Date.now() / 1000, ...note });
    await this.#handle.appendFile(native(() => tensorboardRecord(event)));
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

function unwritable(path: string, error: unknown): AlexnodeError {
  if (error instanceof AlexnodeError) return error;
  return new AlexnodeError('ERR_DATA', `${path}: cannot be written: ${reason(error)}`, { cause: error });
}

function metrics(where: string, values: Metrics | null): [string, number][] {
  if (values === null) return [];
  const { loss, top1Error, top5Error } = values;
  return [
    [`loss/${where}`, loss],
    [`top1Error/${where}`, top1Error],
    [`top5Error/${where}`, top5Error],
  ];
}

function scalarsOf(event: TrainEvent): { step: number; scalars: [string, number][] } | undefined {
  if (event.type === 'step') {
    const { step, lr, biasLr, imagesPerSecond, waitShare } = event;
    const scalars: [string, number][] = [
      ['rate/weights', lr],
      ['rate/biases', biasLr],
      ['speed/imagesPerSecond', imagesPerSecond],
      ['speed/waitShare', waitShare],
    ];
    return { step, scalars: [...metrics('step', event), ...scalars].filter(([, value]) => Number.isFinite(value)) };
  }
  if (event.type === 'epoch') {
    return { step: event.steps, scalars: [...metrics('train', event.train), ...metrics('val', event.val)] };
  }
  return undefined;
}
