import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'ava';
import { encode } from 'fast-png';

import {
  evaluate,
  openDataset,
  type Scan,
  type ScanFindings,
  type ScanOptions,
  type ScanReport,
  scanFolder,
  train,
  writeQuarantine,
} from '../lib/index.js';
import { cli, drain, photos, ROOT, sharedData, TINY_CALL, temporary } from './helpers.js';

/** Files of every kind, described by crates/data/tests/fixtures/make_pictures.py. */
const FIXTURES = join(ROOT, 'crates', 'data', 'tests', 'fixtures', 'pictures');

/** Waves that `seed` draws; at another `size` it is the same picture. */
function scene(seed: number, size = 40): Uint8Array {
  let state = seed * 2654435761 + 1;
  const draw = () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) >>> 0;
    return state / 2 ** 32;
  };
  const waves = Array.from({ length: 4 }, () => [2 + 9 * draw(), 2 + 9 * draw(), 6 * draw()] as const);
  const data = new Uint8Array(size * size * 3);
  for (let at = 0; at < size * size; at += 1) {
    const [x, y] = [((at % size) + 0.5) / size, (Math.floor(at / size) + 0.5) / size];
    const value = waves.reduce((sum, [u, v, phase]) => sum + Math.sin(u * x + v * y + phase), 0);
    data.fill(128 + 30 * value, 3 * at, 3 * at + 3);
  }
  return encode({ width: size, height: size, data, channels: 3 });
}

/** Writes files, whose contents are bytes, text, or `{ fixture }`. */
function folderOf(files: Record<string, Uint8Array | string | { fixture: string }>): string {
  const folder = temporary();
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    if (typeof content === 'object' && 'fixture' in content) copyFileSync(join(FIXTURES, content.fixture), path);
    else writeFileSync(path, content);
  }
  return folder;
}

/** A folder in which everything is wrong that can be. */
function mess(): string {
  const jpeg = readFileSync(join(FIXTURES, 'baseline-2x2.jpg'));
  const folder = folderOf({
    'train/cat/0.png': scene(0),
    'train/cat/1.png': scene(1),
    'train/cat/2.png': scene(2),
    'train/cat/3.png': scene(3),
    'train/cat/copy of 0.png': scene(0),
    'train/cat/disguise.jpg': scene(5),
    'train/cat/ink.jpg': { fixture: 'cmyk.jpg' },
    'train/cat/page.jpg': '<html>404</html>',
    'train/cat/zero.jpg': '',
    'train/dog/0.png': scene(10),
    'train/dog/1.png': scene(11),
    'train/dog/cut.jpg': jpeg.subarray(0, jpeg.length - 200),
    'train/dog/grey.jpg': { fixture: 'grey.jpg' },
    'train/dog/tiny.png': scene(12, 20),
    'train/dog/turned.jpg': { fixture: 'turn-6-jpeg.jpg' },
    'train/dog/wide.png': scene(13, 120),
    'train/fox/0.png': scene(20),
    'train/.ipynb_checkpoints/0.png': scene(20),
    'train/cat/notes.txt': 'not a picture',
    'val/cat/0.png': scene(30),
    'val/cat/smaller 1.png': scene(1, 33),
    'val/dog/0.png': scene(40),
    'val/dog/leak.png': scene(11),
    'val/owl/0.png': scene(50),
    'loose.png': scene(60),
  });
  mkdirSync(join(folder, 'train', 'bird'));
  return folder;
}

async function finish(scan: Scan): Promise<void> {
  for await (const { done, images } of scan.run()) if (done > images) throw new Error(`${done} of ${images}`);
}

async function scanned(options: ScanOptions): Promise<ScanFindings> {
  await using scan = await scanFolder({ cacheDir: temporary(), ...options });
  await finish(scan);
  return await scan.findings();
}

/** Every file with its size and times. */
function state(folder: string): unknown {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const { size, mtimeMs, ctimeMs } = statSync(join(folder, name));
      return [name, size, mtimeMs, ctimeMs];
    });
}

test('scan tells everything about a folder, and leaves it as it is', async (t) => {
  const folder = mess();
  const before = state(folder);
  const cwd = temporary();
  const args = ['data', 'scan', folder, '--report', 'report.json', '--quarantine', 'list', '--huge', '0.01'];
  const ended = await cli(args, cwd, { XDG_CACHE_HOME: temporary() }).ended;
  t.is(ended.code, 0, ended.stderr);
  t.deepEqual(state(folder), before);
  const { unreadable, ...report } = JSON.parse(readFileSync(join(cwd, 'report.json'), 'utf8')) as ScanReport;
  t.deepEqual(report, {
    images: 23,
    classes: [
      { name: 'cat', train: 7, val: 2 },
      { name: 'dog', train: 6, val: 2 },
      { name: 'fox', train: 1, val: 0 },
      { name: 'owl', train: 0, val: 1 },
    ],
    wrongExtension: ['train/cat/disguise.jpg'],
    cmyk: ['train/cat/ink.jpg'],
    grey: ['train/dog/grey.jpg'],
    exifRotated: ['train/dog/turned.jpg'],
    tiny: ['train/cat/ink.jpg', 'train/dog/grey.jpg', 'train/dog/tiny.png', 'train/dog/turned.jpg'],
    huge: ['train/dog/wide.png'],
    emptyClasses: ['train/bird'],
    hiddenFolders: ['train/.ipynb_checkpoints'],
    duplicates: [
      ['train/cat/0.png', 'train/cat/copy of 0.png'],
      ['train/dog/1.png', 'val/dog/leak.png'],
    ],
    nearDuplicates: [
      ['train/cat/1.png', 'val/cat/smaller 1.png'],
      ['train/cat/ink.jpg', 'train/dog/grey.jpg'],
    ],
    leaks: [
      ['train/cat/1.png', 'val/cat/smaller 1.png'],
      ['train/dog/1.png', 'val/dog/leak.png'],
    ],
    imbalance: 7,
  });
  t.deepEqual(
    unreadable.map(({ path }) => path),
    ['train/cat/page.jpg', 'train/cat/zero.jpg', 'train/dog/cut.jpg'],
  );
  for (const [at, reason] of [/not a picture/, /empty/, /cut off/].entries())
    t.regex(unreadable[at]?.reason ?? '', reason);
  // The list holds just the unreadable ones, with the same reasons.
  t.is(readFileSync(join(cwd, 'list'), 'utf8'), unreadable.map((file) => `${JSON.stringify(file)}\n`).join(''));
  for (const text of [
    /unreadable 3 files: .* -> train --quarantine list/,
    /fox \(only in train\), owl \(only in val\)/,
    /outside +1 files/,
    /leaks +2 groups: .*--leave-out leaks/,
    /near +2 groups: .*1 groups are in several classes/,
    /uneven .*7\.0 times.* -> train --balance sample, or loss/,
    /next +alexnode train --data .* --quarantine list/,
  ]) {
    t.regex(ended.stdout, text);
  }
});

test('a scan goes on where an earlier one ended, and looks again at what has changed', async (t) => {
  const folder = photos(temporary(), { cat: 60, dog: 60 });
  const cacheDir = temporary();
  const stop = new AbortController();
  {
    await using scan = await scanFolder({ source: folder, cacheDir });
    t.like(scan, { images: 120, done: 0 });
    await t.throwsAsync(scan.findings(), { code: 'ERR_USAGE' });
    const run = async () => {
      for await (const { done } of scan.run({ signal: stop.signal })) if (done >= 32) stop.abort();
    };
    await t.throwsAsync(run(), { code: 'ERR_ABORTED' });
  }
  await using scan = await scanFolder({ source: folder, cacheDir });
  t.true(scan.done >= 32 && scan.done < 120);
  await finish(scan);
  const found = await scan.findings();
  t.deepEqual(found.report.unreadable, []);
  t.deepEqual(found, await scanned({ source: folder }));

  await using again = await scanFolder({ source: folder, cacheDir });
  t.is(again.done, 120);
  await t.throwsAsync(again.findings({ signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' });
  t.deepEqual(await again.findings(), found);
  const changed = join(folder, 'dog', '7.png');
  const { size, atime, mtime } = statSync(changed);
  writeFileSync(changed, new Uint8Array(size));
  utimesSync(changed, atime, mtime);
  await using last = await scanFolder({ source: folder, cacheDir });
  t.is(last.done, 119);
  await finish(last);
  t.deepEqual(
    (await last.findings()).report.unreadable.map(({ path }) => path),
    ['dog/7.png'],
  );
});

for (const signal of ['SIGINT', 'SIGKILL'] as const) {
  test(`${signal} ends a scan, and the next one goes on`, async (t) => {
    const [folder, cache] = [temporary(), temporary()];
    const bytes = scene(1, 500);
    for (const name of ['cat', 'dog']) mkdirSync(join(folder, name));
    for (let index = 0; index < 240; index += 1) {
      writeFileSync(
        join(folder, index % 2 === 0 ? 'cat' : 'dog', `${index}.png`),
        Buffer.concat([bytes, Buffer.of(index)]),
      );
    }
    const cwd = temporary();
    const child = cli(['data', 'scan', folder, '--json', '--threads', '1'], cwd, { XDG_CACHE_HOME: cache });
    await child.line((line) => line.includes('"progress"'));
    child.process.kill(signal);
    const ended = await child.ended;
    if (signal === 'SIGINT') t.is(ended.code, 130, ended.stderr);
    else t.is(ended.signal, 'SIGKILL');
    t.false(ended.stdout.includes('"scan"'));
    t.deepEqual(readdirSync(cwd), []);

    await using scan = await scanFolder({ source: folder, cacheDir: join(cache, 'alexnode') });
    t.true(scan.done >= 32 && scan.done < 240, `${scan.done}`);
    await finish(scan);
    t.is((await scan.findings()).report.unreadable.length, 0);
  });
}

test('a training leaves out what a quarantine list names; resume and eval keep to it', async (t) => {
  const folder = mess();
  const { quarantine, report } = await scanned({
    source: folder,
    leaveOut: ['leaks', 'unmatchedClasses', 'duplicates', 'nearDuplicates', 'tiny'],
  });
  const reasons = Object.fromEntries(quarantine.map(({ path, reason }) => [path, reason]));
  t.deepEqual(Object.keys(reasons).sort(), [
    'train/cat/1.png',
    'train/cat/copy of 0.png',
    'train/cat/ink.jpg',
    'train/cat/page.jpg',
    'train/cat/zero.jpg',
    'train/dog/1.png',
    'train/dog/cut.jpg',
    'train/dog/grey.jpg',
    'train/dog/tiny.png',
    'train/dog/turned.jpg',
    'train/fox/0.png',
    'val/owl/0.png',
  ]);
  t.is(reasons['train/dog/1.png'], 'also in val: val/dog/leak.png');
  t.is(reasons['train/cat/copy of 0.png'], 'the same as train/cat/0.png');
  t.is(reasons['train/fox/0.png'], 'class fox is not in val');
  t.regex(reasons['train/cat/ink.jpg'] ?? '', /looks like train\/dog\/grey\.jpg, in several classes/);
  const list = join(temporary(), 'deep', 'list.ndjson');
  await writeQuarantine(list, quarantine);

  // Without the list it cannot be trained on.
  const data = { source: folder, imageSize: 16, cacheDir: temporary() };
  await t.throwsAsync(openDataset(data), { code: 'ERR_DATA', message: /different classes/ });
  await using opened = await openDataset({ ...data, quarantine: list });
  t.like(opened.info, { classes: ['cat', 'dog'], quarantined: quarantine.length, train: 6, val: 4, skipped: [] });
  t.is(report.images - opened.info.train - opened.info.val - quarantine.length, 1, 'one lies outside');

  const out = join(temporary(), 'run');
  const { limit: _, ...tiny } = TINY_CALL;
  const call = { ...tiny, recipe: { ...tiny.recipe, batch: 4, epochs: 2 }, data: folder, quarantine: list };
  await using first = await train({ ...call, cacheDir: temporary(), steps: 1, out });
  await drain(first);
  await first.dispose();
  await using second = await train({ resume: out });
  const events = await drain(second);
  t.deepEqual(
    events.filter((event) => event.type === 'warning'),
    [],
  );
  t.is(second.data.info.quarantined, quarantine.length);
  await second.dispose();
  t.is((await evaluate({ model: out })).samples, 4);
});

test('a quarantine list that cannot be used is an error that says so', async (t) => {
  const folder = photos(temporary(), { cat: 4, dog: 4 });
  const list = join(temporary(), 'list');
  const open = (source = folder) => openDataset({ source, imageSize: 16, cacheDir: temporary(), quarantine: list });
  await t.throwsAsync(open(), { code: 'ERR_DATA', message: /list: the quarantine list cannot be read/ });
  writeFileSync(list, '{"path":"cat/1.png"}\ncat/2.png\n');
  await t.throwsAsync(open(), { code: 'ERR_DATA', message: /list: line 2/ });
  await t.throwsAsync(open('generated'), { code: 'ERR_USAGE', message: /quarantine/ });
});

test('what cannot be scanned is an error with what to do', async (t) => {
  const folder = temporary();
  const run = (...args: string[]) => cli(['data', 'scan', ...args], folder, { XDG_CACHE_HOME: temporary() }).ended;
  t.like(await run('nowhere'), { code: 4, stdout: '' });
  const [empty, what] = await Promise.all([run('.'), run('.', '--leave-out', 'leeks')]);
  t.is(empty.code, 4);
  t.regex(empty.stderr, /there are no images in it[\s\S]*folder per class/);
  t.is(what.code, 2);
  t.regex(what.stderr, /Did you mean "leaks"\?/);
  writeFileSync(join(folder, 'a.png'), scene(1));
  await t.throwsAsync(scanFolder({ source: join(folder, 'a.png') }), { code: 'ERR_DATA', message: /is no folder/ });
  mkdirSync(join(folder, 'only'));
  writeFileSync(join(folder, 'only', 'one.png'), scene(2));
  const small = await run('.');
  t.regex(small.stdout, /too small +1 classes: a training refuses them: .*\n +only\n/);
  rmSync(join(folder, 'only'), { recursive: true });
  const flat = await scanned({ source: folder });
  t.like(flat, { report: { images: 1, classes: [], imbalance: 0 }, summary: { outside: 1 } });
});

const oddities = sharedData('jpeg-oddities');
(oddities === undefined ? test.skip : test)(
  'the odd files of real data sets are what their manifest says',
  async (t) => {
    if (oddities === undefined) return;
    const lines = readFileSync(join(oddities, 'MANIFEST.tsv'), 'utf8').trimEnd().split('\n').slice(2);
    const rows = lines.map((line) => {
      const [path = '', , what = '', format, mode, size = '', result] = line.split('\t');
      const short = Math.min(...size.split('x').map(Number));
      return { path, what, format, mode, short, ok: result === 'ok' };
    });
    const paths = (keep: (row: (typeof rows)[number]) => boolean) =>
      rows
        .filter(keep)
        .map(({ path }) => path)
        .sort();
    const { report, summary } = await scanned({ source: oddities });
    t.is(report.images, 55);
    t.deepEqual(
      report.unreadable.map(({ path }) => path).sort(),
      paths(({ ok }) => !ok),
    );
    t.true(report.unreadable.every(({ reason }) => reason.length > 10));
    t.deepEqual(
      report.cmyk,
      paths(({ ok, mode }) => ok && mode === 'CMYK'),
    );
    t.deepEqual(
      report.grey,
      paths(({ ok, mode }) => ok && mode === 'L'),
    );
    t.deepEqual(
      report.wrongExtension,
      paths(({ ok, format }) => ok && format !== 'JPEG'),
    );
    t.deepEqual(
      report.exifRotated,
      paths(({ what }) => /^EXIF orientation [2-8]/.test(what)),
    );
    t.deepEqual(
      report.tiny,
      paths(({ ok, short }) => ok && short < 32),
    );
    t.deepEqual(
      report.classes.map(({ name, train: images }) => [name, images]),
      ['synthetic', 'third-party'].map((name) => [name, paths(({ ok, path }) => ok && path.startsWith(name)).length]),
    );
    // All eight orientations show one picture, and so do the formats under the wrong name.
    const same = report.nearDuplicates.find((group) => group.includes('synthetic/exif_orientation_1.JPEG')) ?? [];
    for (let turned = 2; turned <= 8; turned += 1) t.true(same.includes(`synthetic/exif_orientation_${turned}.JPEG`));
    t.true(same.includes('synthetic/png_in_disguise.JPEG') && same.includes('synthetic/cmyk_adobe.JPEG'));
    t.false(same.some((path) => path.startsWith('third-party')));
    t.false(summary.given);
  },
);
