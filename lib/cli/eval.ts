/** `alexnode eval`. */
import { type Command, InvalidArgumentError, Option } from 'commander';

import { type EvaluateCall, evaluate, type Precision } from '../index.js';
import { intervalText, line } from './banner.js';
import { EXIT, printJson } from './exit.js';
import { addCommonFlags, whole } from './flags.js';
import { count, time } from './format.js';

interface Flags {
  data?: string;
  devices?: string[];
  threads?: number;
  precision?: Precision;
  batch?: number;
  crops?: 1 | 10;
  limit?: number;
  onBadImage?: 'error' | 'skip';
  json?: boolean;
}

function cropCount(text: string): 1 | 10 {
  if (text !== '1' && text !== '10')
    throw new InvalidArgumentError('Expected 1 (the centre) or 10 (the views of the paper).');
  return text === '1' ? 1 : 10;
}

/** Adds the verb. */
export function addEval(program: Command, setCode: (code: number) => void): void {
  const command = program
    .command('eval')
    .description('Measure a trained network on the validation images of a data set.')
    .argument('<model>', 'a run folder (its best checkpoint) or a checkpoint file')
    .addOption(new Option('--crops <n>', 'views per image: 1 or 10').argParser(cropCount));
  addCommonFlags(command)
    .option('--batch <n>', 'images at a time (default: as in training)', whole(1))
    .option('--limit <n>', 'at most n images', whole(1))
    .action(async (model: string, flags: Flags) => setCode(await runEval(model, flags)));
}

async function runEval(model: string, flags: Flags): Promise<number> {
  const { json = false, ...rest } = flags;
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    const report = await evaluate({
      ...(rest as Omit<EvaluateCall, 'model'>),
      model,
      notices: true,
      signal: stop.signal,
    });
    if (json) {
      printJson({ type: 'evaluation', ...report });
      return EXIT.ok;
    }
    const { checkpoint, network, step, devices, precision, data, split, samples, crops, loss, seconds } = report;
    process.stdout.write(
      line('model', `${checkpoint}: ${network} after ${count(step)} steps`) +
        line('device', `${devices.join(' and ')}, ${precision}`) +
        line('data', `${data}: ${count(samples)} images (${split}), ${crops} view${crops === 1 ? '' : 's'} each`) +
        line('loss', loss.toFixed(4)) +
        line(
          'error',
          `${intervalText(report.top1Error, report.top1Interval)}   top 5: ${intervalText(report.top5Error, report.top5Interval)}`,
        ) +
        line('time', `${time(seconds)}, ${count(samples / seconds)} images/s`),
    );
    return EXIT.ok;
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}
