/** The `alexnet` of torchvision: one column, no normalisation, dropout below the linear layers. */
import { conv2d, dropout, he, type LayerSpec, linear, maxPool2d, relu } from '../layers.js';
import type { Preset, PresetOptions } from './preset.js';

const DECAY = { weightDecay: 0.0001 };

/**
 * Layer by layer that network, so that its weights can be imported; its average pooling to 6 x 6 does nothing at crops of 224 pixels. Sizes are
 * rounded down there. The recipe is that of torchvision's references (batch 128, rate 0.01, divided by ten every 30 epochs), with one rate and
 * no colour noise. Weights start from He's distribution instead of PyTorch's narrower uniform one.
 */
export function torchvision({ classes }: PresetOptions): Preset {
  const floor = { ceilMode: false };
  const conv = (name: string, outChannels: number, kernelSize: number, padding: number, stride = 1) =>
    conv2d(name, { outChannels, kernelSize, stride, padding, ...floor, ...DECAY });
  const layers: LayerSpec[] = [
    conv('conv1', 64, 11, 2, 4),
    relu('relu1'),
    maxPool2d('pool1', floor),
    conv('conv2', 192, 5, 2),
    relu('relu2'),
    maxPool2d('pool2', floor),
    conv('conv3', 384, 3, 1),
    relu('relu3'),
    conv('conv4', 256, 3, 1),
    relu('relu4'),
    conv('conv5', 256, 3, 1),
    relu('relu5'),
    maxPool2d('pool5', floor),
    dropout('drop6', { inverted: true }),
    linear('fc6', { outFeatures: 4096, weightInit: he(), ...DECAY }),
    relu('relu6'),
    dropout('drop7', { inverted: true }),
    linear('fc7', { outFeatures: 4096, weightInit: he(), ...DECAY }),
    relu('relu7'),
    linear('fc8', { outFeatures: classes, weightInit: he(), ...DECAY }),
  ];
  // Deviations of about 57 per colour: pixels of unit variance.
  const input = { imageSize: 256, cropSize: 224, flip: true, noiseDivisor: 1, scale: 1 / 57.63 };
  return {
    network: { name: 'torchvision', classes, input, layers },
    recipe: {
      batch: 128,
      epochs: 90,
      momentum: 0.9,
      lr: 0.01,
      biasLr: 0.01,
      schedule: { type: 'step', at: [30, 60], factor: 0.1 },
      colourNoise: 0,
      augment: true,
    },
  };
}
