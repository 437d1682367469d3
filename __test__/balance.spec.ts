import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { encode } from 'fast-png';

import { type NetworkSpec, openDataset, type TrainCall, type Training, train } from '../lib/index.js';
import { cli, drain, newest, temporary, tensorBytes } from './helpers.js';

const linear = (classes: number): NetworkSpec => ({
  name: 'linear',
  classes,
  input: { imageSize: 8, cropSize: 8, flip: false, noiseDivisor: 1, scale: 1 / 64 },
  layers: [{ type: 'linear', name: 'fc1', outFeatures: classes, weightInit: { type: 'normal', std: 0.01 } }],
});

/** Grey pictures, those of `rare` brighter on the average, with much overlap. */
function skewed(): string {
  const folder = temporary();
  let state = 1;
  const uniform = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  const write = (name: string, count: number, mean: number) => {
    mkdirSync(join(folder, name), { recursive: true });
    for (let index = 0; index < count; index += 1) {
      const light = mean + 24 * (uniform() + uniform() + uniform() + uniform() - 2) * Math.sqrt(3);
      const data = Uint8Array.from({ length: 8 * 8 * 3 }, () => light + 8 * uniform());
      writeFileSync(join(folder, name, `${index}.png`), encode({ width: 8, height: 8, data, channels: 3 }));
    }
  };
  write('train/common', 180, 100);
  write('train/rare', 20, 136);
  write('val/common', 50, 100);
  write('val/rare', 50, 136);
  return folder;
}

const data = skewed();
const cacheDir = temporary();

function call(balance: 'none' | 'sample' | 'loss'): TrainCall {
  const recipe = {
    batch: 20,
    epochs: 30,
    lr: 0.003,
    biasLr: 0.003,
    schedule: { type: 'constant' },
    colourNoise: 0,
  } as const;
  return { network: linear, recipe, data, balance, cacheDir, seed: 3, threads: 1 };
}

/** Of the validation images of `rare`, the share that is found. */
async function recall(training: Training): Promise<number> {
  await drain(training);
  const { labels, classes, top } = training.trainer.judgement ?? { labels: [], classes: [], top: 1 };
  const found = Array.from(labels, (label, image) => label === 1 && classes[image * top] === 1);
  return found.filter(Boolean).length / Array.from(labels).filter((label) => label === 1).length;
}

test('a rare class is found more often where the loss or the epoch is balanced', async (t) => {
  const recalls: Record<string, number> = {};
  for (const balance of ['none', 'sample', 'loss'] as const) {
    await using training = await train(call(balance));
    recalls[balance] = await recall(training);
  }
  t.log(recalls);
  const { none = 1, sample = 0, loss = 0 } = recalls;
  t.true(sample > none + 0.2 && loss > none + 0.2);
});

test('what the classes count is known, and makes a mean of 1', async (t) => {
  await using weighed = await openDataset({ source: data, imageSize: 8, balance: 'loss', cacheDir });
  // 200 / (2 x 180) and 200 / (2 x 20).
  t.deepEqual(
    weighed.info.classWeights?.map((weight) => weight.toFixed(4)),
    ['0.5556', '5.0000'],
  );
  await using plain = await openDataset({ source: data, imageSize: 8, cacheDir });
  t.is(plain.info.classWeights, null);
});

test('the first loss is that of guessing, with weights as without: it is told without them', async (t) => {
  const first: number[] = [];
  for (const balance of ['none', 'loss'] as const) {
    await using training = await train({ ...call(balance), steps: 1 });
    const [step] = (await drain(training)).filter(({ type }) => type === 'step');
    first.push((step as { loss: number }).loss);
  }
  t.is(first[0], first[1]);
});

test('a run with a weighed loss goes on to the same bits, and keeps its balance', async (t) => {
  const [whole, stopped] = [join(temporary(), 'whole'), join(temporary(), 'stopped')];
  const short = { ...call('loss'), recipe: { ...call('loss').recipe, epochs: 3 } };
  {
    await using training = await train({ ...short, out: whole });
    await drain(training);
  }
  {
    await using training = await train({ ...short, out: stopped, steps: 14 });
    await drain(training);
  }
  await t.throwsAsync(train({ resume: stopped, balance: 'sample' }), {
    code: 'ERR_USAGE',
    message: /^balance: .*"loss"/,
  });
  await t.throwsAsync(train({ resume: stopped, balance: 'none' }), { code: 'ERR_USAGE' });
  {
    await using training = await train({ resume: stopped, balance: 'loss' });
    await drain(training);
  }
  t.deepEqual(tensorBytes(newest(stopped)), tensorBytes(newest(whole)));
  t.is(JSON.parse(readFileSync(join(stopped, 'run.json'), 'utf8')).config.data.balance, 'loss');
});

test('the command line tells what the classes count', async (t) => {
  const flags = ['--data', data, '--preset', 'small', '--balance', 'loss', '--dry-run', '--batch', '4'];
  const { code, stdout } = await cli(['train', ...flags, '--epochs', '1'], temporary()).ended;
  t.is(code, 0);
  t.regex(stdout, /balance +an image counts from 0\.56 \(common\) to 5\.00 \(rare\) .* without these weights/);
  // So few that there is none of one class.
  const few = await cli(['train', ...flags, '--epochs', '1', '--limit', '4'], temporary()).ended;
  t.is(few.code, 0);
  t.regex(few.stdout, /balance +an image counts from 1\.00 \(common\) to 1\.00 \(common\)/);
  const wrong = await cli(['train', '--data', data, '--balance', 'los'], temporary()).ended;
  t.is(wrong.code, 2);
  t.regex(wrong.stderr, /loss/);
});
