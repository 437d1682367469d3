/** What the live page sees of the last hidden layer: the nearest training images, by the weights of a checkpoint that was just saved. */
import type { Judgement } from '../engine.js';
import { fromNative } from '../errors.js';
import type { CheckpointEvent } from '../events.js';
import { loadModelAs } from '../model.js';
import { neighbourhoods } from '../report/gather.js';
import type { View } from '../report/view.js';
import type { Training } from '../train.js';

/** Training images that are searched, at most: the search runs beside the training, on one thread of the processor. */
const AMONG = 1000;
/** A search that nobody asked for waits until the training had this many times as long as the last one took. */
const REST = 9;
/** Images at a time. */
const BATCH = 32;

/** Searches one checkpoint at a time. It reads files and images, and nothing of the training: no number of it changes. */
export class Look {
  readonly #training: Training;
  readonly #found: (neighbours: View['neighbours'], missing: string | undefined) => void;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #next: { event: CheckpointEvent; judgement: Judgement } | undefined;
  /** `performance.now()` from which on the next one may begin unasked. */
  #due = 0;

  /** `found` is told what came of each search, or why nothing did. */
  constructor(training: Training, found: (neighbours: View['neighbours'], missing: string | undefined) => void) {
    this.#training = training;
    this.#found = found;
  }

  /** A checkpoint is there: it is looked at where somebody asked for it, or where the last look is long enough ago. */
  checkpoint(event: CheckpointEvent): void {
    const asked = event.why === 'request';
    const { judgement } = this.#training.trainer;
    if (judgement === undefined) {
      // No image is known by its class.
      if (asked) this.#found(undefined, 'the nearest training images, which need a validated epoch');
      return;
    }
    if (!asked && (this.#running !== undefined || performance.now() < this.#due)) return;
    this.#next = { event, judgement };
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    for (let next = this.#next; next !== undefined; next = this.#next) {
      this.#next = undefined;
      const start = performance.now();
      await this.#search(next.event, next.judgement).catch((error: unknown) => {
        const { message } = fromNative(error);
        if (!this.#stop.signal.aborted) this.#found(undefined, `the nearest training images (${message})`);
      });
      const end = performance.now();
      this.#due = end + REST * (end - start);
    }
    this.#running = undefined;
  }

  async #search({ path, step }: CheckpointEvent, judgement: Judgement): Promise<void> {
    const { signal } = this.#stop;
    await using model = await loadModelAs(path, { devices: ['cpu'], precision: 'fp32', threads: 1, batch: BATCH });
    const { rows, among } = await neighbourhoods(model, this.#training.data, judgement, AMONG, signal);
    if (!signal.aborted) {
      this.#found({ layer: model.hiddenLayer, rows, among, what: `the weights after step ${step}` }, undefined);
    }
  }

  /** Ends the search that is running. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#next = undefined;
    await this.#running;
  }
}
