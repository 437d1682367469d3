/** The layers against the roofline, as an SVG: what multiplies, over its operations per byte, and the share of every pass of what the ceilings allow. */
import type { Spec } from 'vega';

import { writeAtomic } from '../files.js';
import type { BenchReport } from './report.js';
import { roofOf } from './steps.js';

const PASSES = ['forward', 'dataGradient', 'weightGradient', 'update', 'input', 'loss', 'transfer'];
const COLOURS = ['#4c78a8', '#f58518', '#e4572e', '#72b7b2', '#9d9d9d', '#9d9d9d', '#9d9d9d'];

/** Draws `report`. Overwrites `path`. */
export async function writeRoofline(path: string, report: BenchReport): Promise<void> {
  // Loaded when there is something to draw: it is large.
  const { parse, View } = await import('vega');
  const view = new View(parse(rooflineSpec(report)), { renderer: 'none' });
  try {
    await writeAtomic(path, `${await view.toSVG()}\n`);
  } finally {
    view.finalize();
  }
}

function rooflineSpec(report: BenchReport): Spec {
  const { layers, ceilings, precision } = report;
  const roof = roofOf(ceilings, precision);
  const [rate, copy] = [(roof.multiply ?? 0) / 1e9, roof.copy / 1e9];
  const points = layers.flatMap(({ name, pass, gflops, intensity }) =>
    gflops === null ? [] : [{ name, pass, gflops, intensity }],
  );
  const shares = layers.flatMap(({ name, pass, roofline }) =>
    roofline === null ? [] : [{ row: name === pass ? name : `${name} ${short(pass)}`, pass, share: roofline }],
  );
  const intensities = points.map(({ intensity }) => intensity);
  const [low, high] = [Math.min(1, ...intensities) / 2, Math.max(100, ...intensities) * 2];
  // A ceiling of nothing, where none was measured, cannot be drawn on a scale of powers.
  const top = Math.max(rate, 1, ...points.map(({ gflops }) => gflops)) * 1.5;
  const bottom = Math.min(top / 20, ...points.map(({ gflops }) => gflops)) / 2;
  const knee = rate / copy;
  const roofline = [low, Math.min(Math.max(knee, low), high), high].map((intensity) => ({
    intensity,
    gflops: Math.max(bottom, Math.min(rate, copy * intensity)),
  }));
  const height = Math.max(280, 12 * shares.length);
  const colour = { scale: 'colour', field: 'pass' };
  const at = { x: { scale: 'x', field: 'intensity' }, y: { scale: 'y', field: 'gflops' } };
  const signals = (width: number) => [
    { name: 'width', value: width },
    { name: 'height', value: height },
  ];
  return {
    background: 'white',
    padding: 8,
    title: `${report.preset}, batch ${report.batch}, ${report.devices.map(({ description }) => description).join(' and ')}: ${report.step.imagesPerSecond.toFixed(1)} images/s`,
    layout: { columns: 2, padding: 36, align: 'each' },
    data: [
      { name: 'points', values: points },
      { name: 'roof', values: roofline },
      { name: 'shares', values: shares },
    ],
    scales: [{ name: 'colour', type: 'ordinal', domain: PASSES, range: COLOURS }],
    legends: [
      {
        fill: 'colour',
        orient: 'top',
        direction: 'horizontal',
        values: PASSES.filter((name) => layers.some(({ pass }) => pass === name)),
      },
    ],
    marks: [
      {
        type: 'group',
        encode: { enter: { width: { value: 420 }, height: { value: height } } },
        signals: signals(420),
        scales: [
          { name: 'x', type: 'log', domain: [low, high], range: 'width' },
          { name: 'y', type: 'log', domain: [bottom, top], range: 'height' },
        ],
        axes: [
          { scale: 'x', orient: 'bottom', title: 'operations per byte', format: '~g', grid: true, tickCount: 5 },
          { scale: 'y', orient: 'left', title: 'GFLOP/s', format: '~g', grid: true, tickCount: 5 },
        ],
        marks: [
          {
            type: 'line',
            from: { data: 'roof' },
            encode: { enter: { ...at, stroke: { value: '#333333' }, strokeWidth: { value: 2 } } },
          },
          {
            type: 'symbol',
            from: { data: 'points' },
            encode: { enter: { ...at, fill: colour, size: { value: 50 } } },
          },
          {
            type: 'text',
            from: { data: 'points' },
            encode: {
              enter: { ...at, text: { field: 'name' }, dx: { value: 6 }, dy: { value: 3 }, fontSize: { value: 9 } },
            },
          },
        ],
      },
      {
        type: 'group',
        encode: { enter: { width: { value: 360 }, height: { value: height } } },
        signals: signals(360),
        scales: [
          { name: 'x', type: 'linear', domain: [0, Math.max(1, ...shares.map(({ share }) => share))], range: 'width' },
          { name: 'y', type: 'band', domain: shares.map(({ row }) => row), range: 'height', padding: 0.15 },
        ],
        axes: [
          { scale: 'x', orient: 'bottom', title: 'share of the roofline', format: '%', grid: true },
          { scale: 'y', orient: 'left', labelFontSize: 9 },
        ],
        marks: [
          {
            type: 'rect',
            from: { data: 'shares' },
            encode: {
              enter: {
                x: { scale: 'x', value: 0 },
                x2: { scale: 'x', field: 'share' },
                y: { scale: 'y', field: 'row' },
                height: { scale: 'y', band: 1 },
                fill: colour,
              },
            },
          },
        ],
      },
    ],
  };
}

/** As the table says it. */
function short(pass: string): string {
  return { dataGradient: 'data', weightGradient: 'weights' }[pass] ?? pass;
}
