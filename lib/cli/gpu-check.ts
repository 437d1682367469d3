/** `gpu:check`: runs the check of the devices, writes its report and a table. */
import { join, resolve } from 'node:path';
import { Command, CommanderError } from 'commander';

import {
  type GpuCheckEvent,
  type GpuCheckOptions,
  type GpuCheckReport,
  gpuCheck,
  PARTS,
  type PartName,
  PRECISIONS,
  type Precision,
} from '../index.js';
import { EXIT, exitCodeOf, printError, printJson } from './exit.js';
import { list, listOf, whole } from './flags.js';
import { slug, time } from './format.js';
import { reportText } from './gpu-check-table.js';
import { writeReport } from './write-report.js';

interface Flags {
  devices?: string[];
  precision?: Precision[];
  only?: PartName[];
  quick?: boolean;
  kernels?: string;
  report?: string;
  seed?: number;
  threads?: number;
  json?: boolean;
}

/**
 * Runs the command with the arguments of `process.argv` (the first two are not looked at) and gives its exit code: 1 where something is wrong.
 * `build` makes the program with the tests of the kernels where `--kernels` names none.
 */
export async function runGpuCheck(argv: string[], build?: () => Promise<string>): Promise<number> {
  const command = new Command('gpu:check')
    .description(
      'Check the kernels on a GPU: every one against its reference in f64, a loss curve per precision, one slot against two, and the time of every layer ' +
        'against what the device can do at most.',
    )
    .option(
      '--devices <names>',
      'one device, or two; default: the CUDA devices. emulated:0 and cpu try the check itself',
      list,
    )
    .option(
      '--precision <names>',
      `some of ${PRECISIONS.join(',')}; default: all that the devices know`,
      listOf(PRECISIONS),
    )
    .option('--only <parts>', `some of ${PARTS.join(',')}; default: all`, listOf(PARTS))
    .option('--quick', 'a few steps and a few kernels: a test of the check itself')
    .option('--kernels <program>', 'the tests of the kernels, as a program')
    .option('--report <file>', 'where the report goes; default on a GPU: bench/results/<date>-<machine>.json')
    .option('--seed <n>', 'of weights, order, augmentation and dropout; default: 1', whole(0))
    .option('--threads <n>', 'CPU threads (default: all)', whole(1))
    .option('--json', 'the report on stdout instead of the table')
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'gpu:check: ')) });
  try {
    command.parse(argv);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    throw error;
  }
  const flags = command.opts<Flags>();
  try {
    return await perform(flags, build);
  } catch (error) {
    printError(error, flags.json === true);
    return exitCodeOf(error);
  }
}

async function perform(flags: Flags, build: (() => Promise<string>) | undefined): Promise<number> {
  const { report: file, json = false } = flags;
  const stop = new AbortController();
  const interrupt = () => stop.abort();
  process.once('SIGINT', interrupt);
  try {
    const options = await optionsOf(flags, build);
    let report: GpuCheckReport | undefined;
    for await (const event of gpuCheck({ ...options, notices: true, signal: stop.signal })) {
      if (event.type === 'report') report = event.report;
      else process.stderr.write(progressText(event));
    }
    if (report === undefined) return EXIT.failure;
    const path = file ?? defaultPath(report);
    if (path !== undefined) await writeReport(path, report);
    if (json) printJson({ type: 'gpu-check', ...report });
    else process.stdout.write(reportText(report, path));
    return report.ok ? EXIT.ok : EXIT.failure;
  } finally {
    process.off('SIGINT', interrupt);
  }
}

async function optionsOf(flags: Flags, build: (() => Promise<string>) | undefined): Promise<GpuCheckOptions> {
  const { devices, precision, only, quick, kernels, seed, threads } = flags;
  const wanted = only === undefined || only.includes('kernels');
  const program = kernels === undefined ? (wanted ? await build?.() : undefined) : resolve(kernels);
  const given = { devices, precisions: precision, parts: only, quick, kernels: program, seed, threads };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

function progressText(event: Exclude<GpuCheckEvent, { type: 'report' }>): string {
  if (event.type === 'begin') return `gpu:check: ${event.part} ...\n`;
  const { ok, seconds, failures } = event.outcome;
  return `gpu:check: ${event.part}: ${ok ? 'good' : `${failures.length} WRONG`}, ${time(seconds)}\n`;
}

/** On a GPU the report is a result to be kept; elsewhere only where a file is named. */
function defaultPath({ kind, date, devices }: GpuCheckReport): string | undefined {
  if (kind !== 'cuda') return undefined;
  return join('bench', 'results', `${date.slice(0, 10)}-${slug(devices[0]?.description ?? 'gpu')}.json`);
}
