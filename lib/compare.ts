/** `compare()`: two networks on the same images, and whether what they differ by is more than chance. */
import { check, compareCallSchema } from './config.js';
import { namesOf } from './data.js';
import { usage } from './errors.js';
import { described } from './evaluate.js';
import type { Guess } from './model.js';
import type { Precision } from './precision.js';
import { credit, largest, mcnemar, wilson } from './statistics.js';
import { type MeasureOptions, Together } from './together.js';

/** What to compare, and on what. */
export interface CompareCall extends MeasureOptions {
  /** Two run folders or checkpoint files. */
  models: [string, string];
}

/** One of the two networks. */
export interface ComparedModel {
  checkpoint: string;
  network: string;
  step: number;
  precision: Precision;
  top1Error: number;
  top5Error: number;
  /** Wilson's 95 % intervals of the errors, [low, high], as shares. */
  top1Interval: [number, number];
  top5Interval: [number, number];
  /** Whether it was trained on the images that this data set has now; if not, it may have been trained on some of those that it is measured on. */
  sameData: boolean;
}

/** An image on which the most probable class is not the same for both. */
export interface ChangedImage {
  /** Its file, or what it is called in a source without files. */
  path: string;
  label: string;
  /** The most probable class of each network. */
  guesses: [Guess, Guess];
  /** Whether that is the right one. */
  right: [boolean, boolean];
}

/** What a comparison found. */
export interface Comparison {
  models: [ComparedModel, ComparedModel];
  data: string;
  split: 'val' | 'train';
  crops: 1 | 10;
  samples: number;
  /** Images on which both, one alone, or neither name the right class. */
  counts: { both: number; first: number; second: number; neither: number };
  /** McNemar's exact test, two-sided: how often two networks of equal quality would differ at least this much. */
  pValue: number;
  /** Images whose most probable class differs, in the order of the data. */
  changed: ChangedImage[];
}

/**
 * Compares two networks on the same images. ERR_CHECKPOINT where one is missing or broken, ERR_DATA where the data has other classes than
 * one of them.
 */
export async function compare(options: CompareCall): Promise<Comparison> {
  const { split, crops } = check(compareCallSchema, options, 'compare');
  await using together = await Together.open(options.models, options);
  const [a, b] = together.models;
  if (a === undefined || b === undefined) throw usage('two models are compared');
  const { classes } = a;
  const counts = { both: 0, first: 0, second: 0, neither: 0 };
  const errors = together.models.map(() => [0, 0]);
  const changed: (Omit<ChangedImage, 'path'> & { id: number })[] = [];
  let samples = 0;
  for await (const { id, label, rows } of together.judge(options)) {
    samples += 1;
    const guess = (row: Float32Array | undefined): { index: number; guess: Guess } => {
      const [index = 0] = largest(row ?? [], 1);
      return { index, guess: { label: classes[index] ?? '', probability: row?.[index] ?? 0 } };
    };
    const [first, second] = [guess(rows[0]), guess(rows[1])];
    const right: [boolean, boolean] = [first.index === label, second.index === label];
    counts[right[0] ? (right[1] ? 'both' : 'first') : right[1] ? 'second' : 'neither'] += 1;
    for (const [index, row] of rows.entries()) {
      errors[index] = [1, 5].map((k, at) => (errors[index]?.[at] ?? 0) + 1 - credit(row, label, k));
    }
    if (first.index === second.index) continue;
    changed.push({ id, label: classes[label] ?? '', guesses: [first.guess, second.guess], right });
  }
  const data = together.dataOf(a);
  const paths = namesOf(
    data,
    split,
    Uint32Array.from(changed, ({ id }) => id),
  );
  const compared = (model: typeof a, index: number): ComparedModel => {
    const [top1Error = 0, top5Error = 0] = (errors[index] ?? []).map((sum) => (samples === 0 ? 0 : sum / samples));
    return {
      ...described(model),
      top1Error,
      top5Error,
      top1Interval: wilson(top1Error, samples),
      top5Interval: wilson(top5Error, samples),
      sameData: model.metadata.data.fingerprint === data.info.fingerprint,
    };
  };
  return {
    models: [compared(a, 0), compared(b, 1)],
    data: data.info.source,
    split,
    crops,
    samples,
    counts,
    pValue: mcnemar(counts.first, counts.second),
    changed: changed.map(({ id: _, ...image }, index) => ({ path: paths[index] ?? '', ...image })),
  };
}
