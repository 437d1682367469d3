import { mkdirSync, readFileSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import test from 'ava';
import { encode } from 'fast-png';

import { namesOf } from '../lib/data.js';
import { type Manifest, openDataset, rehearse, type TrainCall, train } from '../lib/index.js';
import { drain, photos, TINY_CALL, temporary } from './helpers.js';

/** A training of the tiny network on a folder, with statistics kept in it. */
function call(data: string, cacheDir = temporary()): TrainCall {
  const { limit: _, ...rest } = TINY_CALL;
  return { ...rest, recipe: { ...rest.recipe, batch: 4, epochs: 1 }, data, cacheDir };
}

test('a folder per class is split by content, whatever else lies in it', async (t) => {
  const folder = photos(temporary(), { cat: 30, dog: 20 });
  const open = () => openDataset({ source: folder, imageSize: 16, cacheDir: temporary() });
  await using bare = await open();
  t.like(bare.info, { kind: 'folder', classes: ['cat', 'dog'], split: 'by content hash', skipped: [] });
  t.is(bare.info.train + bare.info.val, 50);
  for (const split of ['train', 'val'] as const) {
    t.true(bare.info.perClass[split].every((count) => count > 0));
    t.is(
      bare.info.perClass[split].reduce((sum, count) => sum + count, 0),
      bare.info[split],
    );
  }
  writeFileSync(join(folder, 'readme.txt'), 'not a picture');
  writeFileSync(join(folder, 'cat', 'Thumbs.db'), 'not a picture');
  writeFileSync(join(folder, '.DS_Store'), 'not a picture');
  mkdirSync(join(folder, 'empty'));
  await using littered = await open();
  t.is(littered.info.fingerprint, bare.info.fingerprint);
  t.deepEqual(littered.info.perClass, bare.info.perClass);
});

test('train and val of a folder are taken as they are', async (t) => {
  const folder = photos(temporary(), { 'train/a': 6, 'train/b': 5, 'val/a': 2, 'val/b': 3 });
  await using data = await openDataset({ source: folder, imageSize: 16, cacheDir: temporary() });
  t.like(data.info, { split: 'given', train: 11, val: 5, perClass: { train: [6, 5], val: [2, 3] } });
});

test('a class missing from val, or only there, is an error that lists the difference', async (t) => {
  const folder = photos(temporary(), { 'train/a': 4, 'train/b': 4, 'train/c': 4, 'val/a': 2, 'val/d': 2 });
  await t.throwsAsync(train(call(folder)), {
    code: 'ERR_DATA',
    message: /train and val have different classes; only in train: b, c; only in val: d/,
  });
});

test('folders that cannot be trained on are errors that name what is wrong', async (t) => {
  const folder = temporary();
  await t.throwsAsync(train(call(join(folder, 'typo'))), { code: 'ERR_DATA', message: /typo: cannot be opened/ });
  await t.throwsAsync(train(call(folder)), { code: 'ERR_DATA', message: /there are no images in it/ });
  photos(folder, { cat: 5 });
  await t.throwsAsync(train(call(folder)), { code: 'ERR_DATA', message: /only one class, 'cat'/ });
  photos(folder, { dog: 1 });
  await t.throwsAsync(train(call(folder)), { code: 'ERR_DATA', message: /too few different images .*: dog/ });
  photos(folder, { dog: 5 });
  symlinkSync('nowhere', join(folder, 'dog', 'link.png'));
  await t.throwsAsync(train(call(folder)), { code: 'ERR_DATA', message: /link\.png: cannot be read/ });
});

test('an undecodable file is an error that names it, or is skipped: counted, listed, untouched', async (t) => {
  const folder = photos(temporary(), { cat: 12, dog: 12 });
  const bad = [join(folder, 'cat', 'bad.jpg'), join(folder, 'dog', 'empty.png')];
  writeFileSync(bad[0] ?? '', '<html>');
  writeFileSync(bad[1] ?? '', '');
  const error = await t.throwsAsync(train(call(folder)), { code: 'ERR_DATA', message: /(bad\.jpg|empty\.png): / });
  t.regex((error as Error & { hint: string }).hint, /--on-bad-image skip/);

  const out = join(temporary(), 'run');
  await using training = await train({ ...call(folder), onBadImage: 'skip', out });
  const events = await drain(training);
  t.is(training.result?.status, 'completed');
  t.is(training.data.info.train + training.data.info.val, 24);
  const warning = events.find((event) => event.type === 'warning');
  t.like(warning, { code: 'IMAGES_SKIPPED' });
  t.regex(warning?.type === 'warning' ? warning.message : '', /^2 undecodable images/);
  const manifest = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8')) as Manifest;
  t.deepEqual(manifest.data.skipped.map(({ path }) => path).sort(), bad);
  t.true(manifest.data.skipped.every(({ reason }) => reason !== ''));
  t.is(readFileSync(bad[0] ?? '', 'utf8'), '<html>');

  const rehearsed = await rehearse({ ...call(folder), onBadImage: 'skip', out: join(temporary(), 'run') });
  t.deepEqual(
    rehearsed.warnings.map(({ code }) => code),
    ['IMAGES_SKIPPED'],
  );
});

test('with skip, a file that goes bad between two sessions of a run is left out of the second, and listed', async (t) => {
  const folder = photos(temporary(), { 'train/cat': 12, 'train/dog': 12, 'val/cat': 2, 'val/dog': 2 });
  const out = join(temporary(), 'run');
  await using first = await train({ ...call(folder), onBadImage: 'skip', steps: 2, out });
  await drain(first);
  t.deepEqual(first.data.info.skipped, []);
  await first.dispose();
  const bad = join(folder, 'train', 'cat', '3.png');
  const { size, atime, mtime } = statSync(bad);
  writeFileSync(bad, new Uint8Array(size));
  utimesSync(bad, atime, mtime);

  await using second = await train({ resume: out });
  const events = await drain(second);
  t.is(second.result?.status, 'completed');
  t.is(second.data.info.train, 23);
  const warnings = events.flatMap((event) => (event.type === 'warning' ? [event] : []));
  t.deepEqual(
    warnings.map(({ code }) => code),
    ['DATA_CHANGED', 'IMAGES_SKIPPED'],
  );
  t.regex(warnings[1]?.message ?? '', /^1 undecodable image is left out, .*3\.png \(not a picture/);
  const manifest = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8')) as Manifest;
  t.deepEqual(
    manifest.data.skipped.map(({ path }) => path),
    [bad],
  );
});

test('a file that vanishes during a run ends it with its name and what to do; then the run goes on without it', async (t) => {
  const folder = photos(temporary(), { 'train/cat': 40, 'train/dog': 40, 'val/cat': 2, 'val/dog': 2 });
  const out = join(temporary(), 'run');
  await using first = await train({ ...call(folder), onBadImage: 'skip', steps: 2, out });
  await drain(first);
  await first.dispose();

  const cat = (index: number) => join(folder, 'train', 'cat', `${index}.png`);
  await using second = await train({ resume: out });
  for (let index = 0; index < 40; index += 2) rmSync(cat(index));
  const error = await t.throwsAsync(drain(second), {
    code: 'ERR_DATA',
    message: /cat.\d+\.png: cannot be read: .*; when the data set was opened, it was in order$/,
  });
  t.regex((error as Error & { hint: string }).hint, /^Start again, or go on with `--resume`/);
  t.like(second.result, { status: 'failed', error: { code: 'ERR_DATA' } });
  await second.dispose();

  await using third = await train({ resume: out });
  await drain(third);
  t.like(third.result, { status: 'completed' });
  t.is(third.data.info.train, 60);
});

/** A chessboard of light and dark, another for every scene, somewhat brighter for every variant. */
function board(scene: number, variant: number): Uint8Array {
  let state = scene;
  const tile = Array.from({ length: 81 }, () => {
    state = (Math.imul(state + 7, 1_664_525) + 1_013_904_223) >>> 0;
    return 40 + (state >>> 24) / 2;
  });
  const at = (pixel: number) =>
    (tile[Math.floor(pixel / 36 / 4) * 9 + Math.floor((pixel % 36) / 4)] ?? 0) + 8 * variant;
  const data = Uint8Array.from({ length: 36 * 36 * 3 }, (_, index) => at(Math.floor(index / 3)));
  return encode({ width: 36, height: 36, data, channels: 3 });
}

test('images that look nearly the same are on one side of a split that is made here', async (t) => {
  const folder = temporary();
  for (const scene of Array(30).keys()) {
    const name = join(folder, scene % 2 === 0 ? 'even' : 'odd');
    mkdirSync(name, { recursive: true });
    for (const variant of scene < 20 ? [0, 1, 2] : [0])
      writeFileSync(join(name, `${scene}-${variant}.png`), board(scene, variant));
  }
  await using data = await openDataset({ source: folder, imageSize: 16, valFraction: 0.3, cacheDir: temporary() });
  t.like(data.info, { split: 'by content hash', keptTogether: 60 });
  const sides = new Map<string, Set<string>>();
  for (const split of ['train', 'val'] as const) {
    for (const path of namesOf(data, split, Uint32Array.from(Array(data.info[split]).keys()))) {
      const scene = basename(path).split('-')[0] ?? '';
      sides.set(scene, (sides.get(scene) ?? new Set()).add(split));
    }
  }
  t.is(sides.size, 30);
  t.true([...sides.values()].every((of) => of.size === 1));
});
