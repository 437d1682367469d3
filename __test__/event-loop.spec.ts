import { readFileSync } from 'node:fs';
import test from 'ava';
import { NativeDataset, NativeTrainer } from '#native';

import { train } from '../lib/index.js';
import { drain, temporary } from './helpers.js';

/** What a call may take of the JS thread's CPU time. */
const LIMIT_MS = 5;
const cell = new Int32Array(new SharedArrayBuffer(4));

/** CPU time of this thread in milliseconds. The kernel's sum is brought up to date by giving the processor away for a moment. */
function threadTime(): number {
  Atomics.wait(cell, 0, 0, 0.2);
  return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6;
}

/** Puts a stop-watch around every method of a class; name and CPU time of the calls' synchronous parts. */
function watch(name: string, owner: object, calls: { call: string; ms: number }[]): void {
  for (const key of Object.getOwnPropertyNames(owner)) {
    const value = Object.getOwnPropertyDescriptor(owner, key)?.value as unknown;
    if (typeof value !== 'function' || key === 'constructor') continue;
    Object.defineProperty(owner, key, {
      configurable: true,
      writable: true,
      value(...args: unknown[]) {
        const start = threadTime();
        try {
          return Reflect.apply(value, this, args) as unknown;
        } finally {
          calls.push({ call: `${name}.${key}`, ms: threadTime() - start });
        }
      },
    });
  }
}

const linux = process.platform === 'linux' ? test : test.skip;

linux('no native call of a training holds the JS thread for more than 5 ms of its CPU time', async (t) => {
  const calls: { call: string; ms: number }[] = [];
  watch('NativeDataset', NativeDataset, calls);
  watch('NativeDataset', NativeDataset.prototype, calls);
  watch('NativeTrainer', NativeTrainer, calls);
  watch('NativeTrainer', NativeTrainer.prototype, calls);
  {
    await using training = await train({
      preset: 'demo',
      recipe: { epochs: 3 },
      limit: 500,
      steps: 12,
      out: `${temporary()}/run`,
    });
    await drain(training);
    await training.trainer.evaluate({ limit: 100 });
  }
  const names = new Set(calls.map(({ call }) => call));
  for (const call of ['NativeDataset.open', 'NativeTrainer.create', 'NativeTrainer.run', 'NativeTrainer.evaluate']) {
    t.true(names.has(call), call);
  }
  for (const call of ['NativeTrainer.save', 'NativeTrainer.tensor', 'NativeTrainer.dispose'])
    t.true(names.has(call), call);
  const slow = calls.filter(({ ms }) => ms > LIMIT_MS);
  t.deepEqual(slow, []);
  t.log(`${calls.length} calls, the longest ${Math.max(...calls.map(({ ms }) => ms)).toFixed(2)} ms`);
});
