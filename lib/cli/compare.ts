/** `alexnode compare`. */
import { type Command, Option } from 'commander';

import { type ChangedImage, type CompareCall, type Comparison, compare } from '../index.js';
import { intervalText, line } from './banner.js';
import { EXIT, printJson } from './exit.js';
import { addCommonFlags, cropCount, whole } from './flags.js';
import { count, percent, plural, printable } from './format.js';
import { Interrupt } from './interrupt.js';

interface Flags extends Omit<CompareCall, 'models' | 'signal'> {
  json?: boolean;
}

/** Changed images that people are shown. */
const SHOWN = 20;

/** Adds the verb. */
export function addCompare(program: Command, setCode: (code: number) => void): void {
  const command = program
    .command('compare')
    .description('Compare two networks on the same validation images: which is better, and whether that may be chance.')
    .argument('<first>', 'a run folder (its best checkpoint) or a checkpoint file')
    .argument('<second>', 'another one')
    .addOption(new Option('--crops <n>', 'views per image: 1 or 10').argParser(cropCount));
  addCommonFlags(command)
    .option('--batch <n>', 'images at a time (default: as in training)', whole(1))
    .option('--limit <n>', 'at most n images', whole(1))
    .action(async (first: string, second: string, { json = false, ...rest }: Flags) => {
      using interrupt = new Interrupt();
      const found = await compare({ ...rest, models: [first, second], notices: true, signal: interrupt.signal });
      if (json) printJson({ type: 'comparison', ...found });
      else process.stdout.write(comparisonText(found));
      setCode(EXIT.ok);
    });
}

/** What the p-value says, for people. */
export function verdict({ counts: { first, second }, pValue }: Pick<Comparison, 'counts' | 'pValue'>): string {
  const p = pValue < 0.0001 ? 'p < 0.0001' : `p = ${pValue.toFixed(4)}`;
  if (pValue >= 0.05) return `${p}: chance alone may well do this; neither is shown to be better`;
  return `${p}: the ${first > second ? 'first' : 'second'} is better`;
}

function changeText({ path, label, guesses, right }: ChangedImage): string {
  const [first, second] = guesses.map((guess, index) => {
    const mark = right[index] === true ? ' (right)' : '';
    return `${printable(guess.label)} ${percent(guess.probability)}${mark}`;
  });
  return `  ${printable(path)}: ${printable(label)}; ${first} -> ${second}\n`;
}

function comparisonText({ models, data, split, crops, samples, counts, pValue, changed }: Comparison): string {
  const { both, first, second, neither } = counts;
  const [a, b] = models.map(({ top1Error, top1Interval, top5Error, top5Interval }) => {
    return `${intervalText(top1Error, top1Interval)}   top 5: ${intervalText(top5Error, top5Interval)}`;
  });
  // Images that one of the two gets right tell more than a wrong guess for another one.
  const telling = [...changed].sort((x, y) => Number(y.right.includes(true)) - Number(x.right.includes(true)));
  const rest = changed.length - SHOWN;
  return [
    ...models.map((model, index) =>
      line(
        index === 0 ? 'first' : 'second',
        `${model.checkpoint}: ${model.network} after ${plural(model.step, 'step')}`,
      ),
    ),
    line('data', `${data}: ${plural(samples, 'image')} (${split}), ${plural(crops, 'view')} each`),
    ...models.flatMap(({ sameData }, index) =>
      sameData
        ? []
        : line(
            'warning',
            `the ${index === 0 ? 'first' : 'second'} was trained on other images: it may know some of these`,
          ),
    ),
    line('error', `first ${a ?? ''}`),
    line('', `second ${b ?? ''}`),
    line(
      'right',
      `both ${count(both)}, only the first ${count(first)}, only the second ${count(second)}, neither ${count(neither)}`,
    ),
    line('test', `${verdict({ counts, pValue })} (McNemar, exact)`),
    line('changed', `${count(changed.length)} of ${plural(samples, 'image')}`),
    ...telling.slice(0, SHOWN).map(changeText),
    rest > 0 ? `  and ${count(rest)} more: --json lists all\n` : '',
  ].join('');
}
