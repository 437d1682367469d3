/**
 * A report as HTML. Every text goes through the `html` template of hono, which escapes what is put into it; `raw` is used for our own style sheet and for
 * vega's drawings alone.
 */
import { html, raw } from 'hono/html';

import { type Chart, chartsSvg, type Palette } from '../charts.js';
import type { EpochEvent } from '../events.js';
import { updateRatio } from '../health.js';
import type { Share } from './judged.js';
import { STYLE } from './style.js';
import type { JudgedView, ShownImage, View } from './view.js';

/** A piece of a page. */
export type Html = ReturnType<typeof html>;

const PALETTE: Palette = {
  background: null,
  text: 'var(--fg)',
  grid: 'var(--line)',
  series: [1, 2, 3, 4, 5, 6, 7, 8].map((index) => `var(--s${index})`),
};
/** Larger matrices are shown as a picture. */
const MOST_CELLS = 24;
/** Rows of the table of classes; the rest is in `classes.csv`. */
const MOST_CLASSES = 200;
/** A name longer than this is cut off: a page of a thousand of them is still one. */
const LONGEST = 300;
const NONE = html``;

const count = (value: number) => Math.round(value).toLocaleString('en-US');
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const short = (value: number) =>
  value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
/** Of three digits, zeros too, so that those of a row line up. */
const distance = (value: number) =>
  value !== 0 && value < 1e-3 ? value.toExponential(1) : value < 1000 ? value.toPrecision(3) : value.toFixed(0);
const moment = (iso: string) => `${iso.slice(0, 16).replace('T', ' ')} UTC`;

/** Seconds as `1h 02m`, `3m 10s` or `8s`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h}h ${String(m).padStart(2, '0')}m` : m > 0 ? `${m}m ${String(s).padStart(2, '0')}s` : `${s}s`;
}

/** A name from outside: isolated, so that what turns the direction of writing ends with it. */
function name(text: string): Html {
  return html`<bdi>${text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text}</bdi>`;
}

function interval({ share, interval: [low, high] }: Share): string {
  return `${percent(share)} (${(100 * low).toFixed(1)} to ${percent(high)})`;
}

/** What of a page is not the view: for the live page. */
export interface Frame {
  /** Content-Security-Policy. */
  policy: string;
  /** Above the view, and at the end of the page. */
  before?: Html;
  after?: Html;
}

/** Nothing is loaded, nothing runs: pictures are inside the page. */
export const STATIC_POLICY =
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/** The page. */
export async function renderPage(view: View, frame: Frame = { policy: STATIC_POLICY }): Promise<string> {
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${frame.policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${view.title}</title>
<style>${raw(STYLE)}</style>
</head>
<body>
<header><h1>${name(view.title)}</h1></header>
${frame.before ?? NONE}
<main id="view">${await renderView(view)}</main>
<footer>alexnode ${view.manifest.environment.alexnode}</footer>
${frame.after ?? NONE}
</body>
</html>
`;
  return String(await page);
}

/** The sections, behind links to those that there are. */
export async function renderView(view: View): Promise<Html> {
  const { judged } = view;
  const { source } = view.manifest.data;
  const all: [id: string, title: string, body: Html][] = [
    ['warnings', 'Findings', warnings(view)],
    ['curves', 'Curves', await curves(view)],
    ['filters', 'What the first layer sees', filters(view)],
    ['predictions', 'Predictions', judged === undefined ? NONE : predictions(judged, source)],
    ['neighbours', 'Nearest training images', neighbours(view)],
    ['confusion', 'Confusion', judged === undefined ? NONE : confusion(judged)],
    ['classes', 'Classes', judged === undefined ? NONE : classTable(judged)],
    ['mistakes', 'Most confident mistakes', judged === undefined ? NONE : mistakes(judged, source)],
    ['layers', 'Layers', await health(view)],
    ['data', 'Data', dataReport(view)],
    ['configuration', 'Configuration', configuration(view)],
  ];
  const sections = all.filter(([, , body]) => body !== NONE);
  return html`
${overview(view)}
<nav>${sections.map(([id, title]) => html`<a href="#${id}">${title}</a> `)}</nav>
${sections.map(([id, title, body]) => html`<h2 id="${id}">${title}</h2>${body}`)}
`;
}

function tile(value: string, what: string): Html {
  return html`<div class="tile"><b>${value}</b><span>${what}</span></div>`;
}

function overview({ manifest, history, judged, missing }: View): Html {
  const { config } = manifest;
  const { result, last } = history;
  const epochs = history.epochs.at(-1)?.epoch ?? 0;
  const speed = result?.imagesPerSecond ?? history.epochs.at(-1)?.imagesPerSecond ?? last?.imagesPerSecond;
  const seconds = result?.seconds ?? history.epochs.at(-1)?.seconds;
  const validations = history.epochs.filter(({ val }) => val !== null).length;
  const chosen = validations > 1 && judged?.what.startsWith('best') === true;
  const state = result === undefined ? (history.paused ? 'paused' : 'training') : result.status;
  return html`
<p class="dim">${config.network.name} on ${name(manifest.data.source)}, ${config.devices.join(' + ')}, begun ${moment(manifest.createdAt)}</p>
${result?.error === undefined ? NONE : html`<div class="warning"><code>${result.error.code}</code> ${result.error.message}<br>${result.error.hint ?? ''}</div>`}
<div class="tiles">
${tile(state, 'state')}
${tile(`${epochs} / ${config.recipe.epochs}`, 'epochs')}
${judged === undefined ? NONE : tile(percent(judged.result.top1Error), `top-1 error, 95 %: ${interval(judged.top1).replace(/^.*\(|\)$/g, '')}`)}
${judged === undefined ? NONE : tile(percent(judged.result.top5Error), `top-5 error, 95 %: ${interval(judged.top5).replace(/^.*\(|\)$/g, '')}`)}
${judged === undefined ? NONE : tile(judged.result.loss.toFixed(3), 'validation loss (nats)')}
${speed === undefined ? NONE : tile(count(speed), 'training images/s')}
${seconds === undefined ? NONE : tile(duration(seconds), 'training time')}
${tile(count(manifest.network.parameters), 'parameters')}
</div>
${judged === undefined ? NONE : html`<p class="dim">Measured with ${name(judged.what)} on ${judged.images}; intervals are Wilson's.${chosen ? ` It was chosen out of ${validations} by its error on these images: expect a little more on new ones.` : ''}</p>`}
${missing.map((why) => html`<p class="dim">Missing here: ${name(why)}</p>`)}`;
}

function warnings({ warnings: found }: View): Html {
  if (found.length === 0) return NONE;
  return html`${found.map(
    ({ code, message, hint, evidence }) =>
      html`<div class="warning"><code>${code}</code> ${clip(message)}<br><span class="dim">${clip(hint)}</span>${
        Object.keys(evidence).length === 0
          ? NONE
          : html`<details><summary>evidence</summary><table>${Object.entries(evidence).map(
              ([key, value]) =>
                html`<tr><th>${name(key)}</th><td>${Array.isArray(value) ? value.map((item) => html`${name(item)}<br>`) : name(typeof value === 'number' ? short(value) : value)}</td></tr>`,
            )}</table></details>`
      }</div>`,
  )}`;
}

/** Messages may quote names. */
function clip(text: string): string {
  return text.length > 4 * LONGEST ? `${text.slice(0, 4 * LONGEST)}…` : text;
}

async function curves({ history, manifest }: View): Promise<Html> {
  const { epochs, steps } = history;
  if (epochs.length === 0 && steps.length === 0) return NONE;
  const line = (series: string, pick: (row: EpochEvent) => number | undefined) => ({
    name: series,
    points: epochs.map((row) => [row.epoch, pick(row)] as const),
  });
  const inside = (pick: (step: (typeof steps)[number]) => number) => ({
    name: 'training',
    faint: true,
    points: steps.map((step) => [step.epoch - 1 + step.batch / step.batches, pick(step)] as const),
  });
  const last = Math.max(2, epochs.at(-1)?.epoch ?? 0);
  const both: Chart[] = [
    {
      title: 'loss (nats)',
      last,
      series: [
        inside(({ loss }) => loss),
        line('training', ({ train }) => train?.loss),
        line('validation', ({ val }) => val?.loss),
      ],
    },
    {
      title: 'top-1 error',
      last,
      format: '%',
      series: [
        inside(({ top1Error }) => top1Error),
        line('training', ({ train }) => train?.top1Error),
        line('validation', ({ val }) => val?.top1Error),
      ],
    },
    {
      title: 'top-5 error',
      last,
      format: '%',
      series: [
        inside(({ top5Error }) => top5Error),
        line('training', ({ train }) => train?.top5Error),
        line('validation', ({ val }) => val?.top5Error),
      ],
    },
  ];
  const rest: Chart[] = [
    {
      title: 'learning rate',
      last,
      log: true,
      series: [line('weights', ({ lr }) => lr), line('biases', ({ biasLr }) => biasLr)],
    },
    {
      title: 'training images/s',
      last,
      format: ',d',
      series: [line('images/s', ({ imagesPerSecond }) => imagesPerSecond || undefined)],
    },
  ];
  const pictures: Html[] = [];
  const drawn = [...both, ...rest].filter(({ series }) => series.some(({ points }) => points.length > 0));
  for (const chart of drawn) pictures.push(raw(await chartsSvg([chart], PALETTE)));
  return html`<div class="charts">${pictures}</div>
<p class="dim">Training: running means during an epoch, with dropout and augmentation${manifest.config.recipe.augment ? '' : ' (which is off)'}; thin: inside epochs. Validation: central crops, afterwards.</p>`;
}

function filters({ filters: now, grown, manifest }: View): Html {
  if (now === undefined) return NONE;
  const towers = manifest.config.network.layers.some((layer) => layer.type === 'conv2d' && layer.groups === 2);
  return html`<p class="dim">The filters of the first convolution, one scale for all${towers ? '; on the left those of the first tower, on the right those of the second (the paper, figure 3)' : ''}.</p>
<div class="filters"><img alt="filters of the first layer" src="${now}"></div>
${
  grown.length < 2
    ? NONE
    : html`<h3>How they grew</h3><div class="grown">${grown.map(
        ({ epoch, picture }) =>
          html`<figure><img alt="filters after epoch ${epoch}" src="${picture}"><figcaption class="dim">${epoch === 0 ? 'before the training' : `after epoch ${epoch}`}</figcaption></figure>`,
      )}</div>`
}`;
}

function bars({ label, guesses }: ShownImage): Html {
  return html`${guesses.map(
    (guess, index) =>
      html`<div class="bar ${guess.label === label ? 'right' : index === 0 ? 'wrong' : ''}"><i style="width:${(100 * guess.probability).toFixed(1)}%"></i>${name(guess.label)}<span>${(100 * guess.probability).toFixed(1)}</span></div>`,
  )}`;
}

/** A path as short as it can be said of images that are all from one source. */
function within(path: string, source: string): string {
  return path.startsWith(source) ? path.slice(source.length).replace(/^[/\\:]/, '') || path : path;
}

function card(image: ShownImage, source: string): Html {
  const right = image.guesses[0]?.label === image.label;
  return html`<div class="card"><img alt="" src="${image.picture}"><div class="${right ? 'right' : 'wrong'}" title="${image.label}">${name(image.label)}</div>${bars(image)}<div class="path" title="${image.path}">${name(within(image.path, source))}</div></div>`;
}

function predictions({ predictions: images }: JudgedView, source: string): Html {
  if (images.length === 0) return NONE;
  return html`<p class="dim">Validation images with their label and the five classes that the network takes for most probable, in per cent (the paper, figure 4 left). Green is the right one.</p>
<div class="gallery">${images.map((image) => card(image, source))}</div>`;
}

function neighbours({ neighbours: found }: View): Html {
  if (found === undefined || found.rows.length === 0) return NONE;
  const figure = (image: ShownImage) =>
    html`<figure><img alt="" title="${image.path}" src="${image.picture}"><figcaption><div title="${image.label}">${name(image.label)}</div>${image.distance === undefined ? NONE : html`<span class="dim">${distance(image.distance)}</span>`}</figcaption></figure>`;
  return html`<p class="dim">Left a validation image, beside it those of ${found.among} whose outputs of ${name(found.layer)}, the last hidden layer, are nearest, with the Euclidean distance (the paper, figure 4 right); by ${name(found.what)}.</p>
${found.rows.map(({ query, near }) => html`<div class="near">${[query, ...near].map(figure)}</div>`)}`;
}

function confusion({ summary, result }: JudgedView): Html {
  const { classes, confusion: cells, pairs } = summary;
  const n = classes.length;
  const matrix =
    n > MOST_CELLS
      ? html`<p class="dim">With ${n} classes the matrix is a picture: confusion.png; its numbers are in confusion.csv.</p>`
      : html`<div class="scroll"><table class="matrix"><tr><th class="row dim">label \\ guess</th>${classes.map(({ label }) => html`<th>${name(label)}</th>`)}</tr>${classes.map(
          ({ label, images }, row) =>
            html`<tr><th class="row">${name(label)}</th>${classes.map((_, column) => {
              const value = cells[row * n + column] ?? 0;
              return html`<td class="${row === column ? 'own' : ''}" style="background:rgba(var(--cell),${(0.75 * (images > 0 ? value / images : 0)).toFixed(3)})">${value === 0 ? '' : value}</td>`;
            })}</tr>`,
        )}</table></div>`;
  return html`<p class="dim">${count(result.samples)} images by their class (row) and by what they were taken for (column).</p>
${matrix}
${
  pairs.length === 0
    ? NONE
    : html`<h3>Worst pairs</h3><table><tr><th>class</th><th>taken for</th><th class="num">images</th><th class="num">of the class</th></tr>${pairs.map(
        (pair) =>
          html`<tr><td>${name(pair.label)}</td><td>${name(pair.guess)}</td><td class="num">${pair.images}</td><td class="num">${percent(pair.share)}</td></tr>`,
      )}</table>`
}`;
}

function classTable({ summary }: JudgedView): Html {
  const { classes } = summary;
  const rows = [...classes].sort((a, b) => (a.recall?.share ?? 2) - (b.recall?.share ?? 2)).slice(0, MOST_CLASSES);
  const cell = (value: Share | null) => html`<td class="num">${value === null ? '–' : interval(value)}</td>`;
  return html`<p class="dim">Recall: of a class's images, those named right. Precision: of the images taken for it, those that are. With 95 % intervals; lowest recall first${rows.length < classes.length ? `, the first ${rows.length} of ${classes.length} (all in classes.csv)` : ''}.</p>
<div class="scroll"><table><tr><th>class</th><th class="num">images</th><th class="num">recall</th><th class="num">precision</th></tr>${rows.map(
    (row) =>
      html`<tr><td>${name(row.label)}</td><td class="num">${row.images}</td>${cell(row.recall)}${cell(row.precision)}</tr>`,
  )}</table></div>`;
}

function mistakes({ mistakes: images }: JudgedView, source: string): Html {
  if (images.length === 0) return html`<p>None.</p>`;
  return html`<p class="dim">Where the network is surest and wrong: a label may be, too. The files are in mistakes.csv.</p>
<div class="gallery">${images.map((image) => card(image, source))}</div>`;
}

async function health({ history, layers }: View): Promise<Html> {
  const rows = history.epochs.filter((row) => row.layers.length > 0 || row.units.length > 0);
  const last = rows.at(-1);
  if (last === undefined) return NONE;
  const moving = last.layers.map(({ name: layer }) => ({
    name: layer,
    points: rows.map((row) => {
      const found = row.layers.find((other) => other.name === layer);
      return [row.epoch, found && updateRatio(found)] as const;
    }),
  }));
  const dead = last.units.map(({ name: layer }) => ({
    name: layer,
    points: rows.map((row) => {
      const found = row.units.find((other) => other.name === layer);
      return [row.epoch, found && found.dead / Math.max(1, found.units)] as const;
    }),
  }));
  const charts: Html[] = [];
  for (const chart of [
    { title: 'update / weight', log: true, series: moving, format: '.0e' },
    { title: 'dead units', series: dead, format: '%' },
  ]) {
    charts.push(raw(await chartsSvg([chart], PALETTE)));
  }
  return html`<div class="charts">${charts}</div>
<p class="dim">Update / weight: root mean squares of the last update and of the weights; about 0.001 is usual. Dead: 0 on all of up to 256 images.</p>
<div class="scroll"><table><tr><th>layer</th><th>kind</th><th>output</th><th class="num">parameters</th><th class="num">weight</th><th class="num">update / weight</th><th class="num">dead units</th><th class="num">above 0</th></tr>${layers.map(
    (layer) => {
      const moves = last.layers.find((found) => found.name === layer.name);
      const units = last.units.find((found) => found.name === layer.name);
      return html`<tr><td>${name(layer.name)}</td><td>${layer.type}</td><td class="line">${layer.shape.join(' × ')}</td><td class="num">${layer.parameters > 0 ? count(layer.parameters) : ''}</td><td class="num">${moves === undefined ? '' : short(moves.weight)}</td><td class="num">${moves === undefined ? '' : short(updateRatio(moves))}</td><td class="num">${units === undefined ? '' : `${units.dead} of ${units.units}`}</td><td class="num">${units === undefined ? '' : percent(units.active)}</td></tr>`;
    },
  )}</table></div>`;
}

function dataReport({ manifest, data }: View): Html {
  const { kind, source, classes, train, val, imageSize, split, skipped, quarantined = 0, fingerprint } = manifest.data;
  const left = [
    ...(skipped.length > 0 ? [`${count(skipped.length)} undecodable`] : []),
    ...(quarantined > 0 ? [`${count(quarantined)} on the quarantine list`] : []),
  ];
  return html`<table>
<tr><th>source</th><td>${name(source)} (${kind})</td></tr>
<tr><th>images</th><td>${count(train)} to train on, ${count(val)} to validate (split: ${split}), stored at ${imageSize} pixels</td></tr>
<tr><th>classes</th><td>${classes.length}</td></tr>
${data === undefined ? NONE : html`<tr><th>mean colour</th><td>${data.mean.map((value) => value.toFixed(1)).join(', ')}</td></tr>`}
<tr><th>left out</th><td>${left.length === 0 ? 'none' : left.join(', ')}</td></tr>
<tr><th>fingerprint</th><td class="dim">${fingerprint}</td></tr>
</table>
${skipped.length === 0 ? NONE : html`<details><summary>left out</summary><table>${skipped.slice(0, 100).map(({ path, reason }) => html`<tr><td>${name(path)}</td><td>${name(reason)}</td></tr>`)}</table></details>`}
${
  data === undefined
    ? NONE
    : html`<details${classes.length <= 20 ? raw(' open') : ''}><summary>images per class</summary><table><tr><th>class</th><th class="num">train</th><th class="num">val</th></tr>${classes
        .slice(0, MOST_CLASSES)
        .map(
          (label, index) =>
            html`<tr><td>${name(label)}</td><td class="num">${count(data.perClass.train[index] ?? 0)}</td><td class="num">${count(data.perClass.val[index] ?? 0)}</td></tr>`,
        )}</table></details>`
}`;
}

function configuration({ manifest }: View): Html {
  const { config, environment, sessions } = manifest;
  const { network, recipe, ...rest } = config;
  const json = (value: unknown) => clipLines(JSON.stringify(value, null, 2));
  return html`<h3>Recipe</h3><pre>${json(recipe)}</pre>
<details><summary>network</summary><pre>${json(network)}</pre></details>
<details><summary>data, devices, seed</summary><pre>${json(rest)}</pre></details>
<details><summary>environment</summary><pre>${json(environment)}</pre></details>
<details><summary>sessions (${sessions.length})</summary><pre>${json(sessions)}</pre></details>`;
}

function clipLines(text: string): string {
  return text
    .split('\n')
    .map((line) => (line.length > LONGEST ? `${line.slice(0, LONGEST)}…` : line))
    .join('\n');
}
