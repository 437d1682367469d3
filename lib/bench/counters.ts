/** What a training step does that needs no clock: launches, transfers, bytes, of every preset on every kind of device. */

import { PRESETS, preset } from '../models/index.js';
import { describeNetwork } from '../network.js';
import { workOf } from './subject.js';

/** A training step of a preset on some devices. */
export interface StepCounters {
  /** Kernels started. */
  launches: number;
  /** Copies between devices, and their bytes. */
  transfers: number;
  transferBytes: number;
  /** Of each device: weights and biases, and their momentum. */
  parameterBytes: number[];
  momentumBytes: number[];
  /** All of it, with activations and scratch memory; not of processors, whose scratch memory depends on their vectors. */
  memoryBytes?: number[];
  /** Of memory, by the processor: everything is taken before the first step. Where it is counted is `crates/nn/tests/allocations.rs`. */
  allocations: number;
}

/** The devices that are described. Planning allocates nothing: an emulated device stands for a CUDA one. */
const PLACEMENTS = {
  cpu: ['cpu'],
  'cpu,cpu': ['cpu', 'cpu'],
  cuda: ['emulated:0'],
  'cuda,cuda': ['emulated:0', 'emulated:1'],
};

/** By preset, at its own batch, and by placement. The threads of the processor are two. */
export function stepCounters(): Record<string, Record<string, StepCounters>> {
  const ofPreset = (name: string) => {
    const { network, recipe } = preset(name, { classes: workOf(name).classes });
    const on = (devices: string[]): StepCounters => {
      const { counters, memory } = describeNetwork(network, { batch: recipe.batch, devices, threads: 2 });
      return {
        ...counters,
        parameterBytes: memory.map(({ parameterBytes }) => parameterBytes),
        momentumBytes: memory.map(({ momentumBytes }) => momentumBytes),
        ...(devices.includes('cpu') ? {} : { memoryBytes: memory.map(({ totalBytes }) => totalBytes) }),
        allocations: 0,
      };
    };
    return Object.fromEntries(Object.entries(PLACEMENTS).map(([placement, devices]) => [placement, on(devices)]));
  };
  return Object.fromEntries(Object.keys(PRESETS).map((name) => [name, ofPreset(name)]));
}

/** The networks of all presets, for tests in other languages. */
export function presetNetworks() {
  return Object.keys(PRESETS).map((name) => preset(name, { classes: workOf(name).classes }).network);
}
