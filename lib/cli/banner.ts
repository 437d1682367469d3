/** What is about to happen, before it does. */
import {
  type DatasetInfo,
  type DeviceInfo,
  type InitReport,
  listDevices,
  type NetworkInfo,
  type Recipe,
  type Rehearsal,
  type Training,
  type WarningEvent,
} from '../index.js';
import { bytes, count, millions, percent, plural, printable, rateText, shortPath, table, time } from './format.js';

/** A line with its subject in the left column. */
export function line(subject: string, text: string): string {
  return ` ${subject.padEnd(9)} ${printable(text)}\n`;
}

function deviceText(names: string[], why: string): string {
  const known = new Map<string, DeviceInfo>(listDevices().map((device) => [device.name, device]));
  const described = names.map((name) => {
    const text = known.get(name)?.description;
    return text === undefined ? name : `${name} (${text})`;
  });
  return `${described.join(' and ')}; ${why}`;
}

function dataText(info: DatasetInfo): string {
  const { classes, train, val, imageSize, split, source, kind, quarantined, keptTogether, takenApart } = info;
  const name = kind === 'generated' ? 'generated' : `${source} (${kind})`;
  const validation = val === 0 ? 'no validation images' : plural(val, 'validation image');
  const together = keptTogether === 0 ? '' : `, ${count(keptTogether)} that look alike kept together`;
  const apart =
    takenApart === 0
      ? ''
      : `, ${count(takenApart)} that look alike split one by one (their groups are too large; if they show the same things, name train and val folders)`;
  const out = quarantined === 0 ? '' : `; ${plural(quarantined, 'file')} left out by the quarantine list`;
  return `${name}: ${classes.length} classes, ${count(train)} training and ${validation} of ${imageSize} pixels, split ${split}${together}${apart}${out}`;
}

/** What the classes count, where the loss is weighed by them. */
function balanceText({ classes, classWeights }: DatasetInfo): string {
  if (classWeights === null) return '';
  // 0: a class of which `limit` has left no image.
  const there = classWeights.filter((weight) => weight > 0);
  const least = Math.min(...there);
  const most = Math.max(...there);
  const at = (weight: number) => `${weight.toFixed(2)} (${classes[classWeights.indexOf(weight)]})`;
  return line(
    'balance',
    `an image counts from ${at(least)} to ${at(most)} in what is learnt; the losses shown are without these weights`,
  );
}

function memoryText(info: NetworkInfo): string {
  return info.memory.map((part) => `${part.device} ${bytes(part.totalBytes)}`).join(', ');
}

/** Device and why, data, model, plan, memory, disk, folder. */
export function banner(training: Training): string {
  const { trainer, data, run, why, resumed } = training;
  const link = trainer.link === null ? '' : `; ${trainer.link}`;
  const { config, info, batches } = trainer;
  const { recipe, network, preset } = config;
  const { schedule } = recipe;
  const steps = batches * recipe.epochs;
  const towers = info.counters.transferBytes > 0 ? `; ${bytes(info.counters.transferBytes)} cross per step` : '';
  // Weights and momentum, four bytes each, in at most four files and one that is being written.
  const disk = run === undefined ? '' : `, up to ${bytes(info.parameters * 8 * 5)} of checkpoints`;
  const parts = [
    line('device', `${deviceText(config.devices, why.devices)}; ${config.precision}${towers}${link}`),
    line('data', dataText(data.info)),
    balanceText(data.info),
    line(
      'model',
      `${preset ?? network.name} (${why.preset}): ${count(info.parameters)} parameters, ${millions(info.macs)} multiply-adds per image`,
    ),
    line(
      'plan',
      `${plural(recipe.epochs, 'epoch')} of ${plural(batches, 'step')} of ${plural(recipe.batch, 'image')}, ${plural(steps, 'step')}; ` +
        `lr ${rateText(recipe.lr)} (${schedule.type}), seed ${config.seed}`,
    ),
    line('memory', `${memoryText(info)}${disk}`),
  ];
  if (resumed === undefined) parts.push(initText(config.init ?? null, recipe));
  if (run !== undefined) parts.push(line('run', shortPath(run.folder)));
  if (resumed !== undefined) {
    parts.push(
      line('resume', `${shortPath(resumed)}: epoch ${trainer.cursor.epoch + 1}, step ${count(trainer.cursor.step)}`),
    );
  }
  return `${parts.join('')}\n`;
}

/** What it starts from, layer by layer; nothing where it draws its own weights. */
function initText(init: InitReport | null, { layerRates }: Recipe): string {
  if (init === null) return '';
  const mean = init.mean === 'file' ? 'its mean image' : 'the mean image of the data';
  const layers = init.layers.map(({ layer, weights, why, frozen }) => {
    const rate = layerRates?.[layer];
    const notes = [
      why === undefined ? '' : ` (${why})`,
      frozen ? ', frozen' : '',
      !frozen && typeof rate === 'number' ? `, rates x ${rate}` : '',
    ];
    return line('', `${layer.padEnd(8)} ${weights}${notes.join('')}`);
  });
  return line('init', `${shortPath(init.path)}: ${init.network}, with ${mean}`) + layers.join('');
}

/** Shapes, parameters and multiply-adds of every layer. */
export function layerTable(info: NetworkInfo): string {
  const rows = info.layers.map((layer) => [
    layer.name,
    layer.type,
    layer.shape.join(' x '),
    count(layer.parameters),
    count(layer.macs),
  ]);
  rows.push(['total', '', '', count(info.parameters), count(info.macs)]);
  return `${table(['layer', 'type', 'output', 'parameters', 'multiply-adds'], rows)}\n`;
}

/** What a rehearsal found. */
export function rehearsalText(rehearsal: Rehearsal): string {
  const { info, recipe, validation, checkpoint, forecast, why, devices, preset } = rehearsal;
  const memory = info.memory.map((part) => [
    part.device,
    bytes(part.parameterBytes),
    bytes(part.momentumBytes),
    bytes(part.activationBytes),
    bytes(part.totalBytes),
  ]);
  const { launches, transfers, transferBytes } = info.counters;
  const enough = forecast.freeBytes > forecast.diskBytes ? '' : ': NOT ENOUGH';
  return [
    line('device', deviceText(devices, why.devices)),
    line('data', dataText(rehearsal.data)),
    balanceText(rehearsal.data),
    ...rehearsal.warnings.map(warningText),
    line('model', `${preset ?? 'network'} (${why.preset})`),
    initText(rehearsal.init, recipe),
    '\n',
    layerTable(info),
    '\n',
    `${table(['memory', 'weights', 'momentum', 'activations', 'total'], memory, 1)}\n`,
    '\n',
    line(
      'step',
      `${count(launches)} launches, ${plural(transfers, 'transfer')}, ${bytes(transferBytes)} between devices`,
    ),
    line(
      'rehearsal',
      `${plural(rehearsal.steps, 'step')}, ${time(rehearsal.secondsPerStep)} each, ${count(rehearsal.imagesPerSecond)} images/s; ` +
        `first loss ${rehearsal.firstLoss.toFixed(3)}`,
    ),
    validation === null
      ? line('', 'no validation images')
      : line('', `validation of ${plural(validation.images, 'image')} in ${time(validation.seconds)}`),
    line('', `checkpoint of ${bytes(checkpoint.bytes)} in ${time(checkpoint.seconds)}`),
    line('', `resumed step identical in ${rehearsal.tensorsCompared} tensors`),
    line(
      'forecast',
      `${time(forecast.seconds)} for ${plural(forecast.steps, 'step')} in ${plural(recipe.epochs, 'epoch')}, ` +
        `${bytes(forecast.diskBytes)} on the disk (${bytes(forecast.freeBytes)} free${enough})`,
    ),
  ].join('');
}

/** A warning with its remedy. */
export function warningText({ message, code, hint }: WarningEvent): string {
  return line('warning', `${message} (${code})`) + line('', hint);
}

/** An error with its 95 % interval: the uncertainty that so few images leave. */
export function intervalText(error: number, [low, high]: [number, number]): string {
  return `${percent(error)} (${(100 * low).toFixed(1)} to ${percent(high)})`;
}
