/** What was measured as people read it. */
import type {
  BaselineOutcome,
  BenchLayer,
  BenchPeer,
  BenchRate,
  BenchReport,
  LatencyReport,
  LoaderReport,
  MissingPeer,
  Pass,
} from '../index.js';
import { STEP_PARTS } from '../index.js';
import { line } from './banner.js';
import { bytes, count, percent, perSecond, shortTime, table, time } from './format.js';

/** The passes that have columns. */
const COLUMNS: [pass: Pass, head: string][] = [
  ['forward', 'forward'],
  ['dataGradient', 'data gradient'],
  ['weightGradient', 'weight gradient'],
  ['update', 'update'],
];

/** All of it. */
export function benchText(report: BenchReport, path: string | undefined): string {
  const { devices, environment, precision, step, inference, of2012, forecast, counters, missing } = report;
  const described = devices.map(({ name, description }) => `${name} (${description})`).join(' and ');
  const git = environment.git;
  const commit = git === undefined ? '' : `; commit ${git.commit.slice(0, 12)}${git.changed ? ' with changes' : ''}`;
  const memory = counters.memoryBytes.map((one) => bytes(one)).join(', ');
  return [
    line('device', `${described}, ${precision}${commit}`),
    line('ceilings', ceilingsText(report)),
    `\n${table(headOf(report), rowsOf(report), 1)}\n\n`,
    line('step', `${rateText(step)}, ${step.gflops.toPrecision(3)} GFLOP/s`),
    line('', partsText(report)),
    line('inference', rateText(inference)),
    line(
      'memory',
      `${memory} planned, ${bytes(counters.peakBytes)} held at most; ${count(counters.launches)} launches a step`,
    ),
    line('2012', `${of2012.least} to ${of2012.most} images/s, the paper's network of 1000 classes on two GTX 580`),
    line(
      'forecast',
      `${forecast.epochs} epochs of ${count(forecast.images)} images in ${time(forecast.seconds)}, without validation`,
    ),
    ...Object.entries(report.peers).map(([name, peer]) => peerText(name, peer, report)),
    ...missing.map(missingText),
    line('others', othersText(report)),
    line('bench', `${time(report.seconds)}${path === undefined ? '' : `; report in ${path}`}`),
  ].join('');
}

function ceilingsText({ ceilings }: BenchReport): string {
  const { copy, multiply, gemm } = ceilings;
  const registers = Object.entries(multiply).map(
    ([name, rate]) => `${name} on registers ${perSecond(rate.most, 'FLOP')}`,
  );
  const product = gemm === null ? [] : [`product of matrices ${perSecond(gemm.most, 'FLOP')}`];
  return [`copy ${perSecond(copy.most, 'B')}`, ...registers, ...product].join(', ');
}

function headOf({ peers }: BenchReport): string[] {
  const names = Object.keys(peers);
  return ['layer', 'output', 'GFLOP', 'memory', ...COLUMNS.flatMap(([, head]) => [head, 'rate', 'share', ...names])];
}

/** A row per layer; the input and the loss have a forward column only. */
function rowsOf({ layers, shapes, peers }: BenchReport): string[][] {
  const names = [...new Set(layers.map(({ name }) => name))];
  return names.map((name) => {
    const shape = shapes.find((one) => one.name === name);
    const paper = [
      shape?.shape.join(' x ') ?? '',
      shape === undefined || shape.gflop === 0 ? '' : shape.gflop.toFixed(2),
      shape === undefined ? '' : bytes(shape.outputBytes + shape.parameterBytes),
    ];
    const cells = COLUMNS.flatMap(([pass]) => {
      const own = layers.find(
        (one) => one.name === name && (one.pass === pass || (pass === 'forward' && alone(one.pass))),
      );
      const theirs = Object.keys(peers).map((peer) => {
        const other = own?.peers[peer];
        return other === undefined || own === undefined ? '' : `${(other.ms / own.ms).toFixed(2)} x`;
      });
      return own === undefined ? ['', '', '', ...theirs] : [...ownCells(own), ...theirs];
    });
    return [name, ...paper, ...cells];
  });
}

const alone = (pass: Pass) => pass === 'input' || pass === 'loss';

function ownCells({ ms, gflops, gbs, roofline }: BenchLayer): [string, string, string] {
  const rate = gflops === null ? perSecond(gbs * 1e9, 'B') : perSecond(gflops * 1e9, 'FLOP');
  return [shortTime(ms / 1e3), rate, roofline === null ? '' : `${(roofline * 100).toFixed(0)} %`];
}

function rateText({ ms, imagesPerSecond, spread, samples }: BenchRate): string {
  const [least, most] = [spread.least, spread.most].map((one) => shortTime(one / 1e3));
  return `${imagesPerSecond.toFixed(1)} images/s, ${shortTime(ms / 1e3)} (${least} to ${most}, ${count(samples)} samples)`;
}

function partsText({ step }: BenchReport): string {
  const shown = STEP_PARTS.filter((part) => step.parts[part] > 0);
  return shown.map((part) => `${part} ${shortTime(step.parts[part] / 1e3)}`).join(' + ');
}

function peerText(name: string, peer: BenchPeer, { batch }: BenchReport): string {
  const { version, settings, ratio, gemm } = peer;
  const other = peer.batch === batch ? '' : `, batch ${peer.batch}`;
  const product = gemm === null ? '' : `; product of matrices ${perSecond(gemm, 'FLOP')}`;
  const [step, inference] = [ratio.spread.step, ratio.spread.inference].map(
    ({ least, most }) => `${least.toFixed(2)} to ${most.toFixed(2)}`,
  );
  return [
    line(name, `${version}${other}${product}`),
    ...settings.map((one) =>
      line(
        '',
        `${one.setting}: step ${rateText(one.step)}; inference ${one.inference.imagesPerSecond.toFixed(1)} images/s; ${bytes(one.peakBytes)}; ` +
          `outputs ${one.difference.toExponential(1)} apart; ${one.details}`,
      ),
    ),
    line(
      'ratio',
      `step ${ratio.step.toFixed(2)} x (${step}), inference ${ratio.inference.toFixed(2)} x (${inference}) of ${name} at its fastest`,
    ),
  ].join('');
}

function othersText({ others, clocks }: BenchReport): string {
  const share =
    others === null
      ? 'not known here'
      : `${percent(others.median)} of the processors' time (${percent(others.least)} to ${percent(others.most)})`;
  const clock = clocks.megahertz === null ? '' : `; clock ${count(clocks.megahertz.median)} MHz`;
  return `other programs took ${share}${clock}`;
}

function missingText({ peer, why, remedy }: MissingPeer): string {
  return line('missing', `${peer}: ${why}`) + (remedy === null ? '' : line('', remedy));
}

/** What got slower. */
export function baselineText({ date, commit, compared, slower }: BaselineOutcome): string {
  const before = `${date.slice(0, 10)}${commit === null ? '' : `, commit ${commit.slice(0, 12)}`}`;
  if (slower.length === 0)
    return line('baseline', `none of ${count(compared)} times is slower than its noise since ${before}`);
  return slower
    .map(({ what, before: then, now, factor }) => {
      const times = `${shortTime(then.median / 1e3)} then, ${shortTime(now.median / 1e3)} now`;
      return line('SLOWER', `${what}: ${factor.toFixed(2)} x, ${times} (since ${before})`);
    })
    .join('');
}

/** Images per second and core, each stage beside the others' . */
export function loaderText({ rows, missing, images, environment }: LoaderReport): string {
  const cells = rows.map(({ program, stage, imagesPerSecond, spread, ratio, bytesPerSecond }) => [
    program,
    stage,
    count(imagesPerSecond),
    `${count(spread.least)} to ${count(spread.most)}`,
    ratio === undefined
      ? bytesPerSecond === undefined
        ? ''
        : `${bytes(bytesPerSecond)}/s`
      : `${ratio.median.toFixed(2)} (${ratio.least.toFixed(2)} to ${ratio.most.toFixed(2)})`,
  ]);
  return [
    line('machine', environment.cpu),
    line('images', `${count(images.count)} of ${bytes(images.meanBytes)} on average, in memory, from ${images.source}`),
    `\n${table(['program', 'stage', 'images/s per core', 'spread', 'ratio'], cells)}\n\n`,
    ...missing.map(missingText),
  ].join('');
}

/** How long one prediction takes. */
export function latencyText({ preset, devices, rows, environment }: LatencyReport): string {
  const cells = rows.map(({ what, ms, spread, samples }) => [
    what,
    shortTime(ms / 1e3),
    `${shortTime(spread.least / 1e3)} to ${shortTime(spread.most / 1e3)}`,
    count(samples),
  ]);
  return [
    line('machine', `${environment.cpu}; ${devices.join(',')}`),
    line('network', preset),
    `\n${table(['one image', 'time', 'spread', 'samples'], cells, 1)}\n\n`,
  ].join('');
}
