/** Pictures of a run: the filters of the first layer as a PNG, the learning curve as an SVG. */
import { encode } from 'fast-png';

import { chartsSvg, type Series } from './charts.js';
import { writeAtomic } from './files.js';

/** The weights of a convolution, as `tensor('conv1.weight')` gives them: output, input, row, column. */
export interface FilterTensor {
  shape: number[];
  data: Float32Array;
}

/** One epoch of the curve; `null` where it was not measured. Errors as fractions. */
export interface CurveRow {
  epoch: number;
  train: { loss: number; top1Error: number } | null;
  val: { loss: number; top1Error: number } | null;
}

/** Side of an enlarged filter in pixels, about. */
const FILTER_PIXELS = 44;
const GAP = 4;
const TOWER_GAP = 16;
/** A picture of filters is about this many times as wide as high. */
const ASPECT = 3;

/**
 * Draws filters in a grid, in their order, each enlarged without smoothing. Three input channels are shown as colours; of any other
 * number the mean is shown in grey. One scale for all: the smallest weight is black, the largest one white. With `towers: 2` the two halves
 * are two blocks, the first tower's on the left and the second one's on the right.
 */
export function filtersPng(tensor: FilterTensor, options: { towers?: 1 | 2 } = {}): Uint8Array {
  return encode(filterImage(tensor, options.towers ?? 1));
}

/** An RGB image of bytes. */
interface Image {
  width: number;
  height: number;
  channels: 3;
  data: Uint8Array;
}

function filterImage({ shape, data }: FilterTensor, towers: number): Image {
  const [count = 0, channels = 0, rows = 0, columns = 0] = shape;
  const filter = (index: number) =>
    data.subarray(index * channels * rows * columns, (index + 1) * channels * rows * columns);
  const { low, range } = extent(data);
  const scale = Math.max(1, Math.round(FILTER_PIXELS / Math.max(rows, columns)));
  const block = Math.ceil(count / towers);
  const across = gridColumns(block, ASPECT / towers);
  const down = Math.ceil(block / across);
  const cell = { width: columns * scale + GAP, height: rows * scale + GAP };
  const blockWidth = across * cell.width + TOWER_GAP;

  const width = towers * blockWidth - TOWER_GAP + GAP;
  const height = down * cell.height + GAP;
  const pixels = new Uint8Array(width * height * 3).fill(255);
  for (let index = 0; index < count; index += 1) {
    const place = index % block;
    const left = GAP + Math.floor(index / block) * blockWidth + (place % across) * cell.width;
    const top = GAP + Math.floor(place / across) * cell.height;
    const weights = filter(index);
    for (let y = 0; y < rows * scale; y += 1) {
      for (let x = 0; x < columns * scale; x += 1) {
        const at = Math.floor(y / scale) * columns + Math.floor(x / scale);
        const colour = colourAt(weights, channels, rows * columns, at);
        const target = ((top + y) * width + left + x) * 3;
        for (let c = 0; c < 3; c += 1) pixels[target + c] = Math.round(((colour[c]! - low) / range) * 255);
      }
    }
  }
  return { width, height, channels: 3, data: pixels };
}

/** The weights of one position of a filter as R, G, B. */
function colourAt(weights: Float32Array, channels: number, plane: number, at: number): [number, number, number] {
  if (channels === 3) return [weights[at]!, weights[plane + at]!, weights[2 * plane + at]!];
  let sum = 0;
  for (let channel = 0; channel < channels; channel += 1) sum += weights[channel * plane + at]!;
  const mean = sum / channels;
  return [mean, mean, mean];
}

/** Smallest finite value and distance to the largest one; never 0. */
function extent(data: Float32Array): { low: number; range: number } {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of data) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return high > low ? { low, range: high - low } : { low: Number.isFinite(low) ? low - 0.5 : 0, range: 1 };
}

/**
 * Filters in a row of `count`: a divisor of it that makes the grid about `aspect` times as wide as high; without a good one, rows that do not end
 * flush.
 */
function gridColumns(count: number, aspect: number): number {
  const wide = Math.max(1, Math.round(Math.sqrt(count * aspect)));
  const divisors = Array.from({ length: 16 }, (_, i) => i + 1).filter((columns) => count % columns === 0);
  const distance = (columns: number) => Math.abs(Math.log((columns * columns) / count / aspect));
  const best = divisors.reduce((a, b) => (distance(b) < distance(a) ? b : a), 1);
  return distance(best) < 1 ? best : Math.min(wide, 16, count);
}

/** Draws loss and top-1 error over the epochs, of training and of validation. Overwrites `path`. */
export async function writeCurve(path: string, rows: readonly CurveRow[]): Promise<void> {
  const series = (pick: (metrics: { loss: number; top1Error: number }) => number): Series[] => [
    { name: 'training', points: rows.map(({ epoch, train }) => [epoch, train && pick(train)]) },
    { name: 'validation', points: rows.map(({ epoch, val }) => [epoch, val && pick(val)]) },
  ];
  const charts = [
    { title: 'loss (nats)', series: series(({ loss }) => loss) },
    { title: 'top-1 error', format: '%', series: series(({ top1Error }) => top1Error) },
  ];
  await writeAtomic(path, `${await chartsSvg(charts)}\n`);
}
