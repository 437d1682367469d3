import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { evaluate, openDataset, packDataset, type TrainCall, train, verifyPack } from '../lib/index.js';
import { cli, drain, newest, photos, picture, TINY_CALL, temporary, tensorBytes } from './helpers.js';

/** Sums of all files of a folder by name. */
function sums(folder: string): Record<string, string> {
  const sum = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex');
  return Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((name) => [name, sum(name)]),
  );
}

function call(data: string): TrainCall {
  const { limit: _, ...rest } = TINY_CALL;
  return { ...rest, recipe: { ...rest.recipe, batch: 4, epochs: 2 }, data, cacheDir: temporary() };
}

async function trained(data: string): Promise<string> {
  const out = join(temporary(), 'run');
  await using training = await train({ ...call(data), out });
  await drain(training);
  return out;
}

async function packed(source: string, options: { format?: 'npy' | 'tar'; shardImages?: number } = {}): Promise<string> {
  const target = join(temporary(), 'pack');
  await using packing = await packDataset({ source, target, imageSize: 16, cacheDir: temporary(), ...options });
  for await (const { done, images } of packing.run()) if (done > images) throw new Error('too many');
  return target;
}

test('a run on a raw pack is the run on its source, bit for bit', async (t) => {
  const folder = photos(temporary(), { cat: 30, dog: 20 });
  const pack = await packed(folder, { shardImages: 8 });
  const [a, b] = [await trained(folder), await trained(pack)];
  t.deepEqual(tensorBytes(newest(a)), tensorBytes(newest(b)));
  // Which of the two a run was begun with does not matter to it.
  const report = await evaluate({ model: [a], data: pack });
  t.is(report.top1Error, (await evaluate({ model: [a] })).top1Error);
});

test('a pack is written, shown and checked by the command', async (t) => {
  const here = temporary();
  photos(join(here, 'photos'), { 'train/a': 12, 'train/b': 9, 'val/a': 3, 'val/b': 4 });
  const environment = { XDG_CACHE_HOME: join(here, 'cache') };
  const pack = ['data', 'pack', 'photos', 'out', '--format', 'tar', '--size', '32', '--shard-images', '10'];
  const first = await cli(pack, here, environment).ended;
  t.is(first.code, 0, first.stderr);
  t.regex(first.stdout, /photos: 28 images of 2 classes \(train 21, val 7\)/);
  t.regex(first.stdout, /to write, .* free/);
  const again = await cli([...pack, '--json'], here, environment).ended;
  t.like(JSON.parse(again.stdout.split('\n')[0] ?? ''), {
    type: 'forecast',
    images: 28,
    done: 28,
    left: 0,
    complete: true,
  });
  const other = await cli([...pack.slice(0, -1), '9'], here, environment).ended;
  t.is(other.code, 2);
  t.regex(other.stderr, /other options: shardImages/);

  const verify = (json: string[] = []) => cli(['data', 'verify', 'out', ...json], here).ended;
  t.like(await verify(), { code: 0 });
  const shard = join(here, 'out', 'train-00001.tar');
  const bytes = readFileSync(shard);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  writeFileSync(shard, bytes);
  const { code, stdout } = await verify(['--json']);
  t.is(code, 4);
  t.like(JSON.parse(stdout), { type: 'verification', damaged: [{ file: 'train-00001.tar' }] });
});

test('a pack that is killed goes on, and its files are the same', async (t) => {
  const here = temporary();
  const environment = { XDG_CACHE_HOME: join(here, 'cache') };
  const pack = (target: string) => [
    'data',
    'pack',
    'generated',
    target,
    '--size',
    '64',
    '--shard-images',
    '500',
    '--json',
  ];
  const whole = await cli(pack('whole'), here, environment).ended;
  t.is(whole.code, 0, whole.stderr);
  const killed = cli([...pack('parts'), '--threads', '1'], here, environment);
  await killed.line((line) => line.includes('"progress"') && (JSON.parse(line) as { done: number }).done > 1200);
  killed.process.kill('SIGKILL');
  t.is((await killed.ended).signal, 'SIGKILL');
  t.false(readdirSync(join(here, 'parts')).includes('pack.json'));
  await t.throwsAsync(verifyPack(join(here, 'parts')).next(), { code: 'ERR_DATA', message: /no pack in it/ });
  const resumed = await cli(pack('parts'), here, environment).ended;
  t.is(resumed.code, 0, resumed.stderr);
  const forecast = JSON.parse(resumed.stdout.split('\n')[0] ?? '') as { done: number; images: number };
  t.true(forecast.done >= 1000 && forecast.done < forecast.images, JSON.stringify(forecast));
  t.deepEqual(sums(join(here, 'parts')), sums(join(here, 'whole')));
});

test('a pack that the disk has no room for is refused with the numbers before it begins', async (t) => {
  const target = join(temporary(), 'pack');
  const refused = await t.throwsAsync(packDataset({ source: 'generated', target, imageSize: 4096 }), {
    code: 'ERR_DATA',
    message: /the pack needs \d+ GB more, and the disk has .* free/,
  });
  t.regex((refused as Error & { hint: string }).hint, /larger disk/);
  t.false(readdirSync(join(target, '..')).includes('pack'));
});

test('a pack with other classes than a network has is refused with the difference', async (t) => {
  const model = await trained(await packed(photos(temporary(), { cat: 12, dog: 12 })));
  const other = await packed(photos(temporary(), { cat: 12, bird: 12, fox: 12 }));
  await t.throwsAsync(evaluate({ model: [model], data: other }), {
    code: 'ERR_DATA',
    message: /other classes than it was trained on \(missing: dog; new: bird, fox\)/,
  });
});

test('images of a program are a data set: read once, split by content, kept until it is closed', async (t) => {
  async function* images(counts: number[]) {
    let mark = 0;
    for (const [label, count] of counts.entries()) {
      for (let index = 0; index < count; index += 1) {
        mark += 1;
        yield { bytes: picture(20, mark), label: `class ${label}` };
      }
    }
  }
  const options = { imageSize: 16, cacheDir: temporary() };
  await using data = await openDataset({ ...options, source: images([30, 20]) });
  t.like(data.info, { kind: 'stream', classes: ['class 0', 'class 1'], split: 'by content hash' });
  t.is(data.info.train + data.info.val, 50);
  // More images move none of those that were there.
  await using more = await openDataset({ ...options, source: images([30, 25]) });
  t.is(more.info.perClass.val[0], data.info.perClass.val[0]);
  t.true((more.info.perClass.train[1] ?? 0) >= (data.info.perClass.train[1] ?? 0));
  await t.throwsAsync(openDataset({ ...options, source: images([5]) }), {
    code: 'ERR_DATA',
    message: /only one class/,
  });
  const wrong = [{ bytes: 'no bytes', label: 'a' }] as never;
  await t.throwsAsync(openDataset({ ...options, source: wrong }), { code: 'ERR_USAGE', message: /image 0: expected/ });
});

test('a balanced training shows small classes as often as large ones', async (t) => {
  const folder = photos(temporary(), { 'train/a': 24, 'train/b': 4, 'val/a': 2, 'val/b': 2 });
  await using training = await train({ ...call(folder), balance: 'sample' });
  const steps = (await drain(training)).filter(({ type }) => type === 'epoch');
  t.is(steps.length, 2);
  t.is(training.data.config.balance, 'sample');
  rmSync(folder, { recursive: true });
});
