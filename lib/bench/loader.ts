/** How fast images are read, on one core: decoding, resizing, augmentation, whole data sets, beside Pillow with torchvision and sharp. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { check } from '../config.js';
import { openDataset } from '../data.js';
import { type Environment, environment } from '../environment.js';
import { AlexnodeError } from '../errors.js';
import { decodeImages, listPictures, prepareImages } from '../images.js';
import { avgPool2d, he, linear } from '../layers.js';
import { preset } from '../models/index.js';
import { any, count, type Shape, text } from '../options.js';
import type { Spread } from '../timings.js';
import { Trainer } from '../trainer.js';
import type { PeerPlaces } from './peers.js';
import { drawn } from './pictures.js';
import { LOADER_SOURCES, openReading, type Reading } from './reading.js';
import { type MissingPeer, missingPeer, spreadOf } from './report.js';
import { Wire } from './wire.js';

/**
 * What is measured: a file in memory to pixels; a file to a square of `size` pixels; such a square to what a network sees. Then from the disk to
 * minibatches of such squares: of the pictures, of a pack of JPEGs of that size, of a pack of pixels.
 */
export const LOADER_STAGES = ['decode', 'prepare', 'augment', ...LOADER_SOURCES] as const;
export type LoaderStage = (typeof LOADER_STAGES)[number];

/** What to measure. */
export interface LoaderOptions {
  /** A folder with pictures; default: some that are drawn. */
  data?: string;
  /** At most so many of them; default 100. */
  count?: number;
  rounds?: number;
  places?: PeerPlaces;
  signal?: AbortSignal;
}

/** What was found. */
export interface LoaderReport {
  date: string;
  environment: Environment;
  images: { source: string; count: number; meanBytes: number; size: number; crop: number };
  /** `bytesPerSecond` is that of pixels, for the source that keeps them. */
  rows: {
    program: string;
    stage: LoaderStage;
    imagesPerSecond: number;
    spread: Spread;
    bytesPerSecond?: number;
    /** Ours over the fastest other program in the same round: median, least and most. */
    ratio?: Spread;
  }[];
  missing: MissingPeer[];
}

const OWN = 'alexnode';
/** The stored size and the crop of the networks of 2012. */
const [SIZE, CROP] = [256, 224];

/** Images per second. */
type Measure = (stage: LoaderStage) => Promise<number>;

const PEERS = [
  {
    name: 'Pillow',
    file: 'pillow_peer.py',
    program: ({ python }: PeerPlaces) => python ?? 'python3',
    remedy:
      'python3 -m venv torchenv && torchenv/bin/pip install pillow torchvision numpy, then --python torchenv/bin/python',
  },
  {
    name: 'sharp',
    file: 'sharp-peer.mjs',
    program: () => process.execPath,
    remedy: 'npm install --prefix tfjsenv sharp, then --modules tfjsenv',
  },
];

/** Pictures without which there are no two splits of two classes. */
const LEAST = 4;

const loaderSchema = z.strictObject({
  data: text,
  count: z.int().min(LEAST).optional(),
  rounds: count,
  places: z.record(z.string(), any).optional(),
  signal: any,
} satisfies Shape<LoaderOptions>);

/** Measures all stages, each program in its turn, on one core. ERR_DATA where `data` has no pictures. */
export async function benchLoader(options: LoaderOptions = {}): Promise<LoaderReport> {
  check(loaderSchema, options, 'loader');
  const { data, count = 100, rounds = 5, places = {}, signal } = options;
  const folder = await mkdtemp(join(tmpdir(), 'alexnode-loader-'));
  const wires: Wire[] = [];
  try {
    const files =
      data === undefined ? await draw(folder, Math.min(count, 20)) : (await listPictures(data)).slice(0, count);
    const images = await Promise.all(files.map((file) => readFile(file)));
    if (files.length < LEAST)
      throw new AlexnodeError('ERR_DATA', `${data}: expected at least ${LEAST} pictures, got ${files.length}`);
    await using augment = await augmenter(images.length);
    await using reading = await openReading(files, join(folder, 'sources'), SIZE);
    const programs: { program: string; measure: Measure; stages: readonly LoaderStage[] }[] = [
      { program: OWN, measure: (stage) => own(stage, images, augment.seconds, reading), stages: LOADER_STAGES },
    ];
    const missing: MissingPeer[] = [];
    for (const { name, file, program, remedy } of PEERS) {
      try {
        const environment = environmentOf(places);
        const wire = await Wire.open({ name, program: program(places), file, environment, remedy, signal });
        wires.push(wire);
        const { version, stages } = await wire.ask({
          type: 'open',
          files,
          packed: reading.packed,
          size: SIZE,
          crop: CROP,
        });
        const measure: Measure = async (stage) => {
          const count = stage === 'jpegs' ? reading.packed.length : files.length;
          return count / Number((await wire.ask({ type: 'stage', stage })).seconds);
        };
        programs.push({ program: `${name} ${String(version)}`, measure, stages: stages as LoaderStage[] });
      } catch (error) {
        signal?.throwIfAborted();
        missing.push(missingPeer(name, error));
      }
    }
    const taken = programs.flatMap(({ program, measure, stages }) =>
      stages.map((stage) => ({ program, stage, measure, rates: [] as number[] })),
    );
    // The first round warms up. What is compared has its turn one after the other.
    const order = (stage: LoaderStage) => LOADER_STAGES.indexOf(stage);
    taken.sort((a, b) => order(a.stage) - order(b.stage));
    for (let round = 0; round <= rounds; round += 1) {
      for (const one of taken) {
        signal?.throwIfAborted();
        const rate = await one.measure(one.stage);
        if (round > 0) one.rates.push(rate);
      }
    }
    const rows = taken.map(({ program, stage, rates }) => {
      const spread = spreadOf(rates);
      const others = taken.filter((one) => one.stage === stage && one.program !== OWN);
      const ratios = rates.map((rate, round) => rate / Math.max(...others.map((other) => other.rates[round] ?? 0)));
      return {
        program,
        stage,
        imagesPerSecond: spread.median,
        spread,
        ...(stage === 'pixels' ? { bytesPerSecond: spread.median * SIZE * SIZE * 3 } : {}),
        ...(program === OWN && others.length > 0 ? { ratio: spreadOf(ratios) } : {}),
      };
    });
    const meanBytes = images.reduce((sum, { length }) => sum + length, 0) / images.length;
    return {
      date: new Date().toISOString(),
      environment: await environment(),
      images: { source: data ?? 'drawn PNGs of 500 x 375', count: images.length, meanBytes, size: SIZE, crop: CROP },
      rows,
      missing,
    };
  } finally {
    await Promise.all(wires.map((wire) => wire.close()));
    await rm(folder, { recursive: true, force: true });
  }
}

/** One core is one thread, of libraries too. */
function environmentOf({ modules }: PeerPlaces): Record<string, string> {
  return { OMP_NUM_THREADS: '1', ALEXNODE_MODULES: modules ?? process.cwd() };
}

async function draw(folder: string, count: number): Promise<string[]> {
  return Promise.all(
    drawn(count, 500, 375).map(async (png, index) => {
      const path = join(folder, `${index}.png`);
      await writeFile(path, png);
      return path;
    }),
  );
}

async function own(
  stage: LoaderStage,
  images: Uint8Array[],
  augment: () => Promise<number>,
  reading: Reading,
): Promise<number> {
  if (stage === 'augment') return images.length / (await augment());
  if (stage === 'decode' || stage === 'prepare') {
    const start = performance.now();
    if (stage === 'decode') await decodeImages(images);
    else await prepareImages(images, SIZE, 1);
    return (1000 * images.length) / (performance.now() - start);
  }
  const { images: count, seconds } = await reading.read(stage);
  return count / seconds;
}

/** Crop, mirror, mean, colour noise: the first kernel of a training step, here of a network that does little else. */
async function augmenter(images: number): Promise<{ seconds: () => Promise<number> } & AsyncDisposable> {
  const data = await openDataset({ source: 'generated', imageSize: SIZE, limit: images });
  try {
    const { network, recipe } = preset('paper', { classes: data.classes.length });
    const layers = [
      avgPool2d('pool', { kernelSize: 32, stride: 32 }),
      linear('fc', { outFeatures: network.classes, weightInit: he() }),
    ];
    const trainer = await Trainer.create({
      network: { ...network, name: 'augmentation', layers },
      recipe: { ...recipe, layerSchedules: {}, freezeAt: {}, batch: images },
      data,
      threads: 1,
    });
    return {
      async seconds() {
        const { intervals, steps } = await trainer.profile({ mode: 'train', steps: 1 });
        return intervals.reduce(
          (sum, { pass }, index) => sum + (pass === 'input' ? (steps[0]?.intervals[index] ?? 0) : 0),
          0,
        );
      },
      async [Symbol.asyncDispose]() {
        await trainer.dispose();
        data.close();
      },
    };
  } catch (error) {
    data.close();
    throw error;
  }
}
