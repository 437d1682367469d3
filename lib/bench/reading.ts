/** Reading of whole data sets as a training does it: a folder of pictures, and packs of them. */
import { mkdir, open as openFile, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

import { type Dataset, openDataset, readThrough } from '../data.js';
import { packDataset } from '../pack.js';

/** Where images come from: the pictures as they are, a pack of JPEGs, a pack of pixels. */
export const LOADER_SOURCES = ['folder', 'jpegs', 'pixels'] as const;
export type LoaderSource = (typeof LOADER_SOURCES)[number];

/** Minibatches of the paper. */
const BATCH = 128;
/**
 * Pixels are so quick to read that few of them would be measured in a cache of the processor, and small JPEGs so quick that the first touch of a
 * minibatch's memory would count: each picture comes so often, within reason.
 */
const REPEATS = { jpegs: 6, pixels: 16 };
const MOST = 1600;

/** The sources, made of the same pictures. */
export interface Reading extends AsyncDisposable {
  /** Reads a source once with one thread: how many images, in how many seconds. */
  read(source: LoaderSource): Promise<{ images: number; seconds: number }>;
  /** The files of the pack of JPEGs, one by one, for programs that read no packs. */
  readonly packed: string[];
}

/** Makes the sources of `files`, at least four of them, below `folder`. */
export async function openReading(files: readonly string[], folder: string, size: number): Promise<Reading> {
  await mkdir(folder, { recursive: true });
  const cacheDir = join(folder, 'cache');
  const pack = async (source: string, format: 'npy' | 'tar') => {
    const target = join(folder, format);
    const one = format === 'tar' ? { shardImages: MOST } : {};
    await using packing = await packDataset({ source, target, format, imageSize: size, cacheDir, ...one });
    for await (const _ of packing.run());
    return target;
  };
  const once = await list(join(folder, 'once.jsonl'), files);
  const often = (source: keyof typeof REPEATS) =>
    list(join(folder, `${source}.jsonl`), repeated(files, Math.min(MOST, REPEATS[source] * files.length)));
  const jpegs = await pack(await often('jpegs'), 'tar');
  const sources = { folder: once, jpegs, pixels: await pack(await often('pixels'), 'npy') };
  const data = {} as Record<LoaderSource, Dataset>;
  for (const source of LOADER_SOURCES) {
    data[source] = await openDataset({ source: sources[source], imageSize: size, threads: 1, keepBytes: 0, cacheDir });
  }
  let epoch = 0;
  return {
    async read(source) {
      const images = data[source].info.train;
      epoch += 1;
      return { images, seconds: await readThrough(data[source], { batch: BATCH, epoch, images }) };
    },
    packed: await unpack(jpegs, folder),
    async [Symbol.asyncDispose]() {
      for (const one of Object.values(data)) one.close();
    },
  };
}

/** A list of pictures. Two classes need an image each on the side that is not read. */
async function list(path: string, pictures: readonly string[]): Promise<string> {
  const row = (picture: string, index: number) => ({
    path: picture,
    label: `${index % 2}`,
    split: index < 2 ? 'val' : 'train',
  });
  await writeFile(path, pictures.map((picture, index) => JSON.stringify(row(picture, index))).join('\n'));
  return path;
}

/** The same files by several names each, `count` in all: a list has each name once. */
function repeated(files: readonly string[], count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const file = resolve(files[index % files.length] ?? '');
    const folder = dirname(file);
    const detours = Math.floor(index / files.length);
    return `${folder}/${`../${basename(folder)}/`.repeat(detours)}${basename(file)}`;
  });
}

/** Writes the JPEGs of the training images of a pack as files. */
async function unpack(pack: string, folder: string): Promise<string[]> {
  const index = await readFile(join(pack, 'train-places.npy'));
  const places = index.subarray(10 + index.readUInt16LE(8));
  const shard = await openFile(join(pack, 'train-00000.tar'));
  try {
    const paths: string[] = [];
    for (let at = 0; at < places.length; at += 16) {
      const bytes = Buffer.alloc(Number(places.readBigUInt64LE(at + 8)));
      await shard.read(bytes, 0, bytes.length, Number(places.readBigUInt64LE(at)));
      const path = join(folder, `${at / 16}.jpg`);
      await writeFile(path, bytes);
      paths.push(path);
    }
    return paths;
  } finally {
    await shard.close();
  }
}
