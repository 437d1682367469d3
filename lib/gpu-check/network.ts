/** The small network that a check trains: two towers that meet, every kind of kernel that the networks of 2012 have. */
import { conv2d, dropout, he, linear, localResponseNorm, maxPool2d, normal, relu } from '../layers.js';
import type { Preset, PresetOptions } from '../models/preset.js';

/**
 * Chosen for curves that can be compared: it learns from the first hundred steps on, and its rate is so low that rounding stays rounding. At a
 * rate changed by 0.4 % the mean loss of steps 271 to 300 changes by 0.05 %; the demo's, at its own rate, by 5 % and more.
 */
export function checkNetwork({ classes }: PresetOptions): Preset {
  const learnt = { weightInit: he(), weightDecay: 0.0005 };
  return {
    network: {
      name: 'gpu-check',
      classes,
      input: { imageSize: 56, cropSize: 48, flip: true, noiseDivisor: 1, scale: 1 / 64 },
      layers: [
        conv2d('conv1', { outChannels: 32, kernelSize: 7, stride: 2, padding: 2, ...learnt }),
        relu('relu1'),
        localResponseNorm('lrn1', { groups: 2 }),
        maxPool2d('pool1'),
        conv2d('conv2', { outChannels: 64, kernelSize: 5, padding: 2, groups: 2, ...learnt }),
        relu('relu2'),
        maxPool2d('pool2'),
        conv2d('conv3', { outChannels: 64, kernelSize: 3, padding: 1, ...learnt }),
        relu('relu3'),
        maxPool2d('pool3'),
        linear('fc4', { outFeatures: 128, ...learnt }),
        relu('relu4'),
        dropout('drop4', { p: 0.3 }),
        linear('fc5', { outFeatures: classes, ...learnt, weightInit: normal(0.01) }),
      ],
    },
    recipe: {
      batch: 32,
      epochs: 10,
      momentum: 0.9,
      lr: 0.002,
      biasLr: 0.004,
      schedule: { type: 'constant' },
      colourNoise: 0,
      augment: true,
    },
  };
}
