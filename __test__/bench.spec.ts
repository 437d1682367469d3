import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { turned } from '../lib/bench/contest.js';
import { Peer } from '../lib/bench/peers.js';
import { partsOf } from '../lib/bench/steps.js';
import {
  type AlexnodeError,
  type BenchReport,
  compareWithBaseline,
  type LatencyReport,
  type LoaderReport,
  preset,
  STEP_PARTS,
} from '../lib/index.js';
import { counterFiles } from '../lib/scripts/counters.js';
import { Child, type Ended, ROOT, temporary } from './helpers.js';

const MAIN = join(ROOT, 'lib', 'cli', 'main.ts');

/** The verb in a folder of its own, on something small. */
async function run(args: string[]): Promise<Ended & { folder: string }> {
  const folder = temporary();
  return { ...(await new Child(MAIN, ['bench', ...args], folder).ended), folder };
}
const SMALL = ['--preset', 'demo', '--batch', '2', '--rounds', '1', '--threads', '2'];

const json = <T>(path: string): T => JSON.parse(readFileSync(path, 'utf8')) as T;

for (const devices of ['cpu', 'cpu,cpu']) {
  test(`a bench on ${devices} tells of every layer, and the parts of a step are the step`, async (t) => {
    const { code, stdout, stderr, folder } = await run([
      ...[...SMALL, '--devices', devices],
      ...['--report', 'report.json', '--plot', 'roofline.svg'],
    ]);
    t.is(code, 0, stdout + stderr);
    const report = json<BenchReport>(join(folder, 'report.json'));

    const { step, inference, layers, shapes, ceilings } = report;
    const sum = STEP_PARTS.reduce((total, part) => total + step.parts[part], 0);
    t.true(Math.abs(sum - step.ms) <= 1e-9 * step.ms, `${sum} and ${step.ms}`);
    t.true(Object.values(step.parts).every((ms) => ms >= 0));
    t.deepEqual(Object.keys(step.parts), [...STEP_PARTS]);
    for (const part of ['upload', 'input', 'forward', 'loss', 'dataGradient', 'weightGradient', 'update'] as const) {
      t.true(step.parts[part] > 0, part);
    }
    t.is(step.parts.transfer > 0, devices === 'cpu,cpu');
    t.true(Math.abs((step.imagesPerSecond * step.ms) / 2000 - 1) < 1e-9);
    t.true(inference.imagesPerSecond > 0 && inference.spread.least <= inference.ms);

    t.deepEqual(
      shapes.map(({ name }) => name),
      ['conv1', 'lrn1', 'conv2', 'lrn2', 'conv3', 'conv4', 'conv5', 'pool5', 'fc6', 'fc7', 'fc8'],
    );
    const conv2 = (pass: string) => layers.find((layer) => layer.name === 'conv2' && layer.pass === pass);
    const gflop = shapes.find(({ name }) => name === 'conv2')?.gflop ?? 0;
    for (const pass of ['forward', 'dataGradient', 'weightGradient']) {
      const { ms = 0, gflops = 0, roofline = 0 } = conv2(pass) ?? {};
      t.true(Math.abs(((gflops ?? 0) * ms) / 1000 / gflop - 1) < 1e-9, pass);
      t.true((roofline ?? 0) > 0, pass);
    }
    t.is(conv2('update')?.gflops, null);
    t.true(layers.every(({ ms, gbs, spread }) => ms > 0 && gbs > 0 && spread.least <= ms && ms <= spread.most));
    t.is(layers.find(({ name, pass }) => name === 'conv1' && pass === 'dataGradient')?.gflops ?? null, null);
    t.true(ceilings.copy.least > 0 && (ceilings.gemm?.least ?? 0) > 0);

    t.like(report, {
      type: 'bench',
      preset: 'demo',
      batch: 2,
      ratio: null,
      peers: {},
      of2012: { least: 222, most: 267 },
    });
    t.regex(stdout, /222 to 267 images\/s/);
    t.regex(stdout, /18 epochs of 8,000 images in /);
    const svg = readFileSync(join(folder, 'roofline.svg'), 'utf8');
    t.regex(svg, /^<svg/);
    t.regex(svg, />conv2 forward</);
  });
}

test('only the layers that were asked for are in the table; a slip is told the nearest', async (t) => {
  const { code, stdout } = await run([...SMALL, '--layers', 'conv1,relu2', '--json']);
  t.is(code, 0);
  const { layers, shapes } = JSON.parse(stdout) as BenchReport;
  t.deepEqual([...new Set(layers.map(({ name }) => name))], ['conv1', 'conv2']);
  t.is(shapes.length, 2);

  const slip = await run([...SMALL, '--layers', 'conf1']);
  t.is(slip.code, 2);
  t.regex(slip.stderr, /no layer of that name[\s\S]*conv1/);
});

test('what got slower than its noise is named, and the exit code is 1', async (t) => {
  const first = await run([...SMALL, '--report']);
  t.is(first.code, 0, first.stderr);
  const path = /report in (\S+\.json)/.exec(first.stdout)?.[1] ?? '';
  t.regex(path, /^bench\/results\/\d{4}-\d\d-\d\d-.+-demo\.json$/);
  const report = json<BenchReport>(join(first.folder, path));

  // An earlier report by a machine that needed next to no time for one layer, and for ever for the rest.
  const scaled = (spread: BenchReport['step']['spread'], factor: number) => ({
    median: spread.median * factor,
    least: spread.least * factor,
    most: spread.most * factor,
  });
  const before = structuredClone(report);
  for (const layer of before.layers) {
    layer.spread = scaled(layer.spread, layer.name === 'conv2' && layer.pass === 'forward' ? 1e-9 : 1e9);
  }
  before.step.spread = scaled(before.step.spread, 1e9);
  before.inference.spread = scaled(before.inference.spread, 1e9);
  const file = join(first.folder, 'before.json');
  writeFileSync(file, JSON.stringify(before));
  const second = await run([...SMALL, '--baseline', file]);
  t.is(second.code, 1);
  t.regex(second.stdout, / SLOWER +conv2 forward: /);
  t.is(second.stdout.match(/SLOWER/g)?.length, 1);

  t.deepEqual((await compareWithBaseline(join(first.folder, path), report)).slower, []);
  writeFileSync(file, JSON.stringify({ ...before, batch: 3 }));
  await t.throwsAsync(compareWithBaseline(file, report), { code: 'ERR_USAGE', message: /batch 3 there, 2 here/ });
  writeFileSync(file, '{}');
  await t.throwsAsync(compareWithBaseline(file, report), { code: 'ERR_DATA' });
  await t.throwsAsync(compareWithBaseline(`${file}.none`, report), { code: 'ERR_DATA' });
});

test('a peer that is not installed is named with what installs it', async (t) => {
  const empty = temporary();
  mkdirSync(join(empty, 'none'));
  const { code, stdout } = await run([
    ...[...SMALL, '--peer', 'torch,tfjs', '--python', join(empty, 'python'), '--modules', empty],
    ...['--report', 'report.json'],
  ]);
  t.is(code, 0);
  t.regex(stdout, /torch \(plain\): .*cannot be started[\s\S]*pip install torch==/);
  t.regex(stdout, /tfjs \(plain\): .*has no TensorFlow.js[\s\S]*npm install --prefix tfjsenv/);
});

/** A program in the place of a peer's: it answers each line of its stdin with the next of `lines`, and ends. */
function program(lines: object[], last = ''): string {
  const path = join(temporary(), 'peer');
  const answers = lines.map((line) => `read line && echo '${JSON.stringify(line)}'`);
  writeFileSync(path, ['#!/bin/sh', ...answers, last].join('\n'));
  chmodSync(path, 0o755);
  return path;
}

test('a peer answers a line with a line; where it fails or ends, its own words are told', async (t) => {
  const { network } = preset('demo', { classes: 10 });
  const job = { network, batch: 2, threads: 1, momentum: 0.9, weights: 'none' };
  const open = (python: string) => Peer.open('torch', 'tuned', job, { python });
  const ready = { type: 'ready', version: '1.2', details: 'of a test' };
  const samples = { type: 'samples', seconds: [0.5, 0.25], peakBytes: 7 };

  const peer = await open(
    program([ready, samples, { type: 'layers' }, { type: 'error', message: 'no room' }], 'echo ends >&2'),
  );
  t.like(peer, { name: 'torch', setting: 'tuned', version: '1.2', details: 'of a test', batch: 2 });
  t.like(await peer.train(2), { seconds: [0.5, 0.25], peakBytes: 7 });
  t.is(await peer.layers(1), null);
  await t.throwsAsync(peer.gemm(), { code: 'ERR_DEVICE', message: 'torch (tuned): no room' });
  await t.throwsAsync(peer.infer(1), { code: 'ERR_DEVICE', message: /torch \(tuned\) ended without an answer/ });
  await peer.close();
  await peer.close();

  const missing = await t.throwsAsync(open(program([{ type: 'missing', message: 'no PyTorch' }])), {
    code: 'ERR_DEVICE',
  });
  t.is(missing?.message, 'torch (tuned): no PyTorch');
  t.regex((missing as AlexnodeError).hint ?? '', /pip install torch==/);
  await t.throwsAsync(open(program([], 'exit 3')), { message: /ended without an answer/ });
});

test('reading of images and predictions are measured', async (t) => {
  const empty = temporary();
  const loader = await run(['loader', '--json', '--python', join(empty, 'python'), '--modules', empty]);
  t.is(loader.code, 0, loader.stderr);
  const { rows, missing } = JSON.parse(loader.stdout) as LoaderReport;
  t.deepEqual(
    rows.map(({ program, stage }) => `${program} ${stage}`),
    ['decode', 'prepare', 'augment', 'folder', 'jpegs', 'pixels'].map((stage) => `alexnode ${stage}`),
  );
  t.deepEqual(
    rows.map(({ bytesPerSecond = 0, imagesPerSecond }) => bytesPerSecond / imagesPerSecond),
    [0, 0, 0, 0, 0, 256 * 256 * 3],
  );
  t.true(rows.every(({ imagesPerSecond }) => imagesPerSecond > 0));
  t.deepEqual(
    missing.map(({ peer, remedy }) => [peer, /install/.test(remedy ?? '')]),
    [
      ['Pillow', true],
      ['sharp', true],
    ],
  );

  const latency = await run(['latency', '--preset', 'demo', '--json']);
  t.is(latency.code, 0, latency.stderr);
  const found = JSON.parse(latency.stdout) as LatencyReport;
  t.true(found.rows.length === 2 && found.rows.every(({ ms, spread }) => ms > 0 && spread.least <= ms));
});

test('wrong flags are usage errors', async (t) => {
  for (const args of [['stop'], ['--peer', 'caffe'], ['--preset', 'papier'], ['--rounds', '0']]) {
    t.is((await run(args)).code, 2, args.join(' '));
  }
});

test('the counters of all presets are those of the committed file', (t) => {
  for (const { path, content } of counterFiles()) {
    t.true(existsSync(path));
    t.is(
      readFileSync(path, 'utf8'),
      content,
      `${path}: \`npm run bench -- counters\` writes it anew; say why it changed`,
    );
  }
});

test('the parts of a step are those of the device that is busy the longest', (t) => {
  const interval = (slot: number, pass: 'forward' | 'transfer') => ({
    layer: 'conv1',
    pass,
    name: 'x',
    slot,
    bytes: 1,
  });
  const intervals = [interval(0, 'forward'), interval(1, 'forward'), interval(1, 'transfer')];
  const parts = partsOf(intervals, { seconds: 1, upload: 0.25, intervals: [0.25, 0.125, 0.5] });
  t.like(parts, { upload: 250, forward: 125, transfer: 500, other: 125 });
});

test('everybody begins once, and the order turns', (t) => {
  t.deepEqual(
    [0, 1, 2, 3].map((index) => turned(['a', 'b', 'c'], index).join('')),
    ['abc', 'acb', 'cab', 'cba'],
  );
});
