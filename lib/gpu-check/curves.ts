/** The loss of every step from one seed in each precision: where fp32 gets to, tf32 and bf16 must get, too. */
import type { Dataset } from '../data.js';
import { fromNative } from '../errors.js';
import type { Precision } from '../precision.js';
import { Trainer } from '../trainer.js';
import { checkNetwork } from './network.js';
import type { Curve, CurvesFound, Findings } from './report.js';

/** What to train. */
export interface CurvesOptions {
  data: Dataset;
  devices: string[];
  precisions: readonly Precision[];
  steps: number;
  batch: number;
  seed: number;
  /** Whether so many steps are enough to learn something. */
  learns: boolean;
  threads?: number;
  notices: boolean;
  signal?: AbortSignal | undefined;
}

/** Steps at the end that are averaged. */
const WINDOW = 30;
/** How far the mean loss at the end may be from fp32's, as a share of it. */
export const CURVE_TOLERANCE = 0.02;
/** What the loss falls to at least, as a share of the first steps', where it learns. */
const LEARNT = 0.85;

/** Trains in every precision. One that fails leaves the curves of the others. */
export async function checkCurves(options: CurvesOptions, findings: Findings<CurvesFound>): Promise<void> {
  const { steps, batch, seed, precisions } = options;
  const window = Math.min(WINDOW, Math.ceil(steps / 2));
  const found: CurvesFound = { network: 'gpu-check', batch, seed, window, tolerance: CURVE_TOLERANCE, curves: [] };
  findings.found = found;
  for (const precision of precisions) {
    try {
      found.curves.push(await train(options, precision, window));
    } catch (error) {
      const typed = fromNative(error);
      if (typed.code === 'ERR_ABORTED') throw typed;
      findings.failures.push(`${precision}: ${typed.message}`);
    }
  }
  findings.failures.push(...judge(found, options.learns));
}

async function train(options: CurvesOptions, precision: Precision, window: number): Promise<Curve> {
  const { data, devices, steps, batch, seed, threads, notices, signal } = options;
  const { network, recipe } = checkNetwork({ classes: data.classes.length });
  const start = performance.now();
  await using trainer = await Trainer.create({
    network,
    recipe: { ...recipe, batch },
    data,
    devices,
    precision,
    seed,
    notices,
    ...(threads === undefined ? {} : { threads }),
  });
  const losses: number[] = [];
  while (losses.length < steps) {
    signal?.throwIfAborted();
    for await (const event of trainer.train({ steps: 1 })) if (event.type === 'step') losses.push(event.loss);
  }
  const final = mean(losses.slice(-window));
  return { precision, losses, final, distance: null, seconds: (performance.now() - start) / 1000 };
}

/** Fills in the distances, and says what is wrong. */
export function judge({ curves, window, tolerance }: CurvesFound, learns: boolean): string[] {
  const failures: string[] = [];
  const fp32 = curves.find(({ precision }) => precision === 'fp32');
  for (const curve of curves) {
    const { precision, losses, final } = curve;
    if (!losses.every(Number.isFinite)) failures.push(`${precision}: a loss is not a finite number`);
    const before = mean(losses.slice(0, window));
    if (learns && !(final < LEARNT * before)) {
      failures.push(`${precision}: the loss fell from ${before.toFixed(3)} to ${final.toFixed(3)} only`);
    }
    if (fp32 === undefined || curve === fp32) continue;
    curve.distance = Math.abs(final - fp32.final) / fp32.final;
    if (!(curve.distance <= tolerance)) {
      const [here, there] = [final.toFixed(4), fp32.final.toFixed(4)];
      failures.push(
        `${precision}: the last ${window} losses average ${here}, fp32's ${there}: more than ${tolerance} apart`,
      );
    }
  }
  return failures;
}

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
