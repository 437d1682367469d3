/** Watches a training for the two ways in which it silently goes nowhere: a loss that stays at chance, and one that explodes. */
import type { DatasetInfo } from './data.js';
import { AlexnodeError } from './errors.js';
import type { WarningEvent } from './events.js';
import type { Recipe } from './recipe.js';

/** How near the loss must be to that of guessing, and over how many of the last steps it is averaged. */
const NEARNESS = 0.01;
const WINDOW = 500;
/** Chance may rule for this long before it is worth a warning: the longer of two epochs and 3,000 steps, or a training that is shorter. */
const EPOCHS = 2;
const STEPS = 3_000;

/** The watchdog of one training. */
export class Guard {
  readonly #chance: number;
  readonly #patience: number;
  readonly #recipe: Recipe;
  #recent: { steps: number; loss: number }[] = [];
  #done: boolean;

  /** `batches` per epoch; `done`: the warning was given in an earlier session of the run. */
  constructor(options: { classes: number; batches: number; recipe: Recipe; done?: boolean }) {
    this.#chance = Math.log(options.classes);
    const { batches, recipe } = options;
    this.#patience = Math.min(Math.max(EPOCHS * batches, STEPS), recipe.epochs * batches);
    this.#recipe = options.recipe;
    this.#done = (options.done ?? false) || options.classes < 2;
  }

  /** Takes the mean loss of the last `steps` steps, the run being at `step`; the warning comes at most once. */
  observe(step: number, steps: number, loss: number): WarningEvent | undefined {
    if (this.#done || steps === 0) return undefined;
    this.#recent.push({ steps, loss });
    let seen = this.#recent.reduce((sum, part) => sum + part.steps, 0);
    while (this.#recent.length > 1 && seen - (this.#recent[0]?.steps ?? 0) >= WINDOW) {
      seen -= this.#recent.shift()?.steps ?? 0;
    }
    if (step < this.#patience || seen < WINDOW) return undefined;
    this.#done = true;
    const mean = this.#recent.reduce((sum, part) => sum + part.loss * part.steps, 0) / seen;
    if (Math.abs(mean - this.#chance) > NEARNESS * this.#chance) return undefined;
    return this.#atChance(step, mean);
  }

  #atChance(step: number, mean: number): WarningEvent {
    return {
      type: 'warning',
      code: 'LOSS_AT_CHANCE',
      evidence: { steps: step, loss: mean, chance: this.#chance, lr: this.#recipe.lr },
      message:
        `after ${step} steps the loss is ${mean.toFixed(4)}, and guessing gives ln(classes) = ${this.#chance.toFixed(4)}: ` +
        'the network has not begun to learn',
      hint:
        'Usual causes: initial weights too small for the depth (the demo and small presets use He initialisation), biases ' +
        `of 0 under N(0, 0.01) weights, a learning rate that is too high or too low (it is ${this.#recipe.lr}), labels that do not ` +
        'belong to their images. Try --set lr= with a tenth or three times of it, or a preset made for this amount of data.',
    };
  }
}

/**
 * A divergence with the remedy in it: the addon knows the layer, this knows the run. `folder`: the run's, where it has a checkpoint to go on from.
 */
export function diverged(error: AlexnodeError, recipe: Recipe, folder: string | undefined): AlexnodeError {
  const lower = Number((recipe.lr / 10).toPrecision(2));
  const resume =
    folder === undefined
      ? `Train again with a lower learning rate, for example --lr ${lower}.`
      : `The last checkpoint is intact: resume it with a lower rate, --resume ${folder} --set lr=${lower}.`;
  return new AlexnodeError('ERR_DIVERGED', error.message, {
    hint: error.hint === undefined ? resume : `${error.hint} ${resume}`,
    cause: error,
  });
}

/** What the scan of the data found that the user should know. */
export function dataWarnings(info: DatasetInfo): WarningEvent[] {
  const warnings: WarningEvent[] = [];
  const [first] = info.skipped;
  if (first !== undefined) {
    const { length } = info.skipped;
    const left = length === 1 ? 'undecodable image is' : 'undecodable images are';
    warnings.push({
      type: 'warning',
      code: 'IMAGES_SKIPPED',
      message: `${length} ${left} left out, the first: ${first.path} (${first.reason})`,
      evidence: { images: length, first: first.path },
      hint: 'The files are untouched; run.json lists all of them (data.skipped). --on-bad-image error stops at the first.',
    });
  }
  const blind = info.classes.filter((_, index) => info.val > 0 && info.perClass.val[index] === 0);
  if (blind.length > 0) {
    warnings.push({
      type: 'warning',
      code: 'CLASS_WITHOUT_VAL',
      message: `without validation images: ${blind.slice(0, 5).join(', ')}${blind.length > 5 ? `, ... (${blind.length} classes)` : ''}`,
      evidence: { classes: blind },
      hint: 'The validation error says nothing about these classes: add images to them, or give the data a val folder.',
    });
  }
  return warnings;
}
