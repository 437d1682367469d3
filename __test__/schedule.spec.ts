import test from 'ava';

import { AlexnodeError } from '../lib/errors.js';
import { preset } from '../lib/models/index.js';
import type { Progress, Recipe, ScheduleSpec } from '../lib/recipe.js';
import { createSchedule } from '../lib/schedule.js';

function recipe(schedule: ScheduleSpec, more: Partial<Recipe> = {}): Recipe {
  return {
    batch: 128,
    epochs: 8,
    momentum: 0.9,
    lr: 0.01,
    biasLr: 0.02,
    schedule,
    colourNoise: 0,
    augment: true,
    ...more,
  };
}

const at = (epoch: number, batch = 0, epochs = 8, batches = 10): Progress => ({ epoch, batch, batches, epochs });

/** Equal to about 12 digits. */
function near(actual: number, expected: number): boolean {
  return Math.abs(actual - expected) <= 1e-12 * Math.abs(expected);
}

test('dexp(0.01, 250, 4): the four rates of the 2012 code', (t) => {
  const { rates } = createSchedule(recipe({ type: 'dexp', factor: 250, steps: 4 }));
  const table = [0, 3, 5, 7].map((epoch) => rates(at(epoch)).weight);
  t.is(table[0], 0.01);
  t.is(table[1]!.toExponential(4), '1.5874e-3');
  t.is(table[2]!.toExponential(4), '2.5198e-4');
  t.true(near(table[3]!, 4e-5));
});

test('dexp: the end of a part belongs to it, the next batch to the next part', (t) => {
  const { rates } = createSchedule(recipe({ type: 'dexp', factor: 250, steps: 4 }));
  t.is(rates(at(2, 0)).weight, 0.01);
  t.is(rates(at(2, 1)).weight, rates(at(4, 0)).weight);
  t.not(rates(at(2, 1)).weight, 0.01);
  t.is(rates(at(4, 1)).weight, rates(at(6, 0)).weight);
  t.is(rates(at(6, 1)).weight, rates(at(7, 9)).weight);
});

test('dexp: boundaries are exact where floating point would round up', (t) => {
  const { rates } = createSchedule(recipe({ type: 'dexp', factor: 8, steps: 10 }, { epochs: 30 }));
  for (let part = 1; part < 10; part += 1) {
    const before = rates(at(part * 3, 0, 30, 7)).weight;
    t.is(before, rates(at(part * 3 - 1, 6, 30, 7)).weight, `part ${part}`);
    t.true(rates(at(part * 3, 1, 30, 7)).weight < before, `part ${part}`);
  }
});

test('dexp stays at its last rate beyond the planned epochs', (t) => {
  const { rates } = createSchedule(recipe({ type: 'dexp', factor: 250, steps: 4 }));
  t.is(rates(at(20)).weight, rates(at(7)).weight);
});

test('constant and step', (t) => {
  t.deepEqual(createSchedule(recipe({ type: 'constant' })).rates(at(7, 9)), {
    weight: 0.01,
    bias: 0.02,
    colourNoise: 0,
    layers: {},
  });
  const { rates } = createSchedule(recipe({ type: 'step', at: [2, 4.5], factor: 0.1 }));
  t.is(rates(at(1, 9)).weight, 0.01);
  t.true(near(rates(at(2)).weight, 1e-3));
  t.true(near(rates(at(4, 4)).weight, 1e-3));
  t.true(near(rates(at(4, 5)).weight, 1e-4));
});

test('plateau: divides by ten when the error has not improved for `patience` epochs, three times at most', (t) => {
  const schedule = createSchedule(recipe({ type: 'plateau', factor: 0.1, patience: 2, drops: 3, minDelta: 0.001 }));
  const rate = () => schedule.rates(at(1)).weight;
  schedule.observe(0.5);
  schedule.observe(undefined); // not validated: no verdict
  schedule.observe(0.4995); // better, but by less than minDelta
  t.is(rate(), 0.01);
  schedule.observe(0.5);
  t.true(near(rate(), 1e-3));
  schedule.observe(0.4); // improved
  schedule.observe(0.41);
  t.true(near(rate(), 1e-3));
  schedule.observe(0.42);
  t.true(near(rate(), 1e-4));
  for (let i = 0; i < 9; i += 1) schedule.observe(0.5);
  t.true(near(rate(), 1e-5), 'three drops');
});

test('plateau: a restored schedule goes on where the saved one stood', (t) => {
  const spec = recipe({ type: 'plateau', factor: 0.1, patience: 2, drops: 3, minDelta: 0 });
  const [first, second] = [createSchedule(spec), createSchedule(spec)];
  for (const error of [0.5, 0.6]) first.observe(error);
  second.restore(JSON.parse(JSON.stringify(first.state())));
  second.observe(0.7);
  t.true(near(second.rates(at(3)).weight, 1e-3));
  t.is(first.rates(at(3)).weight, 0.01, 'the two share nothing');
});

test('a state of another kind of schedule is ERR_CHECKPOINT', (t) => {
  const plateau = createSchedule(recipe({ type: 'plateau', factor: 0.1, patience: 2, drops: 3, minDelta: 0 }));
  const constant = createSchedule(recipe({ type: 'constant' }));
  constant.restore({});
  for (const restore of [
    () => plateau.restore(constant.state()),
    () => constant.restore(plateau.state()),
    () => plateau.restore({ schedule: { best: 'low', waited: 0, drops: 0 } }),
  ]) {
    t.is(t.throws(restore, { instanceOf: AlexnodeError })?.code, 'ERR_CHECKPOINT');
  }
});

test('rates of single layers, and a layer that freezes', (t) => {
  const { rates } = createSchedule(
    recipe(
      { type: 'step', at: [4], factor: 0.1 },
      {
        biasSchedule: { type: 'constant' },
        layerRates: { fc8: 10, conv2: { weight: 0.5, bias: 0 } },
        layerSchedules: { conv1: { type: 'step', at: [2], factor: 0.1 } },
        freezeAt: { conv1: 6 },
      },
    ),
  );
  const { layers } = rates(at(0));
  t.true(near(layers.fc8!.weight, 0.1) && near(layers.fc8!.bias, 0.2));
  t.deepEqual(layers.conv2, { weight: 0.005, bias: 0 });
  t.deepEqual(layers.conv1, { weight: 0.01, bias: 0.02 });
  t.true(near(rates(at(2)).layers.conv1!.weight, 1e-3), 'ahead of the others');
  t.is(rates(at(2)).weight, 0.01);
  t.is(rates(at(5)).bias, 0.02, 'the biases keep their own schedule');
  t.is(rates(at(5)).layers.conv1!.bias, 0.02);
  t.deepEqual(rates(at(6)).layers.conv1, { weight: 0, bias: 0 });
});

test('colour noise ends after its share of the epochs', (t) => {
  const { rates } = createSchedule(recipe({ type: 'constant' }, { colourNoise: 0.1, colourNoiseOffAt: 0.5 }));
  t.is(rates(at(3, 9)).colourNoise, 0.1);
  t.is(rates(at(4, 0)).colourNoise, 0);
});

test('code2012 follows the log of net 145', (t) => {
  const { recipe: log } = preset('code2012', { classes: 1000 });
  const { rates } = createSchedule(log);
  const weight = (epoch: number) => rates(at(epoch, 0, 91)).weight;
  const conv1 = (epoch: number) => rates(at(epoch, 0, 91)).layers.conv1!.weight;
  const noise = (epoch: number) => rates(at(epoch, 0, 91)).colourNoise;
  const close = (actual: number[], expected: number[]) =>
    t.true(
      actual.every((v, i) => near(v, expected[i]!)),
      `${actual}`,
    );
  close([24, 25, 50, 51, 78, 79, 90].map(weight), [1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]);
  close([24, 25, 51, 66, 67, 71].map(conv1), [1e-2, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]);
  t.deepEqual([72, 90].map(conv1), [0, 0]);
  t.deepEqual([66, 67].map(noise), [0.1, 0]);
  t.is(rates(at(90, 0, 91)).bias, 0.02);
});
