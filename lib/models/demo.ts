/** The paper's network small enough for three minutes on two cores, on the embedded data set. */
import { conv2d, dropout, he, type LayerSpec, linear, localResponseNorm, maxPool2d, relu, xavier } from '../layers.js';
import type { Preset, PresetOptions } from './preset.js';

const DECAY = { weightDecay: 0.0005 };

/**
 * Five convolutions in two groups where the paper has two columns, normalisation and overlapping pooling. It starts from He's
 * initialisation and pixels of about unit variance: the paper's N(0, 0.01^2) stays at chance for many epochs on so little data.
 */
export function demo({ classes }: PresetOptions): Preset {
  const layers: LayerSpec[] = [
    conv2d('conv1', { outChannels: 32, kernelSize: 7, stride: 2, padding: 3, weightInit: he(), ...DECAY }),
    relu('relu1'),
    localResponseNorm('lrn1', { groups: 2 }),
    maxPool2d('pool1'),
    conv2d('conv2', { outChannels: 48, kernelSize: 5, padding: 2, groups: 2, weightInit: he(), ...DECAY }),
    relu('relu2'),
    localResponseNorm('lrn2', { groups: 2 }),
    maxPool2d('pool2'),
    conv2d('conv3', { outChannels: 64, kernelSize: 3, padding: 1, weightInit: he(), ...DECAY }),
    relu('relu3'),
    conv2d('conv4', { outChannels: 64, kernelSize: 3, padding: 1, groups: 2, weightInit: he(), ...DECAY }),
    relu('relu4'),
    conv2d('conv5', { outChannels: 48, kernelSize: 3, padding: 1, groups: 2, weightInit: he(), ...DECAY }),
    relu('relu5'),
    maxPool2d('pool5'),
    linear('fc6', { outFeatures: 128, weightInit: he(), ...DECAY }),
    relu('relu6'),
    dropout('drop6', { inverted: true }),
    linear('fc7', { outFeatures: 128, weightInit: he(), ...DECAY }),
    relu('relu7'),
    dropout('drop7', { inverted: true }),
    linear('fc8', { outFeatures: classes, weightInit: xavier(), ...DECAY }),
  ];
  const input = { imageSize: 40, cropSize: 36, flip: true, noiseDivisor: 1, scale: 1 / 64 };
  return {
    network: { name: 'demo', classes, input, layers },
    recipe: {
      batch: 64,
      epochs: 20,
      momentum: 0.9,
      lr: 0.01,
      biasLr: 0.02,
      schedule: { type: 'dexp', factor: 50, steps: 4 },
      colourNoise: 0,
      augment: true,
    },
  };
}
