/**
 * The networks of 2012 at full size: `paper`, the text of Krizhevsky, Sutskever and Hinton (NIPS 2012); `code2012`, net 145 of the source code
 * that its results come from; its published ablations; and `owt`, the single-column net of cuda-convnet2.
 */
import {
  conv2d,
  dropout,
  type InputSpec,
  type LayerSpec,
  linear,
  localResponseNorm,
  mapResponseNorm,
  maxPool2d,
  normal,
  relu,
} from '../layers.js';
import type { Recipe } from '../recipe.js';
import type { Preset, PresetOptions } from './preset.js';

/** 224-pixel crops of 256-pixel images, as bytes minus the mean; the division by 1.1 that goes with the colour noise. */
const INPUT: InputSpec = { imageSize: 256, cropSize: 224, flip: true, noiseDivisor: 1.1, scale: 1 };
const DECAY = { weightDecay: 0.0005 };

/**
 * What all have in common (paper, section 5): batch 128, momentum 0.9, rate 0.01, colour noise 0.1; biases learn twice as fast. The
 * rate is the one for 1000 classes: with ten it is beyond what the curvature along the mean of the logits bears, take 0.0005 to 0.001.
 */
const COMMON = {
  batch: 128,
  momentum: 0.9,
  lr: 0.01,
  biasLr: 0.02,
  colourNoise: 0.1,
  augment: true,
} satisfies Partial<Recipe>;

/** The unattended form of the manual drops, as the 2012 code's later nets and cuda-convnet2 train: 90 epochs in four parts. */
const UNATTENDED: Recipe = {
  ...COMMON,
  epochs: 90,
  schedule: { type: 'dexp', factor: 250, steps: 4 },
  biasSchedule: { type: 'dexp', factor: 10, steps: 2 },
};

/** The manual schedule of net 145 (2012): drops after 25, 51 and 79 epochs, conv1 ahead of the others and then frozen, biases never lowered. */
const LOG_145: Recipe = {
  ...COMMON,
  epochs: 91,
  schedule: { type: 'step', at: [25, 51, 79], factor: 0.1 },
  biasSchedule: { type: 'constant' },
  layerSchedules: { conv1: { type: 'step', at: [25, 51, 67], factor: 0.1 } },
  freezeAt: { conv1: 72 },
  colourNoiseOffAt: 67 / 91,
};

/**
 * The network of the paper's text: local response normalisation after ReLU over all channels of a layer, then pooling. Where the
 * text would not train or says nothing, as the code: weights of conv3 to conv5 from N(0, 0.03^2), alpha divided by the window, crops of 224
 * with three zeros on the right and bottom, biases at twice the rate.
 */
export function paper({ classes }: PresetOptions): Preset {
  const layers: LayerSpec[] = [
    conv2d('conv1', { outChannels: 96, kernelSize: 11, stride: 4, weightInit: normal(0.01), biasInit: 0, ...DECAY }),
    relu('relu1'),
    localResponseNorm('lrn1'),
    maxPool2d('pool1'),
    conv2d('conv2', {
      outChannels: 256,
      kernelSize: 5,
      padding: 2,
      groups: 2,
      weightInit: normal(0.01),
      biasInit: 1,
      ...DECAY,
    }),
    relu('relu2'),
    localResponseNorm('lrn2'),
    maxPool2d('pool2'),
    conv2d('conv3', { outChannels: 384, kernelSize: 3, padding: 1, weightInit: normal(0.03), biasInit: 0, ...DECAY }),
    relu('relu3'),
    conv2d('conv4', {
      outChannels: 384,
      kernelSize: 3,
      padding: 1,
      groups: 2,
      weightInit: normal(0.03),
      biasInit: 1,
      ...DECAY,
    }),
    relu('relu4'),
    conv2d('conv5', {
      outChannels: 256,
      kernelSize: 3,
      padding: 1,
      groups: 2,
      weightInit: normal(0.03),
      biasInit: 1,
      ...DECAY,
    }),
    relu('relu5'),
    maxPool2d('pool5'),
    ...classifier(classes),
  ];
  return {
    network: { name: 'paper', classes, input: INPUT, layers },
    recipe: { ...UNATTENDED, colourNoiseOffAt: 0.7 },
  };
}

/** How a net of the 145 family differs from net 145. */
interface Variant {
  name: string;
  /** Channels of conv1 to conv5. */
  channels?: [number, number, number, number, number];
  /** Columns that do not see each other in conv2, conv4, conv5 and the normalisations. */
  columns?: number;
  normalise?: boolean;
  overlap?: boolean;
}

/**
 * Net 145 (`layers-145.cfg`). Normalisation 1 acts on the linear output of conv1 and ReLU follows its pooling; layer 2 has a second
 * normalisation, within maps, that the paper does not mention; ReLU 5 follows pooling too. Normalisation stays inside a column.
 */
function net145({ name, channels = [96, 256, 384, 384, 256], columns = 2, normalise = true, overlap = true }: Variant) {
  return ({ classes }: PresetOptions): Preset => {
    const [c1, c2, c3, c4, c5] = channels;
    const groups = columns;
    const pool = (name: string) => maxPool2d(name, { kernelSize: overlap ? 3 : 2, stride: 2 });
    const norm1 = [localResponseNorm('lrn1', { groups })];
    const norm2 = [
      localResponseNorm('lrn2', { groups }),
      mapResponseNorm('cnorm2', { size: 5, k: 1, alpha: 1e-3, beta: 0.75 }),
    ];
    // Without overlap the maps would come out a pixel larger; paddings give fc6 its 6 x 6 back.
    const [padding2, padding5] = overlap ? [2, 1] : [1, 0];
    const layers: LayerSpec[] = [
      conv2d('conv1', { outChannels: c1, kernelSize: 11, stride: 4, weightInit: normal(0.01), biasInit: 0, ...DECAY }),
      ...(normalise ? norm1 : []),
      pool('pool1'),
      relu('relu1'),
      conv2d('conv2', {
        outChannels: c2,
        kernelSize: 5,
        padding: padding2,
        groups,
        weightInit: normal(0.01),
        biasInit: 1,
        ...DECAY,
      }),
      relu('relu2'),
      ...(normalise ? norm2 : []),
      pool('pool2'),
      conv2d('conv3', { outChannels: c3, kernelSize: 3, padding: 1, weightInit: normal(0.03), biasInit: 0, ...DECAY }),
      relu('relu3'),
      conv2d('conv4', {
        outChannels: c4,
        kernelSize: 3,
        padding: 1,
        groups,
        weightInit: normal(0.03),
        biasInit: 1,
        ...DECAY,
      }),
      relu('relu4'),
      conv2d('conv5', {
        outChannels: c5,
        kernelSize: 3,
        padding: padding5,
        groups,
        weightInit: normal(0.03),
        biasInit: 1,
        ...DECAY,
      }),
      pool('pool5'),
      relu('relu5'),
      ...classifier(classes),
    ];
    return { network: { name, classes, input: INPUT, layers }, recipe: LOG_145 };
  };
}

/** Net 145, to the digit: 37.5 / 17.0 % errors on ILSVRC-2010, 40.7 / 18.2 % on ILSVRC-2012. */
export const code2012 = net145({ name: 'code2012' });
/** Net 148: no normalisation at all; worse by 1.4 / 1.2 points. */
export const noNorm = net145({ name: 'no-norm', normalise: false });
/** Net 147: pooling windows of 2 that do not overlap; worse by 0.4 / 0.3 points. */
export const noOverlap = net145({ name: 'no-overlap', overlap: false });
/** Net 145-half: one column with half of the filters, for one GPU, but as many units in conv5 and above; worse by 1.7 / 1.2 points. */
export const half = net145({ name: 'half', channels: [48, 128, 192, 192, 256], columns: 1 });

/** cuda-convnet2's net for one GPU ("One weird trick", 2014), which torchvision's widths come from: one column, fc8 biases at -7. */
export function owt({ classes }: PresetOptions): Preset {
  const layers: LayerSpec[] = [
    conv2d('conv1', { outChannels: 64, kernelSize: 11, stride: 4, weightInit: normal(0.01), biasInit: 0, ...DECAY }),
    relu('relu1'),
    localResponseNorm('lrn1'),
    maxPool2d('pool1'),
    conv2d('conv2', { outChannels: 192, kernelSize: 5, padding: 2, weightInit: normal(0.01), biasInit: 1, ...DECAY }),
    relu('relu2'),
    localResponseNorm('lrn2'),
    maxPool2d('pool2'),
    conv2d('conv3', { outChannels: 384, kernelSize: 3, padding: 1, weightInit: normal(0.03), biasInit: 0, ...DECAY }),
    relu('relu3'),
    conv2d('conv4', { outChannels: 256, kernelSize: 3, padding: 1, weightInit: normal(0.03), biasInit: 1, ...DECAY }),
    relu('relu4'),
    conv2d('conv5', { outChannels: 256, kernelSize: 3, padding: 1, weightInit: normal(0.03), biasInit: 1, ...DECAY }),
    relu('relu5'),
    maxPool2d('pool5'),
    ...classifier(classes, -7),
  ];
  return { network: { name: 'owt', classes, input: INPUT, layers }, recipe: UNATTENDED };
}

/** fc6 to fc8, with the paper's dropout (section 4.2). */
function classifier(classes: number, outputBias = 0): LayerSpec[] {
  return [
    linear('fc6', { outFeatures: 4096, weightInit: normal(0.01), biasInit: 1, ...DECAY }),
    relu('relu6'),
    dropout('drop6'),
    linear('fc7', { outFeatures: 4096, weightInit: normal(0.01), biasInit: 1, ...DECAY }),
    relu('relu7'),
    dropout('drop7'),
    linear('fc8', { outFeatures: classes, weightInit: normal(0.01), biasInit: outputBias, ...DECAY }),
  ];
}
