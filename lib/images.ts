/** Images that are ready for a network: pictures given one by one, or those of a data set. One decoder and one resizer for both. */
import { isUint8Array, isUint8ClampedArray } from 'node:util/types';
import {
  isPicture as isNativePicture,
  listPictures as listNative,
  type NativeImages,
  NativePass,
  type NativePicture,
  preparePictures,
} from '#native';

import { type Dataset, innerDataset } from './data.js';
import { native, nativeAsync, usage } from './errors.js';

/** Pixels that lie upright: three bytes each (red, green, blue), row by row. */
export interface Pixels {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
}

/**
 * A picture: the path of a file, the bytes of one (JPEG, PNG, WebP, GIF, BMP; the content decides, not the name), or pixels. Bytes and pixels are not to be
 * changed before the answer is there.
 */
export type ImageInput = string | Uint8Array | Pixels;

const INNER = Symbol('native images');

/** @internal Some images at the size that a network takes. */
export class Images {
  readonly [INNER]: NativeImages;

  constructor(inner: NativeImages) {
    this[INNER] = inner;
  }

  /** Why an image cannot be used; `null` where it can. */
  get failures(): (string | null)[] {
    return JSON.parse(native(() => this[INNER].failures)) as (string | null)[];
  }

  /** Classes of images of a data set. */
  get labels(): Int32Array {
    return this[INNER].labels;
  }

  /** Ids of images of a data set, inside their split. */
  get ids(): Uint32Array {
    return this[INNER].ids;
  }
}

/** @internal The native handle, for models. */
export function innerImages(images: Images): NativeImages {
  return images[INNER];
}

/** @internal Refuses what is no picture at all. ERR_USAGE. */
export function checkImage(image: ImageInput): void {
  if (typeof image === 'string' || isUint8Array(image)) return;
  // From JavaScript it may be anything.
  const { data, width = 0, height = 0 } = (image ?? {}) as Partial<Pixels>;
  if (!isUint8Array(data) && !isUint8ClampedArray(data)) {
    throw usage(
      'this is no image',
      'Give a path, a Uint8Array with the bytes of a file (new Uint8Array(buffer) of an ArrayBuffer), or { data, width, height }.',
    );
  }
  const whole = [width, height].every((side) => Number.isInteger(side) && side > 0 && side < 2 ** 31);
  if (whole && data.length === width * height * 3) return;
  throw usage(
    `an image of ${width} x ${height} pixels: expected ${width} * ${height} * 3 bytes, got ${data.length}`,
    'Pixels are three bytes each, red, green and blue; of four with alpha, leave the fourth out.',
  );
}

function nativePicture(image: ImageInput): NativePicture {
  if (typeof image === 'string') return { path: image };
  if (isUint8Array(image)) return { bytes: image };
  const { data, width, height } = image;
  return { bytes: new Uint8Array(data.buffer, data.byteOffset, data.length), width, height };
}

/** @internal Decodes pictures and brings them to `size` pixels. What cannot be used is told by `failures`. */
export async function prepareImages(images: ImageInput[], size: number, threads?: number): Promise<Images> {
  return new Images(await nativeAsync(() => preparePictures(images.map(nativePicture), size, threads)));
}

/** @internal Which images of a data set to go through. */
export interface PassOptions {
  split: 'train' | 'val';
  batch: number;
  /** Draws the images where there is a `limit`. */
  seed: number;
  limit?: number;
}

/** @internal The images of a split, `batch` at a time, prepared ahead. */
export async function* passOver(data: Dataset, options: PassOptions): AsyncGenerator<Images, void> {
  const pass = await nativeAsync(() => NativePass.open(innerDataset(data), JSON.stringify(options)));
  try {
    for (;;) {
      const images = await nativeAsync(() => pass.next());
      if (images === null) return;
      yield new Images(images);
    }
  } finally {
    await nativeAsync(() => pass.close());
  }
}

/**
 * The paths of the pictures below a folder, by the rules of data sets: hidden files left out, links followed, sorted. ERR_DATA where
 * it cannot be read or has none.
 */
export async function listPictures(folder: string): Promise<string[]> {
  return JSON.parse(await nativeAsync(() => listNative(folder))) as string[];
}

/** Whether something that begins with these bytes (16 are enough) is a picture. */
export function isPicture(head: Uint8Array): boolean {
  return native(() => isNativePicture(head));
}
