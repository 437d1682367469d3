import test from 'ava';

import { RECIPE_DEFAULTS } from '../lib/config.js';
import type { DatasetInfo } from '../lib/data.js';
import { AlexnodeError } from '../lib/errors.js';
import type { WarningEvent } from '../lib/events.js';
import { dataWarnings, diverged, Guard } from '../lib/guard.js';

const CHANCE = Math.log(10);

/** Runs a guard over `total` steps in segments of `size`; the steps at which it warned. */
function watch(options: {
  batches: number;
  loss: (step: number) => number;
  total: number;
  size?: number;
  done?: boolean;
}) {
  const { batches, loss, total, size = 7, done = false } = options;
  const guard = new Guard({ classes: 10, batches, recipe: RECIPE_DEFAULTS, done });
  const found: { step: number; warning: WarningEvent }[] = [];
  for (let step = size; step <= total; step += size) {
    const warning = guard.observe(step, size, loss(step));
    if (warning !== undefined) found.push({ step, warning });
  }
  return found;
}

test('a loss at chance after 3,000 steps is warned of, once, with cause and remedy', (t) => {
  const found = watch({ batches: 100, loss: () => CHANCE * 1.005, total: 9_000 });
  t.is(found.length, 1);
  t.is(found[0]?.step, 3_003);
  t.is(found[0]?.warning.code, 'LOSS_AT_CHANCE');
  t.regex(found[0]?.warning.message ?? '', /ln\(classes\) = 2\.3026/);
  t.regex(found[0]?.warning.hint ?? '', /learning rate .*0\.01/);
});

test('two epochs, where they are longer than 3,000 steps', (t) => {
  t.is(watch({ batches: 2_000, loss: () => CHANCE, total: 9_000 })[0]?.step, 4_004);
});

test('the end of a training that is shorter, of 500 steps at least', (t) => {
  const epochs = RECIPE_DEFAULTS.epochs;
  t.is(watch({ batches: 10, loss: () => CHANCE, total: 10 * epochs, size: 10 })[0]?.step, 10 * epochs);
  t.deepEqual(watch({ batches: 5, loss: () => CHANCE, total: 5 * epochs, size: 5 }), []);
});

test('a loss that has left chance is not warned of, on either side', (t) => {
  t.deepEqual(watch({ batches: 10, loss: () => CHANCE * 0.98, total: 9_000 }), []);
  t.deepEqual(watch({ batches: 10, loss: () => CHANCE * 1.02, total: 9_000 }), []);
});

test('only the last steps count', (t) => {
  t.deepEqual(watch({ batches: 100, loss: (step) => (step < 2_400 ? CHANCE : 1), total: 9_000 }), []);
  t.is(watch({ batches: 100, loss: (step) => (step < 2_400 ? 1 : CHANCE), total: 9_000 }).length, 1);
});

test('a warning given in an earlier session is not given again', (t) => {
  t.deepEqual(watch({ batches: 10, loss: () => CHANCE, total: 9_000, done: true }), []);
});

test('a divergence names the lower rate, and the run to resume', (t) => {
  const native = new AlexnodeError('ERR_DIVERGED', 'conv2 (Conv2d) is the first layer with such outputs', {
    hint: 'The weights are those before that step.',
  });
  const error = diverged(native, RECIPE_DEFAULTS, 'runs/a');
  t.is(error.code, 'ERR_DIVERGED');
  t.is(error.message, native.message);
  t.regex(error.hint ?? '', /before that step\. .*--resume runs\/a --set lr=0\.001/);
  t.notRegex(diverged(native, RECIPE_DEFAULTS, undefined).hint ?? '', /--resume/);
});

test('skipped images and classes without validation images are warned of', (t) => {
  const info = {
    classes: ['cat', 'dog'],
    val: 3,
    perClass: { train: [9, 9], val: [3, 0] },
    classWeights: null,
    skipped: [{ path: 'cat/1.jpg', reason: 'truncated' }],
  } as DatasetInfo;
  const warnings = dataWarnings(info);
  t.deepEqual(
    warnings.map((warning) => warning.code),
    ['IMAGES_SKIPPED', 'CLASS_WITHOUT_VAL'],
  );
  t.regex(warnings[0]?.message ?? '', /cat\/1\.jpg \(truncated\)/);
  t.regex(warnings[1]?.message ?? '', /dog/);
  t.deepEqual(dataWarnings({ ...info, skipped: [], perClass: { train: [9, 9], val: [3, 1] } }), []);
});
