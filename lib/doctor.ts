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

/** A compiler of kernels. */
export interface KernelCompiler {
  version: string;
  path: string;
}

/** A CUDA device. */
export interface CudaDevice {
  /** As in `devices`. */
  name: string;
  /** Its product name. */
  description: string;
  /** Compute capability, times ten. */
  compute: number;
  /** Bytes in all, and those that can be had now, where it can be used. */
  memory: { bytes: number; freeBytes?: number };
  multiprocessors: number;
  /** The highest clock of the multiprocessors. */
  megahertz: number;
  /** Bytes: of a block that asks for nothing, of one that asks for more, of a multiprocessor. */
  sharedMemory: { block: number; optIn: number; multiprocessor: number };
  /** Where it sits, `0000:01:00.0`: `nvidia-smi` may count devices in another order. */
  pci: string;
  /** What `nvidia-smi -L` shows after `GPU-`. */
  uuid: string;
  /** Why it cannot be used, where that is known. */
  problem?: Problem;
}

/** What CUDA offers. */
export interface CudaDiagnosis {
  /** The version of CUDA that the driver supports; none where there is no driver. */
  driver?: string;
  devices: CudaDevice[];
  /** How each two devices exchange data, in each direction: measured. */
  links: { from: string; to: string; peer: boolean; gigabytesPerSecond: number; reason?: string }[];
  nvrtc?: KernelCompiler;
  nvcc?: KernelCompiler;
  /** What stands in the way, the most important first. */
  problems: Problem[];
}

/** What the addon sees. */
interface Inspection {
  cuda: Omit<CudaDiagnosis, 'devices'> & {
    devices: (Omit<CudaDevice, 'memory'> & { memory: number })[];
    free: (number | null)[];
  };
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
  cuda: CudaDiagnosis;
  /** The C++ compiler behind `emulated:N`, or why there is none. */
  emulator: { compiler?: string; problem?: Problem };
  /** Compiled kernels on the disk. */
  cache: { path: string; bytes: number };
}

/** Looks around; changes nothing. */
export async function doctor(): Promise<Diagnosis> {
  const { processor, cuda, emulator, cache } = JSON.parse(await nativeAsync(() => inspect())) as Inspection;
  const { freeBytes, ...rest } = processor;
  const { free, devices, ...others } = cuda;
  return {
    alexnode: VERSION,
    node: process.version,
    system: `${process.platform} ${process.arch}`,
    processor: rest,
    memory: { bytes: totalmem(), ...(freeBytes === undefined ? {} : { freeBytes }) },
    cuda: {
      ...others,
      devices: devices.map(({ memory: all, ...device }, index) => {
        const now = free[index] ?? undefined;
        return { ...device, memory: { bytes: all, ...(now === undefined ? {} : { freeBytes: now }) } };
      }),
    },
    emulator,
    cache,
  };
}
