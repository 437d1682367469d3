/** From stamps to the parts of a step and the passes of its layers. */
import type { NetworkSpec } from '../layers.js';
import type { NetworkInfo } from '../network.js';
import type { Precision } from '../precision.js';
import { rowFinder, rowNames, rowsOf } from '../rows.js';
import type { Ceilings, Interval, Pass, Profile, ProfiledStep } from '../timings.js';
import {
  type BenchLayer,
  type BenchShape,
  type BenchStep,
  rateOf,
  STEP_PARTS,
  type StepPart,
  spreadOf,
} from './report.js';

/** Profiles of one program as one: the steps of all of them. */
export function joined(profiles: readonly Profile[]): Profile {
  const [first] = profiles;
  if (first === undefined) throw new RangeError('no profile');
  return { ...first, steps: profiles.flatMap(({ steps }) => steps) };
}

/** The step in the middle: of an even number, the faster of the two. */
function middle(steps: readonly ProfiledStep[]): ProfiledStep {
  const sorted = [...steps].sort((a, b) => a.seconds - b.seconds);
  const step = sorted[Math.floor((sorted.length - 1) / 2)];
  if (step === undefined) throw new RangeError('no step');
  return step;
}

/** Milliseconds of the parts of a step on the device that is busy the longest: their sum is the step. */
export function partsOf(intervals: readonly Interval[], step: ProfiledStep): Record<StepPart, number> {
  const slots = [...new Set(intervals.map(({ slot }) => slot))];
  const on = (slot: number) => {
    const parts = Object.fromEntries(STEP_PARTS.map((part) => [part, 0])) as Record<StepPart, number>;
    parts.upload = step.upload * 1e3;
    let rest = step.seconds * 1e3 - parts.upload;
    intervals.forEach((interval, index) => {
      if (interval.slot !== slot) return;
      const ms = (step.intervals[index] ?? 0) * 1e3;
      parts[interval.pass] += ms;
      rest -= ms;
    });
    parts.other = rest;
    return parts;
  };
  return slots.map(on).reduce((a, b) => (b.other < a.other ? b : a));
}

/** The step of a profile of training steps. */
export function stepOf({ batch, intervals, steps }: Profile, flops: number): BenchStep {
  const rate = rateOf(
    steps.map(({ seconds }) => seconds),
    batch,
  );
  const step = middle(steps);
  const ms = step.seconds * 1e3;
  const imagesPerSecond = batch / step.seconds;
  return { ...rate, ms, imagesPerSecond, parts: partsOf(intervals, step), gflops: flops / step.seconds / 1e9 };
}

/** Multiplications and additions of each pass that multiplies. */
const MULTIPLIES: readonly Pass[] = ['forward', 'dataGradient', 'weightGradient'];

/** The rows on paper. */
export function shapesOf(network: NetworkSpec, info: NetworkInfo, batch: number): BenchShape[] {
  const byName = new Map(info.layers.map((layer) => [layer.name, layer]));
  return [...rowsOf(network)].flatMap(([name, specs]) => {
    const layers = specs.flatMap((spec) => byName.get(spec.name) ?? []);
    const last = layers.at(-1);
    if (last === undefined) return [];
    const sum = (of: (layer: (typeof layers)[number]) => number) =>
      layers.reduce((total, layer) => total + of(layer), 0);
    const [height, width, channels] = last.shape;
    return {
      name,
      layers: specs.map((spec) => spec.name),
      shape: last.shape,
      gflop: (2 * batch * sum(({ macs }) => macs)) / 1e9,
      outputBytes: 4 * batch * height * width * channels,
      parameterBytes: 8 * sum(({ parameters }) => parameters),
    };
  });
}

/** What the roofline is made of: bytes copied and numbers multiplied and added per second, the most of all samples, since a ceiling is what can be reached. */
export interface Roof {
  copy: number;
  /** Of a product of matrices, or else on registers; `null` where the precision was not measured. */
  multiply: number | null;
}

export function roofOf({ copy, gemm, multiply }: Ceilings, precision: Precision): Roof {
  return { copy: copy.most, multiply: (gemm ?? multiply[precision])?.most ?? null };
}

/** The passes of all rows. On two devices a pass takes as long as on the one that takes longest. */
export function layersOf(
  network: NetworkSpec,
  shapes: readonly BenchShape[],
  { intervals, steps }: Profile,
  ceilings: Ceilings,
  precision: Precision,
): BenchLayer[] {
  const rowOf = rowFinder(network);
  const groups = new Map<string, { name: string; pass: Pass; members: number[] }>();
  intervals.forEach((interval, index) => {
    const name = rowOf(interval);
    const key = `${name} ${interval.pass}`;
    const group = groups.get(key) ?? { name, pass: interval.pass, members: [] };
    group.members.push(index);
    groups.set(key, group);
  });
  const order = rowNames(network);
  const { copy, multiply } = roofOf(ceilings, precision);
  const sorted = [...groups.values()].sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
  return sorted.map(({ name, pass, members }) => {
    const slots = [...new Set(members.map((index) => intervals[index]?.slot))];
    const on = (step: ProfiledStep, slot: number | undefined) =>
      members.reduce((sum, index) => sum + (intervals[index]?.slot === slot ? (step.intervals[index] ?? 0) : 0), 0);
    const spread = spreadOf(steps.map((step) => 1e3 * Math.max(...slots.map((slot) => on(step, slot)))));
    const bytes = members.reduce((sum, index) => sum + (intervals[index]?.bytes ?? 0), 0);
    const gflop = MULTIPLIES.includes(pass) ? (shapes.find((shape) => shape.name === name)?.gflop ?? 0) : 0;
    // What an elementwise layer does in another pass than its row's matrices multiplies nothing.
    const multiplied = gflop > 0 && members.some((index) => multiplies(network, intervals[index])) ? gflop : 0;
    const seconds = spread.median / 1e3;
    const floor = Math.max(bytes / copy, multiply === null ? 0 : (multiplied * 1e9) / multiply);
    return {
      name,
      pass,
      ms: spread.median,
      spread,
      gflops: multiplied > 0 ? multiplied / seconds : null,
      gbs: bytes / seconds / 1e9,
      roofline: multiplied > 0 && multiply === null ? null : floor / seconds,
      intensity: bytes > 0 ? (multiplied * 1e9) / bytes : 0,
      peers: {},
    };
  });
}

function multiplies(network: NetworkSpec, interval: Interval | undefined): boolean {
  const layer = network.layers.find(({ name }) => name === interval?.layer);
  return layer?.type === 'conv2d' || layer?.type === 'local2d' || layer?.type === 'linear';
}

/** Multiplications and additions of a training step: three products for each layer that multiplies, two where nobody wants the gradient by its input. */
export function stepFlops(layers: readonly BenchLayer[]): number {
  return layers.reduce((sum, { gflops, ms }) => sum + (gflops === null ? 0 : gflops * ms * 1e6), 0);
}
