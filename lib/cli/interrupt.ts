/** Ctrl-C of commands that have nothing to save: the first one ends them well, with exit code 130; the second at once. */
import { EXIT } from './exit.js';

/** Aborts its signal at the first SIGINT or SIGTERM, until it is disposed. */
export class Interrupt implements Disposable {
  readonly #controller = new AbortController();
  readonly #onSignal = () => {
    if (this.#controller.signal.aborted) process.exit(EXIT.interrupted);
    this.#controller.abort();
  };

  constructor() {
    process.on('SIGINT', this.#onSignal);
    process.on('SIGTERM', this.#onSignal);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#onSignal);
    process.off('SIGTERM', this.#onSignal);
  }
}
