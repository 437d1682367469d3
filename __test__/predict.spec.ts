import { copyFileSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { type Comparison, type EvaluationReport, evaluate, loadModel } from '../lib/index.js';
import { colourRun } from './colours.js';
import { cli, inProcess, temporary } from './helpers.js';

interface Line {
  path: string;
  top?: { label: string; probability: number }[];
  similar?: { path: string; label: string; distance: number }[];
  error?: { code: string; message: string };
}

let trained: ReturnType<typeof folder> | undefined;
/** A folder with a run and pictures, for all tests: `a.png` is red, `more/` has a green one, a damaged one and a text. */
function pictures() {
  trained ??= folder();
  return trained;
}

async function folder(): Promise<{ cwd: string; run: string; photos: string }> {
  const { photos, run } = await colourRun();
  const cwd = temporary();
  mkdirSync(join(cwd, 'more', 'deep'), { recursive: true });
  copyFileSync(join(photos, 'val', 'red', '001.png'), join(cwd, 'a.png'));
  copyFileSync(join(photos, 'val', 'green', '001.png'), join(cwd, 'more', 'deep', 'b.png'));
  copyFileSync(join(photos, 'val', 'blue', '001.png'), join(cwd, 'more', 'damaged.png'));
  truncateSync(join(cwd, 'more', 'damaged.png'), 200);
  writeFileSync(join(cwd, 'more', 'notes.txt'), 'no picture');
  return { cwd, run, photos };
}

/** What `--json` printed. */
function lines(stdout: string): Line[] {
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
}

test.serial('a picture has its most probable classes on a line', async (t) => {
  const { cwd, run } = await pictures();
  const { code, stdout, stderr } = await inProcess(['predict', run, 'a.png'], cwd);
  t.is(stderr, '');
  t.is(code, 0);
  t.regex(stdout, /^a\.png {2}red \d+\.\d %( {2}(green|blue) \d+\.\d %){2}\n$/);
  const best = await inProcess(['predict', run, 'a.png', '--top', '1', '--crops', '10'], cwd);
  t.regex(best.stdout, /^a\.png {2}red \d+\.\d %\n$/);
});

test.serial(
  '--json has the path and the classes with their probabilities, and nothing else, as the API gives them',
  async (t) => {
    const { cwd, run } = await pictures();
    await using model = await loadModel(run);
    for (const crops of [1, 10] as const) {
      const { code, stdout } = await inProcess(['predict', run, 'a.png', '--json', '--crops', String(crops)], cwd);
      t.is(code, 0);
      t.deepEqual(lines(stdout), [{ path: 'a.png', top: await model.predict(join(cwd, 'a.png'), { crops }) }]);
    }
    const { stdout } = await inProcess(['predict', run, 'a.png', 'a.png', '--json', '--top', '2', '--batch', '1'], cwd);
    t.deepEqual(
      lines(stdout),
      Array(2).fill({ path: 'a.png', top: await model.predict(join(cwd, 'a.png'), { topK: 2 }) }),
    );
  },
);

test.serial(
  'folders are predicted with all below them; what cannot be used is named, the others are predicted, the exit code is 4',
  async (t) => {
    const { cwd, run } = await pictures();
    mkdirSync(join(cwd, 'none'), { recursive: true });
    const found = await inProcess(['predict', run, 'more', 'typo.png', 'none', 'a.png/', 'a.png', '--json'], cwd);
    t.is(found.code, 4);
    const printed = lines(found.stdout);
    t.deepEqual(
      printed.map(({ path, top, error }) => [path, top?.[0]?.label ?? error?.code]),
      [
        [join('more', 'damaged.png'), 'ERR_DATA'],
        [join('more', 'deep', 'b.png'), 'green'],
        ['typo.png', 'ERR_DATA'],
        ['a.png/', 'ERR_DATA'],
        ['a.png', 'red'],
      ],
    );
    for (const named of ['damaged.png: ', 'typo.png: cannot be read', 'none: there are no pictures', 'a.png/: ']) {
      t.true(found.stderr.includes(named), found.stderr);
    }
    const text = await inProcess(['predict', run, 'more'], cwd);
    t.is(text.code, 4);
    t.regex(text.stdout, /^more\/deep\/b\.png {2}green/);
  },
);

test.serial('names cannot give commands to the terminal or break a line', async (t) => {
  const { cwd, run } = await pictures();
  const name = 'x\u001b[31m\n.png';
  copyFileSync(join(cwd, 'a.png'), join(cwd, name));
  const text = await inProcess(['predict', run, name], cwd);
  t.regex(text.stdout, /^x\\x1b\[31m\\n\.png {2}red/);
  const json = await inProcess(['predict', run, name, '--json'], cwd);
  t.is(lines(json.stdout)[0]?.path, name);
  t.is(json.stdout.split('\n').length, 2);
});

test.serial('stdin is a picture', async (t) => {
  const { cwd, run } = await pictures();
  const { code, stdout, stderr } = await cli(['predict', run, '-', '--json'], cwd, {}, readFileSync(join(cwd, 'a.png')))
    .ended;
  t.is(stderr, '');
  t.is(code, 0);
  t.deepEqual(
    lines(stdout).map(({ path, top }) => [path, top?.[0]?.label]),
    [['-', 'red']],
  );
});

test.serial('stdin is a list of paths, each answered as it comes', async (t) => {
  const { cwd, run } = await pictures();
  const child = cli(['predict', run, '-', 'a.png'], cwd, {}, 'open');
  child.process.stdin?.write('a.png\n');
  await child.line((line) => line.startsWith('a.png  red'));
  child.process.stdin?.write('more/deep/b.png\r\n\ntypo');
  await child.line((line) => line.startsWith('more/deep/b.png  green'));
  child.process.stdin?.end('.png');
  const { code, stdout, stderr } = await child.ended;
  t.is(code, 4);
  t.deepEqual(
    stdout.split('\n').map((line) => line.split('  ')[0]),
    ['a.png', 'more/deep/b.png', 'a.png', ''],
  );
  t.regex(stderr, /typo\.png: cannot be read/);
});

test.serial('Ctrl-C ends it while it waits for a path', async (t) => {
  const { cwd, run } = await pictures();
  const child = cli(['predict', run, '-', '--json'], cwd, {}, 'open');
  child.process.stdin?.write('a.png\n');
  await child.line((line) => line.includes('a.png'));
  child.process.kill('SIGINT');
  t.is((await child.ended).code, 130);
});

test.serial('the nearest training images of a picture', async (t) => {
  const { cwd, run, photos } = await pictures();
  const own = join(photos, 'train', 'red', '005.png');
  const { code, stdout } = await inProcess(['similar', run, own, 'typo.png', '--json', '--top', '3'], cwd);
  t.is(code, 4);
  const [found, bad] = lines(stdout);
  t.is(found?.path, own);
  t.is(found?.similar?.length, 3);
  t.is(found?.similar?.[0]?.path, own);
  t.like(bad, { path: 'typo.png', error: { code: 'ERR_DATA' } });
  const text = await inProcess(['similar', run, 'a.png'], cwd);
  t.is(text.code, 0);
  t.is(text.stdout.split('\n').length, 1 + 6 + 1);
  t.regex(text.stdout, /^a\.png\n( {2}\d\S* +red {2}\S+train\/red\/\d+\.png\n)/);
});

test.serial('eval of several networks, and their comparison, for people and for programs', async (t) => {
  const { cwd, run, photos } = await pictures();
  const other = await colourRun({ data: photos, seed: 4, recipe: { batch: 16, epochs: 1, lr: 0.002 } });
  const both = await inProcess(['eval', run, other.run, '--json'], cwd);
  t.is(both.code, 0);
  const report = JSON.parse(both.stdout) as EvaluationReport;
  const { seconds: _, ...measured } = await evaluate({ model: [run, other.run] });
  t.like(report, measured);
  const text = await inProcess(['eval', run, other.run, '--crops', '10'], cwd);
  t.regex(text.stdout, /^ average +probabilities of 2 networks$/m);
  t.regex(text.stdout, /^ error +\d+\.\d % \(\d+\.\d to \d+\.\d %\) {3}top 5: 0\.0 % \(0\.0 to 9\.6 %\)$/m);

  const compared = await inProcess(['compare', run, other.run, '--json'], cwd);
  t.is(compared.code, 0);
  const { counts, changed, samples } = JSON.parse(compared.stdout) as Comparison;
  t.is(samples, 36);
  t.is(counts.both + counts.first + counts.second + counts.neither, 36);
  t.true(changed.length >= counts.first + counts.second);
  const shown = await inProcess(['compare', run, other.run], cwd);
  t.regex(shown.stdout, /^ test +p [=<] 0\.\d{4}: .*McNemar/m);
  t.regex(shown.stdout, new RegExp(`^ changed +${changed.length} of 36 images$`, 'm'));
  const itself = await inProcess(['compare', run, run], cwd);
  t.regex(itself.stdout, /^ test +p = 1\.0000: chance alone may well do this/m);
});

test.serial('what cannot be started says so', async (t) => {
  const { cwd, run } = await pictures();
  const refusals: [args: string[], code: number, message: RegExp][] = [
    [['predict', run], 2, /missing required argument 'pictures'/],
    [['predict', run, '-', '-'], 2, /stdin\) was given twice/],
    [['predict', run, 'a.png', '--crops', '5'], 2, /Expected 1 \(the centre\) or 10/],
    [['predict', run, 'a.png', '--top', '0'], 2, /at least 1/],
    [['predict', 'runs/typo', 'a.png'], 1, /runs\/typo: there is no run in it/],
    [['predict', run, 'a.png', '--devices', 'cuda:9'], 3, /ERR_DEVICE/],
    [['similar', run, 'a.png', '--layer', 'fc22'], 2, /no layer 'fc22'/],
    [['compare', run], 2, /missing required argument 'second'/],
    [
      ['eval', run, '--data', 'generated'],
      4,
      /missing: blue, green, red; new: disc, ring, square, triangle, cross, \.\.\. \(10\)/,
    ],
  ];
  for (const [args, code, message] of refusals) {
    const found = await inProcess(args, cwd);
    t.regex(found.stderr, message);
    t.is(found.code, code, args.join(' '));
    t.is(found.stdout, '');
  }
});
