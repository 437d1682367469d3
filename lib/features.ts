/** What a layer makes of the images of a data set, kept in the run folder so that it is computed once. */
import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import type { Dataset } from './data.js';
import { VERSION } from './environment.js';
import { TEMPORARY } from './files.js';
import { passOver } from './images.js';
import { inferenceOf, type Model } from './model.js';

/** Some images with what a layer makes of them, a row each. */
export interface FeatureRows {
  ids: Uint32Array;
  labels: Int32Array;
  rows: Float32Array;
}

/** Larger ones are computed again each time. */
const MOST_KEPT_BYTES = 4e9;
/** Images that are read from a file at once. */
const AT_ONCE = 1024;

/**
 * What `layer` makes of the training images, in the order of their ids. With a `folder` (of the run) it is kept there, as
 * `features/<layer>-<key>.safetensors` with the tensors `features`, `ids` and `labels`; the key stands for weights, images, layer and arithmetic. Where
 * that cannot be written nothing is kept, which is no error.
 */
export async function* trainingFeatures(
  model: Model,
  data: Dataset,
  layer: string,
  folder: string | undefined,
): AsyncGenerator<FeatureRows, void> {
  const path =
    folder === undefined
      ? undefined
      : join(folder, 'features', `${fileName(layer)}-${key(model, data, layer)}.safetensors`);
  const kept = path === undefined ? undefined : await FeatureFile.open(path, data.info.train);
  if (kept !== undefined) {
    yield* kept.read();
    return;
  }
  let writer: FeatureWriter | undefined;
  try {
    for await (const images of passOver(data, { split: 'train', batch: model.batch, seed: 0 })) {
      const { ids, labels } = images;
      const part = { ids, labels, rows: await inferenceOf(model).outputs(images, layer) };
      if (path !== undefined)
        writer ??= await FeatureWriter.create(path, data.info.train, part.rows.length / ids.length);
      await writer?.add(part);
      yield part;
    }
    await writer?.finish();
  } finally {
    await writer?.abandon();
  }
}

/** Layers may have any name. */
function fileName(layer: string): string {
  return layer.replace(/[^\w-]/g, '_').slice(0, 60);
}

function key(model: Model, data: Dataset, layer: string): string {
  const { seed, limit, onBadImage } = data.config;
  const kind = model.devices.map((device) => device.split(':')[0]);
  const parts = [
    model.sha256,
    data.info.fingerprint,
    data.info.train,
    seed,
    limit,
    onBadImage,
    layer,
    model.precision,
    kind,
    VERSION,
  ];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}

/** The head of a file of `count` rows of `width` numbers: a safetensors header, filled up to a multiple of 8 bytes. */
function header(count: number, width: number): { bytes: Buffer; total: number } {
  const tensors = { features: ['F32', [count, width]], ids: ['U32', [count]], labels: ['I32', [count]] } as const;
  let end = 0;
  const entries = Object.entries(tensors).map(([name, [dtype, shape]]) => {
    const begin = end;
    end += 4 * shape.reduce((product, extent) => product * extent, 1);
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const text = JSON.stringify(Object.fromEntries(entries));
  const json = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return { bytes: Buffer.concat([length, json]), total: 8 + json.length + end };
}

function bytesOf(array: Float32Array | Uint32Array | Int32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Writes rows as they come, under a temporary name; a failure only means that nothing is kept. */
class FeatureWriter {
  readonly #path: string;
  readonly #temporary: string;
  readonly #count: number;
  readonly #ids: Uint32Array;
  readonly #labels: Int32Array;
  #file: FileHandle | undefined;
  #done = 0;

  private constructor(path: string, count: number, file: FileHandle, temporary: string) {
    this.#path = path;
    this.#count = count;
    this.#ids = new Uint32Array(count);
    this.#labels = new Int32Array(count);
    this.#file = file;
    this.#temporary = temporary;
  }

  static async create(path: string, count: number, width: number): Promise<FeatureWriter | undefined> {
    const { bytes, total } = header(count, width);
    if (total > MOST_KEPT_BYTES) return undefined;
    const temporary = `${path}.${process.pid}${TEMPORARY}`;
    try {
      await mkdir(dirname(path), { recursive: true });
      const file = await open(temporary, 'w');
      await file.writeFile(bytes);
      return new FeatureWriter(path, count, file, temporary);
    } catch {
      return undefined;
    }
  }

  async add({ ids, labels, rows }: FeatureRows): Promise<void> {
    if (this.#file === undefined || this.#done + ids.length > this.#count) return this.abandon();
    this.#ids.set(ids, this.#done);
    this.#labels.set(labels, this.#done);
    this.#done += ids.length;
    try {
      await this.#file.writeFile(bytesOf(rows));
    } catch {
      await this.abandon();
    }
  }

  /** Gives the file its name, in place of an older one of the same layer. */
  async finish(): Promise<void> {
    if (this.#file === undefined || this.#done !== this.#count) return;
    try {
      await this.#file.writeFile(bytesOf(this.#ids));
      await this.#file.writeFile(bytesOf(this.#labels));
      // The name must not outlive the content in a power cut.
      await this.#file.sync();
      await this.#file.close();
      this.#file = undefined;
      await rename(this.#temporary, this.#path);
      const prefix = basename(this.#path).replace(/[0-9a-f]{16}\.safetensors$/, '');
      for (const name of await readdir(dirname(this.#path))) {
        const same = name.startsWith(prefix) && /^[0-9a-f]{16}\.safetensors$/.test(name.slice(prefix.length));
        if (same && name !== basename(this.#path)) await rm(join(dirname(this.#path), name), { force: true });
      }
    } catch {
      await this.abandon();
    }
  }

  /** Removes what is not finished. */
  async abandon(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    await file.close().catch(() => undefined);
    await rm(this.#temporary, { force: true }).catch(() => undefined);
  }
}

/** A file that a writer has finished. */
class FeatureFile {
  readonly #file: FileHandle;
  readonly #count: number;
  readonly #width: number;
  readonly #begin: number;

  private constructor(file: FileHandle, count: number, width: number, begin: number) {
    this.#file = file;
    this.#count = count;
    this.#width = width;
    this.#begin = begin;
  }

  /** `undefined` where there is none, or it is not whole. */
  static async open(path: string, count: number): Promise<FeatureFile | undefined> {
    const file = await open(path, 'r').catch(() => undefined);
    if (file === undefined) return undefined;
    try {
      const length = Buffer.alloc(8);
      await file.read(length, 0, 8, 0);
      const json = Buffer.alloc(Math.min(Number(length.readBigUInt64LE()), 1 << 16));
      await file.read(json, 0, json.length, 8);
      const { features } = JSON.parse(json.toString()) as { features?: { shape?: number[] } };
      const width = features?.shape?.[1] ?? 0;
      const expected = header(count, width);
      const whole = expected.bytes.equals(Buffer.concat([length, json])) && (await file.stat()).size === expected.total;
      if (whole && width > 0) return new FeatureFile(file, count, width, expected.bytes.length);
    } catch {
      // Not one of ours: it is computed anew.
    }
    await file.close();
    return undefined;
  }

  async *read(): AsyncGenerator<FeatureRows, void> {
    const end = this.#begin + 4 * this.#count * this.#width;
    try {
      for (let first = 0; first < this.#count; first += AT_ONCE) {
        const count = Math.min(AT_ONCE, this.#count - first);
        const rows = new Float32Array(count * this.#width);
        const ids = new Uint32Array(count);
        const labels = new Int32Array(count);
        await this.#fill(rows, this.#begin + 4 * first * this.#width);
        await this.#fill(ids, end + 4 * first);
        await this.#fill(labels, end + 4 * (this.#count + first));
        yield { ids, labels, rows };
      }
    } finally {
      await this.#file.close();
    }
  }

  async #fill(array: Float32Array | Uint32Array | Int32Array, position: number): Promise<void> {
    const bytes = bytesOf(array);
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await this.#file.read(bytes, done, bytes.length - done, position + done);
      if (bytesRead === 0) throw new Error('the file became shorter while it was read');
      done += bytesRead;
    }
  }
}
