/** `alexnode report`. */
import type { Command } from 'commander';

import { type ReportCall, report } from '../index.js';
import { line, warningText } from './banner.js';
import { EXIT, printJson } from './exit.js';
import { addCommonFlags, whole } from './flags.js';
import { printable, shortPath } from './format.js';
import { Interrupt } from './interrupt.js';

interface Flags extends Omit<ReportCall, 'run' | 'signal'> {
  json?: boolean;
}

/** Adds the verb. */
export function addReport(program: Command, setCode: (code: number) => void): void {
  const command = program
    .command('report')
    .description(
      'Write report.html into a run folder: curves, filters, predictions, confusion, mistakes, layers, data.',
    )
    .argument('<run>', 'a run folder');
  addCommonFlags(command)
    .option('--batch <n>', 'images at a time (default: as in training)', whole(1))
    .option('--limit <n>', 'look at no more than n images of each split (default: 10000; 0: none)', whole(0))
    .action(async (run: string, { json = false, ...rest }: Flags) => {
      using interrupt = new Interrupt();
      const written = await report({ ...rest, run, notices: true, signal: interrupt.signal });
      if (json) printJson({ type: 'report', ...written });
      else process.stdout.write(reportText(written));
      setCode(EXIT.ok);
    });
}

/** What was written, and what is missing in it. */
export function reportText({ path, missing, warnings }: Awaited<ReturnType<typeof report>>): string {
  return [
    ...warnings.map(warningText),
    line('report', printable(shortPath(path))),
    ...missing.map((why) => line('', `without ${printable(why)}`)),
  ].join('');
}
