/** How torchvision lays out its `alexnet` in a safetensors file, and what it does to pixels. */
import type { NetworkSpec } from './layers.js';

/** How the file of another program lays out a network; the addon's `Layout`. */
export interface Layout {
  /** Our names of tensors, and those of the file. */
  names: Record<string, string>;
  /** Factors on the weights of one tensor, per input channel. */
  factors: Record<string, number[]>;
  /** Subtracted from every pixel: red, green, blue, 0 to 255. */
  mean: [number, number, number];
}

/** The layers with weights, and the modules there. */
const MODULES: readonly (readonly [layer: string, module: string])[] = [
  ['conv1', 'features.0'],
  ['conv2', 'features.3'],
  ['conv3', 'features.6'],
  ['conv4', 'features.8'],
  ['conv5', 'features.10'],
  ['fc6', 'classifier.1'],
  ['fc7', 'classifier.4'],
  ['fc8', 'classifier.6'],
];
const NAMES = Object.fromEntries(
  MODULES.flatMap(([layer, module]) => ['weight', 'bias'].map((kind) => [`${layer}.${kind}`, `${module}.${kind}`])),
);
/** The preprocessing of its weights: pixels from 0 to 1, minus the mean, divided by the deviation, per colour. */
const MEAN = [0.485, 0.456, 0.406] as const;
const DEVIATION = [0.229, 0.224, 0.225] as const;

/** Whether a file with tensors of these shapes is such an `alexnet`. */
export function isTorchvision(shapes: Readonly<Record<string, readonly number[]>>): boolean {
  return Object.values(NAMES).every((name) => Object.hasOwn(shapes, name));
}

/** Number of classes of such a file. */
export function torchvisionClasses(shapes: Readonly<Record<string, readonly number[]>>): number {
  return shapes['classifier.6.weight']?.[0] ?? 0;
}

/**
 * Such a file for a network that multiplies all colours by the one factor of its input: what is left of the three deviations goes into the weights of
 * `conv1`.
 */
export function torchvisionLayout(network: NetworkSpec): Layout {
  const [red, green, blue] = MEAN;
  return {
    names: NAMES,
    factors: { 'conv1.weight': DEVIATION.map((deviation) => 1 / (255 * deviation * network.input.scale)) },
    mean: [255 * red, 255 * green, 255 * blue],
  };
}
