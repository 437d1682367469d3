/** What an evaluation says about classes and images: confusion, precision and recall, the pairs that are taken for each other, confident mistakes. */
import type { Judgement } from '../engine.js';
import { credit, largest, wilson } from '../statistics.js';
import type { Judged } from '../together.js';

/** A share with its 95 % interval (Wilson), 0 to 1; `null` where there is nothing that it is a share of. */
export interface Share {
  share: number;
  interval: [number, number];
}

/** A class in an evaluation. */
export interface ClassResult {
  label: string;
  /** Images of the class, those of them that were named right, and images that were taken for it. */
  images: number;
  right: number;
  guessed: number;
  /** Of its images, those that were named right. */
  recall: Share | null;
  /** Of the images that were taken for it, those that are of it. */
  precision: Share | null;
}

/** Images of one class that were taken for another one. */
export interface ConfusedPair {
  label: string;
  guess: string;
  images: number;
  /** Of all images of the class. */
  share: number;
}

/** An evaluation by classes. */
export interface ClassSummary {
  classes: ClassResult[];
  /** Images by class and guess: `confusion[label * classes + guess]`. */
  confusion: Uint32Array;
  /** The most frequent first. */
  pairs: ConfusedPair[];
}

/** Pairs that are told. */
const PAIRS = 20;

function shareOf(part: number, whole: number): Share | null {
  if (whole === 0) return null;
  const share = part / whole;
  return { share, interval: wilson(share, whole) };
}

/** Counts an evaluation by classes. */
export function summarise(judged: Judgement, labels: readonly string[]): ClassSummary {
  const n = labels.length;
  const confusion = new Uint32Array(n * n);
  for (const [index, label] of judged.labels.entries()) {
    const at = label * n + (judged.classes[index * judged.top] ?? 0);
    confusion[at] = (confusion[at] ?? 0) + 1;
  }
  const images = new Float64Array(n);
  const guessed = new Float64Array(n);
  const pairs: { label: number; guess: number; count: number }[] = [];
  for (let label = 0; label < n; label += 1) {
    for (let guess = 0; guess < n; guess += 1) {
      const count = confusion[label * n + guess] ?? 0;
      images[label] = (images[label] ?? 0) + count;
      guessed[guess] = (guessed[guess] ?? 0) + count;
      if (label !== guess && count > 0) pairs.push({ label, guess, count });
    }
  }
  pairs.sort((a, b) => b.count - a.count || a.label - b.label || a.guess - b.guess);
  return {
    confusion,
    classes: labels.map((label, index) => {
      const [all, taken, right] = [images[index] ?? 0, guessed[index] ?? 0, confusion[index * n + index] ?? 0];
      return {
        label,
        images: all,
        right,
        guessed: taken,
        recall: shareOf(right, all),
        precision: shareOf(right, taken),
      };
    }),
    pairs: pairs.slice(0, PAIRS).map(({ label, guess, count }) => ({
      label: labels[label] ?? '',
      guess: labels[guess] ?? '',
      images: count,
      share: count / (images[label] || 1),
    })),
  };
}

/** Indices of the images that were taken for something else, the most confident mistake first. */
export function mistakes(judged: Judgement, most: number): number[] {
  const wrong = Array.from(judged.labels.keys()).filter(
    (index) => judged.classes[index * judged.top] !== judged.labels[index],
  );
  const sure = (index: number) => judged.probabilities[index * judged.top] ?? 0;
  return wrong.sort((a, b) => sure(b) - sure(a) || a - b).slice(0, most);
}

/** `most` of `total` indices, evenly spread. */
export function spread(total: number, most: number): number[] {
  const count = Math.min(total, most);
  return Array.from({ length: count }, (_, index) => Math.floor(((index + 0.5) * total) / count));
}

/** Indices of `most` images of as many classes as there are, the classes evenly spread, and so the images of each. */
export function spreadByClass(labels: Int32Array, most: number): number[] {
  const byClass = new Map<number, number[]>();
  for (const [index, label] of labels.entries()) {
    const own = byClass.get(label);
    if (own === undefined) byClass.set(label, [index]);
    else own.push(index);
  }
  const classes = [...byClass].sort(([a], [b]) => a - b).map(([, own]) => own);
  const wanted = spread(classes.length, most).map((index) => classes[index] ?? []);
  const chosen: number[][] = wanted.map(() => []);
  for (let left = Math.min(most, labels.length), round = 1; left > 0; round += 1) {
    for (const [place, own] of wanted.entries()) {
      if (left === 0 || own.length < round) continue;
      chosen[place] = spread(own.length, round).map((index) => own[index] ?? 0);
      left -= 1;
    }
    if (wanted.every((own) => own.length <= round)) break;
  }
  return chosen.flat();
}

/** The same from the probabilities of one model, image by image. */
export async function judgementOf(images: AsyncIterable<Judged>, classes: number): Promise<Judgement> {
  const start = performance.now();
  const top = Math.min(5, classes);
  const lists = {
    ids: [] as number[],
    labels: [] as number[],
    own: [] as number[],
    classes: [] as number[],
    probabilities: [] as number[],
  };
  const sums = { loss: 0, top1: 0, top5: 0 };
  for await (const { id, label, rows } of images) {
    const row = rows[0] ?? new Float32Array(classes);
    const best = largest(row, top);
    lists.ids.push(id);
    lists.labels.push(label);
    lists.own.push(row[label] ?? 0);
    lists.classes.push(...best);
    lists.probabilities.push(...best.map((index) => row[index] ?? 0));
    sums.loss -= Math.log(row[label] ?? 0);
    sums.top1 += 1 - credit(row, label, 1);
    sums.top5 += 1 - credit(row, label, 5);
  }
  const samples = lists.ids.length;
  const mean = (sum: number) => (samples === 0 ? 0 : sum / samples);
  return {
    samples,
    loss: mean(sums.loss),
    top1Error: mean(sums.top1),
    top5Error: mean(sums.top5),
    seconds: (performance.now() - start) / 1000,
    top,
    ids: Uint32Array.from(lists.ids),
    labels: Int32Array.from(lists.labels),
    own: Float32Array.from(lists.own),
    classes: Int32Array.from(lists.classes),
    probabilities: Float32Array.from(lists.probabilities),
  };
}
