/** `evaluate()`: how good a checkpoint is on some data, or several are whose probabilities are averaged. */
import { check, evaluateCallSchema } from './config.js';
import type { Evaluation } from './engine.js';
import { usage } from './errors.js';
import type { Metrics } from './events.js';
import { inferenceOf, type Model } from './model.js';
import type { Precision } from './precision.js';
import { credit, wilson } from './statistics.js';
import { type MeasureOptions, stopped, Together } from './together.js';

/** What to evaluate, and on what. */
export interface EvaluateCall extends MeasureOptions {
  /**
   * A run folder (its best checkpoint, or the newest where none was validated) or a checkpoint file; or several, whose probabilities are averaged as
   * in the paper's section 5.
   */
  model: string | string[];
}

/** One of the networks that were evaluated, and what it finds alone. */
export interface EvaluatedModel extends Metrics {
  checkpoint: string;
  network: string;
  step: number;
  precision: Precision;
}

/** An evaluation with what was evaluated. Loss and errors are those of the averaged probabilities. */
export interface EvaluationReport extends Evaluation {
  models: EvaluatedModel[];
  data: string;
  split: 'val' | 'train';
  crops: 1 | 10;
  devices: string[];
  /** Wilson's 95 % intervals of the errors, [low, high], as shares. */
  top1Interval: [number, number];
  top5Interval: [number, number];
}

/** Evaluates checkpoints. ERR_CHECKPOINT where one is missing or broken, ERR_DATA where the data has other classes. */
export async function evaluate(options: EvaluateCall): Promise<EvaluationReport> {
  const paths = typeof options.model === 'string' ? [options.model] : options.model;
  const { split, crops } = check(evaluateCallSchema, { ...options, model: paths }, 'evaluate');
  await using together = await Together.open(paths, options);
  const { models } = together;
  const first = models[0];
  if (first === undefined) throw usage('no model was named');
  const { found, each } =
    models.length === 1 ? await alone(together, first, options) : await average(together, options);
  return {
    ...found,
    models: models.map((model, index) => ({ ...described(model), ...(each[index] ?? found) })),
    data: together.dataOf(first).info.source,
    split,
    crops,
    devices: [...first.devices],
    top1Interval: wilson(found.top1Error, found.samples),
    top5Interval: wilson(found.top5Error, found.samples),
  };
}

/** @internal What a report says of a model. */
export function described({ checkpoint, network, metadata, precision }: Model) {
  return { checkpoint, network: network.name, step: metadata.cursor.step, precision };
}

interface Found {
  found: Evaluation;
  each: Metrics[];
}

/** As a training validates: everything on the device. */
async function alone(together: Together, model: Model, options: EvaluateCall): Promise<Found> {
  const { split = 'val', crops = 1, limit, signal } = options;
  const cancel = () => inferenceOf(model).cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    if (signal?.aborted === true) throw stopped();
    const request = { split, crops, seed: together.seed, ...(limit === undefined ? {} : { limit }) };
    const found = await inferenceOf(model).evaluate(together.dataOf(model), request);
    const { loss, top1Error, top5Error } = found;
    return { found, each: [{ loss, top1Error, top5Error }] };
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

/** The smallest probability that a 32-bit float holds: one below it came as 0, of which the loss would be infinite. */
const LEAST = 2 ** -149;

/** Loss and errors, added up over images. */
class Sums {
  #samples = 0;
  #loss = 0;
  #hits = [0, 0];

  add(probabilities: ArrayLike<number>, label: number): void {
    this.#samples += 1;
    this.#loss -= Math.log(Math.max(LEAST, probabilities[label] ?? 0));
    this.#hits = [1, 5].map((k, index) => (this.#hits[index] ?? 0) + credit(probabilities, label, k));
  }

  get samples(): number {
    return this.#samples;
  }

  get metrics(): Metrics {
    const share = (sum: number) => (this.#samples === 0 ? 0 : sum / this.#samples);
    const [top1 = 0, top5 = 0] = this.#hits;
    return { loss: share(this.#loss), top1Error: share(this.#samples - top1), top5Error: share(this.#samples - top5) };
  }
}

async function average(together: Together, options: EvaluateCall): Promise<Found> {
  const start = performance.now();
  const all = new Sums();
  const each = together.models.map(() => new Sums());
  for await (const { label, rows } of together.judge(options)) {
    for (const [index, row] of rows.entries()) each[index]?.add(row, label);
    const mean = new Float64Array(rows[0]?.length ?? 0);
    for (const row of rows) for (const [index, p] of row.entries()) mean[index] = (mean[index] ?? 0) + p / rows.length;
    all.add(mean, label);
  }
  const seconds = (performance.now() - start) / 1000;
  return { found: { ...all.metrics, samples: all.samples, seconds }, each: each.map(({ metrics }) => metrics) };
}
