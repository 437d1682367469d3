/** Pictures made of pictures: thumbnails as data URIs for a page, sheets of them and the confusion matrix as PNG files. */
import { encode } from 'fast-png';

/** A square RGB picture of `size * size * 3` bytes. */
export interface Tile {
  size: number;
  pixels: Uint8Array;
}

/** A PNG as a data URI. */
export function dataUri(png: Uint8Array): string {
  return `data:image/png;base64,${Buffer.from(png).toString('base64')}`;
}

/** A tile as a PNG. */
export function tilePng({ size, pixels }: Tile): Uint8Array {
  return encode({ width: size, height: size, data: pixels, channels: 3 });
}

const GAP = 4;
/** Behind the first of a row: it is another kind of picture. */
const FIRST_GAP = 12;

/** Rows of tiles of one size on white. With `first`, the first one of each row stands apart. */
export function sheetPng(rows: readonly (readonly Tile[])[], { first = false } = {}): Uint8Array {
  const size = rows[0]?.[0]?.size ?? 1;
  const columns = Math.max(1, ...rows.map((row) => row.length));
  const apart = first ? FIRST_GAP : 0;
  const width = columns * (size + GAP) + GAP + apart;
  const height = Math.max(1, rows.length) * (size + GAP) + GAP;
  const data = new Uint8Array(width * height * 3).fill(255);
  for (const [y, row] of rows.entries()) {
    for (const [x, { pixels }] of row.entries()) {
      const left = GAP + x * (size + GAP) + (x > 0 ? apart : 0);
      const top = GAP + y * (size + GAP);
      for (let line = 0; line < size; line += 1) {
        data.set(pixels.subarray(line * size * 3, (line + 1) * size * 3), ((top + line) * width + left) * 3);
      }
    }
  }
  return encode({ width, height, data, channels: 3 });
}

/** Side of a drawn confusion matrix in pixels, about. */
const MATRIX = 600;

/** A confusion matrix: a row for each class, as shares of its images; white is none, the darkest blue all. */
export function confusionPng(confusion: Uint32Array, classes: number): Uint8Array {
  const scale = Math.max(1, Math.floor(MATRIX / Math.max(1, classes)));
  const side = classes * scale;
  const data = new Uint8Array(side * side * 3);
  for (let label = 0; label < classes; label += 1) {
    const row = confusion.subarray(label * classes, (label + 1) * classes);
    const total = row.reduce((sum, count) => sum + count, 0);
    for (let guess = 0; guess < classes; guess += 1) {
      // The square root shows what is rare, too.
      const depth = total === 0 ? 0 : Math.sqrt((row[guess] ?? 0) / total);
      const colour = [255 - 247 * depth, 255 - 207 * depth, 255 - 148 * depth];
      for (let y = 0; y < scale; y += 1) {
        for (let x = 0; x < scale; x += 1) {
          data.set(colour, ((label * scale + y) * side + guess * scale + x) * 3);
        }
      }
    }
  }
  return encode({ width: side, height: side, data, channels: 3 });
}
