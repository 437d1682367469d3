import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { judge as judgeCurves } from '../lib/gpu-check/curves.js';
import { testsOf } from '../lib/gpu-check/kernels.js';
import { judge as judgeSlots } from '../lib/gpu-check/slots.js';
import { layerTimes } from '../lib/gpu-check/timing.js';
import {
  type Ceilings,
  type CurvesFound,
  checkedTrainings,
  describeNetwork,
  doctor,
  type GpuCheckReport,
  listDevices,
  type PartTiming,
  type Pass,
  type Placement,
  preset,
} from '../lib/index.js';
import { Child, type Ended, ROOT, temporary } from './helpers.js';

/** Emulated devices need a C++ compiler, which only a developer's machine may lack. */
const { emulator } = await doctor();
if (emulator.compiler === undefined && process.env.CI !== undefined) throw new Error(emulator.problem?.message);
const emulated = emulator.compiler === undefined ? test.skip : test;

/** What Rust's test harness writes. */
const GOOD = `
running 2 tests
test pointwise::relu_and_tanh ... ok
test norms::across_channels - should panic ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
`;
const BAD = `
running 3 tests
test pointwise::relu_and_tanh ... ok
test norms::across_channels ... FAILED
test sgd::three_steps ... FAILED

failures:

---- norms::across_channels stdout ----

thread 'norms::across_channels' (4711) panicked at crates/nn/tests/kernels/norms.rs:17:5:
LocalResponseNorm: 2 of 48 elements differ (rtol 0.00002)
  [3] got 1, want 2
note: run with \`RUST_BACKTRACE=1\` environment variable to display a backtrace

---- sgd::three_steps stdout ----

thread 'sgd::three_steps' (4712) panicked at crates/nn/tests/kernels/sgd.rs:9:5:
out of bounds


failures:
    norms::across_channels
    sgd::three_steps

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s
`;

/** A program that takes the place of the tests: it writes `output`, and what it was told, and ends with `end`. */
function program(output: string, end = 'exit 0'): string {
  const path = join(temporary(), 'kernels');
  writeFileSync(`${path}.out`, output);
  writeFileSync(path, `#!/bin/sh\ncat "$0.out"\necho "$ALEXNODE_TEST_DEVICES: $*" > "$0.told"\n${end}\n`);
  chmodSync(path, 0o755);
  return path;
}

interface Checked extends Ended {
  report: GpuCheckReport | undefined;
}

/** The command in a folder of its own. */
async function check(args: string[]): Promise<Checked> {
  const folder = temporary();
  const file = join(folder, 'reports', 'report.json');
  const main = join(ROOT, 'lib', 'cli', 'gpu-check-main.ts');
  const ended = await new Child(main, [...args, '--report', file], folder).ended;
  return { ...ended, report: existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined };
}

emulated('the whole check runs on an emulated device, says so, and reports', async (t) => {
  const kernels = program(GOOD);
  const { code, stdout, stderr, report } = await check(['--devices', 'emulated:0', '--quick', '--kernels', kernels]);
  t.is(code, 0, stdout + stderr);
  t.regex(stdout, /^EMULATED: emulated:0 is this machine's processor.*NOTHING about a GPU/);
  t.regex(stdout, /222 to 267 images\/s/);
  t.regex(stdout, / verdict +all is well/);
  for (const part of ['kernels', 'curves', 'slots', 'timing']) t.regex(stderr, new RegExp(`${part}: good`));
  if (report === undefined) return t.fail('no report');

  t.like(report, { kind: 'emulated', quick: true, ok: true, failures: [], driver: null });
  t.regex(report.devices[0]?.description ?? '', /emulated sm_80/);
  t.deepEqual(report.precisions, ['fp32', 'tf32', 'bf16']);
  const { kernels: tested, curves, slots, timing } = report.parts;
  t.like(tested?.found, { passed: 2, failed: 0, devices: ['emulated:0'] });
  t.is(readFileSync(`${kernels}.told`, 'utf8'), 'emulated:0: pointwise sgd\n');

  t.deepEqual(
    curves?.found?.curves.map(({ precision, losses }) => [precision, losses.length]),
    [
      ['fp32', 4],
      ['tf32', 4],
      ['bf16', 4],
    ],
  );
  t.true(curves?.found?.curves.every(({ losses }) => losses.every((loss) => Math.abs(loss - Math.log(10)) < 0.5)));

  const placement = slots?.found?.placements[0];
  t.deepEqual([placement?.devices, placement?.against], [['emulated:0'], ['emulated:0', 'emulated:0']]);
  t.is(placement?.rows.length, 2);
  t.true((placement?.transfers.bytesPerSecond ?? 0) > 0);

  for (const { precision, ceilings, timings, layers } of timing?.found?.precisions ?? []) {
    t.true(ceilings.copy.least > 0 && (ceilings.multiply.fp32?.least ?? 0) > 0, precision);
    t.true(timings.step.median > 0 && timings.imagesPerSecond.median > 0, precision);
    const names = layers.map(({ layer }) => layer);
    t.deepEqual(
      names.filter((name) => /^(input|conv|fc|loss)/.test(name)),
      ['input', 'conv1', 'conv2', 'conv3', 'fc4', 'fc5', 'loss'],
    );
    const conv2 = layers.find(({ layer }) => layer === 'conv2')?.passes;
    for (const pass of ['forward', 'dataGradient', 'weightGradient', 'update'] as Pass[]) {
      t.true((conv2?.[pass]?.seconds.median ?? 0) > 0, `${precision} ${pass}`);
    }
  }
  t.is(timing?.found?.precisions.length, 3);
});

test('a kernel that differs is named, and the exit code is 1', async (t) => {
  const args = ['--devices', 'emulated:0', '--only', 'kernels', '--kernels'];
  const { code, stdout, report } = await check([...args, program(BAD, 'exit 101')]);
  t.is(code, 1);
  t.regex(stdout, / kernels +1 of 3 tests pass/);
  t.regex(stdout, / WRONG +kernels: norms::across_channels: LocalResponseNorm: 2 of 48 elements differ/);
  t.regex(stdout, / verdict +2 things are WRONG/);
  t.like(report, { ok: false, parts: { kernels: { ok: false, found: { passed: 1, failed: 2 } } } });
  t.is(report?.parts.curves, undefined);

  const json = await check(['--json', ...args, program(GOOD)]);
  t.is(json.code, 0);
  t.like(JSON.parse(json.stdout), { type: 'gpu-check', kind: 'emulated', ok: true });
});

const broken: [name: string, args: string[], message: RegExp][] = [
  ['crashes', ['--kernels', program(GOOD, 'kill -SEGV $$')], /ended with SIGSEGV/],
  ['fails without a word', ['--kernels', program('', 'exit 3')], /ended with exit code 3: it wrote nothing/],
  ['tests nothing', ['--kernels', program('running 0 tests\n')], /ran no tests/],
  ['is missing', ['--kernels', join(temporary(), 'none')], /there is no such program.*--kernels/],
];
for (const [name, args, message] of broken) {
  test(`a test program that ${name} is a failure`, async (t) => {
    const { code, report } = await check(['--devices', 'cpu', '--only', 'kernels', ...args]);
    t.is(code, 1);
    t.is(report?.failures.length, 1);
    t.regex(report?.failures[0] ?? '', message);
  });
}

test('without a GPU the remedy is named', async (t) => {
  if (listDevices().some(({ name, usable }) => name.startsWith('cuda') && usable)) return t.pass('there is one');
  const { code, stderr, stdout } = await check([]);
  t.is(code, 3);
  t.is(stdout, '');
  t.regex(stderr, /there is no GPU to check: .*\(ERR_DEVICE\)\n.*--devices emulated:0 --quick/);
});

test('wrong flags are usage errors', async (t) => {
  for (const args of [
    ['--only', 'kernel'],
    ['--precision', 'fp16'],
    ['--devices', 'cpu,emulated:0'],
    ['--devices', 'gpu'],
  ]) {
    const { code, stderr } = await check(args);
    t.is(code, 2, stderr);
  }
});

test('the output of the test harness is understood', (t) => {
  t.deepEqual(testsOf(GOOD), [
    { name: 'pointwise::relu_and_tanh', ok: true },
    { name: 'norms::across_channels', ok: true },
  ]);
  const [, norm, sgd] = testsOf(BAD);
  t.is(norm?.message, 'LocalResponseNorm: 2 of 48 elements differ (rtol 0.00002)\n  [3] got 1, want 2');
  t.is(sgd?.message, 'out of bounds');
});

test('curves that part, or do not learn, or diverge are failures', (t) => {
  const falling = (end: number) => Array.from({ length: 60 }, (_, step) => 2.3 + ((end - 2.3) * step) / 59);
  const curve = (precision: 'fp32' | 'tf32' | 'bf16', losses: number[]) => {
    const final = losses.slice(-30).reduce((sum, loss) => sum + loss, 0) / 30;
    return { precision, losses, final, distance: null, seconds: 1 };
  };
  const judged = (...curves: CurvesFound['curves']) =>
    judgeCurves({ network: 'x', batch: 1, seed: 1, window: 30, tolerance: 0.02, curves }, true);
  t.deepEqual(judged(curve('fp32', falling(1)), curve('bf16', falling(1.02))), []);
  t.regex(
    judged(curve('fp32', falling(1)), curve('bf16', falling(1.1)))[0] ?? '',
    /^bf16: the last 30 losses average .*more than 0.02 apart/,
  );
  t.regex(judged(curve('fp32', falling(2.2)))[0] ?? '', /^fp32: the loss fell from 2.27\d to 2.22\d only/);
  t.regex(
    judged(curve('fp32', falling(1)), curve('tf32', [...falling(1), Number.NaN]))[0] ?? '',
    /^tf32: a loss is not a finite/,
  );
});

test('slots that part, or move other bytes than planned, are failures', (t) => {
  const row = { step: 3, one: 1, two: 1, loss: 0, momentum: 1e-6, tensor: 'fc4.bias' };
  const placement: Placement = {
    devices: ['cuda:0'],
    against: ['cuda:0', 'cuda:1'],
    link: null,
    rows: [row],
    worst: { loss: 0, momentum: 1e-6 },
    planned: { transfers: 4, bytes: 400 },
    transfers: { count: 4, bytes: 400, seconds: 1, bytesPerSecond: 400 },
  };
  t.deepEqual(judgeSlots(placement), []);
  t.deepEqual(judgeSlots({ ...placement, rows: [row, { ...row, momentum: 2e-4 }] }), [
    'cuda:0 and cuda:0,cuda:1 part at step 3: the loss by 0.0e+0, the momentum of fc4.bias by 2.0e-4',
  ]);
  t.is(judgeSlots({ ...placement, transfers: { ...placement.transfers, bytes: 404 } }).length, 1);
});

test('a row of the table is a layer with the elementwise ones behind it, beside what the ceilings allow', (t) => {
  const { network } = preset('demo', { classes: 10 });
  const spread = (median: number) => ({ median, least: median, most: median });
  const part = (layer: string | null, pass: Pass, seconds: number, flops: number, bytes: number): PartTiming => ({
    layer,
    pass,
    seconds: spread(seconds),
    flops,
    bytes,
    operations: [],
  });
  const ceilings: Ceilings = {
    slot: { device: 'cuda:0', description: '' },
    copy: spread(1000),
    multiply: { fp32: spread(500) },
    gemm: null,
  };
  const parts = [
    part(null, 'input', 1, 0, 500),
    part('conv1', 'forward', 4, 1000, 100),
    part('relu1', 'forward', 1, 0, 500),
    part('conv1', 'weightGradient', 8, 2000, 100),
    part('fc8', 'loss', 1, 0, 10),
  ];
  const rows = layerTimes(network, parts, ceilings, 'fp32');
  t.deepEqual(
    rows.map(({ layer }) => layer),
    ['input', 'conv1', 'loss'],
  );
  t.like(rows[0]?.passes.input, { floor: 0.5, share: 0.5 });
  // 1000 / 500 seconds of multiplying, and 500 / 1000 of copying.
  t.like(rows[1]?.passes.forward, { seconds: { median: 5 }, flops: 1000, bytes: 600, floor: 2.5, share: 0.5 });
  t.like(rows[1]?.passes.weightGradient, { floor: 4, share: 0.5 });
  // Without a ceiling of its precision a product of matrices has no share.
  const [, conv1] = layerTimes(network, parts, ceilings, 'bf16');
  t.like(conv1?.passes.forward, { floor: null, share: null });
});

test('what a whole check trains can be compiled beforehand', (t) => {
  for (const { network, batch, devices } of checkedTrainings()) {
    for (const count of devices) {
      const names = Array.from({ length: count }, () => 'emulated:0');
      t.true(describeNetwork(network, { batch, devices: names, precision: 'bf16' }).counters.launches > 0);
    }
  }
});
