/** `alexnode similar`. */
import type { Command } from 'commander';

import { type SimilarCall, similar } from '../index.js';
import { printJson } from './exit.js';
import { addCommonFlags, whole } from './flags.js';
import { printable } from './format.js';
import { Interrupt } from './interrupt.js';
import { Pictures } from './pictures.js';

interface Flags extends Omit<SimilarCall, 'model' | 'images' | 'topK' | 'signal'> {
  top?: number;
  json?: boolean;
}

/** Adds the verb. */
export function addSimilar(program: Command, setCode: (code: number) => void): void {
  const command = program
    .command('similar')
    .description(
      'Find the training images that a network takes for most alike, by the distance of its last hidden layer.',
    )
    .argument('<model>', 'a run folder (its best checkpoint) or a checkpoint file')
    .argument('<pictures...>', 'files; folders, with all below them; - for stdin: a picture, or paths, one a line')
    .option('--top <k>', 'the k nearest images (default: 6)', whole(1))
    .option('--layer <name>', 'another layer');
  addCommonFlags(command)
    .option('--batch <n>', 'pictures at a time (default: 32)', whole(1))
    .action(async (model: string, pictures: string[], flags: Flags) => setCode(await run(model, pictures, flags)));
}

async function run(model: string, args: string[], { top, json = false, ...rest }: Flags): Promise<number> {
  using images = new Pictures(args);
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  for (const found of await similar({ ...rest, model, images, topK: top ?? 6, notices: true, signal })) {
    const path = images.name(found.image);
    if (found.error !== undefined) {
      const { code, message } = found.error;
      images.fail(found.error);
      if (json) printJson({ path, error: { code, message } });
    } else if (json) {
      printJson({ path, similar: found.similar });
    } else {
      const lines = found.similar.map(
        (near) => `  ${near.distance.toPrecision(4).padEnd(9)} ${printable(near.label)}  ${printable(near.path)}\n`,
      );
      process.stdout.write(`${printable(path)}\n${lines.join('')}`);
    }
  }
  return images.exitCode;
}
