import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { type ImageInput, listPictures, loadModel, similar } from '../lib/index.js';
import { colourPhotos, colourPixels, colourRun } from './colours.js';
import { temporary } from './helpers.js';

let trained: ReturnType<typeof colourRun> | undefined;
/** One trained network for all tests. */
function colours() {
  trained ??= colourRun();
  return trained;
}

/** The tensors of a safetensors file. */
function tensors(path: string) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const head = JSON.parse(file.toString('utf8', 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return Object.fromEntries(
    Object.entries(head).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => {
        const bytes = Uint8Array.from(file.subarray(8 + length + begin, 8 + length + end)).buffer;
        const data =
          dtype === 'F32' ? new Float32Array(bytes) : dtype === 'U32' ? new Uint32Array(bytes) : new Int32Array(bytes);
        return [name, { shape, data }];
      },
    ),
  );
}

test.serial('the nearest training images are those of the least distance of the last hidden layer', async (t) => {
  const { photos, run } = await colours();
  const queries = ['red', 'green', 'blue'].map((colour, mark) => colourPixels(colour, 500 + mark));
  const found = await similar({ model: run, images: queries, topK: 4 });
  await using model = await loadModel(run);
  const paths = await listPictures(join(photos, 'train'));
  const rows: Float32Array[] = [];
  for await (const row of model.features([...queries, ...paths])) rows.push(row);
  for (const [index, query] of queries.entries()) {
    const distances = paths.map((path, at) => {
      const other = rows[queries.length + at] ?? new Float32Array();
      return {
        path,
        distance: Math.hypot(...(rows[index] ?? []).map((value, element) => value - (other[element] ?? 0))),
      };
    });
    distances.sort((a, b) => a.distance - b.distance);
    const result = found[index];
    if (result === undefined || result.error !== undefined) throw new Error('not found');
    t.true(result.image === query);
    t.deepEqual(
      result.similar.map(({ path }) => path),
      distances.slice(0, 4).map(({ path }) => path),
    );
    for (const [at, near] of result.similar.entries()) {
      t.true(Math.abs(near.distance - (distances[at]?.distance ?? 0)) < 1e-4);
      t.is(near.label, near.path.split('/').at(-2) ?? '');
    }
  }
});

test.serial('a training image is nearest to itself; pictures that cannot be used keep none back', async (t) => {
  const { photos, run } = await colours();
  const own = join(photos, 'train', 'green', '007.png');
  const found = await similar({ model: run, images: [own, Buffer.from('no picture'), join(photos, 'none.png'), own] });
  for (const index of [0, 3]) {
    const result = found[index];
    if (result === undefined || result.error !== undefined) throw new Error('not found');
    t.is(result.similar.length, 6);
    t.is(result.similar[0]?.path, own);
    t.true((result.similar[0]?.distance ?? 1) < 1e-4);
  }
  for (const index of [1, 2]) {
    const result = found[index];
    t.true(result?.error?.code === 'ERR_DATA');
  }
});

test.serial(
  'what the layer makes of the training images is kept in the run, and computed anew where it does not fit',
  async (t) => {
    const { run } = await colours();
    const images: ImageInput[] = [colourPixels('blue', 42)];
    const folder = join(run, 'features');
    const first = await similar({ model: run, images });
    const [name = '', ...more] = readdirSync(folder);
    t.deepEqual(more, []);
    t.regex(name, /^pool1-[0-9a-f]{16}\.safetensors$/);
    const file = join(folder, name);
    const kept = tensors(file);
    t.deepEqual(kept.features?.shape, [120, 72]);
    t.deepEqual(
      [...(kept.ids?.data ?? [])],
      Array.from({ length: 120 }, (_, id) => id),
    );
    t.deepEqual(
      [...(kept.labels?.data ?? [])].sort(),
      [0, 1, 2].flatMap((label) => Array<number>(40).fill(label)),
    );
    const { ino } = statSync(file);
    t.deepEqual(await similar({ model: run, images }), first);
    t.is(statSync(file).ino, ino, 'it was read');
    truncateSync(file, 1000);
    t.deepEqual(await similar({ model: run, images }), first);
    t.deepEqual(tensors(file).features?.data, kept.features?.data);
    // That it is read is seen by what it says.
    const bytes = readFileSync(file);
    bytes.fill(0, 8 + Number(bytes.readBigUInt64LE(0)), 8 + Number(bytes.readBigUInt64LE(0)) + 120 * 72 * 4);
    writeFileSync(file, bytes);
    const zeros = await similar({ model: run, images, topK: 3 });
    const result = zeros[0];
    if (result === undefined || result.error !== undefined) throw new Error('not found');
    t.is(new Set(result.similar.map(({ distance }) => distance)).size, 1);
    // Other weights have another key: the older file goes.
    await similar({
      model: join(
        run,
        'checkpoints',
        readdirSync(join(run, 'checkpoints')).find((each) => each.startsWith('step-')) ?? '',
      ),
      images,
      layer: 'conv1',
    });
    t.deepEqual(
      readdirSync(folder)
        .map((each) => each.split('-')[0])
        .sort(),
      ['conv1', 'pool1'],
    );
  },
);

test.serial('a signal ends it, even while the pictures are slow in coming', async (t) => {
  const { run } = await colours();
  const stop = new AbortController();
  const slow = (async function* (): AsyncGenerator<ImageInput> {
    yield colourPixels('red', 1);
    stop.abort();
    await new Promise(() => undefined);
  })();
  await t.throwsAsync(similar({ model: run, images: slow, signal: stop.signal }), { code: 'ERR_ABORTED' });
});

test.serial('a folder that cannot be written keeps nothing and is no error', async (t) => {
  const { run } = await colourRun({ recipe: { batch: 16, epochs: 1 } });
  const images = [colourPixels('red', 8)];
  writeFileSync(join(run, 'features'), 'in the way');
  const found = await similar({ model: run, images });
  t.is(found.length, 1);
  t.is(readFileSync(join(run, 'features'), 'utf8'), 'in the way');
});

test.serial('other data, another layer, and what makes no sense', async (t) => {
  const { run } = await colours();
  const images = [colourPixels('red', 9)];
  const other = colourPhotos(temporary(), {
    'train/red': 3,
    'train/green': 3,
    'train/blue': 3,
    'val/red': 1,
    'val/green': 1,
    'val/blue': 1,
  });
  const [found] = await similar({ model: run, images, data: other, layer: 'fc2', topK: 50 });
  if (found === undefined || found.error !== undefined) throw new Error('not found');
  t.is(found.similar.length, 9);
  t.true(found.similar.every(({ path }) => path.startsWith(other)));
  await t.throwsAsync(similar({ model: run, images, layer: 'fc22' }), {
    code: 'ERR_USAGE',
    message: /no layer 'fc22'/,
  });
  await t.throwsAsync(similar({ model: run, images, topK: 0 }), { code: 'ERR_USAGE', message: /topK/ });
  await t.throwsAsync(similar({ model: run, images, signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' });
  await t.throwsAsync(similar({ model: run, images, data: join(other, 'none') }), {
    code: 'ERR_DATA',
    message: /none/,
  });
  const grey = colourPhotos(temporary(), { 'train/red': 3, 'train/grey': 3, 'val/red': 1, 'val/grey': 1 });
  await t.throwsAsync(similar({ model: run, images, data: grey }), {
    code: 'ERR_DATA',
    message: /missing: blue, green; new: grey/,
  });
});
