/** A data set of a thousand classes for the networks of 2012, made on the spot: what is in the images does not matter to a clock. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encode } from 'fast-png';

import { type Dataset, openDataset } from '../data.js';

/** Side of the pictures on the disk; they are scaled up when they are read. */
const SIDE = 16;

/** `classes` folders with two pictures each, one to train on; closed and removed when it is disposed of. */
export async function thousandClasses(imageSize: number, classes = 1000): Promise<{ data: Dataset } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), 'alexnode-classes-'));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    for (let index = 0; index < classes; index += 1) {
      const place = join(folder, String(index).padStart(4, '0'));
      await mkdir(place);
      for (const copy of [0, 1]) await writeFile(join(place, `${copy}.png`), picture(2 * index + copy));
    }
    const data = await openDataset({ source: folder, imageSize, valFraction: 0.5, cacheDir: join(folder, '.cache') });
    return {
      data,
      async [Symbol.asyncDispose]() {
        data.close();
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Noise, the same for the same number. */
function picture(number: number): Uint8Array {
  let state = number + 1;
  const data = new Uint8Array(SIDE * SIDE * 3).map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
  return encode({ width: SIDE, height: SIDE, channels: 3, data });
}
