import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import test from 'ava';

import { barLine } from '../lib/cli/reporter.js';
import { cli, ROOT, temporary } from './helpers.js';

/** Loss, error, images per second, share of the time in which the step waited for images, time to the end. */
const NUMBERS = [
  /loss \d+\.\d{3}/,
  /error \d+\.\d %/,
  /[\d,]+ images\/s/,
  /waiting \d+ %/,
  /eta (\d+(\.\d)?(h|m|s|ms) ?)+/,
];
/** One epoch of 40 steps on 1,280 images, then a validation. */
const SHORT = ['train', '--epochs', '1', '--steps', '40', '--limit', '1280', '--out', 'run'];

/** The five numbers in their order, with `gap` between them. */
function allNumbers(gap: string): string {
  return NUMBERS.map(({ source }) => source).join(gap);
}

/** `npm run train` on a pseudo-terminal of so many columns: everything that it wrote there. */
function onTerminal(columns: number, args: string[]): { status: number | null; stdout: string } {
  const words = [
    process.execPath,
    '--import',
    import.meta.resolve('tsx'),
    join(ROOT, 'lib', 'scripts', 'run.ts'),
    ...args,
  ];
  const command = words.map((word) => `'${word}'`).join(' ');
  return spawnSync('script', ['-qec', `stty cols ${columns} rows 24; ${command}`, '/dev/null'], {
    cwd: temporary(),
    encoding: 'utf8',
  });
}

/** What stood on the line of the bar, one after the other. */
function frames(screen: string): string[] {
  return screen
    .split('\u001b[1G')
    .map((text) => stripVTControlCharacters(text.split('\u001b[0K')[0] ?? ''))
    .filter((text) => text.includes('loss') && !text.includes('\n'));
}

const found = spawnSync('script', ['--version'], { encoding: 'utf8' });
const withTerminal = (found.stdout ?? '').includes('util-linux') ? test.serial : test.serial.skip;
if (withTerminal !== test.serial) console.warn('skipped: the bar on a terminal needs `script` of util-linux');

for (const [columns, shape] of [
  [80, `^ 1/1 [█░]{4,24} ${allNumbers(' ')}$`],
  [132, `^ epoch 1/1 \\d+ %  [█░]{24}  ${allNumbers('  ')}$`],
] as const) {
  withTerminal(`on a terminal of ${columns} columns there is a bar with all numbers, and it goes away`, (t) => {
    const { status, stdout } = onTerminal(columns, SHORT);
    t.is(status, 0, stdout);
    const bars = frames(stdout);
    t.true(bars.length >= 2, stdout);
    for (const text of bars) {
      t.regex(text, new RegExp(shape));
      t.true(text.length < columns, text);
    }
    // The bar has the room that the numbers leave: its share of it grows, to a cell.
    const shares = bars.map((text) => {
      const [full, empty] = [text.split('█').length - 1, text.split('░').length - 1];
      return { share: full / (full + empty), cell: 1 / (full + empty) };
    });
    for (const [index, { share, cell }] of shares.entries()) {
      t.true(share + cell >= (shares[index - 1]?.share ?? 0), bars.slice(index - 1, index + 1).join('\n'));
    }
    t.false(bars.at(-1)?.includes('░'), 'the epoch ends with a full bar');
    // The line breaks of the terminal are off only while the bar is there.
    t.true(stdout.lastIndexOf('\u001b[?7l') < stdout.lastIndexOf('\u001b[?7h'));
    const after = stdout.split('\u001b[2K').at(-1) ?? '';
    t.regex(after, /^ epoch +1\/1 .*\r\n/, 'the line of the epoch takes its place');
    t.notRegex(stdout, /^ step /m);
  });
}

test('the bar gives way to the numbers', (t) => {
  const shown = {
    epoch: '17/18',
    numbers: ['loss 12.345', 'error 87.5 %', '1,734 images/s', 'waiting 100 %', 'eta 1h 29m'],
  };
  for (let columns = 75; columns < 160; columns += 1) {
    const text = barLine(columns, 0.5, shown);
    t.true(text.length < columns, `${columns}: ${text}`);
    for (const number of shown.numbers) t.true(text.includes(number), text);
  }
  t.regex(barLine(80, 0.5, shown), /^ 17\/18 (█+)(░+) loss/);
  t.notRegex(barLine(75, 0.5, shown), /[█░]/);
  t.is(barLine(40, 0.5, shown), barLine(75, 0.5, shown));
  t.true(barLine(120, 0.999, shown).startsWith(` epoch 17/18 99 %  ${'█'.repeat(24)}  loss`));
});

test.serial('without a terminal there is a line, with all numbers and no control characters', async (t) => {
  const { code, stdout } = await cli(SHORT, temporary()).ended;
  t.is(code, 0);
  const lines = stdout.split('\n').filter((text) => text.startsWith(' step '));
  t.is(lines.length, 1);
  t.regex(lines[0] ?? '', new RegExp(`^ step +\\d+  epoch 1/1 \\d+ %  ${allNumbers('  ')}$`));
  t.is(stdout, stripVTControlCharacters(stdout));
  t.notRegex(stdout, /[\r█░]/);
});

test.serial('and then one every ten seconds', async (t) => {
  const child = cli(['train', '--threads', '1', '--out', 'run'], temporary());
  const isStep = (text: string) => text.startsWith(' step ');
  await child.line(isStep);
  const start = performance.now();
  let seen = 0;
  await child.line((text) => {
    seen += isStep(text) ? 1 : 0;
    return seen === 2;
  });
  const seconds = (performance.now() - start) / 1000;
  child.process.kill('SIGINT');
  const { code, stdout } = await child.ended;
  t.is(code, 130);
  t.true(seconds > 9.9, `${seconds}`);
  const [first = 0, second = 0] = stdout
    .split('\n')
    .filter(isStep)
    .map((text) => Number(/[\d,]+/.exec(text)?.[0].replace(',', '')));
  t.true(second > first + 20, `${first} ${second}: the steps between them were not told`);
});
