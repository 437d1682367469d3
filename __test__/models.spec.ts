import test from 'ava';
import { describeNetwork } from '#native';

import { AlexnodeError } from '../lib/errors.js';
import type { NetworkSpec } from '../lib/layers.js';
import { PRESETS, type PresetName, preset } from '../lib/models/index.js';

interface Described {
  layers: { name: string; type: string; shape: number[]; parameters: number; macs: number }[];
  parameters: number;
  macs: number;
  memory: { device: string; totalBytes: number }[];
  counters: { transfers: number; transferBytes: number };
}

function describe(network: NetworkSpec, devices = ['cpu'], batch = 128): Described {
  return JSON.parse(describeNetwork(JSON.stringify({ network, batch, devices, threads: 2 })));
}

/** Parameters and multiply-adds of the published networks, by hand: 1,000 classes, CIFAR nets 10. */
const PUBLISHED: [PresetName, number, number][] = [
  ['paper', 60_965_224, 724_406_816],
  ['code2012', 60_965_224, 724_406_816],
  ['no-norm', 60_965_224, 724_406_816],
  ['owt', 61_100_840, 714_188_480],
  ['half', 59_798_312, 391_514_384],
  ['cifar-80sec', 145_578, 12_354_176],
  ['cifar-19pct', 89_578, 12_298_240],
  ['cifar-18pct', 89_578, 12_298_240],
  ['cifar-13pct', 1_116_490, 18_517_248],
  ['cifar-11pct', 2_112_970, 19_512_576],
  ['cifar-fig1-relu', 89_578, 12_298_240],
  ['cifar-fig1-tanh', 89_578, 12_298_240],
];

for (const [name, parameters, macs] of PUBLISHED) {
  test(`${name} has ${parameters} parameters and ${macs} multiply-adds`, (t) => {
    const { network } = preset(name, { classes: name.startsWith('cifar') ? 10 : 1000 });
    const described = describe(network);
    t.is(described.parameters, parameters);
    t.is(described.macs, macs);
  });
}

test('code2012, layer by layer', (t) => {
  const { layers } = describe(preset('code2012', { classes: 1000 }).network);
  const rows = layers.map(({ name, shape, parameters, macs }) => [name, shape.join('x'), parameters, macs]);
  t.deepEqual(rows, [
    ['conv1', '55x55x96', 34_944, 105_415_200],
    ['lrn1', '55x55x96', 0, 0],
    ['pool1', '27x27x96', 0, 0],
    ['relu1', '27x27x96', 0, 0],
    ['conv2', '27x27x256', 307_456, 223_948_800],
    ['relu2', '27x27x256', 0, 0],
    ['lrn2', '27x27x256', 0, 0],
    ['cnorm2', '27x27x256', 0, 0],
    ['pool2', '13x13x256', 0, 0],
    ['conv3', '13x13x384', 885_120, 149_520_384],
    ['relu3', '13x13x384', 0, 0],
    ['conv4', '13x13x384', 663_936, 112_140_288],
    ['relu4', '13x13x384', 0, 0],
    ['conv5', '13x13x256', 442_624, 74_760_192],
    ['pool5', '6x6x256', 0, 0],
    ['relu5', '6x6x256', 0, 0],
    ['fc6', '1x1x4096', 37_752_832, 37_748_736],
    ['relu6', '1x1x4096', 0, 0],
    ['drop6', '1x1x4096', 0, 0],
    ['fc7', '1x1x4096', 16_781_312, 16_777_216],
    ['relu7', '1x1x4096', 0, 0],
    ['drop7', '1x1x4096', 0, 0],
    ['fc8', '1x1x1000', 4_097_000, 4_096_000],
  ]);
});

test('no-overlap: 55-28-26-13-11-6', (t) => {
  const { layers } = describe(preset('no-overlap', { classes: 1000 }).network);
  const size = (name: string) => layers.find((layer) => layer.name === name)?.shape[0];
  t.deepEqual(['conv1', 'pool1', 'conv2', 'pool2', 'conv5', 'pool5'].map(size), [55, 28, 26, 13, 11, 6]);
});

test('two devices exchange 60,030,976 bytes per step of code2012', (t) => {
  const { counters, memory } = describe(preset('code2012', { classes: 1000 }).network, ['cpu', 'cpu']);
  t.is(counters.transferBytes, 60_030_976);
  t.is(memory.length, 2);
  t.is(describe(preset('code2012', { classes: 1000 }).network).counters.transferBytes, 0);
});

test('every preset fits one device, and any number of classes', (t) => {
  for (const name of Object.keys(PRESETS)) {
    const { network, recipe } = preset(name, { classes: 7 });
    t.is(network.name, name);
    const { layers } = describe(network, ['cpu'], recipe.batch);
    t.deepEqual(layers.at(-1)?.shape, [1, 1, 7], name);
    t.is(recipe.momentum, 0.9, name);
  }
});

test('every preset with two columns, and the one-column ones too, can be split over two devices', (t) => {
  for (const name of ['demo', 'small', 'paper', 'code2012', 'owt', 'no-norm', 'no-overlap', 'half']) {
    const { network, recipe } = preset(name, { classes: 10 });
    t.is(describe(network, ['cpu', 'cpu'], recipe.batch).memory.length, 2, name);
  }
});

test('presets are copies: changing one leaves the next as it was', (t) => {
  preset('paper', { classes: 10 }).network.layers.pop();
  preset('paper', { classes: 10 }).recipe.lr = 5;
  t.is(preset('paper', { classes: 10 }).network.layers.at(-1)?.name, 'fc8');
  t.is(preset('paper', { classes: 10 }).recipe.lr, 0.01);
});

test('a wrong name is ERR_USAGE and names the nearest', (t) => {
  const error = t.throws(() => preset('papper', { classes: 10 }), { instanceOf: AlexnodeError });
  t.is(error?.code, 'ERR_USAGE');
  t.regex(error?.hint ?? '', /"paper"/);
  t.throws(() => preset('toString', { classes: 10 }), { instanceOf: AlexnodeError });
});
