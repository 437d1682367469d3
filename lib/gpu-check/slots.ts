/** One slot against two, on one device and on two: the same training, and what crosses. */
import type { Dataset } from '../data.js';
import { agrees, compareSlots, type SlotsRow, TOLERANCE } from '../slots.js';
import type { TimingOptions } from '../timings.js';
import { Trainer } from '../trainer.js';
import { checkNetwork } from './network.js';
import type { Findings, Placement, SlotsFound } from './report.js';

/** What to train. */
export interface SlotsOptions {
  data: Dataset;
  devices: string[];
  steps: number;
  batch: number;
  seed: number;
  timing: TimingOptions;
  threads?: number;
  notices: boolean;
  signal?: AbortSignal | undefined;
}

/** Trains on the first device alone, on the same twice, and on two where there are two. */
export async function checkSlots(options: SlotsOptions, findings: Findings<SlotsFound>): Promise<void> {
  const [first = '', second] = options.devices;
  const pairs = [[first, first], ...(second === undefined || second === first ? [] : [[first, second]])];
  const { batch } = options;
  const found: SlotsFound = { network: 'gpu-check', batch, precision: 'fp32', tolerance: TOLERANCE, placements: [] };
  findings.found = found;
  for (const against of pairs) {
    const placement = await compare(options, [first], against);
    found.placements.push(placement);
    findings.failures.push(...judge(placement));
  }
}

async function compare(options: SlotsOptions, devices: string[], against: string[]): Promise<Placement> {
  const { data, steps, batch, seed, timing, threads, notices, signal } = options;
  const { network, recipe: own } = checkNetwork({ classes: data.classes.length });
  const recipe = { ...own, batch };
  const limits = threads === undefined ? {} : { threads };
  const rows: SlotsRow[] = [];
  for await (const row of compareSlots({ network, recipe, data, devices, against, steps, seed, notices, ...limits })) {
    signal?.throwIfAborted();
    rows.push(row);
  }
  await using trainer = await Trainer.create({ network, recipe, data, devices: against, seed, ...limits });
  const { counters } = trainer.info;
  const { parts } = await trainer.timings({ ...timing, ...(signal === undefined ? {} : { signal }) });
  const copies = parts.filter(({ pass }) => pass === 'transfer').flatMap(({ operations }) => operations);
  // An operation counts what it reads and what it writes.
  const bytes = copies.reduce((sum, copy) => sum + copy.bytes / 2, 0);
  const seconds = copies.reduce((sum, copy) => sum + copy.seconds.median, 0);
  return {
    devices,
    against,
    link: trainer.link,
    rows,
    worst: { loss: largest(rows.map(({ loss }) => loss)), momentum: largest(rows.map(({ momentum }) => momentum)) },
    planned: { transfers: counters.transfers, bytes: counters.transferBytes },
    transfers: { count: copies.length, bytes, seconds, bytesPerSecond: bytes / seconds },
  };
}

/** A NaN is larger than anything. */
function largest(values: number[]): number {
  return values.some(Number.isNaN) ? Number.NaN : Math.max(...values);
}

/** What is wrong. */
export function judge({ devices, against, rows, planned, transfers }: Placement): string[] {
  const failures: string[] = [];
  const names = `${devices.join(',')} and ${against.join(',')}`;
  const bad = rows.find((row) => !agrees(row));
  if (bad !== undefined) {
    const { step, loss, momentum, tensor } = bad;
    const [of, and] = [loss.toExponential(1), momentum.toExponential(1)];
    failures.push(`${names} part at step ${step}: the loss by ${of}, the momentum of ${tensor} by ${and}`);
  }
  if (transfers.count !== planned.transfers || transfers.bytes !== planned.bytes) {
    const [is, was] = [
      `${transfers.count} transfers of ${transfers.bytes} bytes`,
      `${planned.transfers} of ${planned.bytes}`,
    ];
    failures.push(`${names}: ${is}, planned were ${was}`);
  }
  return failures;
}
