/** `alexnode doctor`. */
import type { Command } from 'commander';

import { type CudaDiagnosis, type Diagnosis, doctor, type Problem } from '../index.js';
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

function memoryText({ bytes: all, freeBytes }: Diagnosis['memory']): string {
  return `${bytes(all)}${freeBytes === undefined ? '' : `, ${bytes(freeBytes)} free`}`;
}

function cudaText({ driver, devices, links, nvrtc, nvcc, problems }: CudaDiagnosis): string {
  const compilers = [nvrtc && `NVRTC ${nvrtc.version} (${nvrtc.path})`, nvcc && `nvcc ${nvcc.version} (${nvcc.path})`];
  const found = compilers.filter((text) => text !== undefined);
  return [
    line('cuda', driver === undefined ? 'no driver' : `driver for CUDA ${driver}`),
    line('', found.length === 0 ? 'no compiler of kernels' : found.join(', ')),
    ...devices.map(({ name, description, compute, multiprocessors, megahertz, memory, pci }) => {
      const speed = `${multiprocessors} multiprocessors at ${megahertz} MHz`;
      return line(name, `${description}, sm_${compute}, ${speed}, ${memoryText(memory)}, PCI ${pci}`);
    }),
    ...links.map(({ from, to, peer, gigabytesPerSecond, reason }) => {
      const way = peer ? 'peer access' : 'through host memory';
      return line('', `${from} to ${to}: ${way}, ${gigabytesPerSecond.toFixed(1)} GB/s${reason ? ` (${reason})` : ''}`);
    }),
    ...problems.map((problem) => line('', problemText(problem))),
  ].join('');
}

function diagnosisText({ alexnode, node, system, processor, memory, cuda, emulator, cache }: Diagnosis): string {
  const { name, threads, features } = processor;
  const { compiler, problem } = emulator;
  return [
    line('alexnode', `${alexnode}, Node ${node.slice(1)}, ${system}`),
    line('cpu', `${name}, ${threads} threads, ${features.join(' ')}`),
    line('memory', memoryText(memory)),
    cudaText(cuda),
    line('emulated', compiler === undefined ? `not usable: ${problem ? problemText(problem) : ''}` : compiler),
    line('cache', `${cache.path}: ${bytes(cache.bytes)} of compiled kernels`),
  ].join('');
}
