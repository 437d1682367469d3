import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { decode } from 'fast-png';

import { type FilterTensor, filtersPng, writeCurve } from '../lib/pictures.js';

function folder(t: { teardown: (fn: () => void) => void }): string {
  const path = mkdtempSync(join(tmpdir(), 'alexnode-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

function writeFilters(path: string, tensor: FilterTensor, options?: { towers: 2 }): void {
  writeFileSync(path, filtersPng(tensor, options));
}

/** 96 filters of 3 x 11 x 11: every weight 0, except one of -1 and one of +1. */
function filters(): { shape: number[]; data: Float32Array } {
  const data = new Float32Array(96 * 3 * 11 * 11);
  data[0] = -1; // filter 0, red, first position
  data[48 * 363 + 2 * 121 + 120] = 1; // filter 48, blue, last position
  return { shape: [96, 3, 11, 11], data };
}

test('filters: one scale for all, enlarged without smoothing, a block per tower', async (t) => {
  const path = join(folder(t), 'filters.png');
  writeFilters(path, filters(), { towers: 2 });
  const { width, height, channels, data } = decode(readFileSync(path));
  // Two blocks side by side, six rows of eight filters of 44 pixels each.
  t.deepEqual([width, height, channels], [2 * (8 * 48) + 16 + 4, 6 * 48 + 4, 3]);
  const pixel = (x: number, y: number) => Array.from(data.slice((y * width + x) * 3, (y * width + x) * 3 + 3));
  t.deepEqual(pixel(0, 0), [255, 255, 255], 'the ground is white');
  t.deepEqual(pixel(4, 4), [0, 128, 128], 'the smallest weight, in red');
  t.deepEqual(pixel(7, 7), [0, 128, 128], 'the same weight, enlarged four times');
  t.deepEqual(pixel(8, 4), [128, 128, 128]);
  const second = 8 * 48 + 16 + 4;
  t.deepEqual(pixel(second + 43, 4 + 43), [128, 128, 255], 'the largest weight, in the block of the second tower');
  t.deepEqual(pixel(8 * 48 + 4 + 8, 4), [255, 255, 255], 'space between the towers');
  // The ninth filter begins the second row of the first tower, the last one ends the last row of the second tower.
  t.deepEqual(pixel(4, 4 + 48), [128, 128, 128]);
  t.deepEqual(pixel(width - 5, height - 5), [128, 128, 128]);
});

test('filters: one tower is one block', (t) => {
  const one = decode(filtersPng(filters()));
  t.deepEqual([one.width, one.height], [16 * 48 + 4, 6 * 48 + 4]);
});

test('filters: any number of channels, a single filter, weights that are all equal or not finite', async (t) => {
  const path = join(folder(t), 'filters.png');
  writeFilters(path, { shape: [7, 1, 3, 3], data: new Float32Array(63).map((_, i) => i) });
  const grey = decode(readFileSync(path));
  t.deepEqual(Array.from(grey.data.slice((4 * grey.width + 4) * 3, (4 * grey.width + 4) * 3 + 3)), [0, 0, 0]);
  writeFilters(path, { shape: [1, 3, 5, 5], data: new Float32Array(75) });
  const flat = decode(readFileSync(path));
  t.deepEqual(Array.from(flat.data.slice((4 * flat.width + 4) * 3, (4 * flat.width + 4) * 3 + 3)), [128, 128, 128]);
  t.notThrows(() => writeFilters(path, { shape: [1, 3, 1, 1], data: Float32Array.of(Number.NaN, 1, 2) }));
});

test('curve: two diagrams with a line for training and one for validation', async (t) => {
  const path = join(folder(t), 'curve.svg');
  await writeCurve(path, [
    { epoch: 1, train: { loss: 2.2, top1Error: 0.8 }, val: { loss: 2.1, top1Error: 0.75 } },
    { epoch: 2, train: { loss: 1.5, top1Error: 0.5 }, val: null },
    { epoch: 3, train: { loss: 1.1, top1Error: 0.4 }, val: { loss: 1.2, top1Error: 0.42 } },
  ]);
  const svg = readFileSync(path, 'utf8');
  t.true(svg.startsWith('<svg'));
  for (const text of ['loss (nats)', 'top-1 error', 'epoch', 'training', 'validation'])
    t.true(svg.includes(text), text);
  const lines = (svg.match(/class="mark-line[^>]*>\s*<path [^>]*d="[^"]+"/g) ?? []).length;
  t.is(lines, 4);
  t.false(/NaN|undefined/.test(svg));
});

test('curve: nothing measured yet is an empty diagram', async (t) => {
  const path = join(folder(t), 'curve.svg');
  await writeCurve(path, []);
  t.false(/NaN|undefined/.test(readFileSync(path, 'utf8')));
});
