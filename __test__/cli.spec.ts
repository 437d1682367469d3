import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import test from 'ava';

import { type EndEvent, type Manifest, readCheckpoint, type StartEvent, train } from '../lib/index.js';
import { cli, drain, eventsOf, inProcess, newest, slowNetwork, temporary, tensorBytes } from './helpers.js';

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

/** When a process has used `seconds` more of processor time. */
async function computing(pid: number, seconds: number): Promise<void> {
  const used = () => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    // User and system time in ticks of 10 ms.
    return (Number(fields[11]) + Number(fields[12])) / 100;
  };
  const start = used();
  while (used() < start + seconds) await wait(20);
}

const linux = process.platform === 'linux' ? test.serial : test.serial.skip;

for (const [name, args, message] of usage) {
  test.serial(`${name} is a usage error that says what is right`, async (t) => {
    const { code, stderr, stdout, files } = await inProcess(args);
    t.regex(stderr, message);
    t.is(code, 2);
    t.is(stdout, '');
    t.deepEqual(files, []);
  });
}

test.serial('a folder that is not there is a data error', async (t) => {
  const { code, stderr, files } = await inProcess(['train', '--data', 'no-such-folder']);
  t.is(code, 4);
  t.regex(stderr, /no-such-folder/);
  t.deepEqual(files, []);
});

test.serial('a device that is not there is a device error, on stdout too with --json', async (t) => {
  const { code, stderr, stdout } = await inProcess(['train', '--devices', 'cuda:9', '--json', ...QUICK]);
  t.is(code, 3);
  t.regex(stderr, /ERR_DEVICE/);
  t.like(JSON.parse(stdout), { type: 'error', code: 'ERR_DEVICE' });
});

test.serial('a resume of nothing is an error, never a fresh start', async (t) => {
  const { code, stderr, files } = await inProcess(['train', '--resume', 'runs/typo']);
  t.is(code, 1);
  t.regex(stderr, /runs\/typo: there is no run in it/);
  t.deepEqual(files, []);
});

test.serial('help and version are no errors', async (t) => {
  const help = await inProcess(['train', '--help']);
  t.is(help.code, 0);
  for (const flag of [
    '--preset',
    '--data',
    '--devices',
    '--resume',
    '--set',
    '--dry-run',
    '--save-every',
    '--no-augment',
  ]) {
    t.true(help.stdout.includes(flag), flag);
  }
  t.is((await inProcess(['--version'])).code, 0);
});

test.serial('people get a banner, lines and what to do next; the run goes to runs/', async (t) => {
  const { code, stdout, files } = await inProcess(['train', ...QUICK, '--steps', '3']);
  t.is(code, 0);
  for (const subject of ['device', 'data', 'model', 'plan', 'memory', 'run', 'step', 'end', 'next']) {
    t.regex(stdout, new RegExp(`^ ${subject} `, 'm'));
  }
  t.deepEqual(files, ['runs']);
  t.regex(stdout, /next +alexnode train --resume runs\/demo-\d{8}-\d{6} /);
});

test.serial('a dry run rehearses, forecasts and leaves nothing', async (t) => {
  const { code, stdout, stderr, files } = await inProcess(['train', '--dry-run', '--batch', '32']);
  t.is(stderr, '');
  t.is(code, 0);
  t.regex(stdout, /conv1 .*Conv2d/);
  t.regex(stdout, /resumed step identical in \d+ tensors/);
  t.regex(stdout, /forecast .* steps in \d+ epochs/);
  t.deepEqual(files, []);
});

test.serial('a training prints events as NDJSON, then is measured', async (t) => {
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
  t.regex(text.stdout, /error +\d+\.\d % \(\d+\.\d to \d+\.\d %\)/);
});

test.serial(
  'the first Ctrl-C finishes the step and saves; --resume alone ends with the bits of the unstopped run',
  async (t) => {
    const cwd = temporary();
    const straight = cli(['train', ...QUICK, '--epochs', '20', '--out', 'straight', '--json'], cwd);
    const child = cli(['train', ...QUICK, '--epochs', '20', '--out', 'run', '--json'], cwd);
    await child.line((line) => line.includes('"type":"step"'));
    child.process.kill('SIGINT');
    // npm passes on what the terminal has sent already: the same Ctrl-C once more.
    await wait(20);
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
  },
);

linux('the second Ctrl-C ends it at once, the checkpoint before it intact', async (t) => {
  const cwd = temporary();
  const out = join(cwd, 'run');
  {
    // A step of this run takes seconds on one thread: the second signal comes inside the step that the first lets finish.
    const network = (classes: number) => slowNetwork(classes);
    await using run = await train({
      network,
      recipe: { batch: 400, epochs: 9 },
      limit: 400,
      threads: 1,
      steps: 0,
      out,
    });
    await drain(run);
  }
  const child = cli(['train', '--resume', 'run', '--json'], cwd);
  await child.line((line) => line.includes('"type":"start"'));
  await computing(child.process.pid ?? 0, 0.5);
  child.process.kill('SIGINT');
  await wait(700);
  const sent = performance.now();
  child.process.kill('SIGINT');
  const { code, stdout } = await child.ended;
  t.is(code, 130);
  t.true(performance.now() - sent < 1_500);
  t.false(stdout.includes('"type":"step"'));
  t.false(stdout.includes('"type":"end"'));
  t.is((await readCheckpoint(newest(out))).cursor.step, 0);
  await using rest = await train({ resume: out, steps: 0 });
  await drain(rest);
  t.is(rest.result?.steps, 0);
});

test.serial('SIGHUP saves and goes on', async (t) => {
  const cwd = temporary();
  const child = cli(['train', ...QUICK, '--epochs', '40', '--out', 'run', '--json'], cwd);
  await child.line((line) => line.includes('"type":"step"'));
  child.process.kill('SIGHUP');
  await child.line((line) => line.includes('"why":"request"'));
  child.process.kill('SIGTERM');
  const { code } = await child.ended;
  t.is(code, 130);
  const manifest = JSON.parse(readFileSync(join(cwd, 'run', 'run.json'), 'utf8')) as Manifest;
  t.is(manifest.result?.status, 'interrupted');
  t.false(existsSync(join(cwd, 'run', 'lock')));
});
