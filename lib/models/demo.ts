/** The paper's network small enough for three minutes on two cores, on the embedded data set. */
import { conv2d, dropout, he, type LayerSpec, linear, localResponseNorm, maxPool2d, normal, relu } from '../layers.js';
import type { Preset, PresetOptions } from './preset.js';

/**
 * Five convolutions, in two groups where the paper has two columns, normalisation and overlapping pooling. It starts from He's
 * initialisation and pixels of about unit variance: the paper's N(0, 0.01^2) stays at chance for many epochs on so little data.
 */
export function demo({ classes }: PresetOptions): Preset {
  const learnt = { weightInit: he(), weightDecay: 0.0005 };
  const layers: LayerSpec[] = [
    conv2d('conv1', { outChannels: 32, kernelSize: 7, stride: 2, padding: 2, ...learnt, weightInit: normal(0.01) }),
    relu('relu1'),
    localResponseNorm('lrn1', { groups: 2 }),
    maxPool2d('pool1'),
    conv2d('conv2', { outChannels: 64, kernelSize: 5, padding: 2, groups: 2, ...learnt }),
    relu('relu2'),
    localResponseNorm('lrn2', { groups: 2 }),
    maxPool2d('pool2'),
    conv2d('conv3', { outChannels: 96, kernelSize: 3, padding: 1, ...learnt }),
    relu('relu3'),
    conv2d('conv4', { outChannels: 96, kernelSize: 3, padding: 1, groups: 2, ...learnt }),
    relu('relu4'),
    conv2d('conv5', { outChannels: 64, kernelSize: 3, padding: 1, groups: 2, ...learnt }),
    relu('relu5'),
    maxPool2d('pool5'),
    linear('fc6', { outFeatures: 256, ...learnt }),
    relu('relu6'),
    dropout('drop6', { p: 0.3 }),
    linear('fc7', { outFeatures: 256, ...learnt }),
    relu('relu7'),
    dropout('drop7', { p: 0.3 }),
    linear('fc8', { outFeatures: classes, ...learnt }),
  ];
  const input = { imageSize: 56, cropSize: 48, flip: true, noiseDivisor: 1, scale: 1 / 32 };
  return {
    network: { name: 'demo', classes, input, layers },
    recipe: {
      batch: 32,
      epochs: 18,
      momentum: 0.9,
      lr: 0.015,
      biasLr: 0.03,
      schedule: { type: 'dexp', factor: 50, steps: 4 },
      colourNoise: 0,
      augment: true,
    },
  };
}
