/** The presets by name. */
import { z } from 'zod';
import { check } from '../config.js';
import { usage } from '../errors.js';
import { suggestion } from '../nearest.js';
import type { Shape } from '../options.js';
import { code2012, half, noNorm, noOverlap, owt, paper } from './alexnet.js';
import { cifar11pct, cifar13pct, cifar18pct, cifar19pct, cifar80sec, cifarFig1Relu, cifarFig1Tanh } from './cifar.js';
import { demo } from './demo.js';
import type { Preset, PresetOptions } from './preset.js';
import { small } from './small.js';
import { torchvision } from './torchvision.js';

export type { Preset, PresetOptions } from './preset.js';

interface Entry {
  make: (options: PresetOptions) => Preset;
  /** One line for lists. */
  summary: string;
}

/** Every preset, in the order in which lists show them. */
export const PRESETS = {
  demo: { make: demo, summary: 'the paper in small, on the embedded data set' },
  small: { make: small, summary: 'the paper in small, for your own photographs on a CPU (64 pixels)' },
  paper: { make: paper, summary: 'the network of the 2012 paper' },
  code2012: { make: code2012, summary: 'net 145 of the 2012 source code, which the paper reports' },
  owt: { make: owt, summary: 'the single-column network of "One weird trick" (2014)' },
  torchvision: { make: torchvision, summary: "torchvision's alexnet, whose weights can be imported" },
  'no-norm': { make: noNorm, summary: 'code2012 without normalisation (net 148)' },
  'no-overlap': { make: noOverlap, summary: 'code2012 with pooling windows that do not overlap (net 147)' },
  half: { make: half, summary: 'code2012 with one column (net 145-half)' },
  'cifar-80sec': { make: cifar80sec, summary: 'CIFAR-10, 26 % test error in ten epochs' },
  'cifar-19pct': { make: cifar19pct, summary: 'CIFAR-10, 19 %' },
  'cifar-18pct': { make: cifar18pct, summary: 'CIFAR-10, 18 %, with normalisation' },
  'cifar-13pct': { make: cifar13pct, summary: 'CIFAR-10, 13 %, with unshared convolutions and crops' },
  'cifar-11pct': { make: cifar11pct, summary: 'CIFAR-10, 11 %, the same with normalisation' },
  'cifar-fig1-relu': { make: cifarFig1Relu, summary: "CIFAR-10, the paper's Figure 1: ReLU" },
  'cifar-fig1-tanh': { make: cifarFig1Tanh, summary: "CIFAR-10, the paper's Figure 1: tanh" },
} as const satisfies Record<string, Entry>;

/** Name of a preset. */
export type PresetName = keyof typeof PRESETS;

const presetSchema = z.strictObject({ classes: z.int().positive() } satisfies Shape<PresetOptions>);

/** The preset `name` for `classes` classes. ERR_USAGE names the nearest right name. */
export function preset(name: string, options: PresetOptions): Preset {
  if (!Object.hasOwn(PRESETS, name)) {
    const names = Object.keys(PRESETS);
    throw usage(`preset ${name}: there is none of that name`, suggestion(name, names));
  }
  check(presetSchema, options, `preset ${name}`);
  return structuredClone(PRESETS[name as PresetName].make(options));
}
