/**
 * The CIFAR-10 nets of cuda-convnet (2011), named after their published test error, and the pair for the paper's Figure 1. Pixels are bytes
 * minus the mean image; no colour noise.
 */
import {
  avgPool2d,
  conv2d,
  type InputSpec,
  type LayerSpec,
  linear,
  local2d,
  localResponseNorm,
  mapResponseNorm,
  maxPool2d,
  normal,
  relu,
  tanh,
} from '../layers.js';
import type { Recipe, ScheduleSpec } from '../recipe.js';
import type { Preset, PresetOptions } from './preset.js';

/** The images as they are. */
const WHOLE: InputSpec = { imageSize: 32, cropSize: 32, flip: false, noiseDivisor: 1, scale: 1 };
/** Random 24-pixel crops and flips. */
const CROPPED: InputSpec = { imageSize: 32, cropSize: 24, flip: true, noiseDivisor: 1, scale: 1 };

const CONV = { kernelSize: 5, padding: 2 };

/** Rates 0.001 and 0.002, of which only that of the weights is ever lowered. */
function recipe(epochs: number, schedule: ScheduleSpec, augment: boolean): Recipe {
  const rates = { momentum: 0.9, lr: 0.001, biasLr: 0.002, schedule, biasSchedule: { type: 'constant' } } as const;
  return { batch: 128, epochs, ...rates, colourNoise: 0, augment };
}

const drops = (...at: number[]): ScheduleSpec => ({ type: 'step', at, factor: 0.1 });

/** What the nets on whole images share: three convolutions with a pooling each, the last two of them averaging. */
interface Trunk {
  activation?: typeof relu | typeof tanh;
  weightDecay: number;
  /** Normalisation within maps after pool1 and pool2. */
  normalise?: boolean;
}

function trunk({ activation = relu, weightDecay, normalise = false }: Trunk): LayerSpec[] {
  const norm = (name: string) => (normalise ? [mapResponseNorm(name, { size: 3, k: 1, alpha: 5e-5, beta: 0.75 })] : []);
  return [
    conv2d('conv1', { ...CONV, outChannels: 32, weightInit: normal(0.0001), weightDecay }),
    maxPool2d('pool1'),
    activation('act1'),
    ...norm('norm1'),
    conv2d('conv2', { ...CONV, outChannels: 32, weightInit: normal(0.01), weightDecay }),
    activation('act2'),
    avgPool2d('pool2'),
    ...norm('norm2'),
    conv2d('conv3', { ...CONV, outChannels: 64, weightInit: normal(0.01), weightDecay }),
    activation('act3'),
    avgPool2d('pool3'),
  ];
}

/** 26 % test error in 80 seconds on the GPU of its day: a hidden layer of 64, ten epochs. */
export function cifar80sec({ classes }: PresetOptions): Preset {
  const layers = [
    ...trunk({ weightDecay: 0.004 }),
    linear('fc1', { outFeatures: 64, weightInit: normal(0.1), weightDecay: 0.03 }),
    relu('act4'),
    linear('fc2', { outFeatures: classes, weightInit: normal(0.1), weightDecay: 0.03 }),
  ];
  return { network: { name: 'cifar-80sec', classes, input: WHOLE, layers }, recipe: recipe(10, drops(8), false) };
}

/** 19 %. Its schedule was not published; this is that of `cifar-18pct`. */
export function cifar19pct({ classes }: PresetOptions): Preset {
  const output = linear('fc1', { outFeatures: classes, weightInit: normal(0.01), weightDecay: 3 });
  const layers = [...trunk({ weightDecay: 0.004 }), output];
  return {
    network: { name: 'cifar-19pct', classes, input: WHOLE, layers },
    recipe: recipe(140, drops(120, 130), false),
  };
}

/** 18 %: with local response normalisation. */
export function cifar18pct({ classes }: PresetOptions): Preset {
  const output = linear('fc1', { outFeatures: classes, weightInit: normal(0.01), weightDecay: 1 });
  const layers = [...trunk({ weightDecay: 0.004, normalise: true }), output];
  return {
    network: { name: 'cifar-18pct', classes, input: WHOLE, layers },
    recipe: recipe(140, drops(120, 130), false),
  };
}

/**
 * 13 % averaged over views: unshared convolutions on 24-pixel crops. The original trained its first 100 epochs on four of the five
 * files in order to choose the moment of the drops; here all 160 see all images.
 */
export function cifar13pct({ classes }: PresetOptions): Preset {
  const layers = [
    conv2d('conv1', { ...CONV, outChannels: 64, weightInit: normal(0.0001) }),
    relu('act1'),
    maxPool2d('pool1'),
    conv2d('conv2', { ...CONV, outChannels: 64, weightInit: normal(0.01) }),
    relu('act2'),
    maxPool2d('pool2'),
    ...locals(32),
    linear('fc1', { outFeatures: classes, weightInit: normal(0.01), weightDecay: 0.004 }),
  ];
  return {
    network: { name: 'cifar-13pct', classes, input: CROPPED, layers },
    recipe: recipe(160, drops(140, 150), true),
  };
}

/** 11 % averaged over views: with normalisation across channels, a wider first unshared layer and 520 epochs. */
export function cifar11pct({ classes }: PresetOptions): Preset {
  const norm = { size: 9, k: 1, alpha: 0.001, beta: 0.75 };
  const layers = [
    conv2d('conv1', { ...CONV, outChannels: 64, weightInit: normal(0.0001) }),
    relu('act1'),
    maxPool2d('pool1'),
    localResponseNorm('lrn1', norm),
    conv2d('conv2', { ...CONV, outChannels: 64, weightInit: normal(0.01) }),
    relu('act2'),
    localResponseNorm('lrn2', norm),
    maxPool2d('pool2'),
    ...locals(64),
    linear('fc1', { outFeatures: classes, weightInit: normal(0.01), weightDecay: 0.01 }),
  ];
  return {
    network: { name: 'cifar-11pct', classes, input: CROPPED, layers },
    recipe: recipe(520, drops(500, 510), true),
  };
}

/** The two unshared convolutions; the first one with `width` filters. */
function locals(width: number): LayerSpec[] {
  const local = { kernelSize: 3, padding: 1, weightInit: normal(0.04), weightDecay: 0.004 };
  return [
    local2d('local3', { ...local, outChannels: width }),
    relu('act3'),
    local2d('local4', { ...local, outChannels: 32 }),
    relu('act4'),
  ];
}

/**
 * The paper's Figure 1 compares how soon ReLU and tanh reach 25 % training error, "without regularisation of any kind", and does not give the
 * network. Here: that of `cifar-19pct` without weight decay, at a constant rate, which is to be tuned for each of the two.
 */
function figure1(name: string, activation: typeof relu | typeof tanh, epochs: number) {
  return ({ classes }: PresetOptions): Preset => {
    const layers = [
      ...trunk({ activation, weightDecay: 0 }),
      linear('fc1', { outFeatures: classes, weightInit: normal(0.01) }),
    ];
    return { network: { name, classes, input: WHOLE, layers }, recipe: recipe(epochs, { type: 'constant' }, false) };
  };
}

export const cifarFig1Relu = figure1('cifar-fig1-relu', relu, 20);
export const cifarFig1Tanh = figure1('cifar-fig1-tanh', tanh, 60);
