/** What a network costs before anything is allocated, and the devices that there are. */
import { describeNetwork as describeNative, listDevices as listNative } from '#native';

import { native, usage } from './errors.js';
import type { NetworkSpec } from './layers.js';
import type { Precision } from './precision.js';
import type { Recipe } from './recipe.js';

/** One layer of a described network. */
export interface LayerInfo {
  name: string;
  type: string;
  /** Output: height, width, channels. */
  shape: [number, number, number];
  parameters: number;
  /** Shapes of its tensors in files, by their names: `conv1.weight`. */
  tensors: Record<string, number[]>;
  /** Multiply-adds of the forward pass of one image. */
  macs: number;
}

/** Shapes, parameters, work and memory of a network on given devices. */
export interface NetworkInfo {
  layers: LayerInfo[];
  parameters: number;
  macs: number;
  /** Per device. */
  memory: {
    device: string;
    parameterBytes: number;
    momentumBytes: number;
    activationBytes: number;
    totalBytes: number;
  }[];
  /** Per training step: kernel launches, bytes and number of transfers between devices. */
  counters: { launches: number; transferBytes: number; transfers: number };
}

/** A device that this build knows. */
export interface DeviceInfo {
  name: string;
  description?: string;
  usable: boolean;
  /** Why it is not usable. */
  reason?: string;
}

/**
 * Checks a network and plans it, allocating nothing. ERR_SHAPE or ERR_USAGE names the layer. `classWeights` (`false`): with a loss that is weighed by the
 * classes.
 */
export function describeNetwork(
  network: NetworkSpec,
  options: { batch: number; devices: string[]; threads?: number; precision?: Precision; classWeights?: boolean },
): NetworkInfo {
  return JSON.parse(native(() => describeNative(JSON.stringify({ network, ...options })))) as NetworkInfo;
}

/** The devices that this build knows, usable ones and others. */
export function listDevices(): DeviceInfo[] {
  return JSON.parse(native(() => listNative())) as DeviceInfo[];
}

/** Devices to train on, and why these. */
export interface DeviceChoice {
  devices: string[];
  why: string;
}

/** The first usable CUDA device, otherwise the CPU, with the reason in words. */
export function chooseDevices(known: readonly DeviceInfo[] = listDevices()): DeviceChoice {
  const cuda = known.filter((device) => device.name.startsWith('cuda'));
  const usable = cuda.find((device) => device.usable);
  if (usable !== undefined) return { devices: [usable.name], why: 'a usable CUDA device' };
  const reason = cuda.find((device) => device.reason !== undefined)?.reason;
  return { devices: ['cpu'], why: `CUDA is not usable: ${reason?.replace(/^CUDA: /, '') ?? 'no device'}` };
}

/** The network that a recipe trains: its overrides of weight decay and dropout put into the layers. */
export function applyRecipe(network: NetworkSpec, recipe: Recipe): NetworkSpec {
  const { weightDecay, dropout } = recipe;
  const layers = network.layers.map((layer) => {
    if (layer.type === 'dropout') return dropout === undefined ? layer : { ...layer, p: dropout };
    if (weightDecay !== undefined && 'weightDecay' in layer && layer.weightDecay) return { ...layer, weightDecay };
    return layer;
  });
  return { ...network, layers };
}

/** The last hidden layer: the one below the last, dropout not counted (in a test it only scales). ERR_USAGE where there is none. */
export function lastHidden(network: NetworkSpec): string {
  const hidden = network.layers.slice(0, -1).findLast(({ type }) => type !== 'dropout');
  if (hidden === undefined) throw usage(`${network.name} has no hidden layer`, 'Name a layer.');
  return hidden.name;
}

/** The names of the layers that have weights, in order. */
export function parametricLayers(network: NetworkSpec): string[] {
  return network.layers
    .filter((layer) => layer.type === 'conv2d' || layer.type === 'local2d' || layer.type === 'linear')
    .map((layer) => layer.name);
}
