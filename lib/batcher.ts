/** Requests for single images, computed together: whatever waits when the device gets free is the next batch. */
import { AlexnodeError, usage } from './errors.js';
import type { ImageInput, Images } from './images.js';

/** What is asked of an image. */
export type Question = { crops: 1 | 10 } | { layer: string };

/** How images become answers. The next batch is prepared while one is computed. */
export interface Stages {
  prepare(images: ImageInput[]): Promise<Images>;
  /** A row of numbers per image. */
  compute(images: Images, question: Question): Promise<Float32Array>;
}

/** An answer that is coming. */
export interface Asked {
  /** The image's row. Rejects with ERR_DATA where the image cannot be used. */
  answer: Promise<Float32Array>;
  /** The answer is not wanted any more: it rejects with ERR_ABORTED. */
  cancel(): void;
}

interface Request {
  image: ImageInput;
  question: Question;
  /** Requests with the same key are computed together. */
  key: string;
  resolve(row: Float32Array): void;
  reject(error: unknown): void;
}

/** Collects requests into batches. */
export class Batcher {
  /** Images that were answered, and in how many batches. */
  readonly counters = { images: 0, batches: 0 };
  readonly #stages: Stages;
  readonly #batch: number;
  #waiting: Request[] = [];
  #running = false;
  #closed = false;
  #busy = false;
  #computing: Promise<void> = Promise.resolve();
  #filled: (() => void) | undefined;

  constructor(stages: Stages, batch: number) {
    this.#stages = stages;
    this.#batch = batch;
  }

  /** Puts a question about an image. */
  ask(image: ImageInput, question: Question): Asked {
    const { promise, resolve, reject } = deferred<Float32Array>();
    const request: Request = { image, question, key: JSON.stringify(question), resolve, reject };
    // Whoever stops listening has no use for the error.
    promise.catch(() => undefined);
    const cancel = () => {
      this.#waiting = this.#waiting.filter((other) => other !== request);
      reject(new AlexnodeError('ERR_ABORTED', 'the prediction was stopped'));
    };
    if (this.#closed) {
      reject(usage('the model has been disposed', 'Load it again.'));
      return { answer: promise, cancel };
    }
    this.#waiting.push(request);
    if (this.#waiting.length >= this.#batch) this.#filled?.();
    if (!this.#running) {
      this.#running = true;
      // Not at once: what else is asked in this turn of the event loop comes along.
      setImmediate(() => void this.#run());
    }
    return { answer: promise, cancel };
  }

  /** Refuses what waits and what is yet to come. */
  close(): void {
    this.#closed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(usage('the model has been disposed', 'Load it again.'));
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      if (this.#busy && this.#waiting.length < this.#batch) {
        // Others may join until the device gets free; a full batch is prepared meanwhile.
        const { promise, resolve } = deferred<void>();
        this.#filled = resolve;
        await Promise.race([this.#computing, promise]);
        this.#filled = undefined;
        if (this.#waiting.length === 0) break;
      }
      const group = this.#take();
      try {
        const images = await this.#stages.prepare(group.map(({ image }) => image));
        await this.#computing;
        this.#busy = true;
        this.#computing = this.#compute(group, images).finally(() => {
          this.#busy = false;
        });
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    this.#running = false;
  }

  /** The first that waits, and those that ask the same. */
  #take(): Request[] {
    const key = this.#waiting[0]?.key;
    const group = this.#waiting.filter((request) => request.key === key).slice(0, this.#batch);
    this.#waiting = this.#waiting.filter((request) => !group.includes(request));
    return group;
  }

  /** Settles every request of `group`; never rejects. */
  async #compute(group: Request[], images: Images): Promise<void> {
    try {
      const { failures } = images;
      const question = group[0]?.question ?? { crops: 1 };
      const rows = await this.#stages.compute(images, question);
      this.counters.batches += 1;
      const width = rows.length / group.length;
      for (const [index, { image, resolve, reject }] of group.entries()) {
        const failure = failures[index];
        if (failure !== null && failure !== undefined) {
          reject(unusable(image, failure));
          continue;
        }
        this.counters.images += 1;
        resolve(rows.slice(index * width, (index + 1) * width));
      }
    } catch (error) {
      for (const { reject } of group) reject(error);
    }
  }
}

function unusable(image: ImageInput, reason: string): AlexnodeError {
  const name = typeof image === 'string' ? image : 'the image';
  return new AlexnodeError('ERR_DATA', `${name}: ${reason}`, {
    hint: reason.startsWith('cannot be read')
      ? 'Check the path, and whether you may read it.'
      : 'Repair or convert it; the file was not changed.',
  });
}

/** A promise and what settles it. */
function deferred<T>(): { promise: Promise<T>; resolve(value: T): void; reject(error: unknown): void } {
  let settle: { resolve(value: T): void; reject(error: unknown): void } | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  if (settle === undefined) throw new Error('a promise runs its executor at once');
  return { promise, ...settle };
}
