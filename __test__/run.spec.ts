import { copyFile, readdir, readFile, rename, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

import { Checkpoints } from '../lib/checkpoint.js';
import type { EpochEvent } from '../lib/events.js';
import { type Manifest, Run, readManifest } from '../lib/run.js';
import { train } from '../lib/train.js';
import { drain, newest, TINY_CALL, temporary } from './helpers.js';

const MANIFEST = { format: 'alexnode-run', version: 1, name: 'x', sessions: [], result: null } as unknown as Manifest;

function epoch(number: number): EpochEvent {
  return {
    type: 'epoch',
    epoch: number,
    steps: number * 10,
    seconds: number,
    imagesPerSecond: 1.5,
    waitShare: 0.25,
    lr: 0.1,
    biasLr: 0.2,
    train: { loss: 2, top1Error: 0.5, top5Error: 0.25 },
    val: number % 2 === 0 ? { loss: 1, top1Error: 0.125, top5Error: 0 } : null,
    best: false,
    layers: number % 2 === 0 ? [{ name: '=conv, "1"', weight: 0.5, update: 1.5e-7, gradient: 0.25 }] : [],
    units: number % 2 === 0 ? [{ name: 'relu.1', units: 8, dead: 3, active: 0.125 }] : [],
    warnings: number === 2 ? ['DEAD_UNITS', 'INPUT_BOUND'] : [],
  };
}

test('rows survive closing and opening, and those the checkpoint lacks are dropped', async (t) => {
  const folder = join(temporary(), 'run');
  const session = { startedAt: 'x', resumed: null, changed: [] };
  {
    await using run = await Run.create(folder, MANIFEST);
    await run.startSession(session, {}, 0);
    for (const number of [1, 2, 3]) await run.record(epoch(number));
  }
  await using run = await Run.open(folder);
  t.deepEqual(run.rows, [epoch(1), epoch(2), epoch(3)]);
  await run.startSession(session, {}, 2);
  t.deepEqual(run.rows, [epoch(1), epoch(2)]);
  t.is((await readFile(join(folder, 'metrics.csv'), 'utf8')).trim().split('\n').length, 3);
  t.is((await readManifest(folder)).sessions.length, 2);
});

test('half a line that a killed run left in the log does not spoil the next one', async (t) => {
  const folder = join(temporary(), 'run');
  const log = join(folder, 'events.ndjson');
  await (await Run.create(folder, MANIFEST)).close();
  await writeFile(join(folder, 'run.json'), JSON.stringify(MANIFEST));
  await writeFile(log, '{"type":"start"}\n{"type":"st');
  for (const number of [1, 2]) {
    await using run = await Run.open(folder);
    await run.record(epoch(number));
  }
  const lines = (await readFile(log, 'utf8')).split('\n');
  t.deepEqual(
    lines.map((line) => line.slice(0, 11)),
    ['{"type":"st', '{"type":"st', '{"time":"20', '{"time":"20', ''],
  );
});

test('a folder without a run cannot be opened, and stays as it was', async (t) => {
  const folder = temporary();
  await t.throwsAsync(Run.open(folder), { code: 'ERR_CHECKPOINT', message: /there is no run in it/ });
  t.deepEqual(await readdir(folder), []);
  await t.throwsAsync(Run.open(join(folder, 'typo')), { code: 'ERR_CHECKPOINT' });
  await writeFile(join(folder, 'run.json'), '{ not json');
  await t.throwsAsync(Run.open(folder), { code: 'ERR_CHECKPOINT', message: /not readable/ });
});

test('what a killed run left half-written is swept', async (t) => {
  const folder = join(temporary(), 'run');
  await (await Run.create(folder, MANIFEST)).close();
  await writeFile(join(folder, 'run.json'), JSON.stringify(MANIFEST));
  await writeFile(join(folder, 'run.json.1.ab.tmp'), '');
  await writeFile(join(folder, 'checkpoints', '.checkpoint-x.tmp'), '');
  await (await Run.open(folder)).close();
  t.deepEqual(await readdir(join(folder, 'checkpoints')), []);
  t.deepEqual((await readdir(folder)).sort(), ['checkpoints', 'events.ndjson', 'run.json']);
});

test('the three newest checkpoints and the best are kept', async (t) => {
  const checkpoints = new Checkpoints(join(temporary(), 'checkpoints'));
  await checkpoints.prepare();
  for (const [step, best] of [
    [1, true],
    [2, true],
    [3, false],
    [20, false],
    [100, false],
  ] as const) {
    await checkpoints.store(step, best, async (path) => {
      await writeFile(path, String(step));
      return { path, bytes: 1, sha256: '', seconds: 0 };
    });
  }
  t.deepEqual(await checkpoints.steps(), [100, 20, 3]);
  t.is(await readFile(join(checkpoints.folder, 'last'), 'utf8'), 'step-100.safetensors\n');
  t.is(await readFile(checkpoints.best, 'utf8'), '2');
  t.deepEqual((await readdir(checkpoints.folder)).length, 5);
});

test('a broken newest checkpoint is set aside and the one before it used, with a warning', async (t) => {
  const out = join(temporary(), 'run');
  {
    await using training = await train({ ...TINY_CALL, out, steps: 5 });
    await drain(training);
  }
  {
    await using training = await train({ resume: out, steps: 3 });
    await drain(training);
  }
  const broken = newest(out);
  await truncate(broken, (await stat(broken)).size - 10);
  await using training = await train({ resume: out, steps: 1 });
  const [start, warning] = await drain(training);
  t.like(start, { type: 'start', cursor: { epoch: 0, batch: 5, step: 5 } });
  t.like(warning, { type: 'warning', code: 'CHECKPOINT_BROKEN' });
  t.true((await readdir(join(out, 'checkpoints'))).includes('step-8.safetensors.broken'));
});

test('a run without an intact checkpoint is an error, never a fresh start', async (t) => {
  const out = join(temporary(), 'run');
  {
    await using training = await train({ ...TINY_CALL, out, steps: 2 });
    await drain(training);
  }
  const good = newest(out);
  const elsewhere = join(out, 'saved');
  await copyFile(good, elsewhere);
  await truncate(good, 100);
  await t.throwsAsync(train({ resume: out }), { code: 'ERR_CHECKPOINT', message: /none of its checkpoints is intact/ });
  await t.throwsAsync(train({ resume: out }), { code: 'ERR_CHECKPOINT', message: /there is no checkpoint/ });
  // A failed resume has given the folder back, and taken nothing away.
  await rename(elsewhere, good);
  await using training = await train({ resume: out, steps: 1 });
  await drain(training);
  t.is(training.result?.steps, 3);
});

test('a folder that cannot be made is named', async (t) => {
  const folder = temporary();
  await writeFile(join(folder, 'file'), '');
  await t.throwsAsync(Run.create(join(folder, 'file', 'run'), MANIFEST), {
    code: 'ERR_USAGE',
    message: /file.run: the run folder cannot be made/,
  });
});
