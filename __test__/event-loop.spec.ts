import { readFileSync } from 'node:fs';
import test from 'ava';
import {
  describeNetwork,
  listDevices,
  NativeDataset,
  NativeModel,
  NativePass,
  NativeTrainer,
  preparePictures,
  readCheckpoint,
} from '#native';

import { imagesOf, namesOf } from '../lib/data.js';
import { evaluate, loadModel, similar, train } from '../lib/index.js';
import { colourPixels, colourRun } from './colours.js';
import { drain, newest, slowNetwork, TINY, temporary } from './helpers.js';

/** What a call may take of the JS thread's CPU time. */
const LIMIT_MS = 5;
const cell = new Int32Array(new SharedArrayBuffer(4));

/** CPU time of this thread in milliseconds. The kernel's sum is brought up to date by giving the processor away for a moment. */
function threadTime(): number {
  Atomics.wait(cell, 0, 0, 0.2);
  return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6;
}

interface Call {
  call: string;
  ms: number;
}

/** CPU time of the synchronous part of a call. */
function timed<T>(calls: Call[], call: string, run: () => T): T {
  const start = threadTime();
  try {
    return run();
  } finally {
    calls.push({ call, ms: threadTime() - start });
  }
}

/** Puts a stop-watch around every method of the instances of a class. */
function watch(name: string, prototype: object, calls: Call[]): void {
  for (const key of Object.getOwnPropertyNames(prototype)) {
    const value = Object.getOwnPropertyDescriptor(prototype, key)?.value as unknown;
    if (typeof value !== 'function' || key === 'constructor') continue;
    Object.defineProperty(prototype, key, {
      value(this: unknown, ...args: unknown[]) {
        return timed(calls, `${name}.${key}`, () => Reflect.apply(value, this, args) as unknown);
      },
    });
  }
}

// One after the other: the methods of the classes are replaced.
const linux = process.platform === 'linux' ? test.serial : test.serial.skip;

linux('no native call of a training holds the JS thread for more than 5 ms of its CPU time', async (t) => {
  const calls: Call[] = [];
  watch('NativeDataset', NativeDataset.prototype, calls);
  watch('NativeTrainer', NativeTrainer.prototype, calls);
  {
    await using training = await train({
      preset: 'demo',
      recipe: { epochs: 1 },
      limit: 384,
      out: `${temporary()}/run`,
    });
    await drain(training);
    const { trainer } = training;
    await trainer.evaluate({ limit: 100 });
    await trainer.tensor('conv1.weight');
    await imagesOf(
      training.data,
      'val',
      Uint32Array.from({ length: 200 }, (_, id) => id),
      96,
    );
    namesOf(
      training.data,
      'val',
      Uint32Array.from({ length: 1000 }, (_, id) => id),
    );
    // The static ones cannot be replaced; they are called here once more, as lib does.
    const { network, devices, seed, recipe, data, precision } = trainer.config;
    const { batch, momentum } = recipe;
    const config = { network, devices, seed, batch, momentum, precision };
    timed(calls, 'describeNetwork', () => describeNetwork(JSON.stringify({ network, devices, batch })));
    timed(calls, 'listDevices', () => listDevices());
    const opened = await timed(calls, 'NativeDataset.open', () => NativeDataset.open(JSON.stringify(data)));
    const made = await timed(calls, 'NativeTrainer.create', () => NativeTrainer.create(JSON.stringify(config), opened));
    const path = newest(training.run?.folder ?? '');
    await timed(calls, 'readCheckpoint', () => readCheckpoint(path));
    await made.load(path);
    made.cancel();
    await made.dispose();
    opened.close();
  }
  const names = new Set(calls.map(({ call }) => call));
  for (const method of ['run', 'judge', 'statistics', 'evaluate', 'save', 'load', 'tensor', 'cancel', 'dispose']) {
    t.true(names.has(`NativeTrainer.${method}`), method);
  }
  for (const method of ['images', 'names']) t.true(names.has(`NativeDataset.${method}`), method);
  t.deepEqual(
    calls.filter(({ ms }) => ms > LIMIT_MS),
    [],
  );
  const longest = calls.toSorted((a, b) => b.ms - a.ms)[0];
  t.log(`${calls.length} calls, the longest ${longest?.call}: ${longest?.ms.toFixed(2)} ms`);
});

/** How often the event loop comes round while a promise is pending. */
async function rounds(promise: Promise<unknown>): Promise<number> {
  let pending = true;
  let count = 0;
  const round = () => {
    count += 1;
    if (pending) setImmediate(round);
  };
  setImmediate(round);
  await promise;
  pending = false;
  return count;
}

test.serial('the loop goes round and timers fire while a training looks at images and layers', async (t) => {
  // Heavy enough to take a while: 64 images of a hundred million multiply-adds.
  const recipe = { ...TINY, batch: 32 };
  await using training = await train({ network: slowNetwork, recipe, limit: 64 });
  const { network, devices, seed, data, precision } = training.trainer.config;
  const config = { network, devices, seed, batch: 32, momentum: 0.9, precision };
  const opened = await NativeDataset.open(JSON.stringify(data));
  const made = await NativeTrainer.create(JSON.stringify(config), opened);
  const ids = Uint32Array.from({ length: 1000 }, (_, id) => id);
  for (const [name, call] of [
    ['judge', () => made.judge(JSON.stringify({ split: 'val', crops: 1, limit: 64 }))],
    ['statistics', () => made.statistics(JSON.stringify({ split: 'val', limit: 64 }))],
    ['images', () => opened.images('val', ids, 256)],
  ] as const) {
    let fired = 0;
    const timer = setInterval(() => {
      fired += 1;
    }, 1);
    const count = await rounds(call());
    clearInterval(timer);
    // A call that works on this thread comes back with its promise settled: one round, and no timer.
    t.true(count > 10, `${name}: ${count} rounds`);
    t.true(fired > 1, `${name}: ${fired} timers`);
  }
  await made.dispose();
  opened.close();
});

linux('nor does one of a trained network', async (t) => {
  const { run } = await colourRun({ recipe: { batch: 16, epochs: 1 } });
  const calls: Call[] = [];
  watch('NativeModel', NativeModel.prototype, calls);
  watch('NativePass', NativePass.prototype, calls);
  const images = Array.from({ length: 20 }, (_, mark) => colourPixels('red', mark));
  {
    await using model = await loadModel(run);
    await Promise.all(images.map((image) => model.predict(image)));
    for await (const _ of model.features(images));
  }
  await evaluate({ model: run, crops: 10 });
  await evaluate({ model: [run, run] });
  await similar({ model: run, images });
  const pictures = images.map(({ data, width, height }) => ({ bytes: new Uint8Array(data), width, height }));
  await timed(calls, 'preparePictures', () => preparePictures(pictures, 16, 1));
  const names = new Set(calls.map(({ call }) => call));
  for (const method of [
    'NativeModel.probabilities',
    'NativeModel.outputs',
    'NativeModel.evaluate',
    'NativePass.next',
  ]) {
    t.true(names.has(method), method);
  }
  t.deepEqual(
    calls.filter(({ ms }) => ms > LIMIT_MS),
    [],
  );
});
