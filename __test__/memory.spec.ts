import { linkSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { Child, picture, ROOT, temporary } from './helpers.js';

/**
 * Bytes of one image of 640 pixels. Up to 512 MiB of decoded images may stay in memory, unless that is less than a quarter of them all:
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
