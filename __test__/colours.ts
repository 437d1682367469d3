/** What the specs of trained networks share: pictures that a network learns in no time, and a run that has learnt them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { encode } from 'fast-png';

import { type Pixels, type TrainCall, train } from '../lib/index.js';
import { drain, temporary, tinyNetwork } from './helpers.js';

const COLOURS: Readonly<Record<string, [number, number, number]>> = {
  red: [190, 80, 80],
  green: [80, 190, 80],
  blue: [80, 80, 190],
  grey: [120, 120, 120],
};

/** The pixels of a picture of 20 pixels in a colour, with noise that depends on `mark`. */
export function colourPixels(colour: string, mark: number): Pixels {
  const base = COLOURS[colour] ?? [0, 0, 0];
  let state = mark + 1;
  const data = Uint8Array.from({ length: 20 * 20 * 3 }, (_, index) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (base[index % 3] ?? 0) + (state >>> 24) / 4 - 32;
  });
  return { data, width: 20, height: 20 };
}

/** Such pictures in folders called by their colours, for a network to learn: `{ 'train/red': 8, 'val/red': 4 }`. */
export function colourPhotos(folder: string, counts: Record<string, number>): string {
  let mark = 0;
  for (const [name, count] of Object.entries(counts)) {
    mkdirSync(join(folder, name), { recursive: true });
    for (let index = 0; index < count; index += 1) {
      mark += 1;
      const pixels = colourPixels(basename(name), mark);
      writeFileSync(join(folder, name, `${String(index).padStart(3, '0')}.png`), encode({ ...pixels, channels: 3 }));
    }
  }
  return folder;
}

/** Colours, and the run of a network that has learnt a little of them: in a new folder `photos` and `run`. */
export async function colourRun(call: TrainCall = {}): Promise<{ photos: string; run: string }> {
  const folder = temporary();
  const photos = colourPhotos(join(folder, 'photos'), {
    'train/blue': 40,
    'train/green': 40,
    'train/red': 40,
    'val/blue': 12,
    'val/green': 12,
    'val/red': 12,
  });
  const recipe = { batch: 16, epochs: 4, lr: 0.01, colourNoise: 0 };
  const run = join(folder, 'run');
  const rest = { network: tinyNetwork, recipe, data: photos, cacheDir: join(folder, 'cache'), out: run };
  await using training = await train({ ...rest, ...call });
  await drain(training);
  return { photos, run };
}
