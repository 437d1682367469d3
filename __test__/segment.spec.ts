import test from 'ava';

import { changeRecipe, RECIPE_DEFAULTS } from '../lib/config.js';
import { createSchedule } from '../lib/schedule.js';
import { nextSegment, type SegmentPlan } from '../lib/segment.js';

function plan(changes: Record<string, unknown>, batches = 10): SegmentPlan {
  const recipe = changeRecipe(RECIPE_DEFAULTS, { epochs: 4, ...changes });
  return { recipe, schedule: createSchedule(recipe), batches, layers: ['conv1', 'fc2'] };
}

test('a segment ends with the epoch or with the most that is asked for', (t) => {
  const constant = plan({ schedule: 'constant' });
  t.like(nextSegment(constant, { epoch: 1, batch: 4, step: 14 }, 100), { epoch: 1, batch: 4, step: 14, steps: 6 });
  t.is(nextSegment(constant, { epoch: 1, batch: 4, step: 14 }, 2).steps, 2);
});

test('a segment ends where a rate changes inside the epoch', (t) => {
  const step = plan({ schedule: { type: 'step', at: [1.5], factor: 0.1 }, lr: 1, biasLr: 2 });
  const first = nextSegment(step, { epoch: 1, batch: 2, step: 12 }, 100);
  t.is(first.steps, 3);
  t.deepEqual(first.rates, { conv1: [1, 2], fc2: [1, 2] });
  const second = nextSegment(step, { epoch: 1, batch: 5, step: 15 }, 100);
  t.is(second.steps, 5);
  t.deepEqual(second.rates, { conv1: [0.1, 0.2], fc2: [0.1, 0.2] });
});

test('however an epoch is cut, its steps have the same rates', (t) => {
  const dexp = plan({ schedule: 'dexp', biasSchedule: { type: 'step', at: [0.35, 0.7], factor: 0.5 }, epochs: 2 }, 17);
  const perStep = (sizes: () => number) => {
    const rates: unknown[] = [];
    let batch = 0;
    while (batch < 17) {
      const segment = nextSegment(dexp, { epoch: 0, batch, step: batch }, sizes());
      for (let i = 0; i < segment.steps; i += 1) rates.push(segment.rates);
      batch += segment.steps;
    }
    return rates;
  };
  const one = perStep(() => 1);
  t.deepEqual(
    perStep(() => 100),
    one,
  );
  let size = 0;
  t.deepEqual(
    perStep(() => (size += 1)),
    one,
  );
  t.true(new Set(one.map((rates) => JSON.stringify(rates))).size > 3);
});

test('a layer may have rates of its own, and freeze', (t) => {
  const own = plan({ schedule: 'constant', lr: 1, biasLr: 2, layerRates: { conv1: 0.5 }, freezeAt: { fc2: 2 } });
  t.deepEqual(nextSegment(own, { epoch: 1, batch: 0, step: 10 }, 1).rates, { conv1: [0.5, 1], fc2: [1, 2] });
  t.deepEqual(nextSegment(own, { epoch: 2, batch: 0, step: 20 }, 1).rates, { conv1: [0.5, 1], fc2: [0, 0] });
});

test('without augmentation there is no colour noise', (t) => {
  const at = { epoch: 0, batch: 0, step: 0 };
  t.is(nextSegment(plan({ colourNoise: 0.1 }), at, 1).colourNoise, 0.1);
  t.like(nextSegment(plan({ colourNoise: 0.1, augment: false }), at, 1), { colourNoise: 0, augment: false });
});
