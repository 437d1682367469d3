/**
 * Reading of images by sharp (libvips), under the clock of the bench, on one core. A JSON object per line on stdin, one in answer on stdout:
 *
 *     open   files and packed (paths), size (side of a stored image)                  ->  ready, stages
 *     stage  decode or prepare, over all files in memory; folder or jpegs, over files
 *            or packed as they lie on the disk                                        ->  seconds
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

import { answer, serve } from './wire.mjs';

const modules = resolve(process.env.ALEXNODE_MODULES ?? '.');

let sharp;
try {
  sharp = createRequire(join(modules, 'peer.cjs'))('sharp');
} catch (problem) {
  answer({ type: 'missing', message: `${modules} has no sharp: ${problem.message.split('\n')[0]}` });
  process.exit(0);
}
// One thread inside an image, and every image is a new one.
sharp.concurrency(1);
sharp.cache(false);

let files = [];
let paths = [];
let packed = [];
let size = 0;
const decode = (file) => sharp(file).removeAlpha().toColourspace('srgb').raw().toBuffer();
// Scaling while decoding is left off where it is a choice: the others decode all pixels, too.
const prepare = (file) =>
  sharp(file)
    .resize(size, size, { fit: 'cover', position: 'centre', kernel: 'linear', fastShrinkOnLoad: false })
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer();

const VERBS = {
  open(request) {
    files = request.files.map((path) => readFileSync(path));
    paths = request.files;
    packed = request.packed;
    size = request.size;
    return {
      type: 'ready',
      version: `${sharp.versions.sharp}, libvips ${sharp.versions.vips}`,
      stages: ['decode', 'prepare', 'folder', 'jpegs'],
    };
  },
  async stage({ stage }) {
    const [work, items] = {
      decode: [decode, files],
      prepare: [prepare, files],
      folder: [prepare, paths],
      jpegs: [prepare, packed],
    }[stage];
    const begin = performance.now();
    for (const item of items) await work(item);
    return { type: 'stage', seconds: (performance.now() - begin) / 1000 };
  },
};

await serve(VERBS);
