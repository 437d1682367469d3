/** `alexnode data scan`. */
import { type Command, Option } from 'commander';

import {
  AlexnodeError,
  LEAVE_OUT,
  type LeaveOut,
  type Scan,
  type ScanFindings,
  scanFolder,
  writeQuarantine,
  writeScanReport,
} from '../index.js';
import { line } from './banner.js';
import { Bar } from './bar.js';
import { EXIT, printJson } from './exit.js';
import { list, oneOf, rate, whole } from './flags.js';
import { count, shortPath } from './format.js';
import { Interrupt } from './interrupt.js';
import { findingsText } from './scan-text.js';

interface Flags {
  report?: string;
  quarantine?: string;
  leaveOut?: LeaveOut[];
  tiny?: number;
  huge?: number;
  threads?: number;
  json?: boolean;
}

/** Adds the verb. */
export function addDataScan(data: Command, setCode: (code: number) => void): void {
  data
    .command('scan')
    .description('Look at every image of a folder: what is in it, what stands in the way, and which flag handles it.')
    .argument('<folder>', 'a folder per class, with or without train/ and val/ inside; it is not changed')
    .option('--report <file>', 'write what was found as JSON')
    .option('--quarantine <file>', 'where the list for `train --quarantine` goes (default: in the cache folder)')
    .addOption(
      new Option('--leave-out <what>', `put these on the list, too: ${LEAVE_OUT.join(',')}`).argParser((text) =>
        list(text).map(oneOf(LEAVE_OUT)),
      ),
    )
    .option('--tiny <pixels>', 'images whose shorter side has fewer are tiny (default: 32)', whole(0))
    .option('--huge <megapixels>', 'images of more millions of pixels are huge (default: 25)', rate)
    .option('--threads <n>', 'CPU threads (default: all)', whole(1))
    .option('--json', 'machine-readable output on stdout')
    .action(async (folder: string, flags: Flags) => setCode(await run(folder, flags)));
}

async function run(source: string, { report, quarantine, json = false, ...rest }: Flags): Promise<number> {
  using interrupt = new Interrupt();
  await using scan = await scanFolder({ source, ...rest });
  if (!json && scan.done > 0) {
    process.stderr.write(`${count(scan.done)} of ${count(scan.images)} images are known from an earlier scan\n`);
  }
  await look(scan, json, interrupt.signal);
  const findings = await scan.findings({ signal: interrupt.signal });
  const place = quarantine ?? scan.quarantinePath;
  if (place === null) {
    throw new AlexnodeError('ERR_USAGE', 'there is no cache folder for the quarantine list', {
      hint: 'Say where it goes with --quarantine FILE.',
    });
  }
  await writeQuarantine(place, findings.quarantine);
  if (report !== undefined) await writeScanReport(report, findings.report);
  if (json) printJson({ type: 'scan', folder: scan.folder, quarantine: place, ...withoutLists(findings) });
  else {
    process.stdout.write(findingsText(source, findings, place));
    if (report !== undefined) process.stdout.write(line('report', shortPath(report)));
  }
  return EXIT.ok;
}

async function look(scan: Scan, json: boolean, signal: AbortSignal): Promise<void> {
  using bar = json ? undefined : new Bar('images', scan.images, scan.done);
  for await (const progress of scan.run({ signal })) {
    if (json) printJson({ type: 'progress', ...progress });
    else bar?.update(progress.done);
  }
}

function withoutLists({ report, summary, quarantine }: ScanFindings) {
  return { report, summary, quarantined: quarantine.length };
}
