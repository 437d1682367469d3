import { once } from 'node:events';
import { copyFileSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { decode } from 'fast-png';

import { evaluate, type Guess, type ImageInput, listPictures, loadModel, readCheckpoint } from '../lib/index.js';
import { colourPixels, colourRun } from './colours.js';
import { ROOT, temporary } from './helpers.js';

let trained: ReturnType<typeof colourRun> | undefined;
/** One trained network for all tests. */
function colours() {
  trained ??= colourRun();
  return trained;
}

const near = (a: number, b: number) => Math.abs(a - b) < 1e-5;

/** Whether two predictions are the same but for the rounding of sums. */
function same(a: Guess[], b: Guess[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ label, probability }, index) => {
      const other = b[index];
      return other !== undefined && label === other.label && near(probability, other.probability);
    })
  );
}

test('a picture may be a path, the bytes of a file, or pixels; the classes come with probabilities', async (t) => {
  const { photos, run } = await colours();
  await using model = await loadModel(run);
  t.deepEqual(model.classes, ['blue', 'green', 'red']);
  t.is(model.checkpoint, join(run, 'checkpoints', 'best.safetensors'));
  const path = join(photos, 'val', 'green', '003.png');
  const bytes = readFileSync(path);
  const { data, width, height } = decode(bytes);
  const asPath = await model.predict(path);
  t.is(asPath[0]?.label, 'green');
  t.true(
    near(
      asPath.reduce((sum, { probability }) => sum + probability, 0),
      1,
    ),
  );
  t.deepEqual(
    [...asPath].sort((a, b) => b.probability - a.probability),
    asPath,
  );
  const forms: ImageInput[] = [
    bytes,
    new Uint8Array(bytes),
    { data: Uint8Array.from(data), width, height },
    { data: Uint8ClampedArray.from(data), width, height },
  ];
  for (const form of forms) t.deepEqual(await model.predict(form), asPath);
  t.deepEqual(await model.predict(path, { topK: 2 }), asPath.slice(0, 2));
  const ten = await model.predict(path, { crops: 10 });
  t.is(ten[0]?.label, 'green');
  t.notDeepEqual(ten, asPath);
});

test('calls that wait at the same time are computed together', async (t) => {
  const { photos, run } = await colours();
  const paths = await listPictures(join(photos, 'val'));
  t.is(paths.length, 36);
  await using model = await loadModel(run, { batch: 36 });
  const together = await Promise.all(paths.map((path) => model.predict(path)));
  t.deepEqual(model.counters, { images: 36, batches: 1 });
  await using small = await loadModel(run, { batch: 8 });
  const inEights = await Promise.all(paths.map((path) => small.predict(path)));
  t.deepEqual(small.counters, { images: 36, batches: 5 });
  for (const [index, path] of paths.entries()) {
    const alone = await model.predict(path);
    t.true(same(alone, together[index] ?? []) && same(alone, inEights[index] ?? []), path);
  }
  t.deepEqual(model.counters, { images: 72, batches: 37 });
});

test('only those that ask the same are computed together, and each gets its own answer', async (t) => {
  const { run } = await colours();
  await using model = await loadModel(run);
  const images = ['red', 'green', 'blue', 'red'].map((colour, mark) => colourPixels(colour, 900 + mark));
  const one = await Promise.all(images.map((image) => model.predict(image, { crops: 1 })));
  const ten = await Promise.all(images.map((image) => model.predict(image, { crops: 10 })));
  const { batches } = model.counters;
  const mixed = await Promise.all(
    images.flatMap((image) => [model.predict(image, { crops: 1 }), model.predict(image, { crops: 10 })]),
  );
  t.is(model.counters.batches, batches + 2);
  t.deepEqual(
    mixed,
    images.flatMap((_, index) => [one[index] ?? [], ten[index] ?? []]),
  );
});

for (const crops of [1, 10] as const) {
  test(`predictions in ${crops} views agree with the evaluation of the same pictures`, async (t) => {
    const { photos, run } = await colours();
    const found = await evaluate({ model: run, crops });
    await using model = await loadModel(run);
    let errors = 0;
    let loss = 0;
    for await (const prediction of model.predictAll(await listPictures(join(photos, 'val')), { crops, topK: 3 })) {
      if (prediction.error !== undefined) throw prediction.error;
      const label = String(prediction.image).split('/').at(-2);
      if (prediction.top[0]?.label !== label) errors += 1;
      loss -= Math.log(prediction.top.find((guess) => guess.label === label)?.probability ?? 0);
    }
    t.is(found.samples, 36);
    t.is(found.top1Error, errors / 36);
    t.true(Math.abs(found.loss - loss / 36) < 1e-4);
    t.true(found.top1Error < 0.4, 'it has learnt something: guessing would be wrong in 24 of 36');
  });
}

test('many pictures come in their order, and one that cannot be used keeps none of the others back', async (t) => {
  const { photos, run } = await colours();
  const folder = temporary();
  const good = join(photos, 'val', 'red', '000.png');
  const damaged = join(folder, 'damaged.png');
  copyFileSync(good, damaged);
  truncateSync(damaged, 200);
  const images: ImageInput[] = [good, damaged, join(folder, 'none.png'), folder, Buffer.from('no picture'), good];
  await using model = await loadModel(run, { batch: 2 });
  const found: string[] = [];
  const hints: (string | undefined)[] = [];
  for await (const prediction of model.predictAll(images)) {
    t.true(prediction.image === images[found.length]);
    if (prediction.error !== undefined) {
      t.is(prediction.error.code, 'ERR_DATA');
      found.push(prediction.error.message);
      hints.push(prediction.error.hint);
    } else {
      found.push(prediction.top[0]?.label ?? '');
    }
  }
  t.is(found[0], 'red');
  t.is(found[5], 'red');
  t.true(found[1]?.startsWith(`${damaged}: `));
  t.regex(found[2] ?? '', /none\.png: cannot be read/);
  t.regex(hints[0] ?? '', /Repair/);
  t.regex(hints[1] ?? '', /Check the path/);
  t.regex(found[3] ?? '', /is no file/);
  t.regex(found[4] ?? '', /^the image: .*not a picture/);
  t.is(model.counters.images, 2);
  await t.throwsAsync(model.predict(damaged), { code: 'ERR_DATA', message: /damaged\.png/ });
});

test('what makes no sense is refused before anything is computed', async (t) => {
  const { run } = await colours();
  await using model = await loadModel(run);
  const { data } = colourPixels('red', 1);
  await t.throwsAsync(model.predict({ data, width: 20, height: 21 }), { code: 'ERR_USAGE', message: /20 x 21 pixels/ });
  await t.throwsAsync(model.predict({ data: new Uint8Array(0), width: 0, height: 0 }), { code: 'ERR_USAGE' });
  for (const nothing of [undefined, null, 7, {}, new ArrayBuffer(8), [1, 2, 3]]) {
    await t.throwsAsync(model.predict(nothing as unknown as ImageInput), {
      code: 'ERR_USAGE',
      message: 'this is no image',
    });
  }
  await t.throwsAsync(model.predict('x.png', { topK: 0 }), { code: 'ERR_USAGE', message: /topK/ });
  await t.throwsAsync(model.predict('x.png', { crops: 3 as 1 }), { code: 'ERR_USAGE', message: /crops/ });
  await t.throwsAsync(model.features(['x.png'], { layer: 'fc22' }).next(), {
    code: 'ERR_USAGE',
    message: "tiny has no layer 'fc22'",
  });
  t.is(model.counters.batches, 0);
});

test('a signal stops a prediction', async (t) => {
  const { photos, run } = await colours();
  await using model = await loadModel(run);
  const stop = new AbortController();
  const endless = (function* () {
    for (;;) yield join(photos, 'val', 'red', '000.png');
  })();
  const predictions = model.predictAll(endless, { signal: stop.signal });
  await predictions.next();
  stop.abort();
  await t.throwsAsync(
    async () => {
      for await (const _ of predictions);
    },
    { code: 'ERR_ABORTED' },
  );
  await t.throwsAsync(model.predict('x.png', { signal: stop.signal }), { code: 'ERR_ABORTED' });
  t.is((await model.predict(colourPixels('red', 3))).length, 3);
});

test('features are what a layer puts out, in rows of their own', async (t) => {
  const { run } = await colours();
  await using model = await loadModel(run);
  t.is(model.hiddenLayer, 'pool1');
  const images = ['red', 'green', 'blue'].map((colour, mark) => colourPixels(colour, 700 + mark));
  const rows = async (layer?: string) => {
    const found: Float32Array[] = [];
    for await (const row of model.features(images, layer === undefined ? {} : { layer })) found.push(row);
    return found;
  };
  const hidden = await rows();
  // Eight maps of 3 x 3 pixels.
  t.deepEqual(
    hidden.map((row) => [row.constructor, row.length]),
    images.map(() => [Float32Array, 72]),
  );
  t.deepEqual(await rows('pool1'), hidden);
  const conv = await rows('conv1');
  const relu = await rows('relu1');
  t.true(conv.some((row) => row.some((value) => value < 0)));
  for (const [index, row] of conv.entries())
    t.deepEqual(
      row.map((value) => Math.max(0, value)),
      relu[index],
    );
  // The last layer's outputs, with softmax, are the probabilities.
  const logits = await rows('fc2');
  for (const [index, image] of images.entries()) {
    const powers = [...(logits[index] ?? [])].map(Math.exp);
    const sum = powers.reduce((total, power) => total + power, 0);
    for (const { label, probability } of await model.predict(image)) {
      t.true(near((powers[model.classes.indexOf(label)] ?? 0) / sum, probability));
    }
  }
  await t.throwsAsync(model.features(['none.png']).next(), { code: 'ERR_DATA', message: /none\.png/ });
});

test('two networks live in one process and answer at the same time', async (t) => {
  const { run } = await colours();
  const other = await colourRun({ seed: 9, recipe: { batch: 16, epochs: 1, lr: 0.001 } });
  await using first = await loadModel(run);
  await using second = await loadModel(other.run, { threads: 1, batch: 4 });
  const image = colourPixels('blue', 50);
  const [a, b] = [await first.predict(image), await second.predict(image)];
  t.notDeepEqual(a, b);
  const rounds = await Promise.all(
    Array.from({ length: 8 }, () => [first.predict(image), second.predict(image)]).flat(),
  );
  for (const [index, round] of rounds.entries()) t.true(same(round, index % 2 === 0 ? a : b));
  await second.dispose();
  t.deepEqual(await first.predict(image), a);
});

test('on two devices it says the same', async (t) => {
  const { run } = await colours();
  await using one = await loadModel(run);
  await using two = await loadModel(run, { devices: ['cpu', 'cpu'] });
  t.deepEqual(two.devices, ['cpu', 'cpu']);
  for (const [mark, colour] of ['red', 'green', 'blue'].entries()) {
    const image = colourPixels(colour, 300 + mark);
    t.true(same(await two.predict(image, { crops: 10 }), await one.predict(image, { crops: 10 })));
    const rows: Float32Array[] = [];
    for (const model of [one, two]) for await (const row of model.features([image], { layer: 'conv1' })) rows.push(row);
    t.is(rows[0]?.length, 8 * 7 * 7);
    t.true(rows[0]?.every((value, index) => Math.abs(value - (rows[1]?.[index] ?? 0)) < 1e-4));
  }
});

test('a worker thread owns a network of its own', async (t) => {
  const { run } = await colours();
  const image = colourPixels('green', 77);
  await using model = await loadModel(run);
  const source = `
    import { parentPort, workerData } from 'node:worker_threads';
    (await import(workerData.compiler)).register();
    const { loadModel } = await import(workerData.entry);
    const model = await loadModel(workerData.run);
    parentPort.postMessage(await model.predict(workerData.image));
    parentPort.once('message', async () => {
      await model.dispose();
      parentPort.close();
    });`;
  // The compiler of the sources does not follow into a worker by itself.
  const workerData = {
    run,
    image,
    compiler: import.meta.resolve('tsx/esm/api'),
    entry: new URL(`file://${ROOT}/lib/index.ts`).href,
  };
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData });
  const [guesses] = (await once(worker, 'message')) as [Guess[]];
  t.deepEqual(guesses, await model.predict(image));
  worker.postMessage('end');
  t.deepEqual(await once(worker, 'exit'), [0]);
  t.deepEqual(await model.predict(image), guesses, 'the main thread goes on');
});

test('disposing ends what is under way, and what comes later is refused', async (t) => {
  const { run } = await colours();
  const model = await loadModel(run, { batch: 2 });
  const asked = Array.from({ length: 9 }, (_, mark) => model.predict(colourPixels('red', mark)));
  const outcomes = Promise.allSettled(asked);
  await turn();
  await model.dispose();
  await model.dispose();
  t.is((await outcomes).at(-1)?.status, 'rejected');
  for (const outcome of await outcomes) {
    if (outcome.status === 'fulfilled') t.is(outcome.value.length, 3);
    else
      t.true(['ERR_USAGE', 'ERR_ABORTED'].includes((outcome.reason as { code: string }).code), String(outcome.reason));
  }
  await t.throwsAsync(model.predict(colourPixels('red', 1)), { code: 'ERR_USAGE', message: /has been disposed/ });
  await t.throwsAsync(model.features([colourPixels('red', 1)]).next(), { code: 'ERR_USAGE' });
});

test('a network is loaded from a run or a file, and what is neither is named', async (t) => {
  const { run } = await colours();
  const folder = temporary();
  const copy = join(folder, 'network.safetensors');
  copyFileSync(join(run, 'checkpoints', 'best.safetensors'), copy);
  const image = colourPixels('blue', 5);
  await using fromRun = await loadModel(run);
  await using fromFile = await loadModel(copy);
  t.is(fromFile.sha256, fromRun.sha256);
  t.deepEqual(fromFile.metadata, await readCheckpoint(copy));
  t.deepEqual(await fromFile.predict(image), await fromRun.predict(image));

  await t.throwsAsync(loadModel(join(folder, 'typo')), { code: 'ERR_CHECKPOINT', message: /there is no run in it/ });
  const text = join(folder, 'text.safetensors');
  writeFileSync(text, 'no checkpoint at all');
  await t.throwsAsync(loadModel(text), { code: 'ERR_CHECKPOINT', message: /text\.safetensors/ });
  const bytes = readFileSync(copy);
  const last = bytes.length - 1;
  bytes[last] = (bytes[last] ?? 0) ^ 1;
  writeFileSync(copy, bytes);
  await t.throwsAsync(loadModel(copy), { code: 'ERR_CHECKPOINT', message: /network\.safetensors/ });
  const empty = join(folder, 'empty');
  mkdirSync(empty);
  copyFileSync(join(run, 'run.json'), join(empty, 'run.json'));
  await t.throwsAsync(loadModel(empty), { code: 'ERR_CHECKPOINT', message: /there is no checkpoint/ });
  await t.throwsAsync(loadModel(run, { devices: ['cuda:9'] }), { code: 'ERR_DEVICE' });
  await t.throwsAsync(loadModel(run, { device: 'cpu' } as object), {
    code: 'ERR_USAGE',
    message: 'model.device: no such field',
  });
  await t.throwsAsync(loadModel(run, { batch: 0 }), { code: 'ERR_USAGE', message: /batch/ });
  await t.throwsAsync(loadModel(run, { threads: 0 }), { code: 'ERR_USAGE', message: /threads/ });
  await t.throwsAsync(loadModel(run, { precision: 'bf16', devices: ['cpu'] }), { code: 'ERR_USAGE', message: /fp32/ });
});
