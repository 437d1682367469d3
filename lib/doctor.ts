/** `doctor()`: what this machine offers, and what stands in the way of the rest. */
import { totalmem } from 'node:os';
import { inspect } from '#native';

import { VERSION } from './environment.js';
import { nativeAsync } from './errors.js';

/** What is wrong, and what to do. */
export interface Problem {
  message: string;
  remedy?: string;
}

/** What the addon sees. */
interface Inspection {
  processor: { name: string; threads: number; features: string[]; freeBytes?: number };
  emulator: { compiler?: string; problem?: Problem };
  cache: { path: string; bytes: number };
}

/** What this machine offers. */
export interface Diagnosis {
  alexnode: string;
  node: string;
  system: string;
  /** `features`: instruction sets that the kernels could use. */
  processor: { name: string; threads: number; features: string[] };
  /** Bytes in all, and those that can be had without swapping, where the system tells. */
  memory: { bytes: number; freeBytes?: number };
  /** The C++ compiler behind `emulated:N`, or why there is none. */
  emulator: { compiler?: string; problem?: Problem };
  /** Compiled kernels on the disk. */
  cache: { path: string; bytes: number };
}

/** Looks around; changes nothing. */
export async function doctor(): Promise<Diagnosis> {
  const { processor, emulator, cache } = JSON.parse(await nativeAsync(() => inspect())) as Inspection;
  const { freeBytes, ...rest } = processor;
  return {
    alexnode: VERSION,
    node: process.version,
    system: `${process.platform} ${process.arch}`,
    processor: rest,
    memory: { bytes: totalmem(), ...(freeBytes === undefined ? {} : { freeBytes }) },
    emulator,
    cache,
  };
}
