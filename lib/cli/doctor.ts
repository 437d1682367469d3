/** `alexnode doctor`. */
import type { Command } from 'commander';

import { type Diagnosis, doctor, type Problem } from '../index.js';
import { line } from './banner.js';
import { EXIT, printJson } from './exit.js';
import { bytes } from './format.js';

/** Adds the verb. */
export function addDoctor(program: Command, setCode: (code: number) => void): void {
  program
    .command('doctor')
    .description('Show what this machine offers for training, and what stands in the way of the rest.')
    .option('--json', 'machine-readable output on stdout')
    .action(async ({ json = false }: { json?: boolean }) => {
      const found = await doctor();
      if (json) printJson({ type: 'diagnosis', ...found });
      else process.stdout.write(diagnosisText(found));
      setCode(EXIT.ok);
    });
}

function problemText({ message, remedy }: Problem): string {
  return remedy === undefined ? message : `${message}; ${remedy}`;
}

function diagnosisText({ alexnode, node, system, processor, memory, emulator, cache }: Diagnosis): string {
  const { name, threads, features } = processor;
  const free = memory.freeBytes === undefined ? '' : `, ${bytes(memory.freeBytes)} free`;
  const { compiler, problem } = emulator;
  return [
    line('alexnode', `${alexnode}, Node ${node.slice(1)}, ${system}`),
    line('cpu', `${name}, ${threads} threads, ${features.join(' ')}`),
    line('memory', `${bytes(memory.bytes)}${free}`),
    line('emulated', compiler === undefined ? `not usable: ${problem ? problemText(problem) : ''}` : compiler),
    line('cache', `${cache.path}: ${bytes(cache.bytes)} of compiled kernels`),
  ].join('');
}
