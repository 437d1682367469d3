/** `alexnode data verify`. */
import type { Command } from 'commander';

import { type PackChecked, verifyPack } from '../index.js';
import { line } from './banner.js';
import { Bar } from './bar.js';
import { EXIT, printJson } from './exit.js';
import { whole } from './flags.js';
import { bytes, count } from './format.js';
import { Interrupt } from './interrupt.js';

/** Adds the verb. */
export function addDataVerify(data: Command, setCode: (code: number) => void): void {
  data
    .command('verify')
    .description('Compare every file of a pack with its checksum.')
    .argument('<pack>', 'the folder that `data pack` wrote')
    .option('--threads <n>', 'CPU threads (default: all)', whole(1))
    .option('--json', 'machine-readable output on stdout')
    .action(async (pack: string, flags: { threads?: number; json?: boolean }) => setCode(await run(pack, flags)));
}

async function run(pack: string, { threads, json = false }: { threads?: number; json?: boolean }): Promise<number> {
  using interrupt = new Interrupt();
  const options = { signal: interrupt.signal, ...(threads === undefined ? {} : { threads }) };
  let last: PackChecked = { files: 0, bytes: 0, of: 0, damaged: [] };
  let bar: Bar | undefined;
  try {
    for await (const checked of verifyPack(pack, options)) {
      last = checked;
      if (json) continue;
      bar ??= new Bar('files', checked.of);
      bar.update(checked.files);
    }
  } finally {
    bar?.[Symbol.dispose]();
  }
  const { files, bytes: read, damaged } = last;
  if (json) printJson({ type: 'verification', ...last });
  else {
    process.stdout.write(line('pack', `${pack}: ${count(files)} files, ${bytes(read)}`));
    for (const { file, reason } of damaged) process.stdout.write(line('damaged', `${file}: ${reason}`));
    process.stdout.write(
      line('result', damaged.length === 0 ? 'as it was written' : `${count(damaged.length)} damaged`),
    );
  }
  return damaged.length === 0 ? EXIT.ok : EXIT.data;
}
