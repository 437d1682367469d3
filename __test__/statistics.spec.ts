import test from 'ava';

import { credit, largest, mcnemar, wilson } from '../lib/statistics.js';

// R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3: as printed there, four places.
const published: [seen: number, n: number, low: number, high: number][] = [
  [81, 263, 0.2553, 0.3662],
  [15, 148, 0.0624, 0.1605],
  [0, 20, 0, 0.1611],
  [1, 29, 0.0061, 0.1718],
];

for (const [seen, n, low, high] of published) {
  test(`the interval of ${seen} in ${n} is the published one`, (t) => {
    t.deepEqual(
      wilson(seen / n, n).map((bound) => Number(bound.toFixed(4))),
      [low, high],
    );
  });
}

test('intervals end at 0 and 1 exactly, and nothing seen tells nothing', (t) => {
  t.is(wilson(0, 20)[0], 0);
  t.is(wilson(1, 20)[1], 1);
  t.deepEqual(wilson(0, 0), [0, 1]);
  const [low, high] = wilson(0.25, 50);
  const [mirrored, other] = wilson(0.75, 50);
  t.true(Math.abs(1 - high - mirrored) < 1e-12 && Math.abs(1 - low - other) < 1e-12);
});

// Sums of binomial coefficients over a power of two, in whole numbers of any size, rounded once at the end. The first is the approval of a prime
// minister in A. Agresti's "Categorical Data Analysis", for which R's exact2x2 prints 3.716e-05.
const exact: [first: number, second: number, p: number][] = [
  [86, 150, 3.715936139571442e-5],
  [1, 9, 0.021484375],
  [0, 5, 0.0625],
  [3, 17, 0.0025768280029296875],
  [12, 33, 0.0024589003220967243],
  [2, 40, 4.1109160520136356e-10],
  [900, 1100, 8.457089535503927e-6],
  [5, 5, 1],
  [0, 0, 1],
];

for (const [first, second, p] of exact) {
  test(`McNemar's exact test of ${first} against ${second}`, (t) => {
    t.true(Math.abs(mcnemar(first, second) / p - 1) < 1e-9, String(mcnemar(first, second)));
    t.is(mcnemar(second, first), mcnemar(first, second));
  });
}

test('a label among the k most probable earns a hit, one that ties for the last places its share', (t) => {
  const row = [0.1, 0.4, 0.2, 0.1, 0.1, 0.05, 0.05];
  t.is(credit(row, 1, 1), 1);
  t.is(credit(row, 2, 1), 0);
  t.is(credit(row, 2, 2), 1);
  // Three are third.
  t.is(credit(row, 0, 3), 1 / 3);
  t.is(credit(row, 0, 4), 2 / 3);
  t.is(credit(row, 3, 5), 1);
  t.is(credit(row, 5, 5), 0);
  t.is(credit([0.5, 0.5], 0, 5), 1);
  t.is(credit([0.5, Number.NaN], 1, 1), 0);
});

test('the largest come first, of equal ones the lower index', (t) => {
  t.deepEqual(largest([0.1, 0.5, 0.2, 0.5], 3), [1, 3, 2]);
  t.deepEqual(largest(new Float32Array([3, 1]), 5), [0, 1]);
});
