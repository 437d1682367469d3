/** The report of a check as people read it. */
import {
  type Ceilings,
  type GpuCheckReport,
  type LayerTime,
  type Pass,
  type PrecisionTiming,
  RATE_OF_2012,
  type Spread,
} from '../index.js';
import { line } from './banner.js';
import { bytes, count, percent, perSecond, shortTime, table, time } from './format.js';

/** All of it, with what matters most first and again last. */
export function reportText(report: GpuCheckReport, path: string | undefined): string {
  const loud = warning(report);
  const { parts, failures, ok } = report;
  const text = [loud, deviceText(report)];
  if (parts.kernels !== undefined) text.push(kernelsText(parts.kernels));
  if (parts.curves !== undefined) text.push(curvesText(parts.curves));
  if (parts.slots !== undefined) text.push(slotsText(parts.slots));
  if (parts.timing !== undefined) text.push(timingText(parts.timing));
  text.push('\n');
  const shown = failures.slice(0, 20);
  for (const failure of shown) text.push(line('WRONG', failure));
  if (failures.length > shown.length) text.push(line('', `and ${count(failures.length - shown.length)} more`));
  const verdict = ok ? 'all is well' : `${count(failures.length)} things are WRONG`;
  text.push(line('verdict', `${verdict}, ${time(report.seconds)}${path === undefined ? '' : `; report in ${path}`}`));
  text.push(loud);
  return text.join('');
}

/** What was not a GPU says so. */
function warning({ kind, devices, quick }: GpuCheckReport): string {
  const names = devices.map(({ name }) => name).join(',');
  const what = {
    cuda: '',
    emulated: `EMULATED: ${names} is this machine's processor. This says that the check works, and NOTHING about a GPU.\n`,
    cpu: `NO GPU: ${names} is this machine's processor. This says that the check works, and NOTHING about a GPU.\n`,
  }[kind];
  return `${what}${quick ? 'QUICK: a few steps and a few kernels only.\n' : ''}`;
}

function deviceText({ devices, driver, gpus, environment }: GpuCheckReport): string {
  const described = devices.map(({ name, description }) => `${name} (${description})`).join(' and ');
  const git = environment.git;
  const commit = git === undefined ? '' : `; commit ${git.commit.slice(0, 12)}${git.changed ? ' with changes' : ''}`;
  const cuda = driver === null ? '' : `; CUDA ${driver}`;
  return line('device', `${described}${cuda}${commit}`) + (gpus.after ?? []).map((gpu) => line('', gpu)).join('');
}

type Parts = Required<GpuCheckReport['parts']>;

function kernelsText({ found, seconds }: Parts['kernels']): string {
  if (found === null) return line('kernels', 'nothing was tested');
  const { passed, failed, filter } = found;
  const all = filter.length === 0 ? '' : ` (only ${filter.join(', ')})`;
  return line(
    'kernels',
    `${count(passed)} of ${count(passed + failed)} tests pass against f64${all}, ${time(seconds)}`,
  );
}

function curvesText({ found, seconds }: Parts['curves']): string {
  if (found === null || found.curves.length === 0) return line('curves', 'nothing was trained');
  const steps = found.curves[0]?.losses.length ?? 0;
  const curves = found.curves.map(({ precision, final, distance }) => {
    const apart = distance === null ? '' : ` (${percent(distance)} apart)`;
    return `${precision} ${final.toFixed(4)}${apart}`;
  });
  return line('curves', `loss after ${count(steps)} steps: ${curves.join(', ')}; ${time(seconds)}`);
}

function slotsText({ found, seconds }: Parts['slots']): string {
  if (found === null || found.placements.length === 0) return line('slots', 'nothing was trained');
  const lines = found.placements.map(({ devices, against, rows, worst, transfers, link }, index) => {
    const apart = Math.max(worst.loss, worst.momentum).toExponential(1);
    const crossing = `${transfers.count} transfers of ${bytes(transfers.bytes)}, ${bytes(transfers.bytesPerSecond)}/s`;
    const way = link === null ? '' : `; ${link}`;
    const took = index === 0 ? `; ${time(seconds)}` : '';
    const subject = index === 0 ? 'slots' : '';
    const names = `${devices.join(',')} and ${against.join(',')}`;
    return line(subject, `${names}: ${apart} apart after ${count(rows.length)} steps; ${crossing}${way}${took}`);
  });
  return lines.join('');
}

function ceilingsText(precisions: readonly PrecisionTiming[]): string {
  const rates = new Map<string, Spread>();
  let copy: Ceilings['copy'] | undefined;
  for (const { ceilings } of precisions) {
    copy ??= ceilings.copy;
    for (const [name, rate] of Object.entries(ceilings.multiply)) rates.set(name, rates.get(name) ?? rate);
  }
  const flops = [...rates].map(([name, rate]) => `${name} ${perSecond(rate.median, 'FLOP')}`);
  const copied = copy === undefined ? [] : [`copy ${perSecond(copy.median, 'B')}`];
  return line('ceilings', [...copied, ...flops].join(', '));
}

function timingText({ found, seconds }: Parts['timing']): string {
  const best = found?.precisions.at(-1);
  if (found === null || best === undefined) return line('timing', 'nothing was timed');
  const { network, batch, classes, precisions } = found;
  const head = [
    `${network} in ${best.precision}`,
    'forward',
    '',
    'data gradient',
    '',
    'weight gradient',
    '',
    'update',
    '',
  ];
  const passes: Pass[] = ['forward', 'dataGradient', 'weightGradient', 'update'];
  const rows = best.layers.map((row) => [row.layer, ...passes.flatMap((pass) => cells(row, pass))]);
  const steps = precisions.map(({ precision, timings: { step, imagesPerSecond } }) =>
    line(
      precision,
      `step of ${count(batch)} images ${shortTime(step.median)} (${shortTime(step.least)} to ${shortTime(step.most)}), ` +
        `${count(imagesPerSecond.median)} images/s`,
    ),
  );
  const { least, most } = RATE_OF_2012;
  return [
    ceilingsText(precisions),
    `\n${table(head, rows, 1)}\n\n`,
    ...steps,
    line(
      '2012',
      `${least} to ${most} images/s, the paper's network of 1000 classes on two GTX 580; here ${network}, ${count(classes)} classes`,
    ),
    line('timing', `each layer alone and with warm caches, beside its share of the ceiling; ${time(seconds)}`),
  ].join('');
}

/** Time and share; the input and the loss have a forward column only. */
function cells({ passes }: LayerTime, pass: Pass): [string, string] {
  const found = passes[pass] ?? (pass === 'forward' ? (passes.input ?? passes.loss) : undefined);
  if (found === undefined) return ['', ''];
  return [shortTime(found.seconds.median), found.share === null ? '' : `${(found.share * 100).toFixed(0)} %`];
}
