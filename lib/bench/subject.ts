/** What a bench measures: a preset's network on data that is there at once, in a trainer of its own. */
import { type Dataset, openDataset } from '../data.js';
import { usage } from '../errors.js';
import { thousandClasses } from '../gpu-check/thousand.js';
import type { LayerSpec, NetworkSpec } from '../layers.js';
import { type Preset, preset } from '../models/index.js';
import { suggestion } from '../nearest.js';
import type { Precision } from '../precision.js';
import { rowsOf } from '../rows.js';
import { Trainer } from '../trainer.js';

/** What to measure, and on what. */
export interface SubjectOptions {
  preset: string;
  batch?: number;
  devices: string[];
  precision: Precision;
  threads?: number;
  seed: number;
  notices: boolean;
}

/** A trainer with its data. */
export interface Subject extends AsyncDisposable {
  preset: string;
  network: NetworkSpec;
  recipe: Preset['recipe'];
  data: Dataset;
  trainer: Trainer;
}

/** The networks of 2012 have a thousand classes and train on 1,281,167 images; those for CIFAR-10 on 50,000, the small ones on the generated set. */
export function workOf(name: string): { classes: number; images: number } {
  if (name.startsWith('cifar')) return { classes: 10, images: 50_000 };
  if (name === 'demo' || name === 'small') return { classes: 10, images: 8_000 };
  return { classes: 1000, images: 1_281_167 };
}

/** Plans the preset's network and fills its devices. ERR_USAGE for a name that is none. */
export async function openSubject(options: SubjectOptions): Promise<Subject> {
  const { preset: name, devices, precision, threads, seed, notices } = options;
  const { classes } = workOf(name);
  const { network, recipe: own } = preset(name, { classes });
  const recipe = { ...own, batch: options.batch ?? own.batch };
  const { imageSize } = network.input;
  const opened =
    classes === 1000
      ? await thousandClasses(imageSize)
      : { data: await openDataset({ source: 'generated', imageSize, seed, limit: recipe.batch }) };
  const free = async () => {
    if (Symbol.asyncDispose in opened) await opened[Symbol.asyncDispose]();
    else opened.data.close();
  };
  try {
    const limits = threads === undefined ? {} : { threads };
    const trainer = await Trainer.create({
      network,
      recipe,
      data: opened.data,
      devices,
      precision,
      seed,
      notices,
      ...limits,
    });
    const close = async () => {
      await trainer.dispose();
      await free();
    };
    return {
      preset: name,
      network: trainer.config.network,
      recipe,
      data: opened.data,
      trainer,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await free();
    throw error;
  }
}

/** The rows that `names` ask for, each by any of its layers; all without any. ERR_USAGE names the nearest where there is none of that name. */
export function chosenRows(network: NetworkSpec, names: readonly string[] | undefined): (name: string) => boolean {
  if (names === undefined) return () => true;
  const rows = [...rowsOf(network)];
  const chosen = names.map((name) => {
    if (name === 'input' || name === 'loss') return name;
    const row = rows.find(([, layers]) => layers.some((layer: LayerSpec) => layer.name === name));
    if (row === undefined) {
      const known = network.layers.map((layer) => layer.name);
      throw usage(`--layers ${name}: ${network.name} has no layer of that name`, suggestion(name, known));
    }
    return row[0];
  });
  return (name) => chosen.includes(name);
}
