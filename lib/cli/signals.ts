/** Signals of a training: the first Ctrl-C ends it well, the second at once; SIGHUP saves. Only the command installs handlers. */
import { EXIT } from './exit.js';

/** `npm run` passes on a Ctrl-C which the terminal has sent already: what comes this soon after the first is the same one. */
const SAME_MS = 500;

/** What a signal can do; `undefined` before there is anything to end well. */
export interface Stoppable {
  stop(): void;
  requestSave(): void;
}

/** Installs the handlers until it is disposed. */
export class Signals implements Disposable {
  #target: Stoppable | undefined;
  #first: number | undefined;
  readonly #onStop = () => this.#stop();
  readonly #onSave = () => this.#target?.requestSave();

  constructor() {
    process.on('SIGINT', this.#onStop);
    process.on('SIGTERM', this.#onStop);
    process.on('SIGHUP', this.#onSave);
  }

  /** Whether a first signal has come. */
  get stopping(): boolean {
    return this.#first !== undefined;
  }

  /** What the first signal ends from now on. */
  set target(target: Stoppable) {
    this.#target = target;
    if (this.stopping) target.stop();
  }

  #stop(): void {
    const now = performance.now();
    if (this.#target === undefined) process.exit(EXIT.interrupted);
    if (this.#first === undefined) {
      this.#first = now;
      process.stderr.write('\nalexnode: finishing the step and saving; once more ends it now\n');
      this.#target.stop();
    } else if (now - this.#first > SAME_MS) {
      process.exit(EXIT.interrupted);
    }
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#onStop);
    process.off('SIGTERM', this.#onStop);
    process.off('SIGHUP', this.#onSave);
  }
}
