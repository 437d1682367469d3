import test from 'ava';

import { Pace } from '../lib/pace.js';

test('segments grow to about half a second, by steps', (t) => {
  const pace = new Pace();
  t.is(pace.steps, 1);
  const sizes: number[] = [];
  for (let i = 0; i < 6; i += 1) {
    pace.observe(pace.steps, pace.steps * 0.01);
    sizes.push(pace.steps);
  }
  t.deepEqual(sizes, [4, 16, 50, 50, 50, 50]);
});

test('a slow step is a segment of its own', (t) => {
  const pace = new Pace();
  pace.observe(1, 8);
  t.is(pace.steps, 1);
});

test('the forecast counts validations by what they were measured to cost', (t) => {
  const pace = new Pace();
  pace.observe(10, 1);
  t.is(pace.eta(100, 2, 50, 300), 10 + 2 * 0.2);
  pace.observeValidation(5);
  t.is(pace.eta(100, 2, 50, 300), 20);
});
