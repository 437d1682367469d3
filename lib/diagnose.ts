/**
 * A doctor for trainings: what an epoch's numbers say about what is going wrong, in words, with the numbers as evidence and a remedy. Each finding is
 * told once in a run.
 */
import type { DatasetInfo } from './data.js';
import type { Judgement } from './engine.js';
import type { EpochEvent, Finding, LayerHealth, Metrics, UnitHealth, WarningEvent } from './events.js';
import { rateOf, updateRatio } from './health.js';
import type { Rates, Recipe } from './recipe.js';
import { wilson } from './statistics.js';

/** Half of a layer's units dead; fewer than this many units say little. */
const DEAD_SHARE = 0.5;
const DEAD_LEAST = 4;
/** Update / weight ratios of one step. Between 1e-4 and 1e-1 networks learn well. */
const TOO_LOW = 1e-5;
const TOO_HIGH = 0.15;
/** A loss below this share of that of guessing shows that the rate is not too low. */
const LEARNT = 0.5;
/**
 * The same of the hidden layers after `FIRST_STEPS` steps, where a rate has not yet killed the units that would have shown it: there it is below 0.004 in all
 * presets, and above this at ten times their rates.
 */
const TOO_HIGH_AT_FIRST = 0.01;
/** A layer's own ratio: it explodes where its weights are renewed in two steps, and vanishes where others learn and it does not. */
const EXPLODES = 0.5;
const VANISHES = 1e-7;
const VANISHES_BESIDE = 1e-4;
/** The first and the last layer learn at ratios of their own at the beginning; so many others say something of the rate. */
const HIDDEN_LEAST = 3;
/** Waiting for images. */
const WAIT_SHARE = 0.3;
const WAIT_SECONDS = 1;
/** Validation error above that of training, as a share of all images. */
const GAP = 0.2;
/** A label is suspected where another class is this probable and its own this improbable, on at most this share of all images. */
const SURE = 0.95;
const UNLIKELY = 0.005;
const SUSPECTS_SHARE = 0.02;

/** Steps after which the layers are looked at for the first time: the momentum has built up. */
export const FIRST_STEPS = 10;

/** What an epoch is judged by. */
export interface EpochCase {
  event: EpochEvent;
  rates: Rates;
  recipe: Recipe;
  data: Pick<DatasetInfo, 'kind' | 'classes' | 'train' | 'val' | 'imageSize'>;
  /** Epoch of the lowest validation error so far. */
  bestEpoch: number | undefined;
  /** Seconds of the epoch in training steps. */
  seconds: number;
}

function warning(
  code: Finding,
  message: string,
  hint: string,
  evidence: WarningEvent['evidence'],
): WarningEvent & { code: Finding } {
  return { type: 'warning', code, message, hint, evidence };
}

/** What an epoch shows. */
export function diagnoseEpoch(patient: EpochCase): WarningEvent[] {
  const { event, rates, recipe } = patient;
  const { layers, units } = event;
  const moving = layers.filter(({ name, frozen }) => frozen !== true && rateOf(rates, name).weight > 0);
  const dead = deadUnits(units, recipe);
  return [
    dead,
    vanishing(moving),
    exploding(moving, rates),
    // Dead units stop the weights, too, whatever the rate.
    dead === undefined && !hasLearnt(patient) ? rateTooLow(moving, recipe, rates) : undefined,
    rateTooHigh(moving, recipe, rates),
    inputBound(event.waitShare, patient.seconds, patient.data),
    overfitting(patient),
  ].filter((found) => found !== undefined);
}

const percent = (share: number) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const short = (value: number) => Number(value.toPrecision(2)).toString();
const list = (names: string[]) =>
  names.slice(0, 5).join(', ') + (names.length > 5 ? `, ... (${names.length} in all)` : '');

function deadUnits(units: UnitHealth[], recipe: Recipe): WarningEvent | undefined {
  const dying = units.filter((layer) => layer.units >= DEAD_LEAST && layer.dead >= DEAD_SHARE * layer.units);
  if (dying.length === 0) return undefined;
  const parts = dying.map(({ name, dead, units: all }) => `${name} ${dead} of ${all}`);
  return warning(
    'DEAD_UNITS',
    `units that are 0 on every image that was looked at: ${list(parts)}; they pass no gradient on, so the weights below them learn nothing from it`,
    `Usual causes: a learning rate that threw them there (it is ${short(recipe.lr)}; try a third: --set lr=${short(recipe.lr / 3)}), biases that begin ` +
      'too far below 0, or initial weights that do not suit the depth (weightInit he). They rarely recover: train anew.',
    Object.fromEntries(
      dying.flatMap(({ name, dead, units: all }) => [
        [`${name}.dead`, dead],
        [`${name}.units`, all],
      ]),
    ),
  );
}

/** The gradient's own share of the ratio: what weight decay does is no learning. */
function learning({ weight, gradient }: LayerHealth): number {
  return weight > 0 ? gradient / weight : 0;
}

function vanishing(layers: LayerHealth[]): WarningEvent | undefined {
  const most = Math.max(0, ...layers.map(learning));
  // Where all stand still the rate is to blame, not a layer.
  if (most < TOO_LOW) return undefined;
  const still = layers.filter((layer) => learning(layer) < Math.max(VANISHES, VANISHES_BESIDE * most));
  if (still.length === 0) return undefined;
  return warning(
    'UPDATES_VANISH',
    `next to no gradient arrives at ${list(still.map(({ name }) => name))}: an update moves these weights by ${short(Math.max(...still.map(learning)))} of their size at most, ` +
      `those of other layers by up to ${short(most)}`,
    'What lies above stops the gradient: look for dead units there, for a nonlinearity that is saturated (tanh far from 0), or for initial weights so ' +
      'small that nothing comes through (weightInit he). A layer that is to stay as it is belongs into freezeAt.',
    { ...Object.fromEntries(still.map((layer) => [layer.name, learning(layer)])), largest: most },
  );
}

function exploding(layers: LayerHealth[], rates: Rates): WarningEvent | undefined {
  const wild = layers.filter((layer) => updateRatio(layer) > EXPLODES);
  if (wild.length === 0) return undefined;
  const parts = wild.map(
    (layer) => `${layer.name} ${short(updateRatio(layer))} at a rate of ${short(rateOf(rates, layer.name).weight)}`,
  );
  const [first] = wild;
  const name = first?.name ?? '';
  return warning(
    'UPDATES_EXPLODE',
    `updates about as large as the weights (update / weight ratio): ${list(parts)}; such a layer forgets with each step what it knew`,
    `Lower the rate of the layer, for example --set layerRates.${name}=0.1, or that of all of them, or begin with larger weights there.`,
    Object.fromEntries(wild.map((layer) => [layer.name, updateRatio(layer)])),
  );
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** Whether the training loss has come far from that of guessing: then updates are small because there is little left to learn. */
function hasLearnt({ event: { train }, data: { classes } }: EpochCase): boolean {
  return train !== null && train.loss < LEARNT * Math.log(classes.length);
}

function rateTooLow(layers: LayerHealth[], recipe: Recipe, rates: Rates): WarningEvent | undefined {
  if (layers.length === 0 || rates.weight === 0) return undefined;
  const ratio = median(layers.map(learning));
  // Late in a schedule small steps are the plan: what counts is how large they would be at the full rate.
  const full = ratio * (recipe.lr / rates.weight);
  if (full >= TOO_LOW) return undefined;
  return warning(
    'LR_TOO_LOW',
    `the learning rate ${short(recipe.lr)} is too low: a step moves the weights by ${short(full)} of their size, where 0.001 is usual`,
    `Raise it, for example --set lr=${short(recipe.lr * 10)} on a new run, as long as the loss stays finite and falls.`,
    {
      lr: rates.weight,
      medianRatio: ratio,
      ...Object.fromEntries(layers.map((layer) => [layer.name, learning(layer)])),
    },
  );
}

/** What the first steps of a run show: a rate that is far too high, hours before the first epoch may be over. */
export function diagnoseStart(layers: LayerHealth[], recipe: Recipe, rates: Rates): WarningEvent | undefined {
  const hidden = layers.slice(1, -1).filter(({ name, frozen }) => frozen !== true && rateOf(rates, name).weight > 0);
  return hidden.length < HIDDEN_LEAST ? undefined : rateTooHigh(hidden, recipe, rates, TOO_HIGH_AT_FIRST);
}

function rateTooHigh(layers: LayerHealth[], recipe: Recipe, rates: Rates, most = TOO_HIGH): WarningEvent | undefined {
  if (layers.length === 0) return undefined;
  const ratio = median(layers.map(updateRatio));
  if (ratio <= most) return undefined;
  return warning(
    'LR_TOO_HIGH',
    `the learning rate ${short(rates.weight)} is too high: a step moves the weights by ${short(ratio)} of their size, where 0.001 is usual`,
    `Lower it, for example --set lr=${short(recipe.lr / 10)}; units that died meanwhile come back on a new run only.`,
    {
      lr: rates.weight,
      medianRatio: ratio,
      ...Object.fromEntries(layers.map((layer) => [layer.name, updateRatio(layer)])),
    },
  );
}

/** Whether steps wait for images: `waitShare` of `seconds`. */
export function inputBound(
  waitShare: number,
  seconds: number,
  data: Pick<DatasetInfo, 'kind' | 'imageSize'>,
): WarningEvent | undefined {
  if (waitShare < WAIT_SHARE || waitShare * seconds < WAIT_SECONDS) return undefined;
  const files = data.kind === 'folder' || data.kind === 'tar';
  return warning(
    'INPUT_BOUND',
    `the training is bound by its input: ${percent(waitShare)} of the time the steps wait for images`,
    `${
      files
        ? `Store the pictures smaller, about ${data.imageSize} pixels on their short side, so that less has to be read and decoded; keep them on a local disk. `
        : ''
    }Give the loader more processor threads (--threads), or train a larger network at the same speed.`,
    { waitShare, seconds, imageSize: data.imageSize },
  );
}

function overfitting({ event, data, recipe, bestEpoch }: EpochCase): WarningEvent | undefined {
  const { train, val, epoch } = event;
  if (train === null || val === null || data.val === 0) return undefined;
  const [low] = wilson(val.top1Error, data.val);
  if (low - train.top1Error < GAP || val.loss < 1.5 * train.loss) return undefined;
  const remedies = [
    'more images',
    recipe.augment ? undefined : 'augmentation (--set augment=true)',
    'more weight decay or dropout',
    'a smaller network',
  ].filter((remedy) => remedy !== undefined);
  const best =
    bestEpoch !== undefined && bestEpoch < epoch ? ` The best epoch was ${bestEpoch}; best.safetensors has it.` : '';
  return warning(
    'OVERFITTING',
    `the network learns its training images by heart: error ${percent(train.top1Error)} on them, ${percent(val.top1Error)} on the ${data.val} validation images`,
    `What helps: ${remedies.join(', ')}.${best}`,
    { trainError: train.top1Error, valError: val.top1Error, valImages: data.val, trainImages: data.train, epoch },
  );
}

/** The likely cause of a loss that stays at chance, as far as the layers tell. */
export function causeOfChance(layers: LayerHealth[], units: UnitHealth[]): string {
  const dead = units.filter((layer) => layer.units > 0 && layer.dead >= DEAD_SHARE * layer.units);
  if (dead.length > 0) {
    return `The likely cause: dead units (${list(dead.map(({ name, dead: count, units: all }) => `${name} ${count} of ${all}`))}).`;
  }
  const ratio = median(layers.map(learning));
  if (ratio > TOO_HIGH)
    return `The likely cause: a learning rate that is too high (update / weight ratio ${short(ratio)}).`;
  const still = layers.filter((layer) => learning(layer) < 100 * TOO_LOW);
  if (still.length > 0) {
    return `The likely cause: gradients that vanish (update / weight ratio of ${list(still.map((layer) => `${layer.name} ${short(learning(layer))}`))}): initial weights too small for the depth, or a rate that is too low.`;
  }
  return 'The layers move as they should, so the likely cause is the data: labels that do not belong to their images, or images that do not show them.';
}

/** An image whose label looks wrong. */
export interface Suspect {
  id: number;
  label: number;
  guess: number;
  probability: number;
}

/** Images of which the network is sure that they are something else, the surest first; none where there are so many that it must be the network. */
export function suspects(judged: Judgement): Suspect[] {
  const found: Suspect[] = [];
  for (const [index, id] of judged.ids.entries()) {
    const label = judged.labels[index] ?? 0;
    const guess = judged.classes[index * judged.top] ?? 0;
    const probability = judged.probabilities[index * judged.top] ?? 0;
    if (guess !== label && probability >= SURE && (judged.own[index] ?? 0) <= UNLIKELY) {
      found.push({ id, label, guess, probability });
    }
  }
  if (found.length > Math.max(1, SUSPECTS_SHARE * judged.ids.length)) return [];
  return found.sort((a, b) => b.probability - a.probability || a.id - b.id);
}

/** How a wrong label is mended. */
const MEND: Record<DatasetInfo['kind'], string> = {
  folder: 'move the file into the folder of its class',
  tar: 'leave the file out (--quarantine), or make the archive anew with it in the folder of its class',
  list: 'change it in the list',
  webdataset: 'make the archive anew with the right class beside the image',
  pack: 'mend it in the data that was packed, and pack again',
  cifar10: "change it in the binary file: it is the first byte of the image's record of 3,073",
  ilsvrc2012: 'it stays: the archives are read as they were handed out',
  stream: 'give the image another one',
  generated: 'nothing is to be done: the program itself drew the image',
};

/** The warning of images whose labels look wrong; `names` are theirs, in the same order. */
export function labelSuspects(
  found: readonly Suspect[],
  names: readonly string[],
  classes: readonly string[],
  { top1Error }: Pick<Metrics, 'top1Error'>,
  kind: DatasetInfo['kind'],
): WarningEvent | undefined {
  const [first] = found;
  // A network that is wrong half of the time is no judge.
  if (first === undefined || top1Error > 0.5) return undefined;
  const described = found.map(
    ({ label, guess, probability }, index) =>
      `${names[index] ?? ''}: labelled ${classes[label] ?? ''}, looks like ${classes[guess] ?? ''} (${percent(probability)})`,
  );
  return warning(
    'LABEL_SUSPECT',
    `${found.length === 1 ? 'an image' : `${found.length} images`} may have a wrong label, the surest: ${described[0] ?? ''}`,
    `Look at the pictures in report.html ("Most confident mistakes"); where the label is wrong, ${MEND[kind]}.`,
    { images: found.length, files: described.slice(0, 20) },
  );
}
