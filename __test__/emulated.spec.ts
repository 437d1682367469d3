import { join } from 'node:path';
import test from 'ava';

import { AlexnodeError, type StepEvent, type TrainCall, type TrainEvent, train } from '../lib/index.js';
import { relativeL2 } from '../lib/slots.js';
import { cli, drain, eventsOf, newest, TINY_CALL, temporary, tensorBytes } from './helpers.js';

/** Emulated devices need a C++ compiler, which only a developer's machine may lack. */
async function usable(): Promise<boolean> {
  try {
    const training = await train({ ...TINY_CALL, devices: ['emulated:0'] });
    await training.dispose();
    return true;
  } catch (error) {
    if (process.env.ALEXNODE_REQUIRE_CXX || !(error instanceof AlexnodeError) || error.code !== 'ERR_DEVICE')
      throw error;
    console.warn(`SKIPPED on emulated devices: ${error.message}. ${error.hint}`);
    return false;
  }
}

const emulated = (await usable()) ? test : test.skip;

function losses(events: TrainEvent[]): number[] {
  return events.filter((event): event is StepEvent => event.type === 'step').map(({ loss }) => loss);
}

/** What is left of twelve steps. */
async function trained(devices: string[]): Promise<{ weights: Float32Array[]; transferBytes: number }> {
  await using training = await train({ ...TINY_CALL, devices, steps: 12 });
  await drain(training);
  const names = ['conv1.weight', 'momentum.conv1.weight', 'fc2.weight', 'momentum.fc2.bias'];
  const weights = [];
  for (const name of names) weights.push((await training.trainer.tensor(name)).data);
  return { weights, transferBytes: training.trainer.info.counters.transferBytes };
}

emulated('a training on two emulated devices is that on the processor, to rounding', async (t) => {
  const [one, two] = [await trained(['cpu']), await trained(['emulated:0', 'emulated:1'])];
  t.is(one.transferBytes, 0);
  t.true(two.transferBytes > 0);
  for (const [index, weights] of one.weights.entries()) {
    const distance = relativeL2(weights, two.weights[index] ?? new Float32Array());
    t.true(distance < 1e-4, `tensor ${index}: ${distance}`);
  }
});

async function run(call: TrainCall): Promise<void> {
  await using training = await train({ ...TINY_CALL, ...call });
  await drain(training);
}

async function resume(call: TrainCall): Promise<TrainEvent[]> {
  await using training = await train(call);
  return await drain(training);
}

emulated('a run goes on where it stopped: with the same bits on the same device, recorded on another', async (t) => {
  const folder = temporary();
  const devices = ['emulated:0'];
  const [whole, parts] = [join(folder, 'whole'), join(folder, 'parts')];
  await run({ devices, steps: 10, out: whole });
  await run({ devices, steps: 4, out: parts });
  await resume({ resume: parts, steps: 6 });
  t.true(tensorBytes(newest(whole)).equals(tensorBytes(newest(parts))));

  const [start] = await resume({ resume: parts, devices: ['cpu'], steps: 2 });
  t.like(start, { type: 'start', changed: [{ key: 'devices', from: ['emulated:0'], to: ['cpu'] }] });
});

emulated('the command trains the demo on two emulated devices', async (t) => {
  const args = ['--preset', 'demo', '--devices', 'emulated:0,emulated:1', '--steps', '2', '--batch', '8'];
  const { code, stdout, stderr } = await cli(['train', ...args, '--precision', 'fp32', '--json'], temporary()).ended;
  t.is(code, 0, stderr);
  const found = losses(eventsOf(stdout));
  t.true(found.length > 0 && found.every((loss) => Math.abs(loss - Math.log(10)) < 1), `${found}`);
});
