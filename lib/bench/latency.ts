/** How long one prediction takes: `model.predict()` of one picture at a time, as a server calls it. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { check } from '../config.js';
import { type Environment, environment } from '../environment.js';
import type { Pixels } from '../images.js';
import { loadModel } from '../model.js';
import { chooseDevices } from '../network.js';
import { any, count, devices, type Shape, text } from '../options.js';
import type { Precision } from '../precision.js';
import type { Spread } from '../timings.js';
import { drawn } from './pictures.js';
import { spreadOf } from './report.js';
import { openSubject } from './subject.js';

/** What to measure. */
export interface LatencyOptions {
  /** Default `paper`. */
  preset?: string;
  devices?: string[];
  precision?: Precision;
  threads?: number;
  /** Predictions of each kind; default 30. */
  samples?: number;
  signal?: AbortSignal;
}

/** What was found. */
export interface LatencyReport {
  date: string;
  preset: string;
  devices: string[];
  environment: Environment;
  rows: { what: string; ms: number; spread: Spread; samples: number }[];
}

const latencySchema = z.strictObject({
  preset: text,
  devices,
  precision: text,
  threads: count,
  samples: count,
  signal: any,
} satisfies Shape<LatencyOptions>);

/** Predicts pictures of the size of a photograph, one after the other. */
export async function benchLatency(options: LatencyOptions = {}): Promise<LatencyReport> {
  check(latencySchema, options, 'latency');
  const {
    preset = 'paper',
    devices = chooseDevices().devices,
    precision = 'fp32',
    threads,
    samples = 30,
    signal,
  } = options;
  const limits = threads === undefined ? {} : { threads };
  const folder = await mkdtemp(join(tmpdir(), 'alexnode-latency-'));
  try {
    const checkpoint = join(folder, 'weights.safetensors');
    {
      await using subject = await openSubject({
        preset,
        batch: 1,
        devices,
        precision,
        seed: 1,
        notices: true,
        ...limits,
      });
      await subject.trainer.save(checkpoint);
    }
    await using model = await loadModel(checkpoint, { devices, precision, batch: 1, ...limits });
    const file = drawn(1, 500, 375)[0] ?? new Uint8Array();
    const side = model.network.input.imageSize;
    const pixels: Pixels = {
      data: new Uint8Array(side * side * 3).map((_, index) => (index * 31) % 251),
      width: side,
      height: side,
    };
    const rows = [];
    for (const [what, image] of [
      ['decoded, resized, predicted: a PNG of 500 x 375', file],
      [`predicted: pixels of ${side} x ${side}`, pixels],
    ] as const) {
      for (let warm = 0; warm < 3; warm += 1) await model.predict(image);
      const taken: number[] = [];
      for (let index = 0; index < samples; index += 1) {
        const start = performance.now();
        await model.predict(image, signal === undefined ? {} : { signal });
        taken.push(performance.now() - start);
      }
      const spread = spreadOf(taken);
      rows.push({ what, ms: spread.median, spread, samples });
    }
    return { date: new Date().toISOString(), preset, devices, environment: await environment(), rows };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
