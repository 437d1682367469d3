/** `alexnode predict`. */
import { type Command, Option } from 'commander';

import { loadModel, type ModelOptions } from '../index.js';
import { printJson } from './exit.js';
import { addDeviceFlags, cropCount, whole } from './flags.js';
import { percent, printable } from './format.js';
import { Interrupt } from './interrupt.js';
import { Pictures } from './pictures.js';

interface Flags extends ModelOptions {
  top?: number;
  crops?: 1 | 10;
  json?: boolean;
}

/** Adds the verb. */
export function addPredict(program: Command, setCode: (code: number) => void): void {
  const command = program
    .command('predict')
    .description('Tell what is on pictures. Those that cannot be decoded are named, and the exit code is 4 in the end.')
    .argument('<model>', 'a run folder (its best checkpoint) or a checkpoint file')
    .argument('<pictures...>', 'files; folders, with all below them; - for stdin: a picture, or paths, one a line')
    .option('--top <k>', 'the k most probable classes (default: 5)', whole(1))
    .addOption(new Option('--crops <n>', 'views per picture: 1 or 10').argParser(cropCount));
  addDeviceFlags(command)
    .option('--batch <n>', 'pictures at a time (default: 32)', whole(1))
    .action(async (model: string, pictures: string[], flags: Flags) => setCode(await run(model, pictures, flags)));
}

async function run(path: string, args: string[], { top, crops, json = false, ...rest }: Flags): Promise<number> {
  using pictures = new Pictures(args);
  using interrupt = new Interrupt();
  await using model = await loadModel(path, { ...rest, notices: true });
  const options = { signal: interrupt.signal, topK: top ?? 5, crops: crops ?? 1 };
  for await (const prediction of model.predictAll(pictures, options)) {
    const name = pictures.name(prediction.image);
    if (prediction.error !== undefined) {
      const { code, message } = prediction.error;
      pictures.fail(prediction.error);
      if (json) printJson({ path: name, error: { code, message } });
    } else if (json) {
      printJson({ path: name, top: prediction.top });
    } else {
      const guesses = prediction.top.map(({ label, probability }) => `${printable(label)} ${percent(probability)}`);
      process.stdout.write(`${printable(name)}  ${guesses.join('  ')}\n`);
    }
  }
  return pictures.exitCode;
}
