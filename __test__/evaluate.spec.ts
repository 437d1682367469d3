import { join } from 'node:path';
import test from 'ava';

import { RECIPE_DEFAULTS } from '../lib/config.js';
import {
  type AlexnodeError,
  compare,
  evaluate,
  type Guess,
  listPictures,
  loadModel,
  openDataset,
  similar,
  Trainer,
  train,
} from '../lib/index.js';
import { colourPhotos, colourRun } from './colours.js';
import { drain, temporary, tinyNetwork } from './helpers.js';

let trained: Promise<{ photos: string; first: string; second: string }> | undefined;
/** Two networks that know the same classes, trained on the same pictures: the second one less. */
function pair() {
  trained ??= (async () => {
    const { photos, run } = await colourRun();
    const recipe = { batch: 16, epochs: 1, lr: 0.002, colourNoise: 0 };
    const { run: second } = await colourRun({ data: photos, seed: 5, recipe });
    return { photos, first: run, second };
  })();
  return trained;
}

/** What `model` says of every validation picture: its path, its class, all probabilities. */
async function guesses(model: string, photos: string): Promise<{ path: string; label: string; top: Guess[] }[]> {
  await using loaded = await loadModel(model);
  const found: { path: string; label: string; top: Guess[] }[] = [];
  for await (const prediction of loaded.predictAll(await listPictures(join(photos, 'val')))) {
    if (prediction.error !== undefined) throw prediction.error;
    const path = String(prediction.image);
    found.push({ path, label: path.split('/').at(-2) ?? '', top: prediction.top });
  }
  return found;
}

const close = (a: number, b: number) => Math.abs(a - b) < 1e-5;

test('an evaluation has top-1 and top-5 errors with their intervals', async (t) => {
  const { first } = await pair();
  const report = await evaluate({ model: first });
  t.like(report, { samples: 36, split: 'val', crops: 1, top5Error: 0, devices: ['cpu'] });
  t.like(report.models[0], { network: 'tiny', precision: 'fp32', top1Error: report.top1Error, loss: report.loss });
  const [low, high] = report.top1Interval;
  t.true(low <= report.top1Error && report.top1Error < high);
  // Three classes: the right one is always among the five most probable. Wilson's bound of 0 in 36.
  t.is(report.top5Interval[0], 0);
  t.is(report.top5Interval[1].toFixed(4), '0.0964');
  const ten = await evaluate({ model: first, crops: 10, split: 'train', batch: 7 });
  t.like(ten, { samples: 120, split: 'train', crops: 10 });
  const some = await evaluate({ model: first, limit: 10 });
  t.is(some.samples, 10);
});

test('the probabilities of several networks are averaged', async (t) => {
  const { photos, first, second } = await pair();
  const [alone, other, both] = await Promise.all([
    evaluate({ model: first }),
    evaluate({ model: second }),
    evaluate({ model: [first, second] }),
  ]);
  t.is(both.samples, 36);
  for (const [index, one] of [alone, other].entries()) {
    t.is(both.models[index]?.top1Error, one.top1Error);
    t.true(close(both.models[index]?.loss ?? 0, one.loss));
  }
  const [a, b] = [await guesses(first, photos), await guesses(second, photos)];
  let errors = 0;
  let loss = 0;
  for (const [index, { label, top }] of a.entries()) {
    const mean = top.map((guess) => {
      const same = b[index]?.top.find((another) => another.label === guess.label);
      return { label: guess.label, probability: (guess.probability + (same?.probability ?? 0)) / 2 };
    });
    mean.sort((x, y) => y.probability - x.probability);
    if (mean[0]?.label !== label) errors += 1;
    loss -= Math.log(mean.find((guess) => guess.label === label)?.probability ?? 0);
  }
  t.is(both.top1Error, errors / 36);
  t.true(close(both.loss, loss / 36));
  const twice = await evaluate({ model: [first, first], crops: 10 });
  t.true(close(twice.loss, (await evaluate({ model: first, crops: 10 })).loss));
});

test('a comparison pairs the two on every image and lists those that changed', async (t) => {
  const { photos, first, second } = await pair();
  const found = await compare({ models: [first, second] });
  const [a, b] = [await guesses(first, photos), await guesses(second, photos)];
  const counts = { both: 0, first: 0, second: 0, neither: 0 };
  const changed: string[] = [];
  for (const [index, { path, label, top }] of a.entries()) {
    const other = b[index]?.top[0]?.label;
    const right = [top[0]?.label === label, other === label];
    counts[right[0] ? (right[1] ? 'both' : 'first') : right[1] ? 'second' : 'neither'] += 1;
    if (top[0]?.label !== other) changed.push(path);
  }
  t.deepEqual(found.counts, counts);
  t.true(counts.first > counts.second, 'the first was trained longer');
  t.is(found.samples, 36);
  t.deepEqual(found.changed.map(({ path }) => path).sort(), changed.map((path) => path).sort());
  for (const { label, path, guesses: pairOf, right } of found.changed) {
    t.is(path.split('/').at(-2), label);
    t.deepEqual(
      pairOf.map((guess) => guess.label === label),
      right,
    );
  }
  // Twice the tail of a fair coin.
  let term = 0.5 ** (counts.first + counts.second);
  let tail = term;
  for (let k = 0; k < counts.second; k += 1) {
    term *= (counts.first + counts.second - k) / (k + 1);
    tail += term;
  }
  t.true(Math.abs(found.pValue - Math.min(1, 2 * tail)) < 1e-12);
  const [x, y] = found.models;
  t.is(x.top1Error, (counts.second + counts.neither) / 36);
  t.is(y.top1Error, (counts.first + counts.neither) / 36);
  t.true(x.sameData && y.sameData);
});

test('a network compared with itself changes nothing', async (t) => {
  const { first } = await pair();
  const found = await compare({ models: [first, first], crops: 10 });
  t.like(found, { pValue: 1, changed: [], counts: { first: 0, second: 0 } });
  t.deepEqual(found.models[0], found.models[1]);
});

test('classes that are not those of the training are refused, with the difference', async (t) => {
  const { first } = await pair();
  const other = colourPhotos(temporary(), {
    'train/red': 4,
    'train/grey': 4,
    'train/blue': 4,
    'val/red': 2,
    'val/grey': 2,
    'val/blue': 2,
  });
  const refusal = {
    code: 'ERR_DATA',
    message: `${join(first, 'checkpoints', 'best.safetensors')}: the data has other classes than it was trained on (missing: green; new: grey)`,
  };
  await t.throwsAsync(evaluate({ model: first, data: other }), refusal);
  await t.throwsAsync(compare({ models: [first, first], data: other }), refusal);
  const { run } = await colourRun({ data: other });
  await t.throwsAsync(evaluate({ model: [first, run] }), {
    code: 'ERR_DATA',
    message: `${join(run, 'checkpoints', 'best.safetensors')}: the data has other classes than it was trained on (missing: grey; new: green)`,
  });
});

test('labels are names: a network whose classes are in another order is measured, compared, tuned and resumed all the same', async (t) => {
  const { photos, first } = await pair();
  const classes = ['red', 'blue', 'green'];
  const folder = temporary();
  const [turned, out, cacheDir] = [join(folder, 'turned.safetensors'), join(folder, 'run'), join(folder, 'cache')];
  const open = (options = {}) => openDataset({ source: photos, imageSize: 16, cacheDir, ...options });
  await using data = await open({ classes });
  t.deepEqual(data.classes, classes);
  const recipe = { ...RECIPE_DEFAULTS, batch: 16, epochs: 4, colourNoise: 0 };
  await using trainer = await Trainer.create({ network: tinyNetwork(3), recipe, data });
  for await (const event of trainer.train()) t.not(event.type, 'warning');
  await trainer.save(turned);
  const own = await trainer.evaluate();
  t.true(own.top1Error < 0.3, 'it has learnt enough for a confusion of classes to show');
  const found = await evaluate({ model: turned, data: photos });
  t.is(found.top1Error, own.top1Error);
  t.true(close(found.loss, own.loss));

  const alone = await evaluate({ model: first });
  for (const model of [
    [first, turned],
    [turned, first],
  ]) {
    const both = await evaluate({ model, data: photos });
    for (const [index, path] of model.entries()) {
      t.true(close(both.models[index]?.loss ?? 0, path === first ? alone.loss : own.loss));
    }
    t.true(both.loss < 1.1 * Math.max(alone.loss, own.loss));
    const compared = await compare({ models: model as [string, string], data: photos });
    const errors = [alone, own].map(({ top1Error }) => top1Error);
    t.deepEqual(compared.models.map(({ top1Error }) => top1Error).sort(), errors.sort());
    for (const { path, label } of compared.changed) t.is(path.split('/').at(-2), label);
  }
  const tuned = { init: turned, data: photos, recipe: { lr: 0.0001 }, out, cacheDir };
  {
    await using training = await train({ ...tuned, steps: 5 });
    const events = await drain(training);
    t.false(events.some(({ type }) => type === 'warning'));
    t.deepEqual([...training.data.classes], classes);
    t.true(training.trainer.config.init?.layers.every(({ weights }) => weights === 'loaded'));
  }
  t.true(Math.abs((await evaluate({ model: out })).loss - own.loss) < 0.05);
  await using resumed = await train({ resume: out });
  t.deepEqual([...resumed.data.classes], classes);
  await drain(resumed);
  t.deepEqual(
    (await similar({ model: out, images: [join(photos, 'train/red/000.png')], topK: 1 }))[0]?.similar?.[0]?.label,
    'red',
  );

  // Who opens the data himself has to say so.
  await using natural = await open();
  await using stranger = await Trainer.create({ network: tinyNetwork(3), recipe, data: natural });
  const error = await t.throwsAsync(stranger.load(turned), {
    code: 'ERR_DATA',
    message: /in another order .*: class 0 was red, and is blue$/,
  });
  t.regex((error as AlexnodeError).hint ?? '', /\{ classes \}/);
  // Other names are numbered as they are.
  await using others = await open({ classes: ['red', 'blue', 'grey'] });
  t.deepEqual([...others.classes], ['blue', 'green', 'red']);
});

test('a network that was trained on other pictures of the same classes is measured, and the comparison says so', async (t) => {
  const { first } = await pair();
  const other = colourPhotos(temporary(), {
    'train/red': 9,
    'train/green': 9,
    'train/blue': 9,
    'val/red': 2,
    'val/green': 2,
    'val/blue': 2,
  });
  const { run } = await colourRun({ data: other, recipe: { batch: 9, epochs: 1 } });
  const { models, samples } = await compare({ models: [first, run] });
  t.is(samples, 36);
  t.deepEqual(
    models.map(({ sameData }) => sameData),
    [true, false],
  );
});

test('what makes no sense is refused', async (t) => {
  const { first } = await pair();
  await t.throwsAsync(evaluate({ model: [] }), { code: 'ERR_USAGE', message: /evaluate\.model: must have at least 1/ });
  await t.throwsAsync(compare({ models: [first] as unknown as [string, string] }), {
    code: 'ERR_USAGE',
    message: /compare\.models: must have at least 2/,
  });
  await t.throwsAsync(evaluate({ model: first, crops: 5 as 10 }), { code: 'ERR_USAGE', message: /crops/ });
  await t.throwsAsync(evaluate({ model: [first, first], crops: 5 as 10 }), { code: 'ERR_USAGE', message: /crops/ });
  await t.throwsAsync(evaluate({ model: first, split: 'test' as 'val' }), { code: 'ERR_USAGE', message: /split/ });
  await t.throwsAsync(evaluate({ model: [first, first], limit: 0 }), { code: 'ERR_USAGE', message: /limit/ });
  await t.throwsAsync(evaluate({ model: first, limit: 0 }), { code: 'ERR_USAGE', message: /limit/ });
  for (const slip of [{ models: [first] }, { model: first, crop: 10 }]) {
    await t.throwsAsync(evaluate(slip as unknown as { model: string }), {
      code: 'ERR_USAGE',
      message: /evaluate\.(models|crop): no such field/,
    });
  }
  const stopped = AbortSignal.abort();
  await t.throwsAsync(evaluate({ model: first, signal: stopped }), { code: 'ERR_ABORTED' });
  await t.throwsAsync(compare({ models: [first, first], signal: stopped }), { code: 'ERR_ABORTED' });
});
