import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import {
  AlexnodeError,
  type ErrorCode,
  exportSafetensors,
  loadModel,
  type NetworkSpec,
  preset,
  readCheckpoint,
  train,
} from '../lib/index.js';
import { cli, drain, newest, photos, TINY, TINY_CALL, temporary, tensorBytes, tinyNetwork } from './helpers.js';

/** A run of the tiny network on the ten generated classes. */
async function source(): Promise<string> {
  const out = join(temporary(), 'source');
  await using training = await train({ ...TINY_CALL, out, steps: 16 });
  await drain(training);
  return out;
}

/** Pictures of three classes. */
function other(): string {
  return photos(temporary(), { 'train/a': 12, 'train/b': 12, 'train/c': 12, 'val/a': 3, 'val/b': 3, 'val/c': 3 });
}

test('layers are loaded, fresh or frozen; frozen ones stay as they were to the bit, momentum and decay included', async (t) => {
  const from = await source();
  const out = join(temporary(), 'tuned');
  const call = { init: from, data: other(), freeze: ['conv*'], lrScale: { 'fc?': 4 }, seed: 3 };
  await using training = await train({ ...call, recipe: { epochs: 4, weightDecay: 0.01 }, out });
  const { trainer } = training;
  const { init, network, recipe } = trainer.config;
  t.is(network.classes, 3);
  t.deepEqual(init?.layers, [
    { layer: 'conv1', weights: 'loaded', frozen: true },
    { layer: 'fc2', weights: 'fresh', why: 'weight is 10 x 72 there, 3 x 72 here', frozen: false },
  ]);
  t.is(init?.mean, 'file');
  t.deepEqual(recipe.layerRates, { fc2: 4 });
  t.is(recipe.lr, 0.05);
  const before = [await trainer.tensor('conv1.weight'), await trainer.tensor('conv1.bias')];
  const head = await trainer.tensor('fc2.weight');
  await using model = await loadModel(from, { devices: ['cpu'] });
  const events = await drain(training);
  t.deepEqual(
    events.flatMap((event) => (event.type === 'warning' ? event.code : [])).filter((code) => code.endsWith('DIFFER')),
    ['CLASSES_DIFFER'],
  );
  const codes = events.flatMap((event) => (event.type === 'warning' ? event.code : []));
  t.false(codes.includes('UPDATES_VANISH'), 'a frozen layer stands still because it was told to');
  const looks = events.flatMap((event) => (event.type === 'epoch' ? [event.layers] : []));
  t.is(looks.length, 4);
  t.true(looks.every(([conv1, fc2]) => conv1?.frozen === true && conv1.update === 0 && fc2?.frozen === undefined));
  t.deepEqual([await trainer.tensor('conv1.weight'), await trainer.tensor('conv1.bias')], before);
  t.true((await trainer.tensor('momentum.conv1.weight')).data.every((value) => value === 0));
  t.notDeepEqual(await trainer.tensor('fc2.weight'), head);
  t.true((await trainer.tensor('momentum.fc2.weight')).data.some((value) => value !== 0));
  // The first layer is that of the other run, on its mean image: it puts out the same.
  await using tuned = await loadModel(out, { devices: ['cpu'] });
  const picture = { data: new Uint8Array(16 * 16 * 3).map((_, i) => (i * 37) % 256), width: 16, height: 16 };
  const outputs = [];
  for (const one of [model, tuned]) {
    for await (const row of one.features([picture], { layer: 'conv1' })) outputs.push(row);
  }
  t.deepEqual(outputs[0], outputs[1]);
});

test('a fine-tuning that was stopped and resumed gives the same bits', async (t) => {
  const call = { init: await source(), data: other(), freeze: ['conv1'], lrScale: { fc2: 2 }, seed: 5 };
  const recipe = { epochs: 3 };
  const [straight, parted] = [join(temporary(), 'straight'), join(temporary(), 'parted')];
  {
    await using training = await train({ ...call, recipe, out: straight });
    await drain(training);
  }
  {
    await using training = await train({ ...call, recipe, out: parted, steps: 3 });
    await drain(training);
  }
  await using resumed = await train({ resume: parted });
  t.is(resumed.trainer.config.init?.layers[0]?.frozen, true);
  await drain(resumed);
  t.true(tensorBytes(newest(straight)).equals(tensorBytes(newest(parted))));
  const { config } = await readCheckpoint(newest(parted));
  t.deepEqual(config.recipe.layerRates, { fc2: 2 });
  t.like(config.network.layers[0], { name: 'conv1', frozen: true });
  for (const change of [{ init: straight }, { freeze: ['fc2'] }]) {
    const error = await t.throwsAsync(train({ resume: parted, ...change }), { instanceOf: AlexnodeError });
    t.is(error?.code, 'ERR_USAGE');
  }
});

test('of the same classes everything is loaded, from an exported file as from the run; one class renamed, and the last layer is fresh', async (t) => {
  const from = await source();
  const file = join(temporary(), 'weights.safetensors');
  await exportSafetensors({ model: from, file });
  for (const init of [from, file]) {
    await using training = await train({ init, limit: 100 });
    t.deepEqual(
      training.trainer.config.init?.layers.map(({ weights }) => weights),
      ['loaded', 'loaded'],
    );
  }
  const data = photos(temporary(), Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`class-${index}`, 4])));
  await using training = await train({ init: file, data });
  const last = training.trainer.config.init?.layers[1];
  t.is(last?.weights, 'fresh');
  t.regex(last?.why ?? '', /other names/);
});

test('what does not fit is told', async (t) => {
  const from = await source();
  const wider = (classes: number): NetworkSpec => {
    const network = tinyNetwork(classes);
    return { ...network, input: { ...network.input, cropSize: 15, scale: 1 / 32 } };
  };
  await using training = await train({
    init: from,
    network: wider,
    recipe: TINY,
    limit: 100,
    freeze: ['fc2'],
    steps: 1,
  });
  const events = await drain(training);
  const warnings = events.flatMap((event) => (event.type === 'warning' ? [event] : []));
  const input = warnings.find(({ code }) => code === 'PREPROCESSING_DIFFERS');
  t.regex(input?.message ?? '', /cropSize 14 there, 15 here; scale 0\.015625 there, 0\.03125 here/);
  t.is(training.trainer.config.init?.mean, 'data');

  const failing: [Parameters<typeof train>[0], ErrorCode, RegExp][] = [
    [{ init: from, freeze: ['cnov1'] }, 'ERR_USAGE', /cnov1/],
    [{ init: from, freeze: ['*'] }, 'ERR_USAGE', /nothing would be left/],
    [{ init: from, lrScale: { fc9: 2 } }, 'ERR_USAGE', /fc9/],
    [{ init: from, lrScale: { fc2: -1 } }, 'ERR_USAGE', /negative/],
    [{ init: join(temporary(), 'nothing') }, 'ERR_CHECKPOINT', /no run/],
    [{ init: from, preset: 'cifar-80sec' }, 'ERR_CHECKPOINT', /no layer of cifar-80sec fits/],
  ];
  for (const [call, code, message] of failing) {
    const error = await t.throwsAsync(train({ limit: 50, ...call }), { instanceOf: AlexnodeError });
    t.is(error?.code, code);
    t.regex(error?.message ?? '', message);
  }
});

test('a damaged file changes nothing and says so', async (t) => {
  const from = newest(await source());
  const bytes = readFileSync(from);
  const file = join(temporary(), 'damaged.safetensors');
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  writeFileSync(file, bytes);
  const error = await t.throwsAsync(train({ init: file, limit: 100 }), { instanceOf: AlexnodeError });
  t.is(error?.code, 'ERR_CHECKPOINT');
  t.regex(error?.message ?? '', /damaged/);
});

test('the command: export, then fine-tune what was exported, with a line per layer', async (t) => {
  const folder = temporary();
  const from = await source();
  const exported = await cli(['export', from, '--onnx', 'a.onnx', '--safetensors', 'a.safetensors'], folder).ended;
  t.is(exported.code, 0, exported.stderr);
  t.regex(exported.stdout, /images: float32 n x 3 x 14 x 14/);
  const flags = ['--init', 'a.safetensors', '--freeze', 'conv*', '--lr-scale', 'conv1=2,fc2=10', '--data', other()];
  const tuned = await cli(['train', ...flags, '--epochs', '1', '--out', 'run', '--tensorboard'], folder).ended;
  t.is(tuned.code, 0, tuned.stderr);
  t.regex(tuned.stdout, /conv1 +loaded, frozen\n/);
  t.regex(tuned.stdout, /fc2 +fresh \(weight is 10 x 72 there, 3 x 72 here\), rates x 10\n/);
  const frozen = await cli(['train', '--init', 'a.safetensors', '--freeze', 'conv1,fc2', '--limit', '50'], folder)
    .ended;
  t.is(frozen.code, 2);
  t.regex(frozen.stderr, /freeze conv1, fc2: nothing would be left to learn/);
  t.is((await cli(['export', from], folder).ended).code, 2);
  t.is((await cli(['train', '--init', 'a.onnx'], folder).ended).code, 1);
});

test('the command warns of weights that are used to images prepared otherwise', async (t) => {
  const folder = temporary();
  // The network of a preset, on crops of another size and pixels of another scale.
  const network = (classes: number): NetworkSpec => {
    const { network: same } = preset('cifar-80sec', { classes });
    return { ...same, input: { ...same.input, cropSize: 28, scale: 1 / 64 } };
  };
  {
    await using training = await train({ network, recipe: TINY, limit: 64, steps: 1, out: join(folder, 'a') });
    await drain(training);
  }
  const call = ['train', '--init', 'a', '--preset', 'cifar-80sec', '--limit', '64', '--steps', '1', '--out', 'b'];
  const { code, stdout, stderr } = await cli(call, folder).ended;
  t.is(code, 0, stderr);
  t.regex(stdout, /init +.*, with the mean image of the data\n/);
  t.regex(stdout, /conv3 +loaded\n +fc1 +fresh \(weight is /);
  t.regex(
    stdout,
    /warning +the images are prepared otherwise than there \(cropSize 28 there, 32 here; scale 0\.015625 there, 1 here\) \(PREPROCESSING_DIFFERS\)\n +The layers loaded are used to other images\. Leave --preset away/,
  );
  t.regex(readFileSync(join(folder, 'b', 'events.ndjson'), 'utf8'), /"code":"PREPROCESSING_DIFFERS"/);
});
