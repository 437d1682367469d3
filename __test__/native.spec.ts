import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { listDevices, NativeDataset, NativeTrainer, readCheckpoint } from '#native';

import { conv2d, linear, maxPool2d, type NetworkSpec, relu } from '../lib/layers.js';

const NETWORK: NetworkSpec = {
  name: 'tiny',
  classes: 10,
  input: { imageSize: 20, cropSize: 16, flip: true, noiseDivisor: 1, scale: 1 / 64 },
  layers: [
    conv2d('conv1', { outChannels: 4, kernelSize: 3, padding: 1 }),
    relu('relu1'),
    maxPool2d('pool1'),
    linear('fc', { outFeatures: 10 }),
  ],
};
const CONFIG = { network: NETWORK, devices: ['cpu'], threads: 1, batch: 32, seed: 1 };
const RATES = { conv1: [0.01, 0.02], fc: [0.01, 0.02] };

const temporary = mkdtempSync(join(tmpdir(), 'alexnode-'));
test.after.always(() => rmSync(temporary, { recursive: true, force: true }));

let opened: Promise<NativeDataset> | undefined;
/** One data set for all tests. */
function dataset(): Promise<NativeDataset> {
  opened ??= NativeDataset.open(
    JSON.stringify({ source: 'generated', imageSize: 20, cacheDir: join(temporary, 'cache') }),
  );
  return opened;
}

async function trainer(config: object = {}): Promise<NativeTrainer> {
  return NativeTrainer.create(JSON.stringify({ ...CONFIG, ...config }), await dataset());
}

function segment(batch: number, steps: number): string {
  return JSON.stringify({ epoch: 0, batch, step: batch, steps, rates: RATES, colourNoise: 0, augment: true });
}

function code(error: Error | undefined): string | undefined {
  return (error as (Error & { code?: string }) | undefined)?.code;
}

/** What a rejected native call shows of itself. */
async function failure(
  call: Promise<unknown>,
): Promise<{ code?: string; message: string; hint?: string; isError: boolean }> {
  try {
    await call;
  } catch (error) {
    const { message, hint } = error as Error & { hint?: string };
    return { code: code(error as Error), message, hint, isError: error instanceof Error };
  }
  throw new Error('the call did not fail');
}

test('segments go on where the last one ended, whatever their length', async (t) => {
  const [one, two] = [await trainer(), await trainer()];
  await one.run(segment(0, 6));
  for (const [batch, steps] of [
    [0, 1],
    [1, 3],
    [4, 2],
  ] as const) {
    t.is(JSON.parse(await two.run(segment(batch, steps))).steps, steps);
  }
  const [a, b] = [await one.tensor('momentum.conv1.weight'), await two.tensor('momentum.conv1.weight')];
  t.deepEqual(a.shape, [4, 3, 3, 3]);
  t.deepEqual(a.data, b.data);
  t.true(a.data.some((value) => value !== 0));
  await Promise.all([one.dispose(), two.dispose()]);
});

test('the end of an epoch shortens a segment', async (t) => {
  const { train } = JSON.parse((await dataset()).info()) as { train: number };
  const batches = Math.ceil(train / CONFIG.batch);
  const tiny = await trainer();
  const report = JSON.parse(await tiny.run(segment(batches - 2, 10)));
  t.is(report.steps, 2);
  t.is(report.samples, CONFIG.batch + (train % CONFIG.batch || CONFIG.batch));
  await tiny.dispose();
});

test('errors are JavaScript errors with code and hint', async (t) => {
  const tiny = await trainer();
  const missing = await failure(tiny.tensor('conv9.weight'));
  t.like(missing, { code: 'ERR_USAGE', isError: true });
  t.regex(missing.message, /conv9/);
  t.like(await failure(readCheckpoint(join(temporary, 'none'))), { code: 'ERR_CHECKPOINT', isError: true });
  const cuda = await failure(trainer({ devices: ['cuda:0'] }));
  t.is(cuda.code, 'ERR_DEVICE');
  t.truthy(cuda.hint);
  t.is((await failure(trainer({ network: { ...NETWORK, classes: 3 } }))).code, 'ERR_USAGE');
  t.is(
    (await failure(trainer({ network: { ...NETWORK, input: { ...NETWORK.input, imageSize: 24 } } }))).code,
    'ERR_SHAPE',
  );
  for (const call of [
    () => tiny.run('{"epoch":0}'),
    () => tiny.evaluate('{"split":"test","crops":1}'),
    () => tiny.run(''),
  ]) {
    t.is(code(t.throws(call)), 'ERR_USAGE');
  }
  await tiny.dispose();
});

test('a panic is ERR_KERNEL, ends its trainer and nothing else', async (t) => {
  const [broken, other] = [await trainer(), await trainer()];
  const panicking = broken as NativeTrainer & { __panic(): Promise<void> };
  const first = await failure(panicking.__panic());
  t.is(first.code, 'ERR_KERNEL');
  t.regex(first.message, /a panic on purpose/);
  const later = await failure(broken.run(segment(0, 1)));
  t.is(later.code, 'ERR_KERNEL');
  t.regex(later.message, /earlier failure/);
  t.is(JSON.parse(await other.run(segment(0, 1))).steps, 1);
  await Promise.all([broken.dispose(), other.dispose()]);
});

test('cancel ends a run early and rejects an evaluation, and leaves later calls alone', async (t) => {
  const tiny = await trainer();
  const run = tiny.run(segment(0, 150));
  const evaluation = tiny.evaluate(JSON.stringify({ split: 'val', crops: 10 }));
  tiny.cancel();
  const later = tiny.run(segment(0, 2));
  t.true(JSON.parse(await run).steps < 150);
  t.is((await failure(evaluation)).code, 'ERR_ABORTED');
  t.is(JSON.parse(await later).steps, 2);
  await tiny.dispose();
});

test('dispose may be called twice; later calls are ERR_USAGE', async (t) => {
  const tiny = await trainer();
  await Promise.all([tiny.dispose(), tiny.dispose()]);
  const late = await failure(tiny.run(segment(0, 1)));
  t.is(late.code, 'ERR_USAGE');
  t.regex(late.message, /disposed/);
});

test('a closed data set makes no new trainers; those that use it go on', async (t) => {
  const set = await NativeDataset.open(
    JSON.stringify({ source: 'generated', imageSize: 20, cacheDir: join(temporary, 'cache') }),
  );
  const tiny = await NativeTrainer.create(JSON.stringify(CONFIG), set);
  set.close();
  set.close();
  t.is(code(t.throws(() => NativeTrainer.create(JSON.stringify(CONFIG), set))), 'ERR_USAGE');
  t.is(JSON.parse(await tiny.run(segment(0, 2))).steps, 2);
  await tiny.dispose();
});

test('an evaluation can be limited to a part of a split', async (t) => {
  const tiny = await trainer();
  const report = JSON.parse(await tiny.evaluate(JSON.stringify({ split: 'val', crops: 1, limit: 50 })));
  t.is(report.samples, 50);
  await tiny.dispose();
});

test('devices are listed with a reason where they cannot be used', (t) => {
  const devices = JSON.parse(listDevices()) as { name: string; usable: boolean; reason?: string }[];
  t.true(devices.find((device) => device.name === 'cpu')?.usable);
  for (const device of devices.filter(({ usable }) => !usable)) t.truthy(device.reason, device.name);
});

/** Code for another thread or process: a trainer with a long run under way, which it tells of. */
function longRun(tell: string): string {
  const config = JSON.stringify(JSON.stringify(CONFIG));
  const options = JSON.stringify(
    JSON.stringify({ source: 'generated', imageSize: 20, cacheDir: join(temporary, 'cache') }),
  );
  return `
    const { NativeDataset, NativeTrainer } = await import('#native');
    const trainer = await NativeTrainer.create(${config}, await NativeDataset.open(${options}));
    trainer.run(${JSON.stringify(segment(0, 1_000_000))}).catch(() => {});
    trainer.evaluate('{"split":"train","crops":10}').catch(() => {});
    ${tell}
  `;
}

test('the process ends at once while a trainer is busy', async (t) => {
  await dataset();
  const source = longRun('setTimeout(() => process.exit(7), 200);');
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: 'inherit' });
  const begin = Date.now();
  t.deepEqual(await once(child, 'exit'), [7, null]);
  t.true(Date.now() - begin < 20_000);
});

test('a worker thread can train, and be terminated while it does', async (t) => {
  await dataset();
  const source = longRun("(await import('node:worker_threads')).parentPort.postMessage('busy');");
  const worker = new Worker(
    new URL(`data:text/javascript,${encodeURIComponent(source.replace("'#native'", JSON.stringify(addon())))}`),
  );
  const [message] = await once(worker, 'message');
  t.is(message, 'busy');
  t.is(await worker.terminate(), 1);
  const here = await trainer();
  t.is(JSON.parse(await here.run(segment(0, 1))).steps, 1, 'the main thread goes on');
  await here.dispose();
});

function addon(): string {
  return import.meta.resolve('#native');
}
