import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { parse } from 'csv-parse/sync';
import { decode } from 'fast-png';
import { chromium } from 'playwright-core';

import { imagesOf } from '../lib/data.js';
import type { Judgement } from '../lib/engine.js';
import {
  type EpochEvent,
  evaluate,
  type NetworkSpec,
  openDataset,
  report,
  type StepEvent,
  train,
} from '../lib/index.js';
import { readHistory } from '../lib/report/history.js';
import { mistakes, spread, spreadByClass, summarise } from '../lib/report/judged.js';
import { chromiumPath, cli, drain, linesOf, picture, TINY, TINY_CALL, temporary, tinyNetwork } from './helpers.js';

/** What pages, drawings, tables and terminals could take for something else. A file's name has no slash. */
const HOSTILE = [
  '<img src=x onerror=alert(1)>',
  '"><svg onload=alert(2)>',
  `' onmouseover='alert(3)`,
  `=HYPERLINK("http:evil","x")`,
  '@SUM(1+1)',
  '-2+3',
  'line\nbreak,"quoted"\r',
  '&lt;b&gt; {{7*7}} <%= 7*7 %> `x`',
  '\u202egnp.exe',
  'x'.repeat(250),
];

test('precision, recall and pairs of an evaluation that was counted by hand', (t) => {
  const judged: Judgement = {
    samples: 6,
    loss: 1,
    top1Error: 0.5,
    top5Error: 0,
    seconds: 1,
    top: 2,
    ids: Uint32Array.of(10, 11, 12, 13, 14, 15),
    labels: Int32Array.of(0, 0, 0, 1, 1, 1),
    own: Float32Array.of(0.9, 0.2, 0.4, 0.8, 0.7, 0.1),
    classes: Int32Array.of(0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1),
    probabilities: Float32Array.of(0.9, 0.1, 0.8, 0.2, 0.6, 0.4, 0.8, 0.2, 0.7, 0.3, 0.9, 0.1),
  };
  const { classes, confusion, pairs } = summarise(judged, ['a', 'b', 'c']);
  t.deepEqual([...confusion], [1, 2, 0, 1, 2, 0, 0, 0, 0]);
  t.deepEqual(
    classes.map(({ label, images, right, guessed }) => [label, images, right, guessed]),
    [
      ['a', 3, 1, 2],
      ['b', 3, 2, 4],
      ['c', 0, 0, 0],
    ],
  );
  t.is(classes[0]?.recall?.share, 1 / 3);
  t.is(classes[1]?.precision?.share, 0.5);
  t.true((classes[1]?.precision?.interval[0] ?? 0) > 0.1 && (classes[1]?.precision?.interval[1] ?? 1) < 0.9);
  t.deepEqual([classes[2]?.recall, classes[2]?.precision], [null, null]);
  t.deepEqual(pairs, [
    { label: 'a', guess: 'b', images: 2, share: 2 / 3 },
    { label: 'b', guess: 'a', images: 1, share: 1 / 3 },
  ]);
  t.deepEqual(mistakes(judged, 2), [5, 1]);
  t.deepEqual(spread(10, 4), [1, 3, 6, 8]);
  t.deepEqual(spread(2, 8), [0, 1]);
  // Sorted by class or in turn: as many classes as there are.
  t.deepEqual(spreadByClass(Int32Array.of(0, 1, 2, 3, 0, 1, 2, 3), 2), [5, 7]);
  t.deepEqual(spreadByClass(Int32Array.of(0, 0, 0, 0, 1, 1, 2), 3), [2, 5, 6]);
  t.deepEqual(spreadByClass(Int32Array.of(0, 0, 0, 0, 1, 1, 2), 5), [1, 3, 4, 5, 6]);
  t.deepEqual(spreadByClass(Int32Array.of(5, 5), 8), [0, 1]);
});

test('a history takes back what a resumed run does again, and passes over half a line', async (t) => {
  const folder = temporary();
  const epoch = (number: number) => ({ type: 'epoch', epoch: number }) as EpochEvent;
  const step = (number: number) => ({ type: 'step', step: number }) as StepEvent;
  const events = [{ type: 'start', cursor: { epoch: 0, step: 0 } }, step(5), epoch(1), step(9), epoch(2)];
  const resumed = [{ type: 'start', cursor: { epoch: 1, step: 5 } }, step(8), epoch(2)];
  const lines = [...events, ...resumed].map((event) => JSON.stringify(event));
  lines.splice(4, 0, '{"type":"st', 'null', '7');
  writeFileSync(join(folder, 'events.ndjson'), lines.join('\n'));
  const history = await readHistory(folder);
  t.deepEqual(
    history.epochs.map((row) => row.epoch),
    [1, 2],
  );
  t.deepEqual(
    history.steps.map((row) => row.step),
    [5, 8],
  );
  t.deepEqual(history.epochs[1]?.layers, []);
  t.deepEqual((await readHistory(temporary())).epochs, []);
});

test('the report of a run has what the run has, in one file that loads nothing', async (t) => {
  const out = join(temporary(), 'run');
  const training = await train({ ...TINY_CALL, out });
  await drain(training);
  await training.dispose();
  const written = await report({ run: out });
  t.deepEqual(written.missing, []);
  t.is(written.path, join(out, 'report.html'));
  t.true(written.files.every((path) => existsSync(path)));
  const page = readFileSync(written.path, 'utf8');
  for (const title of [
    'Curves',
    'What the first layer sees',
    'How they grew',
    'Predictions',
    'Nearest training images',
    'Confusion',
    'Classes',
    'Most confident mistakes',
    'Layers',
    'Data',
    'Configuration',
  ]) {
    t.true(page.includes(title), title);
  }
  const links = [...page.matchAll(/<a href="#([a-z]+)">/g)].map(([, id]) => id);
  t.deepEqual(
    links,
    [...page.matchAll(/<h2 id="([a-z]+)">/g)].map(([, id]) => id),
    'a link to every section',
  );
  t.true(links.includes('mistakes'));
  t.regex(page, /before the training<[\s\S]*after epoch 3</);
  t.regex(page, /chosen out of 2 by its error on these images/);
  t.false(/<script|<link|<iframe|<object|@import|url\(/i.test(page));
  t.deepEqual(
    [...new Set([...page.matchAll(/https?:\/\/[^"'\s<]+/g)].map(([url]) => url))].filter(
      (url) => !url.startsWith('http://www.w3.org/'),
    ),
    [],
  );
  t.regex(page, /<meta http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;|default-src 'none'/);
  t.true([...page.matchAll(/ src="([^"]{0,30})/g)].every(([, source]) => source?.startsWith('data:image/png;base64,')));

  const found = await evaluate({ model: out });
  t.true(page.includes(`${(100 * found.top1Error).toFixed(1)} %`));
  const table = parse(readFileSync(join(out, 'confusion.csv'), 'utf8'), { columns: true }) as Record<string, string>[];
  t.is(
    table.reduce((sum, row) => sum + Number(row.images), 0),
    found.samples,
  );
  const right = table.filter((row) => row.class === row.guess).reduce((sum, row) => sum + Number(row.images), 0);
  t.is(right, Math.round((1 - found.top1Error) * found.samples));
  const classes = parse(readFileSync(join(out, 'classes.csv'), 'utf8'), { columns: true }) as Record<string, string>[];
  t.is(classes.length, 10);
  t.is(
    classes.reduce((sum, row) => sum + Number(row.right), 0),
    right,
  );
  for (const name of ['confusion.png', 'mistakes.png', 'nearest.png'])
    t.true(decode(readFileSync(join(out, name))).width > 90, name);

  // Without images, without checkpoints, without a log: what is there is shown, what is missing is said.
  t.regex((await report({ run: out, limit: 0 })).missing.join(), /needs images/);
  rmSync(join(out, 'checkpoints'), { recursive: true });
  rmSync(join(out, 'events.ndjson'));
  t.regex((await report({ run: out })).missing.join(), /checkpoint/);
  t.regex(readFileSync(written.path, 'utf8'), /Missing here/);
  await t.throwsAsync(report({ run: temporary() }), { code: 'ERR_CHECKPOINT' });
});

test('images of a data set come by their ids, at the size that is asked for', async (t) => {
  const folder = join(temporary(), 'three');
  for (const [mark, name] of ['train/a', 'train/b', 'val/a', 'val/b'].entries()) {
    mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(join(folder, name, '0.png'), picture(20, mark));
  }
  await using data = await openDataset({ source: folder, imageSize: 16 });
  const images = await imagesOf(data, 'val', Uint32Array.of(1, 0, 1), 8);
  t.deepEqual(
    images.map((image) => image.length),
    [192, 192, 192],
  );
  // What `picture` paints with these marks, far from the mark itself.
  t.deepEqual(
    images.map((image) => image.at(-1)),
    [150, 130, 150],
  );
  t.is((await imagesOf(data, 'train', Uint32Array.of(0), 16))[0]?.length, 768);
  t.deepEqual(await imagesOf(data, 'val', new Uint32Array(), 8), []);
  await t.throwsAsync(imagesOf(data, 'val', Uint32Array.of(2), 8), { code: 'ERR_USAGE', message: /no usable image 2/ });
});

/** A data set whose classes and files have hostile names. */
function hostileData(): string {
  const folder = join(temporary(), 'pictures <i>"&');
  let mark = 0;
  for (const split of ['train', 'val']) {
    for (const name of HOSTILE) {
      mkdirSync(join(folder, split, name), { recursive: true });
      for (const file of ['<script>.png', `=1+1"'.png`, 'a\nb.png']) {
        mark += 1;
        writeFileSync(join(folder, split, name, file), picture(20, mark));
      }
    }
  }
  return folder;
}

/** The tiny network, its layers named by a foe. */
function hostileNetwork(classes: number): NetworkSpec {
  const network = tinyNetwork(classes);
  const layers = network.layers.map((layer) => ({
    ...layer,
    name: `=<img src=x onerror='alert(9)' title="${layer.name}">`,
  }));
  return { ...network, name: '<u>net</u>', layers };
}

async function hostileRun(): Promise<string> {
  const out = join(temporary(), '<b>run');
  const recipe = { ...TINY, epochs: 2 };
  await using training = await train({ network: hostileNetwork, recipe, data: hostileData(), out });
  await drain(training);
  return out;
}

test('names of classes, files, layers and folders are text in page, drawings and tables', async (t) => {
  const out = await hostileRun();
  const { files, missing } = await report({ run: out });
  t.deepEqual(missing, []);
  const page = readFileSync(join(out, 'report.html'), 'utf8');
  for (const tag of ['<img src=x', '<svg onload', '<script', '<u>net', '<b>run', '<i>'])
    t.false(page.includes(tag), tag);
  t.true(page.includes('&lt;img src=x onerror=alert(1)&gt;'));
  for (const path of files.filter((name) => name.endsWith('.csv'))) {
    const rows = parse(readFileSync(path, 'utf8')) as string[][];
    t.true(
      rows
        .slice(1)
        .flat()
        .every((cell) => !/^[=+\-@\t\r]/.test(cell)),
      path,
    );
    t.is(new Set(rows.map((row) => row.length)).size, 1, path);
  }
  const [, ...classes] = parse(readFileSync(join(out, 'classes.csv'), 'utf8')) as string[][];
  t.deepEqual(classes.map(([name]) => name?.replace(/^'(?=[=@-])/, '')).sort(), [...HOSTILE].sort());
  // The path of a card begins where the source ends; the tip has all of it.
  t.regex(page, /<div class="path" title="[^"]*pictures &lt;i&gt;[^"]*val\/[^"]*"><bdi>val\//);
  await inBrowser(t, join(out, 'report.html'));
});

/** Opens a page in Chromium: nothing runs, nothing is loaded, no element that is not ours. */
async function inBrowser(t: ExecutionContext, path: string): Promise<void> {
  const executablePath = chromiumPath(t);
  if (executablePath === undefined) return;
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
  try {
    const page = await browser.newPage();
    const seen: string[] = [];
    page.on('dialog', (dialog) => {
      seen.push(`dialog ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on('request', (request) => {
      if (!/^(file|data):/.test(request.url())) seen.push(request.url());
    });
    page.on('console', (message) => seen.push(message.text()));
    await page.goto(`file://${encodeURI(path).replace(/[?#]/g, encodeURIComponent)}`);
    t.is(
      await page.locator('script, iframe, object, embed, link, a:not(nav a), u, i:not(.bar i), b:not(.tile b)').count(),
      0,
    );
    const handlers = await page
      .locator('*')
      .evaluateAll((all) =>
        all.flatMap((element) => element.getAttributeNames().filter((name: string) => name.startsWith('on'))),
      );
    t.deepEqual(handlers, []);
    const labels = await page.locator('.matrix th.row bdi').allTextContents();
    t.deepEqual(
      labels.map((label) => label.replaceAll('\r', '\n')).sort(),
      HOSTILE.map((label) => label.replaceAll('\r', '\n')).sort(),
    );
    t.deepEqual(seen, []);
  } finally {
    await browser.close();
  }
}

test('the command writes it at the end of a training, and again when asked', async (t) => {
  const folder = temporary();
  const trained = await cli(['train', '--out', 'run', '--limit', '100', '--steps', '4', '--json'], folder).ended;
  t.is(trained.code, 0, trained.stderr);
  const lines = linesOf(trained.stdout);
  t.deepEqual(
    lines.slice(-2).map(({ type }) => type),
    ['end', 'report'],
  );
  const path = String(lines.at(-1)?.path);
  t.true(existsSync(path));
  rmSync(path);
  const again = await cli(['report', 'run', '--limit', '50'], folder).ended;
  t.is(again.code, 0, again.stderr);
  t.regex(again.stdout, /run\/report\.html/);
  t.regex(readFileSync(join(folder, 'run', 'report.html'), 'utf8'), /50 of 1,000 validation images/);
  const none = await cli(['report', 'nowhere'], folder).ended;
  t.is(none.code, 1);
  t.regex(none.stderr, /no run in it/);
});
