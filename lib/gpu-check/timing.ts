/** The time of every layer against what the device can do at most, measured in the same minutes. */
import type { Dataset } from '../data.js';
import { fromNative } from '../errors.js';
import type { NetworkSpec } from '../layers.js';
import type { Precision } from '../precision.js';
import type { Recipe } from '../recipe.js';
import { rowFinder, rowNames } from '../rows.js';
import { type Ceilings, measureCeilings, type PartTiming, type Spread, type TimingOptions } from '../timings.js';
import { Trainer } from '../trainer.js';
import type { Findings, LayerTime, PassTime, PrecisionTiming, TimingFound } from './report.js';

/** What to time. */
export interface LayersOptions {
  network: NetworkSpec;
  recipe: Recipe;
  data: Dataset;
  device: string;
  precisions: readonly Precision[];
  seed: number;
  timing: TimingOptions;
  threads?: number;
  notices: boolean;
  signal?: AbortSignal | undefined;
}

/** Times a step in every precision. One that fails leaves the others. */
export async function checkTiming(options: LayersOptions, findings: Findings<TimingFound>): Promise<void> {
  const { network, recipe, device } = options;
  const { name, classes } = network;
  const found: TimingFound = { network: name, classes, batch: recipe.batch, device, precisions: [] };
  findings.found = found;
  for (const precision of options.precisions) {
    options.signal?.throwIfAborted();
    try {
      found.precisions.push(await measure(options, precision));
    } catch (error) {
      const typed = fromNative(error);
      if (typed.code === 'ERR_ABORTED') throw typed;
      findings.failures.push(`${precision}: ${typed.message}`);
    }
  }
}

async function measure(options: LayersOptions, precision: Precision): Promise<PrecisionTiming> {
  const { network, recipe, data, device, seed, timing, threads, notices, signal } = options;
  const limits = threads === undefined ? {} : { threads };
  // First: afterwards the trainer has the memory.
  const ceilings = await measureCeilings(device, { ...timing, precision, notices, ...limits });
  const devices = [device];
  await using trainer = await Trainer.create({ network, recipe, data, devices, precision, seed, notices, ...limits });
  const timings = await trainer.timings({ ...timing, ...(signal === undefined ? {} : { signal }) });
  return { precision, ceilings, timings, layers: layerTimes(network, timings.parts, ceilings, precision) };
}

/** The parts in rows: `input`, the layers, each with the elementwise ones behind it, and `loss`. */
export function layerTimes(
  network: NetworkSpec,
  parts: readonly PartTiming[],
  ceilings: Ceilings,
  precision: Precision,
): LayerTime[] {
  const rows = new Map<string, LayerTime>();
  for (const name of rowNames(network)) rows.set(name, { layer: name, passes: {} });
  const rowOf = rowFinder(network);
  for (const part of parts) {
    const passes = rows.get(rowOf(part))?.passes;
    if (passes === undefined) continue;
    const time = passTime(part, ceilings, precision);
    const before = passes[part.pass];
    passes[part.pass] = before === undefined ? time : sum(before, time);
  }
  return [...rows.values()].filter(({ passes }) => Object.keys(passes).length > 0);
}

function passTime({ seconds, flops, bytes }: PartTiming, ceilings: Ceilings, precision: Precision): PassTime {
  const rate = ceilings.multiply[precision]?.median;
  const floor = flops > 0 && rate === undefined ? null : Math.max(flops / (rate ?? 1), bytes / ceilings.copy.median);
  return { seconds, flops, bytes, floor, share: floor === null ? null : floor / seconds.median };
}

function sum(a: PassTime, b: PassTime): PassTime {
  const seconds = plus(a.seconds, b.seconds);
  const floor = a.floor === null || b.floor === null ? null : a.floor + b.floor;
  const share = floor === null ? null : floor / seconds.median;
  return { seconds, flops: a.flops + b.flops, bytes: a.bytes + b.bytes, floor, share };
}

function plus(a: Spread, b: Spread): Spread {
  return { median: a.median + b.median, least: a.least + b.least, most: a.most + b.most };
}
