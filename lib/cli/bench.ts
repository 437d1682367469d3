/** `alexnode bench`. */
import { join } from 'node:path';
import type { Command } from 'commander';

import {
  type BenchReport,
  bench,
  benchLatency,
  benchLoader,
  compareWithBaseline,
  PEERS,
  type PeerName,
  PRESETS,
  type Precision,
  type PresetName,
  writeRoofline,
} from '../index.js';
import { baselineText, benchText, latencyText, loaderText } from './bench-table.js';
import { EXIT, printJson } from './exit.js';
import { addDeviceFlags, list, listOf, oneOf, whole } from './flags.js';
import { slug } from './format.js';
import { Interrupt } from './interrupt.js';
import { writeReport } from './write-report.js';

const WHAT = ['step', 'loader', 'latency'] as const;
type What = (typeof WHAT)[number];

interface Flags {
  preset?: PresetName;
  batch?: number;
  devices?: string[];
  threads?: number;
  precision?: Precision;
  layers?: string[];
  rounds?: number;
  peer?: PeerName[];
  python?: string;
  modules?: string;
  data?: string;
  report?: string | true;
  baseline?: string;
  plot?: string;
  json?: boolean;
}

/** Adds the verb. */
export function addBench(program: Command, setCode: (code: number) => void): void {
  const command = program
    .command('bench')
    .description(
      'Measure: a training step and every layer in it against what the machine can do at most, and beside other programs on the same network.',
    )
    .argument(
      '[what]',
      `${WHAT.join(', ')}: a step, reading of images, or one prediction at a time`,
      oneOf(WHAT),
      'step',
    )
    .option('--preset <name>', 'the network; default: paper', oneOf(Object.keys(PRESETS) as PresetName[]))
    .option('--batch <n>', "images of a step; default: the preset's", whole(1))
    .option('--layers <names>', 'only these layers in the table: conv1,lrn1', list)
    .option('--rounds <n>', 'rounds in which everything has its turn; default: 5', whole(1))
    .option('--peer <names>', `some of ${PEERS.join(',')}: other programs, in turn with this one`, listOf(PEERS))
    .option('--python <program>', 'the Python with PyTorch, or with Pillow; default: python3')
    .option('--modules <folder>', 'whose node_modules have TensorFlow.js or sharp; default: the current folder')
    .option('--data <folder>', 'for `loader`: a folder with pictures; default: some that are drawn')
    .option('--report [file]', 'write the report as JSON; default: bench/results/<date>-<machine>-<preset>.json')
    .option('--baseline <file>', 'exit with 1 where something got slower than its noise since that report')
    .option('--plot <file>', 'draw the layers against the roofline, as an SVG');
  addDeviceFlags(command).action(async (what: What, flags: Flags) => {
    using interrupt = new Interrupt();
    const { json = false } = flags;
    if (what === 'loader') {
      const found = await benchLoader({ ...loaderOptions(flags), signal: interrupt.signal });
      await finish(
        flags,
        { type: 'bench-loader', ...found },
        `${found.date.slice(0, 10)}-${slug(found.environment.cpu)}-loader`,
      );
      if (!json) process.stdout.write(loaderText(found));
      return setCode(EXIT.ok);
    }
    if (what === 'latency') {
      const found = await benchLatency({ ...given(flags), signal: interrupt.signal });
      await finish(
        flags,
        { type: 'bench-latency', ...found },
        `${found.date.slice(0, 10)}-${slug(found.environment.cpu)}-latency`,
      );
      if (!json) process.stdout.write(latencyText(found));
      return setCode(EXIT.ok);
    }
    const report = await measured(flags, interrupt.signal);
    const outcome = flags.baseline === undefined ? undefined : await compareWithBaseline(flags.baseline, report);
    if (flags.plot !== undefined) await writeRoofline(flags.plot, report);
    const path = await finish(
      flags,
      { ...report, ...(outcome === undefined ? {} : { baseline: outcome }) },
      nameOf(report),
    );
    if (!json) {
      process.stdout.write(benchText(report, path));
      if (outcome !== undefined) process.stdout.write(baselineText(outcome));
    }
    setCode((outcome?.slower.length ?? 0) > 0 ? EXIT.failure : EXIT.ok);
  });
}

async function measured(flags: Flags, signal: AbortSignal): Promise<BenchReport> {
  const { peer, layers, rounds } = flags;
  const more = Object.fromEntries(
    Object.entries({ peers: peer, layers, rounds }).filter(([, value]) => value !== undefined),
  );
  let report: BenchReport | undefined;
  for await (const event of bench({ ...given(flags), ...more, places: places(flags), notices: true, signal })) {
    if (event.type === 'report') report = event.report;
    else process.stderr.write(`bench: ${event.message} ...\n`);
  }
  if (report === undefined) throw new Error('the bench ended without a report');
  return report;
}

/** What all of them take. */
function given({ preset, batch, devices, threads, precision }: Flags) {
  const all = { preset, batch, devices, threads, precision };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as Partial<
    Required<Pick<Flags, 'preset' | 'batch' | 'devices' | 'threads' | 'precision'>>
  >;
}

function places({ python, modules }: Flags) {
  return { ...(python === undefined ? {} : { python }), ...(modules === undefined ? {} : { modules }) };
}

function loaderOptions(flags: Flags) {
  const { data, rounds } = flags;
  const given = { data, rounds };
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  return { ...(set as { data?: string; rounds?: number }), places: places(flags) };
}

function nameOf({ date, devices, preset }: BenchReport): string {
  return `${date.slice(0, 10)}-${slug(devices[0]?.description ?? 'machine')}-${preset}`;
}

/** Where the report went. */
async function finish({ report: file, json }: Flags, report: object, name: string): Promise<string | undefined> {
  if (json === true) printJson(report);
  if (file === undefined) return undefined;
  const path = file === true ? join('bench', 'results', `${name}.json`) : file;
  await writeReport(path, report);
  return path;
}
