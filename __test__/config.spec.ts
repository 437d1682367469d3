import test from 'ava';

import { changeRecipe, check, dataSchema, parseDuration, parseSettings, RECIPE_DEFAULTS } from '../lib/config.js';
import { AlexnodeError } from '../lib/errors.js';
import type { Recipe } from '../lib/recipe.js';

function fault(run: () => unknown): { code: string; text: string } {
  try {
    run();
  } catch (error) {
    if (error instanceof AlexnodeError) return { code: error.code, text: `${error.message} | ${error.hint ?? ''}` };
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** What `--set` makes of the default recipe. */
function set(...settings: string[]): Recipe {
  return changeRecipe(RECIPE_DEFAULTS, parseSettings(RECIPE_DEFAULTS, settings), '--set');
}

test('an unknown field is named with the nearest right one', (t) => {
  const { code, text } = fault(() => changeRecipe(RECIPE_DEFAULTS, { epoch: 3 }));
  t.is(code, 'ERR_USAGE');
  t.is(text, 'recipe.epoch: no such field | Did you mean "epochs"?');
});

test('an unknown field inside a schedule is named with its path', (t) => {
  const { text } = fault(() => changeRecipe(RECIPE_DEFAULTS, { schedule: { type: 'dexp', factr: 3 } }));
  t.is(text, 'recipe.schedule.factr: no such field | Did you mean "factor"?');
});

test('a wrong type and a wrong size say what was expected and what came', (t) => {
  t.is(fault(() => changeRecipe(RECIPE_DEFAULTS, { lr: 'fast' })).text, 'recipe.lr: expected number, got "fast" | ');
  t.is(
    fault(() => changeRecipe(RECIPE_DEFAULTS, { momentum: 2 })).text,
    'recipe.momentum: must be at most 1, got 2 | ',
  );
  t.regex(fault(() => changeRecipe(RECIPE_DEFAULTS, { batch: 1.5 })).text, /^recipe\.batch: expected int, got 1\.5/);
  t.regex(
    fault(() => changeRecipe(RECIPE_DEFAULTS, { batch: 0 })).text,
    /^recipe\.batch: must be greater than 0, got 0/,
  );
});

test('a wrong schedule is told the nearest kind', (t) => {
  t.is(
    fault(() => changeRecipe(RECIPE_DEFAULTS, { schedule: { type: 'platau' } })).text,
    'recipe.schedule.type: must be one of constant, step, plateau, dexp; got "platau" | Did you mean "plateau"?',
  );
});

test('options of the data are as strict', (t) => {
  t.is(fault(() => check(dataSchema, { source: 'generated', imagesize: 32 }, 'data')).code, 'ERR_USAGE');
  t.is(
    fault(() => check(dataSchema, { source: 'x', imageSize: 32, onBadImage: 'skipp' }, 'data')).text,
    'data.onBadImage: must be one of error, skip; got "skipp" | Did you mean "skip"?',
  );
});

test('lr takes biasLr along unless that is given too', (t) => {
  t.is(changeRecipe(RECIPE_DEFAULTS, { lr: 0.001 }).biasLr, 0.002);
  t.is(changeRecipe(RECIPE_DEFAULTS, { lr: 0.001, biasLr: 0.5 }).biasLr, 0.5);
  t.is(set('lr=0.001').biasLr, 0.002);
});

test('settings are typed and reach into fields', (t) => {
  t.is(set('epochs=5').epochs, 5);
  t.is(set('augment=false').augment, false);
  t.is(set('dropout=0').dropout, 0);
  t.deepEqual(set('schedule.patience=7').schedule, {
    type: 'plateau',
    factor: 0.1,
    patience: 7,
    drops: 3,
    minDelta: 0,
  });
  t.deepEqual(set('schedule=dexp').schedule, { type: 'dexp', factor: 250, steps: 4 });
  t.deepEqual(set('schedule.type=dexp', 'schedule.factor=10').schedule, { type: 'dexp', factor: 10, steps: 4 });
  t.deepEqual(set('schedule.type=step', 'schedule.at=8,9.5').schedule, { type: 'step', at: [8, 9.5], factor: 0.1 });
  t.deepEqual(set('layerRates.conv1=0.1', 'layerRates.fc8=2').layerRates, { conv1: 0.1, fc8: 2 });
});

test('a setting changes a copy', (t) => {
  const base = structuredClone(RECIPE_DEFAULTS);
  set('schedule.patience=7');
  t.deepEqual(RECIPE_DEFAULTS, base);
});

test('null removes a field that may be absent', (t) => {
  const base = { ...RECIPE_DEFAULTS, weightDecay: 1 };
  t.false('weightDecay' in changeRecipe(base, { weightDecay: null }));
});

test('wrong settings name the nearest key', (t) => {
  t.is(fault(() => set('lrr=1')).text, '--set lrr: no such key | Did you mean "lr"?');
  t.is(
    fault(() => set('schedule.patiense=1')).text,
    '--set schedule.patiense: no such field | Did you mean "patience"?',
  );
  t.is(fault(() => set('epochs=many')).text, '--set epochs: expected number, got "many" | ');
  t.is(fault(() => set('epochs')).code, 'ERR_USAGE');
});

test('durations', (t) => {
  t.is(parseDuration('10m', 'x'), 600);
  t.is(parseDuration('1.5h', 'x'), 5400);
  t.is(parseDuration('90s', 'x'), 90);
  t.is(parseDuration(45, 'x'), 45);
  for (const wrong of ['', 'ten', '10 minutes', '-3m', '0', 'm']) {
    t.is(fault(() => parseDuration(wrong, 'saveEvery')).code, 'ERR_USAGE', wrong);
  }
});
