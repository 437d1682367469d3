/** `report()`: everything that a run has to show, as one page that needs nothing but itself, with pictures and tables beside it. */

import { existsSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { check, modelSchema } from '../config.js';
import { type Dataset, namesOf } from '../data.js';
import { labelSuspects, suspects } from '../diagnose.js';
import type { Judgement } from '../engine.js';
import { fromNative } from '../errors.js';
import type { WarningEvent } from '../events.js';
import { writeAtomic } from '../files.js';
import { csv } from '../metrics.js';
import type { Model, ModelOptions } from '../model.js';
import { describeNetwork } from '../network.js';
import { any, type Shape, text, whole } from '../options.js';
import { readManifest } from '../run.js';
import { Together } from '../together.js';
import { judgedView, neighbourhoods } from './gather.js';
import { readHistory } from './history.js';
import { judgementOf, mistakes } from './judged.js';
import { renderPage } from './page.js';
import { confusionPng, dataUri, sheetPng } from './sheets.js';
import type { View } from './view.js';

/** Of what to write a report. */
export interface ReportCall extends ModelOptions {
  /** The run folder. The report of its best checkpoint, or the newest where none was validated. */
  run: string;
  /** Default: the data that it was trained on. */
  data?: string;
  onBadImage?: 'error' | 'skip';
  /** Validation images that are evaluated, and training images that are searched for neighbours, at most; default 10,000. 0: no images are looked at. */
  limit?: number;
  signal?: AbortSignal;
}

/** What was written. */
export interface Report {
  /** Of `report.html`. */
  path: string;
  /** All files, `report.html` first. */
  files: string[];
  /** What the evaluation found that the training had not. */
  warnings: WarningEvent[];
  /** Parts that are missing, and why. */
  missing: string[];
}

/** Images that are looked at where nothing else is said. */
const MOST_IMAGES = 10_000;
const MOST_MISTAKES = 1000;

const reportSchema = z.strictObject({
  ...modelSchema.shape,
  run: z.string().min(1),
  data: text,
  onBadImage: z.enum(['error', 'skip']).optional(),
  limit: whole,
  signal: any,
} satisfies Shape<ReportCall>);

/**
 * Writes `report.html` into a run folder, and beside it `confusion.png`, `mistakes.png`, `nearest.png`, `classes.csv`, `confusion.csv` and `mistakes.csv`. Where images or weights
 * cannot be had, the report is written without the parts that need them, and says so. ERR_CHECKPOINT where there is no run, ERR_ABORTED where `signal` is aborted.
 */
export async function report(options: ReportCall): Promise<Report> {
  check(reportSchema, options, 'report');
  const folder = resolve(options.run);
  const manifest = await readManifest(options.run);
  const history = await readHistory(folder);
  const { network, recipe } = manifest.config;
  const view: View = {
    title: `${manifest.name}: ${network.name}`,
    manifest,
    history,
    layers: describeNetwork(network, { batch: recipe.batch, devices: ['cpu'] }).layers,
    warnings: [...history.warnings],
    ...(await filterPictures(folder)),
    judged: undefined,
    neighbours: undefined,
    data: undefined,
    missing: [],
  };
  const extra = new Files(folder);
  const limit = options.limit ?? MOST_IMAGES;
  if (limit === 0) view.missing.push('what needs images (`alexnode report` looks at them)');
  else {
    try {
      await judge(view, extra, folder, { ...options, limit });
    } catch (error) {
      const { code, message } = fromNative(error);
      if (code === 'ERR_ABORTED') throw error;
      view.missing.push(`what needs the checkpoint and the images (${message})`);
    }
  }
  await extra.write('report.html', await renderPage(view), true);
  return {
    path: join(folder, 'report.html'),
    files: extra.paths,
    warnings: view.warnings.slice(history.warnings.length),
    missing: view.missing,
  };
}

/** What was written beside the report. */
class Files {
  readonly paths: string[] = [];
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async write(name: string, content: string | Uint8Array, first = false): Promise<void> {
    const path = join(this.#folder, name);
    await writeAtomic(path, content);
    if (first) this.paths.unshift(path);
    else this.paths.push(path);
  }

  /** What an earlier report left and this one does not have. */
  async remove(name: string): Promise<void> {
    await rm(join(this.#folder, name), { force: true });
  }
}

async function judge(view: View, files: Files, folder: string, options: ReportCall & { limit: number }): Promise<void> {
  const { limit, signal } = options;
  const { run: _, limit: __, ...rest } = options;
  await using together = await Together.open([folder], rest);
  const model = together.models[0] as Model;
  const data = together.dataOf(model);
  view.data = data.info;
  if (data.info.val === 0) {
    view.missing.push('what needs validation images (there are none)');
    return;
  }
  const call = { ...rest, split: 'val', ...(limit < data.info.val ? { limit } : {}) } as const;
  const judged = await judgementOf(together.judge(call), data.classes.length);
  const what = `${basename(model.checkpoint)} (step ${model.metadata.cursor.step})`;
  const { view: shown, tiles } = await judgedView(data, judged, what);
  view.judged = shown;
  await files.write('confusion.png', confusionPng(shown.summary.confusion, data.classes.length));
  await tables(files, data, judged, shown.summary.confusion, shown.summary.classes);
  if (tiles.length > 0) await files.write('mistakes.png', sheetPng(chunks(tiles, 8)));
  else await files.remove('mistakes.png');
  addSuspects(view, data, judged);
  const near = await neighbourhoods(model, data, judged, limit, signal);
  view.neighbours = { layer: model.hiddenLayer, rows: near.rows, among: near.among, what };
  await files.write('nearest.png', sheetPng(near.tiles, { first: true }));
}

function chunks<T>(items: T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}

/** Labels that look wrong, as a training finds them at its end; in place of what it found. */
function addSuspects(view: View, data: Dataset, judged: Judgement): void {
  const found = suspects(judged);
  const names = namesOf(
    data,
    'val',
    Uint32Array.from(found, ({ id }) => id),
  );
  const labels = labelSuspects(found, names, data.classes, judged, data.info.kind);
  const known = view.warnings.some(({ code }) => code === 'LABEL_SUSPECT');
  if (labels !== undefined && !known) view.warnings.push(labels);
}

async function tables(
  files: Files,
  data: Dataset,
  judged: Judgement,
  confusion: Uint32Array,
  classes: NonNullable<View['judged']>['summary']['classes'],
): Promise<void> {
  const part = (name: string, value: (typeof classes)[number]['recall']) => ({
    [name]: value?.share,
    [`${name}Low`]: value?.interval[0],
    [`${name}High`]: value?.interval[1],
  });
  const rows = classes.map(({ label, images, right, guessed, recall, precision }) => ({
    class: label,
    images,
    right,
    guessed,
    ...part('recall', recall),
    ...part('precision', precision),
  }));
  const shares = (name: string) => [name, `${name}Low`, `${name}High`];
  await files.write(
    'classes.csv',
    csv(rows, ['class', 'images', 'right', 'guessed', ...shares('recall'), ...shares('precision')]),
  );
  const n = data.classes.length;
  const pairs = Array.from(confusion, (images, index) => ({
    class: data.classes[Math.floor(index / n)],
    guess: data.classes[index % n],
    images,
  })).filter(({ images }) => images > 0);
  await files.write('confusion.csv', csv(pairs, ['class', 'guess', 'images']));
  const wrong = mistakes(judged, MOST_MISTAKES);
  const names = namesOf(
    data,
    'val',
    Uint32Array.from(wrong, (index) => judged.ids[index] ?? 0),
  );
  const list = wrong.map((index, place) => ({
    path: names[place],
    class: data.classes[judged.labels[index] ?? 0],
    guess: data.classes[judged.classes[index * judged.top] ?? 0],
    probability: judged.probabilities[index * judged.top],
    classProbability: judged.own[index],
  }));
  await files.write('mistakes.csv', csv(list, ['path', 'class', 'guess', 'probability', 'classProbability']));
}

/** @internal The drawings of the first layer that a run has. */
export async function filterPictures(folder: string): Promise<Pick<View, 'filters' | 'grown'>> {
  const picture = async (path: string) => dataUri(await readFile(path));
  const now = join(folder, 'filters.png');
  const names = await readdir(join(folder, 'filters')).catch(() => []);
  const epochs = names
    .flatMap((name) => /^epoch-(\d+)\.png$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
  const grown: View['grown'] = [];
  for (const epoch of epochs)
    grown.push({ epoch, picture: await picture(join(folder, 'filters', `epoch-${epoch}.png`)) });
  return { filters: existsSync(now) ? await picture(now) : undefined, grown };
}
