/** A bench against an earlier one: what got slower than its noise. */
import { readFile } from 'node:fs/promises';

import { AlexnodeError, reason } from '../errors.js';
import type { Spread } from '../timings.js';
import type { BenchReport } from './report.js';

/** Something that got slower. */
export interface Slower {
  /** `conv1 forward`, `step`, `inference`. */
  what: string;
  before: Spread;
  now: Spread;
  /** How many times as long. */
  factor: number;
}

/** What a comparison found. */
export interface BaselineOutcome {
  /** The date of the earlier bench. */
  date: string;
  commit: string | null;
  compared: number;
  /** The worst first. */
  slower: Slower[];
}

/** So much slower is nothing, however quiet the machine was. */
const NOTHING = 0.03;

/**
 * Compares `report` with the one in `path`. Something is slower than its noise where its fastest sample is slower than the slowest of before.
 * ERR_DATA where the file is no report of a bench, ERR_USAGE where it measured something else.
 */
export async function compareWithBaseline(path: string, report: BenchReport): Promise<BaselineOutcome> {
  const before = await read(path);
  const differs = (['preset', 'batch', 'precision', 'threads'] as const).filter((key) => before[key] !== report[key]);
  const names = (of: BenchReport) => of.devices.map(({ name }) => name).join(',');
  const other = [
    ...differs.map((key) => `${key} ${before[key]} there, ${report[key]} here`),
    ...(names(before) === names(report) ? [] : [`devices ${names(before)} there, ${names(report)} here`]),
  ];
  if (other.length > 0) {
    throw new AlexnodeError('ERR_USAGE', `${path}: it measured something else: ${other.join('; ')}`, {
      hint: 'Take a baseline with the same flags.',
    });
  }
  const timed = (of: BenchReport) =>
    new Map<string, Spread>([
      ['step', of.step.spread],
      ['inference', of.inference.spread],
      ...of.layers.map(({ name, pass, spread }): [string, Spread] => [`${name} ${pass}`, spread]),
    ]);
  const earlier = timed(before);
  const pairs = [...timed(report)].flatMap(([what, now]) => {
    const then = earlier.get(what);
    return then === undefined ? [] : [{ what, before: then, now, factor: now.median / then.median }];
  });
  const slower = pairs.filter((pair) => pair.now.least > pair.before.most && pair.factor > 1 + NOTHING);
  return {
    date: before.date,
    commit: before.environment.git?.commit ?? null,
    compared: pairs.length,
    slower: slower.sort((a, b) => b.factor - a.factor),
  };
}

async function read(path: string): Promise<BenchReport> {
  let found: unknown;
  try {
    found = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new AlexnodeError('ERR_DATA', `${path}: cannot be read as a report: ${reason(error)}`, { cause: error });
  }
  if (typeof found === 'object' && found !== null && 'type' in found && found.type === 'bench')
    return found as BenchReport;
  throw new AlexnodeError('ERR_DATA', `${path}: it is no report of a bench`, {
    hint: 'Make one with `--report FILE`.',
  });
}
