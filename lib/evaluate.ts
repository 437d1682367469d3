/** `evaluate()`: how good a checkpoint is on some data. */
import { existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';

import { Checkpoints, readCheckpoint } from './checkpoint.js';
import { check, seedSchema } from './config.js';
import { openDataset } from './data.js';
import type { EvaluateOptions, Evaluation, Precision } from './engine.js';
import { AlexnodeError } from './errors.js';
import { chooseDevices } from './network.js';
import { readManifest } from './run.js';
import { Trainer } from './trainer.js';

/** What to evaluate, and on what. */
export interface EvaluateCall extends EvaluateOptions {
  /** A run folder (its best checkpoint, or the newest where none was validated) or a checkpoint file. */
  model: string;
  /** Default: the data that it was trained on. */
  data?: string;
  onBadImage?: 'error' | 'skip';
  devices?: string[];
  threads?: number;
  /** Default: as in training on CUDA devices, `fp32` on the CPU. */
  precision?: Precision;
  /** Images at a time; default: as in training. */
  batch?: number;
  /** Whether stderr is told of what takes long; default `false`. */
  notices?: boolean;
  signal?: AbortSignal;
}

/** An evaluation with what was evaluated. */
export interface EvaluationReport extends Evaluation {
  checkpoint: string;
  network: string;
  step: number;
  data: string;
  split: 'val' | 'train';
  crops: 1 | 10;
  devices: string[];
  precision: Precision;
  /** Half-widths of the 95 % intervals of the errors (normal approximation), as shares. */
  top1Interval: number;
  top5Interval: number;
}

/** Evaluates a checkpoint. ERR_CHECKPOINT where it is missing or broken, ERR_DATA where the data has other classes. */
export async function evaluate(options: EvaluateCall): Promise<EvaluationReport> {
  const { split = 'val', crops = 1, limit, signal } = options;
  if (signal?.aborted === true) throw new AlexnodeError('ERR_ABORTED', 'the evaluation was stopped');
  const path = await checkpointOf(options.model);
  const { config, cursor } = await readCheckpoint(path);
  const { limit: _, ...own } = config.data;
  const source =
    options.data === undefined ? own.source : options.data === 'generated' ? 'generated' : resolve(options.data);
  const devices = options.devices ?? chooseDevices().devices;
  const threads = options.threads;
  const precision = options.precision ?? (devices[0] === 'cpu' ? 'fp32' : config.precision);
  await using data = await openDataset({
    ...own,
    source,
    seed: check(seedSchema, own.seed, 'seed'),
    onBadImage: options.onBadImage ?? own.onBadImage,
    ...(threads === undefined ? {} : { threads }),
  });
  const recipe = { ...config.recipe, batch: options.batch ?? config.recipe.batch };
  await using trainer = await Trainer.create({
    network: config.network,
    recipe,
    data,
    devices,
    precision,
    notices: options.notices ?? false,
    seed: config.seed,
    ...(threads === undefined ? {} : { threads }),
  });
  await trainer.load(path, { only: 'weights' });
  const found = await trainer.evaluate({
    split,
    crops,
    ...(limit === undefined ? {} : { limit }),
    ...(signal === undefined ? {} : { signal }),
  });
  const interval = (error: number) => 1.96 * Math.sqrt((error * (1 - error)) / Math.max(found.samples, 1));
  return {
    ...found,
    checkpoint: path,
    network: config.network.name,
    step: cursor.step,
    data: data.info.source,
    split,
    crops,
    devices,
    precision,
    top1Interval: interval(found.top1Error),
    top5Interval: interval(found.top5Error),
  };
}

/** The checkpoint that a path means. */
async function checkpointOf(model: string): Promise<string> {
  if (existsSync(model) && statSync(model).isFile()) return resolve(model);
  await readManifest(model);
  const checkpoints = new Checkpoints(resolve(model, 'checkpoints'));
  if (existsSync(checkpoints.best)) return checkpoints.best;
  return (await checkpoints.newest(() => undefined)).path;
}
