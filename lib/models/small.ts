/** AlexNet in small, for a few thousand photographs and a processor: 64-pixel images, one column. */
import { conv2d, dropout, he, type LayerSpec, linear, localResponseNorm, maxPool2d, normal, relu } from '../layers.js';
import type { Preset, PresetOptions } from './preset.js';

const DECAY = { weightDecay: 0.0005 };

/**
 * The paper's order of layers on 56-pixel crops of 64-pixel images. It starts from He's initialisation (the first layer from small
 * weights, so that its filters show what was learnt) and pixels of about unit variance, since the paper's N(0, 0.01^2) needs more
 * images than a small collection has to leave the loss of guessing.
 */
export function small({ classes }: PresetOptions): Preset {
  const layers: LayerSpec[] = [
    conv2d('conv1', { outChannels: 48, kernelSize: 7, stride: 2, padding: 2, weightInit: normal(0.01), ...DECAY }),
    relu('relu1'),
    localResponseNorm('lrn1'),
    maxPool2d('pool1'),
    conv2d('conv2', { outChannels: 128, kernelSize: 5, padding: 2, weightInit: he(), ...DECAY }),
    relu('relu2'),
    localResponseNorm('lrn2'),
    maxPool2d('pool2'),
    conv2d('conv3', { outChannels: 192, kernelSize: 3, padding: 1, weightInit: he(), ...DECAY }),
    relu('relu3'),
    conv2d('conv4', { outChannels: 192, kernelSize: 3, padding: 1, weightInit: he(), ...DECAY }),
    relu('relu4'),
    conv2d('conv5', { outChannels: 128, kernelSize: 3, padding: 1, weightInit: he(), ...DECAY }),
    relu('relu5'),
    maxPool2d('pool5'),
    linear('fc6', { outFeatures: 512, weightInit: he(), ...DECAY }),
    relu('relu6'),
    dropout('drop6', { p: 0.3 }),
    linear('fc7', { outFeatures: 512, weightInit: he(), ...DECAY }),
    relu('relu7'),
    dropout('drop7', { p: 0.3 }),
    linear('fc8', { outFeatures: classes, weightInit: he(), ...DECAY }),
  ];
  const input = { imageSize: 64, cropSize: 56, flip: true, noiseDivisor: 1, scale: 1 / 32 };
  return {
    network: { name: 'small', classes, input, layers },
    recipe: {
      batch: 32,
      epochs: 40,
      momentum: 0.9,
      lr: 0.015,
      biasLr: 0.03,
      schedule: { type: 'dexp', factor: 50, steps: 4 },
      colourNoise: 0.1,
      augment: true,
    },
  };
}
