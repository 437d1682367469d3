/** A bar with the time that is left, on a terminal; elsewhere a line now and then. */
import { SingleBar } from 'cli-progress';

import { count, percent, time } from './format.js';

/** Seconds between two lines where there is no terminal. */
const LINE_SECONDS = 10;

/** Shows how much of `total` is done; goes away when it is disposed. */
export class Bar implements Disposable {
  readonly #bar: SingleBar | undefined;
  readonly #what: string;
  readonly #total: number;
  readonly #before: number;
  readonly #begin = performance.now();
  #last = performance.now();

  /** `before`: what was done earlier, and says nothing about the speed. */
  constructor(what: string, total: number, before = 0) {
    this.#what = what;
    this.#total = total;
    this.#before = before;
    if (!process.stderr.isTTY) return;
    this.#bar = new SingleBar({
      format: `{bar} {percentage} %  {value} of {total} ${what}, {left} left`,
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
    });
    this.#bar.start(total, before, { left: '...' });
  }

  update(done: number): void {
    const now = performance.now();
    const seconds = (now - this.#begin) / 1000;
    const left = time(((this.#total - done) * seconds) / Math.max(done - this.#before, 1e-9));
    this.#bar?.update(done, { left });
    if (this.#bar !== undefined || now - this.#last < LINE_SECONDS * 1000) return;
    this.#last = now;
    const share = percent(done / Math.max(this.#total, 1));
    process.stderr.write(`${share}: ${count(done)} of ${count(this.#total)} ${this.#what}, ${left} left\n`);
  }

  [Symbol.dispose](): void {
    this.#bar?.stop();
  }
}
