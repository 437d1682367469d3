import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import test from 'ava';

import type { EndEvent, Manifest, StartEvent } from '../lib/index.js';
import { cli, eventsOf, newest, temporary, tensorBytes } from './helpers.js';

/** The demo network on few images: steps of some milliseconds. */
const QUICK = ['--limit', '96', '--batch', '32', '--epochs', '4', '--seed', '3'];

const usage: [name: string, args: string[], message: RegExp][] = [
  ['an unknown verb', ['trian'], /unknown command 'trian'[\s\S]*train/],
  ['an unknown flag', ['train', '--epoch', '3'], /unknown option '--epoch'[\s\S]*--epochs/],
  ['a wrong type', ['train', '--epochs', 'many'], /--epochs <n>' argument 'many' is invalid/],
  ['an unknown preset', ['train', '--preset', 'papr'], /Did you mean "paper"\?/],
  ['an unknown key', ['train', '--set', 'epoch=3'], /--set epoch: no such key[\s\S]*Did you mean "epochs"\?/],
  ['a value of the wrong type', ['train', '--set', 'lr=fast'], /--set lr: expected number, got "fast"/],
  ['a wrong duration', ['train', '--save-every', 'often'], /10m/],
  ['three devices', ['train', '--devices', 'cpu,cpu,cpu'], /ERR_USAGE/],
  ['out and resume', ['train', '--out', 'a', '--resume', 'b'], /--out/],
];

for (const [name, args, message] of usage) {
  test(`${name} is a usage error that says what is right`, async (t) => {
    const cwd = temporary();
    const { code, stderr, stdout } = await cli(args, cwd).ended;
    t.regex(stderr, message);
    t.is(code, 2);
    t.is(stdout, '');
    t.deepEqual(readdirSync(cwd), []);
  });
}

test('a folder that is not there is a data error', async (t) => {
  const { code, stderr } = await cli(['train', '--data', 'no-such-folder'], temporary()).ended;
  t.is(code, 4);
  t.regex(stderr, /no-such-folder/);
});

test('a device that is not there is a device error', async (t) => {
  const { code, stderr } = await cli(['train', '--devices', 'cuda:9', ...QUICK], temporary()).ended;
  t.is(code, 3);
  t.regex(stderr, /ERR_DEVICE/);
});

test('a resume of nothing is an error, never a fresh start', async (t) => {
  const cwd = temporary();
  const { code, stderr } = await cli(['train', '--resume', 'runs/typo'], cwd).ended;
  t.is(code, 1);
  t.regex(stderr, /runs\/typo: there is no run in it/);
  t.deepEqual(readdirSync(cwd), []);
});

test('a training prints events as NDJSON, then is measured', async (t) => {
  const cwd = temporary();
  const { code, stdout, stderr } = await cli(['train', ...QUICK, '--out', 'run', '--json'], cwd).ended;
  t.is(stderr, '');
  t.is(code, 0);
  const events = eventsOf(stdout);
  t.like(events[0], { type: 'start', network: 'demo', epochs: 4, batches: 3 });
  const end = events.at(-1) as EndEvent;
  t.like(end.result, { status: 'completed', steps: 12 });

  const evaluated = await cli(['eval', 'run', '--json', '--limit', '200'], cwd).ended;
  t.is(evaluated.code, 0);
  t.like(JSON.parse(evaluated.stdout), { type: 'evaluation', samples: 200, crops: 1 });
  const text = await cli(['eval', newest(join(cwd, 'run')), '--crops', '10', '--limit', '50'], cwd).ended;
  t.regex(text.stdout, /error +\d+\.\d % \+- \d+\.\d %/);
});

test('people get a banner, lines and what to do next; the run goes to runs/', async (t) => {
  const cwd = temporary();
  const { code, stdout } = await cli(['train', ...QUICK, '--steps', '3'], cwd).ended;
  t.is(code, 0);
  for (const subject of ['device', 'data', 'model', 'plan', 'memory', 'run', 'step', 'end', 'next']) {
    t.regex(stdout, new RegExp(`^ ${subject} `, 'm'));
  }
  t.regex(readdirSync(join(cwd, 'runs'))[0] ?? '', /^demo-\d{8}-\d{6}$/);
});

test('a dry run rehearses, forecasts and leaves nothing', async (t) => {
  const cwd = temporary();
  const { code, stdout, stderr } = await cli(['train', '--dry-run', '--batch', '32'], cwd).ended;
  t.is(stderr, '');
  t.is(code, 0);
  t.regex(stdout, /conv1 .*Conv2d/);
  t.regex(stdout, /resumed step identical in \d+ tensors/);
  t.regex(stdout, /forecast .* steps in \d+ epochs/);
  t.deepEqual(readdirSync(cwd), []);
});

test('the first Ctrl-C finishes the step and saves; --resume alone ends with the bits of the unstopped run', async (t) => {
  const cwd = temporary();
  const straight = cli(['train', ...QUICK, '--out', 'straight', '--json'], cwd);
  const child = cli(['train', ...QUICK, '--out', 'run', '--json'], cwd);
  await child.line((line) => line.includes('"step"'));
  child.process.kill('SIGINT');
  const { code, stdout } = await child.ended;
  const end = eventsOf(stdout).at(-1) as EndEvent;
  t.is(code, 130);
  t.is(end.result.status, 'interrupted');
  const rest = await cli(['train', '--resume', 'run', '--json'], cwd).ended;
  t.is(rest.code, 0);
  t.like((eventsOf(rest.stdout)[0] as StartEvent).cursor, { step: end.result.steps });
  t.is((await straight.ended).code, 0);
  t.deepEqual(tensorBytes(newest(join(cwd, 'run'))), tensorBytes(newest(join(cwd, 'straight'))));
});

test('the second Ctrl-C ends it at once, the checkpoint before it intact', async (t) => {
  const cwd = temporary();
  // One step of this batch takes seconds: the second signal comes inside the step that the first one lets finish.
  const slow = ['--limit', '4000', '--batch', '4000', '--epochs', '9', '--steps', '9', '--threads', '1'];
  const first = await cli(['train', ...slow, '--out', 'run', '--steps', '1', '--json'], cwd).ended;
  t.is(first.code, 0);
  const child = cli(['train', '--resume', 'run', '--json'], cwd);
  await child.line((line) => line.includes('"start"'));
  await wait(200);
  child.process.kill('SIGINT');
  await wait(700);
  const sent = performance.now();
  child.process.kill('SIGINT');
  const { code, stdout } = await child.ended;
  t.is(code, 130);
  t.true(performance.now() - sent < 1_500);
  t.false(stdout.includes('"end"'));
  const rest = await cli(['train', '--resume', 'run', '--set', 'epochs=1', '--json'], cwd).ended;
  t.is(rest.code, 0, rest.stderr);
});

test('SIGHUP saves and goes on', async (t) => {
  const cwd = temporary();
  const child = cli(['train', ...QUICK, '--epochs', '40', '--out', 'run', '--json'], cwd);
  await child.line((line) => line.includes('"step"'));
  child.process.kill('SIGHUP');
  await child.line((line) => line.includes('"why":"request"'));
  child.process.kill('SIGTERM');
  const { code } = await child.ended;
  t.is(code, 130);
  const manifest = JSON.parse(readFileSync(join(cwd, 'run', 'run.json'), 'utf8')) as Manifest;
  t.is(manifest.result?.status, 'interrupted');
  t.false(existsSync(join(cwd, 'run', 'lock')));
});
