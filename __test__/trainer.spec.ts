import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import {
  AlexnodeError,
  type EpochEvent,
  type Manifest,
  openDataset,
  type StepEvent,
  Trainer,
  train,
} from '../lib/index.js';
import { drain, newest, TINY, TINY_CALL, temporary, tensorBytes, tinyNetwork } from './helpers.js';

test('a run tells its events in order and leaves a whole run folder', async (t) => {
  const out = join(temporary(), 'run');
  await using training = await train({ ...TINY_CALL, out });
  const events = await drain(training);
  t.is(events[0]?.type, 'start');
  t.is(events.at(-1)?.type, 'end');
  const steps = events.filter((event): event is StepEvent => event.type === 'step');
  t.is(steps.at(-1)?.step, 48);
  t.is(
    steps.reduce((sum, event) => sum + event.samples, 0),
    1_500,
  );
  const epochs = events.filter((event): event is EpochEvent => event.type === 'epoch');
  t.deepEqual(
    epochs.map((event) => [event.epoch, event.steps, event.val !== null]),
    // 500 images trained on are too few for a validation of 1,000: it comes after the second epoch and after the last.
    [
      [1, 16, false],
      [2, 32, true],
      [3, 48, true],
    ],
  );
  t.true((epochs[2]?.train?.loss ?? 9) < (epochs[0]?.train?.loss ?? 0));

  const manifest = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8')) as Manifest;
  t.deepEqual(manifest.result, training.result);
  t.like(manifest.result, { status: 'completed', epochs: 3, steps: 48 });
  t.deepEqual(Object.keys(manifest.result ?? {}), [
    'status',
    'epochs',
    'steps',
    'seconds',
    'imagesPerSecond',
    'train',
    'val',
  ]);
  t.deepEqual(manifest.config.recipe.lr, 0.05);
  t.is(manifest.config.seed, 7);
  t.is(manifest.sessions.length, 1);

  const csv = readFileSync(join(out, 'metrics.csv'), 'utf8').trim().split('\n');
  t.is(csv.length, 4);
  const column = (csv[0] ?? '').split(',').indexOf('val.top1Error');
  t.is(Number(csv[3]?.split(',')[column]), manifest.result?.val?.top1Error ?? -1);
  t.is(csv[1]?.split(',')[column], '');
  t.deepEqual(readdirSync(join(out, 'checkpoints')).sort(), [
    'best.safetensors',
    'last',
    'step-32.safetensors',
    'step-48.safetensors',
  ]);
  const [first, ...grown] = ['epoch-0.png', 'epoch-1.png', 'epoch-2.png', 'epoch-3.png'].map((name) =>
    join(out, 'filters', name),
  );
  t.false(readFileSync(join(out, 'filters.png')).equals(readFileSync(first ?? '')), 'they have grown');
  t.deepEqual(grown.map(existsSync), [false, true, true]);
  t.true(existsSync(join(out, 'curve.svg')));
  const lines = readFileSync(join(out, 'events.ndjson'), 'utf8').trim().split('\n');
  t.is((JSON.parse(lines.at(-1) ?? '{}') as { type: string }).type, 'end');
});

test('nothing is written without a run folder', async (t) => {
  await using training = await train({ ...TINY_CALL, steps: 3 });
  const events = await drain(training);
  t.false(events.some((event) => event.type === 'checkpoint'));
  t.is(training.result?.status, 'stopped');
  t.is(training.result?.steps, 3);
});

test('the same seed gives the same bits for other threads and segments, another seed others', async (t) => {
  const bytes = async (options: object, pieces: number[]) => {
    const out = join(temporary(), 'run');
    await using training = await train({ ...TINY_CALL, ...options, out, steps: 10 });
    const { trainer, run } = training;
    // Steps one call after the other: segments of other lengths.
    for (const steps of pieces) for await (const _ of trainer.train({ steps, ...(run === undefined ? {} : { run }) }));
    return tensorBytes(newest(out));
  };
  const one = await bytes({ threads: 1 }, [10]);
  t.deepEqual(await bytes({ threads: 2 }, [1, 2, 3, 4]), one);
  t.notDeepEqual(await bytes({ seed: 8 }, [10]), one);
});

test('stopped at any step and resumed alone gives the bits of the run that was never stopped', async (t) => {
  const folder = temporary();
  const whole = join(folder, 'whole');
  await using straight = await train({ ...TINY_CALL, out: whole });
  await drain(straight);
  for (const steps of [5, 16, 31]) {
    const out = join(folder, `at-${steps}`);
    {
      await using first = await train({ ...TINY_CALL, out, steps });
      await drain(first);
      t.is(first.result?.status, 'stopped');
    }
    await using rest = await train({ resume: out });
    const events = await drain(rest);
    t.like(events[0], { type: 'start', cursor: { step: steps } });
    t.like(rest.result, { status: 'completed', epochs: 3, steps: 48 });
    t.deepEqual(tensorBytes(newest(out)), tensorBytes(newest(whole)), `stopped at ${steps}`);
    t.deepEqual(rest.result?.val, straight.result?.val);
    t.is(rest.run?.manifest.sessions.length, 2);
    t.is(readFileSync(join(out, 'metrics.csv'), 'utf8').trim().split('\n').length, 4);
  }
});

test('a signal ends it after its step, saved and resumable', async (t) => {
  const out = join(temporary(), 'run');
  const stop = new AbortController();
  await using training = await train({ ...TINY_CALL, out, signal: stop.signal });
  const types: string[] = [];
  for await (const event of training) {
    types.push(event.type);
    if (event.type === 'step') stop.abort();
  }
  t.is(training.result?.status, 'interrupted');
  t.deepEqual(types.slice(-2), ['checkpoint', 'end']);
  await training.dispose();
  await using rest = await train({ resume: out });
  await drain(rest);
  t.is(rest.result?.status, 'completed');
});

test('an aborted signal before the start trains nothing', async (t) => {
  await using training = await train({ ...TINY_CALL, signal: AbortSignal.abort() });
  await drain(training);
  t.like(training.result, { status: 'interrupted', steps: 0, train: null, val: null });
});

test('leaving the loop saves', async (t) => {
  const out = join(temporary(), 'run');
  {
    await using training = await train({ ...TINY_CALL, out });
    for await (const event of training) if (event.type === 'step' && event.step >= 3) break;
  }
  const manifest = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8')) as Manifest;
  t.is(manifest.result?.status, 'interrupted');
  t.is(newest(out), join(out, 'checkpoints', `step-${manifest.result?.steps}.safetensors`));
});

test('two trainers in one folder', async (t) => {
  const out = join(temporary(), 'run');
  await using first = await train({ ...TINY_CALL, out });
  await t.throwsAsync(train({ ...TINY_CALL, out }), { code: 'ERR_USAGE', message: /has been training in it since/ });
  await t.throwsAsync(train({ resume: out }), { code: 'ERR_USAGE' });
  await first.dispose();
  await t.throwsAsync(train({ ...TINY_CALL, out }), { code: 'ERR_USAGE', message: /there is a run in it already/ });
});

test('a resume may change the recipe, which is recorded', async (t) => {
  const out = join(temporary(), 'run');
  {
    await using first = await train({ ...TINY_CALL, out, steps: 4 });
    await drain(first);
  }
  await using rest = await train({ resume: out, set: ['lr=0.01', 'epochs=2'] });
  const events = await drain(rest);
  const changed = [
    { key: 'epochs', from: 3, to: 2 },
    { key: 'lr', from: 0.05, to: 0.01 },
    { key: 'biasLr', from: 0.1, to: 0.02 },
  ];
  t.deepEqual((events[0] as { changed: unknown }).changed, changed);
  t.deepEqual(rest.run?.manifest.sessions[1]?.changed, changed);
  t.is(rest.run?.manifest.config.recipe.lr, 0.01);
  t.is(rest.result?.epochs, 2);
  await rest.dispose();
  // Another kind of schedule begins anew instead of choking on what the old one remembers.
  await using other = await train({ resume: out, set: ['epochs=3', 'schedule=constant', 'biasSchedule=plateau'] });
  await drain(other);
  t.is(other.result?.epochs, 3);
  await other.dispose();
  await t.throwsAsync(train({ resume: out, seed: 9 }), { code: 'ERR_USAGE', message: /^seed: .*its own \(7\)/ });
});

test('what does not fit is named', async (t) => {
  await using data = await openDataset({ source: 'generated', imageSize: 16, limit: 10 });
  const recipe = { ...TINY, momentum: 0.9, augment: true } as Parameters<typeof Trainer.create>[0]['recipe'];
  await t.throwsAsync(Trainer.create({ network: tinyNetwork(3), recipe, data }), {
    instanceOf: AlexnodeError,
    code: 'ERR_USAGE',
    message: 'tiny: the network has 3 classes, the data has 10',
  });
  await t.throwsAsync(train({ ...TINY_CALL, set: ['layerRates.convv1=0.1'] }), {
    code: 'ERR_USAGE',
    message: 'recipe.layerRates.convv1: tiny has no layer with weights of this name',
  });
  await t.throwsAsync(train({ ...TINY_CALL, seed: -1 }), { code: 'ERR_USAGE', message: /^seed: / });
  await t.throwsAsync(train({ preset: 'dmeo' as 'demo' }), { code: 'ERR_USAGE', message: /dmeo/ });
  await t.throwsAsync(train({ data: '/no/such/folder' }), { code: 'ERR_DATA', message: /no\/such\/folder/ });
  await t.throwsAsync(train({ ...TINY_CALL, devices: ['cpu', 'cpu', 'cpu'] }), { code: 'ERR_USAGE' });
  await t.throwsAsync(train({ ...TINY_CALL, devices: ['gpu'] }), { code: 'ERR_USAGE' });
});

test('a loss that explodes ends the run with the remedy', async (t) => {
  const out = join(temporary(), 'run');
  await using training = await train({ ...TINY_CALL, set: ['lr=1e20'], out });
  const types: string[] = [];
  const error = await t.throwsAsync(
    async () => {
      for await (const event of training) types.push(event.type);
    },
    { instanceOf: AlexnodeError, code: 'ERR_DIVERGED' },
  );
  t.regex((error as AlexnodeError).hint ?? '', /\(rate: 100000/);
  t.regex((error as AlexnodeError).hint ?? '', /Train again with a lower learning rate, for example --lr/);
  t.is(types.at(-1), 'end');
  const manifest = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8')) as Manifest;
  t.is(manifest.result?.status, 'diverged');
  t.is(manifest.result?.error?.code, 'ERR_DIVERGED');
});

test('a loss that explodes after a checkpoint names it as what to go on from', async (t) => {
  const out = join(temporary(), 'run');
  {
    await using training = await train({ ...TINY_CALL, out, steps: 3 });
    await drain(training);
  }
  {
    await using training = await train({ resume: out, set: ['lr=1e20'] });
    const error = await t.throwsAsync(drain(training), { instanceOf: AlexnodeError, code: 'ERR_DIVERGED' });
    t.regex((error as AlexnodeError).hint ?? '', /--resume .*run --set lr=/);
  }
  await using again = await train({ resume: out, set: ['lr=0.01'], steps: 2 });
  t.is((await drain(again)).at(-1)?.type, 'end');
});

test('a loss at chance is warned of', async (t) => {
  const network = (classes: number) => tinyNetwork(classes, 1e-6);
  const recipe = { batch: 4, epochs: 1_000, lr: 0, biasLr: 0 };
  await using training = await train({ network, recipe, limit: 64, steps: 3_100 });
  const warnings = (await drain(training)).filter((event) => event.type === 'warning');
  t.deepEqual(
    warnings.map((event) => event.code),
    ['LOSS_AT_CHANCE'],
  );
});

test('evaluation with one view and with ten', async (t) => {
  await using training = await train({ ...TINY_CALL });
  await drain(training);
  const one = await training.trainer.evaluate();
  t.is(one.samples, 1_000);
  t.is(one.top1Error, training.result?.val?.top1Error ?? -1);
  const ten = await training.trainer.evaluate({ crops: 10, limit: 100 });
  t.is(ten.samples, 100);
  t.true(Number.isFinite(ten.loss));
  await t.throwsAsync(training.trainer.evaluate({ signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' });
});

test('tensors come out with their shapes', async (t) => {
  await using training = await train({ ...TINY_CALL, steps: 1 });
  await drain(training);
  const { shape, data } = await training.trainer.tensor('conv1.weight');
  t.deepEqual(shape, [8, 3, 3, 3]);
  t.is(data.length, 216);
  t.deepEqual((await training.trainer.tensor('momentum.fc2.bias')).shape, [10]);
  await t.throwsAsync(training.trainer.tensor('conv9.weight'), { instanceOf: AlexnodeError });
});
