import { createHash } from 'node:crypto';
import {
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { packDataset } from '../lib/index.js';
import { Child, picture, ROOT, temporary } from './helpers.js';

/**
 * Bytes of one image of 640 pixels. Up to 128 MiB of decoded images may stay in memory, unless that is less than a quarter of them all:
 * a constant which the many images of this test are beyond.
 */
const IMAGE = 640 * 640 * 3;

/** Two classes with `count` images each for training, under as many names. */
function folder(count: number): string {
  const root = temporary();
  for (const [mark, name] of ['a', 'b'].entries()) {
    for (const [split, images] of [
      ['train', count],
      ['val', 4],
    ] as const) {
      mkdirSync(join(root, split, name), { recursive: true });
      const first = join(root, split, name, '0.png');
      writeFileSync(first, picture(20, mark));
      for (let index = 1; index < images; index += 1) linkSync(first, join(root, split, name, `${index}.png`));
    }
  }
  return root;
}

/** The most memory, in bytes, that an epoch on `2 * count` images took. */
async function peak(count: number): Promise<{ steps: number; bytes: number }> {
  const file = join(ROOT, '__test__', 'fixtures', 'peak-child.ts');
  const { code, stdout, stderr } = await new Child(file, [folder(count), join(temporary(), 'cache')], ROOT).ended;
  if (code !== 0) throw new Error(stderr);
  const { steps, peak } = JSON.parse(stdout) as { steps: number; peak: number };
  return { steps, bytes: peak * 1024 };
}

test('the memory of a training does not grow with the number of images', async (t) => {
  const [few, many] = [await peak(8), await peak(900)];
  t.is(few.steps, 2);
  t.is(many.steps, 225);
  // All of the many would be 2.2 GB.
  t.true(many.bytes - few.bytes < 32 * IMAGE, `${many.bytes - few.bytes}`);
  t.log(`16 images: ${Math.round(few.bytes / 1e6)} MB, 1,800 images: ${Math.round(many.bytes / 1e6)} MB`);
});

/** What three steps of a small training took. */
async function short(data: string): Promise<{ images: number; bytes: number }> {
  const file = join(ROOT, '__test__', 'fixtures', 'steps-child.ts');
  const { code, stdout, stderr } = await new Child(file, [data, join(temporary(), 'cache')], ROOT).ended;
  if (code !== 0) throw new Error(stderr);
  const { steps, images, peak } = JSON.parse(stdout) as { steps: number; images: number; peak: number };
  if (steps !== 3) throw new Error(`${steps} steps`);
  return { images, bytes: peak * 1024 };
}

/** The header of a .npy of version 1.0. */
function header(descr: string, shape: string): Buffer {
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape}), }`;
  const line = `${text.padEnd(64 * Math.ceil((10 + text.length + 1) / 64) - 11)}\n`;
  const head = Buffer.from('\u0093NUMPY\u0001\u0000  ', 'latin1');
  head.writeUInt16LE(line.length, 8);
  return Buffer.concat([head, Buffer.from(line, 'latin1')]);
}

/** A pack with `count` training images of 16 pixels, all black: its one shard takes no room on the disk. */
async function blackPack(count: number): Promise<string> {
  const source = join(temporary(), 'photos');
  for (const [mark, name] of ['train/a', 'train/b', 'val/a', 'val/b'].entries()) {
    mkdirSync(join(source, name), { recursive: true });
    writeFileSync(join(source, name, '0.png'), picture(20, mark));
  }
  const target = join(temporary(), 'pack');
  await using packing = await packDataset({ source, target, imageSize: 16, cacheDir: temporary() });
  for await (const _ of packing.run());
  const manifest = JSON.parse(readFileSync(join(target, 'pack.json'), 'utf8'));
  const labels = Int32Array.from({ length: count }, (_, id) => id % 2);
  const names = Array.from({ length: count }, (_, id) => `train/${'ab'[id % 2]}/n01440764_${id}.JPEG\n`).join('');
  const files: Record<string, Buffer> = {
    'pack.json': Buffer.from(
      JSON.stringify({ ...manifest, shardImages: count, train: { images: count, usable: count } }),
    ),
    'train-labels.npy': Buffer.concat([header('<i4', `${count},`), Buffer.from(labels.buffer)]),
    'train-names.txt': Buffer.from(names),
  };
  let sums = readFileSync(join(target, 'SHA256SUMS'), 'utf8');
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(target, name), content);
    const sum = createHash('sha256').update(content).digest('hex');
    sums = sums.replace(new RegExp(`^\\w+(?=  ${name}$)`, 'm'), sum);
  }
  writeFileSync(join(target, 'SHA256SUMS'), sums);
  const head = header('|u1', `${count}, 16, 16, 3`);
  const shard = openSync(join(target, 'train-00000.npy'), 'w');
  writeSync(shard, head);
  ftruncateSync(shard, head.length + count * 16 * 16 * 3);
  closeSync(shard);
  return target;
}

test('a hundred thousand files, or an index of 1.3 million images, take less than 300 MB', async (t) => {
  const files = await short(folder(50_000));
  t.is(files.images, 100_000);
  const pack = await short(await blackPack(1_300_000));
  t.is(pack.images, 1_300_000);
  t.log(`100,000 files: ${Math.round(files.bytes / 1e6)} MB, 1,300,000 images: ${Math.round(pack.bytes / 1e6)} MB`);
  t.true(files.bytes < 300e6, `${files.bytes}`);
  t.true(pack.bytes < 300e6, `${pack.bytes}`);
});
