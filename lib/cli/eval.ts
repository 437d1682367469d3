/** `alexnode eval`. */
import { type Command, Option } from 'commander';

import { type EvaluateCall, type EvaluationReport, evaluate } from '../index.js';
import { intervalText, line } from './banner.js';
import { EXIT, printJson } from './exit.js';
import { addCommonFlags, cropCount, whole } from './flags.js';
import { count, percent, plural, time } from './format.js';
import { Interrupt } from './interrupt.js';

interface Flags extends Omit<EvaluateCall, 'model' | 'signal'> {
  json?: boolean;
}

/** Adds the verb. */
export function addEval(program: Command, setCode: (code: number) => void): void {
  const command = program
    .command('eval')
    .description(
      'Measure trained networks on the validation images of a data set. Of several, the probabilities are averaged.',
    )
    .argument('<models...>', 'run folders (their best checkpoints) or checkpoint files')
    .addOption(new Option('--crops <n>', 'views per image: 1 or 10').argParser(cropCount));
  addCommonFlags(command)
    .option('--batch <n>', 'images at a time (default: as in training)', whole(1))
    .option('--limit <n>', 'at most n images', whole(1))
    .action(async (model: string[], { json = false, ...rest }: Flags) => {
      using interrupt = new Interrupt();
      const report = await evaluate({ ...rest, model, notices: true, signal: interrupt.signal });
      if (json) printJson({ type: 'evaluation', ...report });
      else process.stdout.write(evaluationText(report));
      setCode(EXIT.ok);
    });
}

function evaluationText(report: EvaluationReport): string {
  const { models, devices, data, split, samples, crops, loss, seconds } = report;
  const precisions = [...new Set(models.map(({ precision }) => precision))];
  const several = models.length > 1;
  const alone = ({ top1Error, top5Error }: { top1Error: number; top5Error: number }) =>
    several ? `; alone ${percent(top1Error)}, top 5: ${percent(top5Error)}` : '';
  return [
    ...models.map((model) =>
      line('model', `${model.checkpoint}: ${model.network} after ${plural(model.step, 'step')}${alone(model)}`),
    ),
    line('device', `${devices.join(' and ')}, ${precisions.join(' and ')}`),
    line('data', `${data}: ${plural(samples, 'image')} (${split}), ${plural(crops, 'view')} each`),
    several ? line('average', `probabilities of ${models.length} networks`) : '',
    line('loss', loss.toFixed(4)),
    line(
      'error',
      `${intervalText(report.top1Error, report.top1Interval)}   top 5: ${intervalText(report.top5Error, report.top5Interval)}`,
    ),
    line('time', `${time(seconds)}, ${count(samples / seconds)} images/s`),
  ].join('');
}
