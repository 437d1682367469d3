/**
 * `gpuCheck()`: whether the kernels of this package are right on a device, and how fast they are there. Four parts: every kernel against its reference in
 * f64, a loss curve per precision, one slot against two, and the time of every layer against what the device can do at most.
 *
 * The same runs on emulated devices and on the processor, with smaller amounts: then it says that the check works, and nothing about a GPU.
 */
import { z } from 'zod';
import { check } from '../config.js';
import { openDataset } from '../data.js';
import { doctor } from '../doctor.js';
import { environment } from '../environment.js';
import { AlexnodeError, fromNative, usage } from '../errors.js';
import { chooseDevices } from '../network.js';
import { any, count, devices, flag, type Shape, text, texts, whole } from '../options.js';
import { PRECISIONS, type Precision } from '../precision.js';
import type { TimingOptions } from '../timings.js';
import { checkCurves } from './curves.js';
import { gpus } from './gpus.js';
import { checkKernels } from './kernels.js';
import { checkNetwork } from './network.js';
import type { Findings, GpuCheckReport, Part, PartName } from './report.js';
import { PARTS } from './report.js';
import { checkSlots } from './slots.js';
import { thousandClasses } from './thousand.js';
import { checkTiming } from './timing.js';
import { BATCH, paper } from './trainings.js';

export type * from './report.js';
export { type CheckedTraining, checkedTrainings } from './trainings.js';
export { PARTS };

/** What to check. */
export interface GpuCheckOptions {
  /** One device, or two; default: the usable CUDA devices. All of one kind. */
  devices?: string[];
  /** Default: all that the devices know. */
  precisions?: Precision[];
  /** Default: all. */
  parts?: readonly PartName[];
  /** A few steps and a few kernels, for a test of the check itself. */
  quick?: boolean;
  /** The program with the tests of the kernels; without it that part fails. */
  kernels?: string;
  seed?: number;
  threads?: number;
  /** Whether stderr is told of what takes long; default `false`. */
  notices?: boolean;
  signal?: AbortSignal;
}

/** What a check tells: a part begins, a part is done, and at last everything. */
export type GpuCheckEvent =
  | { type: 'begin'; part: PartName }
  | { type: 'part'; part: PartName; outcome: Part<unknown> }
  | { type: 'report'; report: GpuCheckReport };

/** How much is done. */
interface Amounts {
  filter: string[];
  curves: { steps: number; batch: number };
  slots: { steps: number; batch: number };
  /** Images of a step of the network that is timed. */
  batch: number;
  timing: TimingOptions;
}

const FULL: Amounts = {
  filter: [],
  curves: { steps: 300, batch: BATCH },
  slots: { steps: 20, batch: BATCH },
  batch: BATCH,
  timing: {},
};
const QUICK: Amounts = {
  filter: ['pointwise', 'sgd'],
  curves: { steps: 4, batch: 2 },
  slots: { steps: 2, batch: 2 },
  batch: 2,
  timing: { rounds: 2, sampleSeconds: 0 },
};

/** The images per second of the 2012 paper: 90 epochs of 1.28 million images in five to six days, on two GTX 580. */
export const RATE_OF_2012 = { least: 222, most: 267 } as const;

type Kind = GpuCheckReport['kind'];

const gpuCheckSchema = z.strictObject({
  devices,
  precisions: texts,
  parts: texts,
  quick: flag,
  kernels: text,
  seed: whole,
  threads: count,
  notices: flag,
  signal: any,
} satisfies Shape<GpuCheckOptions>);

/** Runs the check; a part that fails does not keep the next one from running. ERR_DEVICE where there is no device to check. */
export async function* gpuCheck(options: GpuCheckOptions = {}): AsyncGenerator<GpuCheckEvent> {
  check(gpuCheckSchema, options, 'gpuCheck');
  const { parts: wanted = PARTS, quick = false, seed = 1, threads, notices = false, signal } = options;
  const { kernels: program } = options;
  const start = performance.now();
  const date = new Date().toISOString();
  const { cuda } = await doctor();
  const devices = options.devices ?? usable(cuda.devices);
  const kind = kindOf(devices);
  const precisions = options.precisions ?? known(kind, devices, cuda.devices);
  const amounts = quick ? QUICK : FULL;
  const before = kind === 'cuda' ? await gpus() : null;
  const common = { devices, seed, notices, signal, ...(threads === undefined ? {} : { threads }) };
  const { imageSize } = checkNetwork({ classes: 2 }).network.input;
  // No more images are looked at than the steps need.
  const generated = (images: number) => openDataset({ source: 'generated', imageSize, seed, limit: images });

  const parts: GpuCheckReport['parts'] = {};
  const [device = ''] = devices;
  const checks: { [Name in PartName]: (findings: FindingsOf<Name>) => Promise<void> } = {
    kernels: (findings) => checkKernels({ program, devices, filter: amounts.filter, signal }, findings),
    curves: async (findings) => {
      const { steps, batch } = amounts.curves;
      await using data = await generated(steps * batch);
      const what = { ...common, data, devices: [device], precisions, steps, batch, learns: !quick };
      await checkCurves(what, findings);
    },
    slots: async (findings) => {
      const { steps, batch } = amounts.slots;
      await using data = await generated(steps * batch);
      await checkSlots({ ...common, data, steps, batch, timing: amounts.timing }, findings);
    },
    timing: async (findings) => {
      const what = { ...common, device, precisions, timing: amounts.timing };
      if (kind === 'cuda') {
        const { network, recipe } = paper();
        await using classes = await thousandClasses(network.input.imageSize);
        await checkTiming({ ...what, network, recipe, data: classes.data }, findings);
      } else {
        await using data = await generated(amounts.batch);
        const { network, recipe } = checkNetwork({ classes: data.classes.length });
        await checkTiming({ ...what, network, recipe: { ...recipe, batch: amounts.batch }, data }, findings);
      }
    },
  };
  for (const part of PARTS.filter((name) => wanted.includes(name))) {
    yield { type: 'begin', part };
    const outcome = await perform(checks[part] as (findings: Findings<unknown>) => Promise<void>, signal);
    Object.assign(parts, { [part]: outcome });
    yield { type: 'part', part, outcome };
  }
  const failures = Object.entries(parts).flatMap(([name, part]) => part.failures.map((text) => `${name}: ${text}`));
  const slots = parts.timing?.found?.precisions[0]?.timings.slots ?? [];
  const describe = (name: string) =>
    cuda.devices.find((device) => device.name === name)?.description ??
    slots.find(({ device }) => device === name)?.description ??
    name;
  const report: GpuCheckReport = {
    date,
    kind,
    devices: devices.map((name) => ({ name, description: describe(name) })),
    driver: kind === 'cuda' ? (cuda.driver ?? null) : null,
    gpus: { before, after: kind === 'cuda' ? await gpus() : null },
    environment: await environment(),
    quick,
    precisions,
    ok: failures.length === 0,
    seconds: (performance.now() - start) / 1000,
    failures,
    parts,
  };
  yield { type: 'report', report };
}

type FindingsOf<Name extends PartName> =
  NonNullable<GpuCheckReport['parts'][Name]> extends Part<infer Found> ? Findings<Found> : never;

/** Runs a part. What it throws is a failure of the part; only a stop ends the check. */
async function perform<Found>(
  check: (findings: Findings<Found>) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<Part<Found>> {
  const start = performance.now();
  const findings: Findings<Found> = { found: null, failures: [] };
  try {
    await check(findings);
  } catch (error) {
    if (signal?.aborted === true) throw new AlexnodeError('ERR_ABORTED', 'the check was stopped');
    const { message, hint } = fromNative(error);
    findings.failures.push(hint === undefined ? message : `${message} (${hint})`);
  }
  const { found, failures } = findings;
  return { ok: failures.length === 0, seconds: (performance.now() - start) / 1000, failures, found };
}

interface CudaDevice {
  name: string;
  description: string;
  compute: number;
  problem?: { message: string };
}

/** The first two CUDA devices that can be used. */
function usable(devices: readonly CudaDevice[]): string[] {
  const names = devices.filter(({ problem }) => problem === undefined).map(({ name }) => name);
  if (names.length > 0) return names.slice(0, 2);
  throw new AlexnodeError('ERR_DEVICE', `there is no GPU to check: ${chooseDevices().why}`, {
    hint: '`alexnode doctor` tells more. `--devices emulated:0 --quick` tries the check itself, without a GPU.',
  });
}

function kindOf(devices: readonly string[]): Kind {
  const kinds = new Set(devices.map((name) => name.split(':')[0]));
  const [kind] = kinds;
  if (kinds.size === 1 && devices.length <= 2 && (kind === 'cuda' || kind === 'emulated' || kind === 'cpu'))
    return kind;
  throw usage(
    `a check is of one device or of two of one kind, got ${devices.join(',') || 'none'}`,
    'For example cuda:0, or cuda:0,cuda:1.',
  );
}

/** The precisions that the devices know: tensor cores begin with sm_80. */
function known(kind: Kind, names: readonly string[], devices: readonly CudaDevice[]): Precision[] {
  if (kind === 'cpu') return ['fp32'];
  if (kind === 'emulated') return [...PRECISIONS];
  const old = devices.some(({ name, compute }) => names.includes(name) && compute < 80);
  return old ? ['fp32'] : [...PRECISIONS];
}
