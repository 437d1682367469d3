import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { AlexnodeError, evaluate, loadModel, type Pixels, similar } from '../lib/index.js';
import { images, writeWeights } from './fixtures/torchvision/weights.js';
import { ROOT, temporary } from './helpers.js';

/** Made by PyTorch; see make.py beside it. */
const TORCH = JSON.parse(readFileSync(join(ROOT, '__test__/fixtures/torchvision/torchvision.json'), 'utf8')) as {
  names: string[];
  shapes: number[][];
  logits: number[][];
};

test("torchvision's alexnet: the logits are those of PyTorch", async (t) => {
  t.timeout(240_000);
  const file = join(temporary(), 'alexnet.safetensors');
  writeWeights(file, TORCH.names, TORCH.shapes);
  await using model = await loadModel(file, { devices: ['cpu'], batch: 3 });
  t.is(model.network.name, 'torchvision');
  t.deepEqual(model.classes.slice(0, 2), ['class 0', 'class 1']);
  const pictures = images().map((bytes): Pixels => ({ data: bytes, width: 256, height: 256 }));
  let index = 0;
  for await (const logits of model.features(pictures, { layer: 'fc8' })) {
    const expected = TORCH.logits[index] ?? [];
    index += 1;
    t.is(logits.length, 10);
    for (const [k, value] of logits.entries()) t.true(Math.abs(value - (expected[k] ?? Number.NaN)) < 1e-4, `${k}`);
  }
  t.is(index, 3);
  for (const asked of [similar({ model: file, images: [] }), evaluate({ model: file })]) {
    const error = await t.throwsAsync(asked, { instanceOf: AlexnodeError, message: /does not tell which images/ });
    t.is(error?.code, 'ERR_USAGE');
    t.regex(error?.hint ?? '', /--data/);
  }
  rmSync(file);
});

test('a file that is cut short, and one of a network that nobody knows, are told apart', async (t) => {
  const file = join(temporary(), 'alexnet.safetensors');
  const short = TORCH.shapes.map((shape) => shape.map((extent) => Math.min(extent, 2)));
  writeWeights(file, TORCH.names, short);
  const other = await t.throwsAsync(loadModel(file, { devices: ['cpu'] }), { instanceOf: AlexnodeError });
  t.is(other?.code, 'ERR_CHECKPOINT');
  t.regex(other?.message ?? '', /features\.0\.weight/);
  writeWeights(file, ['encoder.weight'], [[2, 2]]);
  const unknown = await t.throwsAsync(loadModel(file, { devices: ['cpu'] }), { instanceOf: AlexnodeError });
  t.is(unknown?.code, 'ERR_CHECKPOINT');
  t.regex(unknown?.message ?? '', /no network that is known/);
});
