/** Each finding of the doctor is provoked by a real training that suffers from it. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { encode } from 'fast-png';

import { RECIPE_DEFAULTS } from '../lib/config.js';
import { causeOfChance, diagnoseEpoch, inputBound, labelSuspects, suspects } from '../lib/diagnose.js';
import type { Judgement } from '../lib/engine.js';
import {
  type EpochEvent,
  type NetworkSpec,
  openDataset,
  type Recipe,
  type TrainCall,
  Trainer,
  train,
  type WarningEvent,
} from '../lib/index.js';
import { drain, picture, TINY, TINY_CALL, temporary, tinyNetwork, wideNetwork } from './helpers.js';

/** All that a training tells. */
async function findings(call: TrainCall): Promise<{ warnings: WarningEvent[]; epochs: EpochEvent[] }> {
  await using training = await train(call);
  const events = await drain(training);
  return {
    warnings: events.filter((event) => event.type === 'warning'),
    epochs: events.filter((event) => event.type === 'epoch'),
  };
}

function find(warnings: readonly WarningEvent[], code: string): WarningEvent | undefined {
  return warnings.find((warning) => warning.code === code);
}

/** Two convolutions and a linear layer; the second convolution's biases begin at `bias`. */
function deepNetwork(bias: number): (classes: number) => NetworkSpec {
  const weightInit = { type: 'he' } as const;
  return (classes) => ({
    name: 'deep',
    classes,
    input: { imageSize: 16, cropSize: 14, flip: true, noiseDivisor: 1, scale: 1 / 64 },
    layers: [
      { type: 'conv2d', name: 'conv1', outChannels: 8, kernelSize: 3, stride: 2, weightInit, weightDecay: 0.0005 },
      { type: 'relu', name: 'relu1' },
      { type: 'conv2d', name: 'conv2', outChannels: 8, kernelSize: 3, weightInit, biasInit: bias },
      { type: 'relu', name: 'relu2' },
      { type: 'linear', name: 'fc3', outFeatures: classes, weightInit },
    ],
  });
}

const ONE: Partial<Recipe> = { ...TINY, epochs: 1, lr: 0.01, biasLr: 0.02, schedule: { type: 'constant' } };

test('a training in good health is told nothing', async (t) => {
  const { warnings, epochs } = await findings({ network: deepNetwork(0), recipe: ONE, limit: 1500 });
  t.deepEqual(warnings, []);
  t.deepEqual(epochs.at(-1)?.warnings, []);
  t.deepEqual(
    epochs.at(-1)?.layers.map(({ name }) => name),
    ['conv1', 'conv2', 'fc3'],
  );
  t.deepEqual(
    epochs.at(-1)?.units.map(({ name, units }) => [name, units]),
    [
      ['relu1', 8],
      ['relu2', 8],
    ],
  );
});

test('dead units, below which weight decay alone moves the weights', async (t) => {
  const out = join(temporary(), 'run');
  const { warnings, epochs } = await findings({ network: deepNetwork(-1000), recipe: ONE, limit: 500, out });
  const dead = find(warnings, 'DEAD_UNITS');
  t.like(dead?.evidence, { 'relu2.dead': 8, 'relu2.units': 8 });
  t.regex(dead?.message ?? '', /relu2 8 of 8/);
  t.regex(dead?.hint ?? '', /biases that begin too far below 0/);
  t.is(find(warnings, 'LR_TOO_LOW'), undefined, 'it is not the rate');
  // Weight decay alone still moves conv1: that is not learning.
  const conv1 = epochs.at(-1)?.layers[0];
  t.true((conv1?.update ?? 0) > 0 && (conv1?.gradient ?? 1) < 1e-3 * (conv1?.update ?? 0), JSON.stringify(conv1));
  const codes = warnings.map(({ code }) => code).filter((code) => code === 'DEAD_UNITS' || code === 'UPDATES_VANISH');
  t.deepEqual(
    epochs.at(-1)?.warnings.filter((code) => (codes as string[]).includes(code)),
    codes,
  );
  t.regex(readFileSync(join(out, 'metrics.csv'), 'utf8'), /DEAD_UNITS/);
  t.regex(readFileSync(join(out, 'events.ndjson'), 'utf8'), /"code":"DEAD_UNITS"/);
});

test('a layer without gradient beside others that learn', async (t) => {
  const network = (classes: number): NetworkSpec => {
    const deep = deepNetwork(0)(classes);
    const [conv1, relu1, ...rest] = deep.layers;
    if (conv1 === undefined || relu1 === undefined) throw new Error('the network has layers');
    // tanh far from 0 lets next to no gradient through.
    const scaled = { ...conv1, weightInit: { type: 'normal', std: 5000 } } as typeof conv1;
    return { ...deep, layers: [scaled, { type: 'tanh', name: 'tanh1' }, ...rest] };
  };
  const { warnings } = await findings({ network, recipe: ONE, limit: 500 });
  const found = find(warnings, 'UPDATES_VANISH');
  t.regex(found?.message ?? '', /conv1/);
  t.regex(found?.hint ?? '', /saturated/);
  t.true(Number(found?.evidence.conv1) < Number(found?.evidence.largest));
});

test('a layer whose updates are as large as its weights', async (t) => {
  const recipe = { ...ONE, layerRates: { conv1: 0 as number, fc2: 20 } };
  const network = (classes: number) => {
    const tiny = tinyNetwork(classes);
    const layers = tiny.layers.map((layer) =>
      layer.name === 'fc2' ? { ...layer, weightInit: { type: 'normal', std: 1e-5 } } : layer,
    );
    return { ...tiny, layers } as NetworkSpec;
  };
  // After one step: later the weights have grown to fit.
  const { warnings } = await findings({ network, recipe: { ...recipe, batch: 500 }, limit: 500 });
  const found = find(warnings, 'UPDATES_EXPLODE');
  t.true(Number(found?.evidence.fc2) > 0.5);
  t.is(found?.evidence.conv1, undefined);
  t.regex(found?.hint ?? '', /layerRates\.fc2/);
});

test('a learning rate that is too low, and one that is too high', async (t) => {
  const low = await findings({ ...TINY_CALL, recipe: { ...ONE, lr: 1e-8, biasLr: 1e-8 } });
  const slow = find(low.warnings, 'LR_TOO_LOW');
  t.true(Number(slow?.evidence.medianRatio) < 1e-5);
  t.regex(slow?.hint ?? '', /--set lr=1e-7/);
  t.is(find(low.warnings, 'LR_TOO_HIGH'), undefined);

  // One step: it would not survive a second one.
  const high = await findings({ network: tinyNetwork, recipe: { ...ONE, batch: 500, lr: 5, biasLr: 0 }, limit: 500 });
  const fast = find(high.warnings, 'LR_TOO_HIGH');
  t.true(Number(fast?.evidence.medianRatio) > 0.15);
  t.regex(fast?.hint ?? '', /--set lr=0\.5/);
  t.is(find(high.warnings, 'LR_TOO_LOW'), undefined);
});

test('ten times the rate of a preset shows after ten steps, before it has killed the units', async (t) => {
  const call = { preset: 'demo', limit: 400, steps: 12 } as const;
  t.is(find((await findings(call)).warnings, 'LR_TOO_HIGH'), undefined);
  const { warnings, epochs } = await findings({ ...call, recipe: { lr: 0.15, biasLr: 0.3 } });
  t.is(epochs.length, 0, 'within the first epoch');
  const found = find(warnings, 'LR_TOO_HIGH');
  t.regex(found?.message ?? '', /^the learning rate 0\.15 is too high/);
  t.true(Number(found?.evidence.medianRatio) > 0.01);
  t.deepEqual(Object.keys(found?.evidence ?? {}), [
    'lr',
    'medianRatio',
    'conv2',
    'conv3',
    'conv4',
    'conv5',
    'fc6',
    'fc7',
  ]);
});

test('late in a schedule, and where little is left to learn, small steps are no sign of a rate that is too low', (t) => {
  const patient = (share: number, ratio: number, loss: number | null) => {
    const weight = RECIPE_DEFAULTS.lr * share;
    const event = {
      layers: [{ name: 'a', weight: 1, update: ratio, gradient: ratio }],
      units: [],
      train: loss === null ? null : { loss, top1Error: 0, top5Error: 0 },
      val: null,
      waitShare: 0,
    } as unknown as EpochEvent;
    return diagnoseEpoch({
      event,
      rates: { weight, bias: weight, colourNoise: 0, layers: {} },
      recipe: RECIPE_DEFAULTS,
      data: { kind: 'folder', classes: ['x', 'y'], train: 1, val: 1, imageSize: 8 },
      bestEpoch: undefined,
      seconds: 1,
    }).map(({ code }) => code);
  };
  t.deepEqual(patient(1, 1e-6, 0.69), ['LR_TOO_LOW']);
  t.deepEqual(patient(1, 1e-6, null), ['LR_TOO_LOW']);
  t.deepEqual(patient(1, 1e-6, 0.01), [], 'it has learnt');
  t.deepEqual(patient(0.01, 1e-6, 0.69), [], 'a hundred times as much at the full rate');
  t.deepEqual(patient(0.01, 1e-8, 0.69), ['LR_TOO_LOW']);
});

test('steps that wait for their images', async (t) => {
  const found = inputBound(0.62, 100, { kind: 'folder', imageSize: 256 });
  t.regex(found?.message ?? '', /62 %/);
  t.regex(found?.hint ?? '', /256 pixels.*--threads/);
  t.deepEqual(found?.evidence, { waitShare: 0.62, seconds: 100, imageSize: 256 });
  t.is(inputBound(0.1, 1000, { kind: 'folder', imageSize: 256 }), undefined);
  t.is(inputBound(0.9, 0.5, { kind: 'folder', imageSize: 256 }), undefined);
  t.notRegex(inputBound(0.62, 100, { kind: 'generated', imageSize: 256 })?.hint ?? '', /pictures smaller/);

  // Pictures of a megapixel and next to no network.
  const data = join(temporary(), 'large');
  const file = picture(2400, 1);
  for (const [place, name] of ['train/a', 'train/b', 'val/a', 'val/b'].entries()) {
    mkdirSync(join(data, name), { recursive: true });
    const files = place < 2 ? 100 : 1;
    for (let index = 0; index < files; index += 1) writeFileSync(join(data, name, `${index}.png`), file);
  }
  const call: TrainCall = {
    network: wideNetwork,
    recipe: { ...ONE, batch: 4 },
    data,
    threads: 1,
    cacheDir: join(data, '.cache'),
  };
  // The first look at the data decodes all of it, and keeps the statistics: the second training has to decode while it trains.
  await (await train(call)).dispose();
  const { warnings } = await findings(call);
  t.true(Number(find(warnings, 'INPUT_BOUND')?.evidence.waitShare) >= 0.3);
});

test('images that are learnt by heart', async (t) => {
  const recipe: Partial<Recipe> = { ...ONE, batch: 10, epochs: 100, augment: false, dropout: 0 };
  const { warnings } = await findings({ network: deepNetwork(0), recipe, limit: 30 });
  const found = find(warnings, 'OVERFITTING');
  t.true(Number(found?.evidence.valError) > Number(found?.evidence.trainError) + 0.2);
  t.regex(found?.hint ?? '', /more images, augmentation/);
  t.is(find(warnings, 'LR_TOO_LOW'), undefined, 'what is known by heart moves no weights any more');
});

/** A few units over 8-pixel images: 3,000 steps of four images take about a second. */
function chanceNetwork(
  type: 'relu' | 'tanh',
  { std, bias = 0, weightDecay = 0 }: { std: number; bias?: number; weightDecay?: number },
): (classes: number) => NetworkSpec {
  const common = { weightInit: { type: 'normal', std }, weightDecay } as const;
  return (classes) => ({
    name: 'chance',
    classes,
    input: { imageSize: 8, cropSize: 8, flip: false, noiseDivisor: 1, scale: 1 / 64 },
    layers: [
      { type: 'conv2d', name: 'conv1', outChannels: 4, kernelSize: 3, stride: 2, biasInit: bias, ...common },
      { type, name: `${type}1` },
      { type: 'linear', name: 'fc2', outFeatures: classes, ...common },
    ],
  });
}

const CHANCE: Partial<Recipe> = {
  batch: 4,
  epochs: 100,
  momentum: 0,
  schedule: { type: 'constant' },
  colourNoise: 0,
  augment: false,
};

for (const [cause, network, lr, likely] of [
  [
    'units that are dead',
    chanceNetwork('relu', { std: 0.1, bias: -1000 }),
    1e-4,
    /likely cause: dead units \(relu1 4 of 4\)/,
  ],
  [
    'weights that are too small',
    chanceNetwork('tanh', { std: 1e-6 }),
    1e-3,
    /likely cause: gradients that vanish .*too small/,
  ],
  [
    'a rate that is too low',
    chanceNetwork('tanh', { std: 0.01 }),
    1e-9,
    /likely cause: gradients that vanish .*too low/,
  ],
  [
    // Each step replaces all weights by its own noise.
    'a rate that is too high',
    chanceNetwork('tanh', { std: 0.1, weightDecay: 50 }),
    0.02,
    /likely cause: a learning rate that is too high/,
  ],
] as const) {
  test(`a loss that stays at chance, for ${cause}`, async (t) => {
    const recipe = { ...CHANCE, lr, biasLr: Math.min(lr, 1e-4) };
    const { warnings } = await findings({ network, recipe, limit: 1000, steps: 3100, threads: 1 });
    const found = find(warnings, 'LOSS_AT_CHANCE');
    t.regex(found?.hint ?? '', likely);
    t.like(found?.evidence, { chance: Math.log(10), lr });
    t.true(Number(found?.evidence.steps) >= 3000);
    t.regex(found?.message ?? '', /guessing gives/);
  });
}

test('a loss that stays at chance, for labels that have nothing to do with their images', async (t) => {
  const source = Array.from({ length: 250 }, (_, index) => ({
    bytes: picture(8, index),
    label: 'abcd'[((Math.floor(index / 4) * 7) % 13) % 4] ?? 'a',
    split: index < 200 ? ('train' as const) : ('val' as const),
  }));
  await using data = await openDataset({ source, imageSize: 8 });
  const recipe: Recipe = { ...RECIPE_DEFAULTS, ...CHANCE, epochs: 1000, lr: 0.02, biasLr: 0.02 };
  const network = chanceNetwork('tanh', { std: 0.3 })(4);
  await using trainer = await Trainer.create({ network, recipe, data, threads: 1 });
  const warnings: WarningEvent[] = [];
  for await (const event of trainer.train({ steps: 3100 })) if (event.type === 'warning') warnings.push(event);
  t.regex(find(warnings, 'LOSS_AT_CHANCE')?.hint ?? '', /likely cause is the data: labels/);
});

/** A picture of one colour with some noise of its own. */
function coloured(red: boolean, seed: number): Uint8Array {
  const data = new Uint8Array(16 * 16 * 3);
  let state = seed;
  for (let index = 0; index < data.length; index += 1) {
    state = (1103515245 * state + 12345) % 2147483648;
    data[index] = (index % 3 === (red ? 0 : 2) ? 200 : 40) + (state % 20);
  }
  return encode({ width: 16, height: 16, data, channels: 3 });
}

test('a label that looks wrong', async (t) => {
  const data = join(temporary(), 'colours');
  let seed = 0;
  for (const [split, count] of [
    ['train', 60],
    ['val', 40],
  ] as const) {
    for (const name of ['blue', 'red']) {
      mkdirSync(join(data, split, name), { recursive: true });
      for (let index = 0; index < count; index += 1) {
        seed += 1;
        writeFileSync(join(data, split, name, `${index}.png`), coloured(name === 'red', seed));
      }
    }
  }
  // A red picture in the folder of the blue ones.
  writeFileSync(join(data, 'val', 'blue', 'stray.png'), coloured(true, 9999));
  const recipe: Partial<Recipe> = { ...ONE, batch: 10, epochs: 8, colourNoise: 0, dropout: 0 };
  const { warnings } = await findings({ network: deepNetwork(0), recipe, data });
  const found = find(warnings, 'LABEL_SUSPECT');
  t.is(found?.evidence.images, 1);
  t.regex(found?.message ?? '', /val\/blue\/stray\.png: labelled blue, looks like red/);
  t.regex(found?.hint ?? '', /report\.html/);
});

test('a network that is wrong or sure of everything is no judge of labels', (t) => {
  const judged = (wrong: number): Judgement => ({
    samples: 100,
    loss: 1,
    top1Error: wrong / 100,
    top5Error: 0,
    seconds: 1,
    top: 1,
    ids: Uint32Array.from({ length: 100 }, (_, index) => index),
    labels: new Int32Array(100),
    own: new Float32Array(100).fill(0.001),
    classes: Int32Array.from({ length: 100 }, (_, index) => (index < wrong ? 1 : 0)),
    probabilities: new Float32Array(100).fill(0.99),
  });
  t.is(suspects(judged(2)).length, 2);
  t.deepEqual(suspects(judged(3)), []);
  t.is(labelSuspects(suspects(judged(2)), ['x', 'y'], ['a', 'b'], { top1Error: 0.6 }, 'folder'), undefined);
  t.regex(
    labelSuspects(suspects(judged(2)), ['x', 'y'], ['a', 'b'], judged(2), 'folder')?.message ?? '',
    /2 images.*x: labelled a, looks like b/,
  );
});

test('the cause of a loss at chance, as far as the layers tell', (t) => {
  const layer = (ratio: number) => ({ name: 'conv1', weight: 1, update: ratio, gradient: ratio });
  t.regex(
    causeOfChance([layer(0.001)], [{ name: 'relu1', units: 10, dead: 9, active: 0 }]),
    /dead units \(relu1 9 of 10\)/,
  );
  t.regex(causeOfChance([layer(0.5)], []), /rate that is too high/);
  t.regex(causeOfChance([layer(1e-6)], []), /gradients that vanish/);
  t.regex(causeOfChance([layer(0.005)], []), /labels that do not belong/);
});
