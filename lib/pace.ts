/** How long a segment should be, and how long the rest will take. Neither changes a bit of the result. */

/** Long enough that the border costs nothing, short enough for a lively progress bar and a quick Ctrl-C. */
const SEGMENT_SECONDS = 0.5;
/** Growth per segment: a first step that was slow or fast by accident must not decide much. */
const GROWTH = 4;
/** Weight of the newest segment in the running mean of a step's time. */
const FRESH = 0.3;

/** Measures one session of training. */
export class Pace {
  #steps = 1;
  #secondsPerStep: number | undefined;
  #valSeconds: number | undefined;

  /** Steps of the next segment, if nothing else limits it. */
  get steps(): number {
    return this.#steps;
  }

  /** Takes a finished segment. */
  observe(steps: number, seconds: number): void {
    if (steps === 0) return;
    const now = Math.max(seconds / steps, 1e-6);
    this.#secondsPerStep = this.#secondsPerStep === undefined ? now : this.#secondsPerStep * (1 - FRESH) + now * FRESH;
    const wanted = Math.round(SEGMENT_SECONDS / this.#secondsPerStep);
    this.#steps = Math.max(1, Math.min(wanted, this.#steps * GROWTH));
  }

  /** Takes a finished validation. */
  observeValidation(seconds: number): void {
    this.#valSeconds = seconds;
  }

  /**
   * Seconds for `steps` more steps of `batch` images and `validations` of `val` images. Before the first validation it is taken to
   * cost a third of training on as many images.
   */
  eta(steps: number, validations: number, batch: number, val: number): number {
    const step = this.#secondsPerStep ?? 0;
    const validation = this.#valSeconds ?? (step * val) / batch / 3;
    return steps * step + validations * validation;
  }
}
