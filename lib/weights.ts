/** What a path means where weights are wanted: a run folder, one of its checkpoints, exported weights, or a file of another program. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { type CheckpointMetadata, Checkpoints, isOurs, parseMetadata, readHead } from './checkpoint.js';
import { VERSION } from './environment.js';
import { AlexnodeError } from './errors.js';
import { preset } from './models/index.js';
import { readManifest } from './run.js';
import { notBegun } from './standing.js';
import { isTorchvision, type Layout, torchvisionClasses, torchvisionLayout } from './torchvision.js';

/** @internal What stands for the source of weights that tell nothing of their images. */
export const UNKNOWN_SOURCE = '(not known)';

/** Weights with all that is known about them. */
export interface Weights {
  path: string;
  metadata: CheckpointMetadata;
  /** SHA-256, hexadecimal: of its tensors in files of ours, otherwise of the file. */
  sha256: string;
  /** How the file lays them out, where it is none of ours. */
  layout?: Layout;
  /** Whether the names of the classes are known. */
  named: boolean;
  /** Shapes of its tensors under our names. */
  shapes: Record<string, number[]>;
}

/** Reads the header of what `path` means. ERR_CHECKPOINT where there is nothing, or it is no file that is known. Whether the tensors are intact is seen when they are loaded. */
export async function openWeights(path: string): Promise<Weights> {
  const file = await pathOf(path);
  const { strings, shapes } = readHead(file);
  if (isOurs(strings)) {
    const metadata = parseMetadata(file, strings.alexnode ?? '');
    return { path: file, metadata, sha256: strings.sha256 ?? '', named: true, shapes };
  }
  if (!isTorchvision(shapes)) {
    throw new AlexnodeError('ERR_CHECKPOINT', `${file}: its tensors are those of no network that is known`, {
      hint: "Known are this program's checkpoints and exports, and torchvision's alexnet (features.0.weight to classifier.6.bias).",
    });
  }
  const { classes, named } = classNames(strings, torchvisionClasses(shapes));
  const { network, recipe } = preset('torchvision', { classes: classes.length });
  const layout = torchvisionLayout(network);
  return {
    path: file,
    metadata: foreignMetadata({ preset: 'torchvision', network, recipe }, classes),
    sha256: await sha256Of(file),
    layout,
    named,
    shapes: Object.fromEntries(Object.entries(layout.names).map(([ours, theirs]) => [ours, shapes[theirs] ?? []])),
  };
}

/** @internal The file as the addon takes it. */
export function fileOf({ path, layout }: Weights): { path: string; layout?: Layout } {
  return layout === undefined ? { path } : { path, layout };
}

/** The file that a path means. A run folder is only read. */
async function pathOf(path: string): Promise<string> {
  if (existsSync(path) && statSync(path).isFile()) return resolve(path);
  await readManifest(path);
  const checkpoints = new Checkpoints(resolve(path, 'checkpoints'));
  if (existsSync(checkpoints.best)) return checkpoints.best;
  return (await checkpoints.newest(() => undefined, { setAside: false })).path;
}

/** The names that a file gives its classes in the string `classes`, a JSON list; otherwise numbers. */
function classNames(strings: Record<string, string>, count: number): { classes: string[]; named: boolean } {
  try {
    const names: unknown = JSON.parse(strings.classes ?? '');
    if (Array.isArray(names) && names.length === count && names.every((name) => typeof name === 'string'))
      return { classes: names, named: true };
  } catch {
    // Not told, or told otherwise.
  }
  return { classes: Array.from({ length: count }, (_, index) => `class ${index}`), named: false };
}

/** What a checkpoint of ours would say: nothing is known of how it was trained. */
function foreignMetadata(
  { preset: name, network, recipe }: Pick<CheckpointMetadata['config'], 'preset' | 'network' | 'recipe'>,
  classes: string[],
): CheckpointMetadata {
  const { imageSize } = network.input;
  return {
    format: 'alexnode-checkpoint',
    version: 1,
    alexnode: VERSION,
    config: {
      preset: name,
      network,
      recipe,
      data: { source: UNKNOWN_SOURCE, imageSize, seed: 1, valFraction: 0.1, balance: 'none', onBadImage: 'error' },
      devices: ['cpu'],
      threads: null,
      seed: 1,
      precision: 'fp32',
      saveEvery: null,
      init: null,
      tensorboard: false,
    },
    classes,
    data: { fingerprint: '', train: 0, val: 0 },
    cursor: { epoch: 0, batch: 0, step: 0 },
    schedule: {},
    progress: notBegun(),
  };
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
