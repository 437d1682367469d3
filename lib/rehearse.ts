/** The rehearsal before a long run: everything that could fail in hours is done once, in seconds, and the rest is forecast. */

import { createHash } from 'node:crypto';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import type { Dataset } from './data.js';
import { AlexnodeError, reason } from './errors.js';
import type { InitReport, WarningEvent } from './events.js';
import { nearestFolder } from './files.js';
import { dataWarnings } from './guard.js';
import { type NetworkInfo, parametricLayers } from './network.js';
import { checkCall, type Shape, text } from './options.js';
import { type Prepared, prepare, prepareResume, type TrainOptions, trainFields } from './prepare.js';
import type { Recipe } from './recipe.js';
import { Run, readManifest } from './run.js';
import { MOST_CHECKPOINTS, makeTrainer, newManifest } from './train.js';
import type { Trainer } from './trainer.js';

/** What a rehearsal found, and what it expects of the run. */
export interface Rehearsal {
  info: NetworkInfo;
  recipe: Recipe;
  data: Dataset['info'];
  /** What the run would warn of at its start. */
  warnings: WarningEvent[];
  devices: string[];
  /** What it would start from; `null` where it draws its own weights. */
  init: InitReport | null;
  preset: string | null;
  why: Prepared['why'];
  /** Steps rehearsed, and the seconds of one. */
  steps: number;
  secondsPerStep: number;
  imagesPerSecond: number;
  /** Loss of the first step, which is near ln(classes) where the initialisation is right. */
  firstLoss: number;
  validation: { images: number; seconds: number } | null;
  checkpoint: { bytes: number; seconds: number };
  /** Tensors that are the same, byte for byte, after a step that followed a resume and one that did not. */
  tensorsCompared: number;
  forecast: {
    /** Optimiser steps of the whole run. */
    steps: number;
    seconds: number;
    /** The most space that the run folder will take, and what is free there. */
    diskBytes: number;
    freeBytes: number;
  };
}

/** What `rehearse()` takes. */
export interface RehearseCall extends TrainOptions {
  /** Where the run would go; decides on which disk the checkpoint is tried. */
  out?: string;
  /** Rehearse going on with this run, from its beginning, with the changes of the other options. */
  resume?: string;
}

/** Images of the rehearsed validation, in batches: enough to time it. */
const VAL_BATCHES = 4;

const rehearseSchema = z.strictObject({ ...trainFields, out: text, resume: text } satisfies Shape<RehearseCall>);

/**
 * Rehearses a training: three steps, a validation, a checkpoint, a resume that must give the same bits. What it writes is removed
 * again. Throws what the run would have thrown.
 */
export async function rehearse(options: RehearseCall = {}): Promise<Rehearsal> {
  checkCall(rehearseSchema, options, 'rehearse');
  const { out, resume, ...what } = options;
  const prepared = resume === undefined ? await prepare(what) : await prepareResume(await readManifest(resume), what);
  try {
    const folder = await temporaryFolder(resolve(resume ?? out ?? '.'));
    try {
      return await perform(prepared, folder);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  } finally {
    prepared.data.close();
  }
}

/** A folder of its own for what the rehearsal writes, on the disk of the run. */
async function temporaryFolder(path: string): Promise<string> {
  const place = nearestFolder(path);
  try {
    return await mkdtemp(join(place, '.rehearsal-'));
  } catch (error) {
    throw new AlexnodeError('ERR_USAGE', `${place}: the run could not write there: ${reason(error)}`, {
      hint: 'Choose another folder with --out.',
      cause: error,
    });
  }
}

async function perform(prepared: Prepared, folder: string): Promise<Rehearsal> {
  const { data, recipe, preset, why, devices } = prepared;
  let bytes = 0;
  let checkpointSeconds = 0;
  let firstLoss = Number.NaN;
  let seconds = 0;
  let path = '';
  let straight: Map<string, string>;
  let info: NetworkInfo;
  {
    await using trainer = await makeTrainer(prepared);
    info = trainer.info;
    await using run = await Run.create(join(folder, 'run'), await newManifest('rehearsal', trainer));
    for await (const event of trainer.train({ run, steps: 2 })) {
      if (event.type === 'step' && Number.isNaN(firstLoss)) firstLoss = event.loss;
      if (event.type !== 'checkpoint') continue;
      ({ bytes, path, seconds: checkpointSeconds } = event);
    }
    // The first step touches all memory for the first time; this one is like those of the run.
    for await (const event of trainer.train({ steps: 1 })) {
      if (event.type === 'step') seconds = event.samples / event.imagesPerSecond;
    }
    straight = await hashes(trainer);
  }
  await using trainer = await makeTrainer(prepared);
  await trainer.load(path);
  for await (const _ of trainer.train({ steps: 1 }));
  const resumed = await hashes(trainer);
  compare(straight, resumed);
  const validation = await rehearseValidation(trainer);
  const space = await statfs(folder);
  const freeBytes = space.bavail * space.bsize;
  const steps = recipe.epochs * trainer.batches;
  const share = Math.min(1, data.info.train / Math.max(data.info.val, 1));
  const valSeconds = validation === null ? 0 : (validation.seconds * data.info.val) / validation.images;
  return {
    info,
    recipe,
    data: data.info,
    warnings: [...(prepared.adoption?.warnings ?? []), ...dataWarnings(data.info)],
    init: prepared.init ?? null,
    devices,
    preset: preset ?? null,
    why,
    steps: 3,
    secondsPerStep: seconds,
    imagesPerSecond: Math.min(recipe.batch, data.info.train) / seconds,
    firstLoss,
    validation,
    checkpoint: { bytes, seconds: checkpointSeconds },
    tensorsCompared: resumed.size,
    forecast: {
      steps,
      seconds: steps * seconds + recipe.epochs * share * (valSeconds + checkpointSeconds),
      diskBytes: bytes * MOST_CHECKPOINTS,
      freeBytes,
    },
  };
}

async function rehearseValidation(trainer: Trainer): Promise<Rehearsal['validation']> {
  const { val } = trainer.data.info;
  if (val === 0) return null;
  const limit = Math.min(val, VAL_BATCHES * trainer.config.recipe.batch);
  const { samples, seconds } = await trainer.evaluate({ split: 'val', crops: 1, limit });
  return { images: samples, seconds };
}

/** sha256 of every parameter and its momentum. */
async function hashes(trainer: Trainer): Promise<Map<string, string>> {
  const names = parametricLayers(trainer.config.network).flatMap((layer) => [`${layer}.weight`, `${layer}.bias`]);
  const found = new Map<string, string>();
  for (const name of [...names, ...names.map((name) => `momentum.${name}`)]) {
    const { data } = await trainer.tensor(name);
    found.set(name, createHash('sha256').update(data).digest('hex'));
  }
  return found;
}

function compare(straight: Map<string, string>, resumed: Map<string, string>): void {
  const different = [...straight.keys()].filter((name) => straight.get(name) !== resumed.get(name));
  if (different.length === 0) return;
  throw new AlexnodeError(
    'ERR_CHECKPOINT',
    `the step after a resume gave other numbers than the same step without it (${different.length} tensors, the first: ${different[0]})`,
    { hint: 'Resuming this run would not be exact. This is a defect of alexnode or of the machine; please report it.' },
  );
}
