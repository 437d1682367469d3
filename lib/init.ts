/** Fine-tuning: which layers take over weights of another network, which begin fresh, which stay as they are. */
import picomatch from 'picomatch';

import { AlexnodeError, usage } from './errors.js';
import type { InitLayer, InitReport, WarningEvent } from './events.js';
import type { NetworkSpec } from './layers.js';
import { suggestion } from './nearest.js';
import { describeNetwork, parametricLayers } from './network.js';
import type { Recipe } from './recipe.js';
import { fileOf, type Weights } from './weights.js';

/** What is taken over from a file. */
export interface Adoption {
  report: InitReport;
  weights: ReturnType<typeof fileOf>;
  /** Names of tensors. */
  parameters: string[];
  warnings: WarningEvent[];
}

/** The layers with weights that patterns such as `conv*` name. ERR_USAGE where one names none. */
function named(network: NetworkSpec, pattern: string, what: string): string[] {
  const layers = parametricLayers(network);
  const matches = picomatch(pattern);
  const found = layers.filter((layer) => matches(layer));
  if (found.length > 0) return found;
  throw usage(
    `${what} ${pattern}: ${network.name} has no layer with weights of this name`,
    suggestion(pattern, layers),
  );
}

/** The network with the layers frozen that patterns name. ERR_USAGE where a pattern names none, or nothing would be left to learn. */
export function freezeLayers(network: NetworkSpec, patterns: readonly string[]): NetworkSpec {
  if (patterns.length === 0) return network;
  const frozen = new Set(patterns.flatMap((pattern) => named(network, pattern, 'freeze')));
  const layers = network.layers.map((layer) => (frozen.has(layer.name) ? { ...layer, frozen: true } : layer));
  if (layers.every((layer) => !('weightInit' in layer) || layer.frozen === true)) {
    throw usage(`freeze ${patterns.join(', ')}: nothing would be left to learn`, 'Leave at least the last layer out.');
  }
  return { ...network, layers };
}

/** The recipe with the factors on the rates of the layers that patterns name; a later pattern goes over an earlier one. ERR_USAGE. */
export function scaleRates(recipe: Recipe, network: NetworkSpec, factors: Readonly<Record<string, number>>): Recipe {
  const layerRates = { ...recipe.layerRates };
  for (const [pattern, factor] of Object.entries(factors)) {
    if (!(Number.isFinite(factor) && factor >= 0))
      throw usage(`lrScale ${pattern}: expected a number that is not negative`);
    for (const layer of named(network, pattern, 'lrScale')) layerRates[layer] = factor;
  }
  return Object.keys(layerRates).length === 0 ? recipe : { ...recipe, layerRates };
}

/** The network of a file for other classes. */
export function rehead({ metadata }: Weights, classes: number): { network: NetworkSpec; recipe: Recipe } {
  const { network, recipe } = structuredClone(metadata.config);
  const last = network.layers.at(-1);
  if (last?.type === 'linear') last.outFeatures = classes;
  // Whether a layer is frozen is said anew by every training.
  for (const layer of network.layers) if ('frozen' in layer) layer.frozen = false;
  return { network: { ...network, classes }, recipe };
}

/**
 * What `network` takes over from a file: every layer whose tensors have the same names and shapes there; the last one only if its classes are the same.
 * The mean image comes along where its size fits. ERR_CHECKPOINT where nothing fits.
 */
export function adopt(weights: Weights, network: NetworkSpec, classes: readonly string[]): Adoption {
  const { layers: described } = describeNetwork(network, { batch: 1, devices: ['cpu'] });
  const last = network.layers.at(-1)?.name;
  const warnings: WarningEvent[] = [];
  const parameters: string[] = [];
  const layers = described.flatMap(({ name, tensors }): InitLayer[] => {
    if (Object.keys(tensors).length === 0) return [];
    const layer = network.layers.find((other) => other.name === name);
    const frozen = layer !== undefined && 'frozen' in layer && layer.frozen === true;
    const why = misfit(weights, tensors) ?? (name === last ? otherClasses(weights, classes) : undefined);
    if (why !== undefined) return [{ layer: name, weights: 'fresh', why, frozen }];
    parameters.push(...Object.keys(tensors));
    return [{ layer: name, weights: 'loaded', frozen }];
  });
  const { path, sha256, metadata } = weights;
  const from = metadata.config.network;
  if (parameters.length === 0) {
    throw new AlexnodeError('ERR_CHECKPOINT', `${path}: no layer of ${network.name} fits what is in it`, {
      hint: `It holds ${from.name}. Leave --preset away to train that network.`,
    });
  }
  const head = layers.find(({ layer }) => layer === last);
  warnings.push(...classWarnings(weights, classes, head), ...inputWarnings(weights, network));
  const idle = layers.filter(({ frozen, weights }) => frozen && weights === 'fresh').map(({ layer }) => layer);
  if (idle.length > 0) {
    warnings.push({
      type: 'warning',
      code: 'FROZEN_FRESH',
      message: `${idle.join(', ')}: frozen, but not loaded: the weights stay random`,
      hint: 'Leave it out of --freeze.',
      evidence: { layers: idle },
    });
  }
  const mean = weights.layout !== undefined || from.input.cropSize === network.input.cropSize ? 'file' : 'data';
  return { report: { path, sha256, network: from.name, mean, layers }, weights: fileOf(weights), parameters, warnings };
}

/** Why tensors do not fit those of a file. */
function misfit({ shapes }: Weights, tensors: Record<string, number[]>): string | undefined {
  // The weight first: it tells more than the bias.
  for (const [name, shape] of Object.entries(tensors).reverse()) {
    const there = shapes[name];
    if (there === undefined) return 'not in the file';
    if (there.join() !== shape.join())
      return `${name.split('.').at(-1)} is ${there.join(' x ')} there, ${shape.join(' x ')} here`;
  }
  return undefined;
}

/** Why the last layer knows other classes. */
function otherClasses(
  { named, metadata: { classes: there } }: Weights,
  classes: readonly string[],
): string | undefined {
  if (!named || there.join('\n') === classes.join('\n')) return undefined;
  return 'its classes have other names there';
}

function classWarnings(
  { named, metadata }: Weights,
  classes: readonly string[],
  head: InitLayer | undefined,
): WarningEvent[] {
  const { classes: there } = metadata;
  if (named && there.join('\n') === classes.join('\n')) return [];
  const list = (names: readonly string[]) =>
    `${names.slice(0, 3).join(', ')}${names.length > 3 ? `, ... (${names.length})` : ''}`;
  return [
    {
      type: 'warning',
      code: 'CLASSES_DIFFER',
      message: named
        ? `the classes are others than there (there: ${list(there)}; here: ${list(classes)})`
        : `the file does not name its ${there.length} classes`,
      hint:
        head?.weights === 'loaded'
          ? `${head.layer} is loaded, since their number is the same: it is right only if they are in the same order.`
          : `${head?.layer ?? 'The last layer'} begins fresh and learns best at higher rates than the rest, as --lr-scale '${head?.layer}=10' gives it.`,
      evidence: { there, here: [...classes] },
    },
  ];
}

function inputWarnings({ metadata, layout }: Weights, network: NetworkSpec): WarningEvent[] {
  const there = metadata.config.network.input;
  const here = network.input;
  // A file of another program is fitted to the scale here.
  const fields =
    layout === undefined ? (['imageSize', 'cropSize', 'scale'] as const) : (['imageSize', 'cropSize'] as const);
  const different = fields.filter((field) => there[field] !== here[field]);
  if (different.length === 0) return [];
  return [
    {
      type: 'warning',
      code: 'PREPROCESSING_DIFFERS',
      message: `the images are prepared otherwise than there (${different
        .map((field) => `${field} ${there[field]} there, ${here[field]} here`)
        .join('; ')})`,
      hint: 'The layers loaded are used to other images. Leave --preset away to train the network of the file, with its input.',
      evidence: Object.fromEntries(different.map((field) => [field, [String(there[field]), String(here[field])]])),
    },
  ];
}
