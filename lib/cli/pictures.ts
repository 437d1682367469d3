/** The pictures that arguments name: files, folders, and `-` for stdin. */
import { stat } from 'node:fs/promises';

import { AlexnodeError, type ImageInput, isPicture, listPictures } from '../index.js';
import { EXIT, printError } from './exit.js';

/** More than a picture file may have. */
const MOST_STDIN = 256 << 20;
const LINE_FEED = 0x0a;

/**
 * Arguments that name pictures, and what becomes of those that cannot be used: each is told at once, and the exit code is 4 in the end. To be disposed:
 * a stdin that is still open would keep the process from ending.
 */
export class Pictures implements Disposable {
  readonly #args: string[];
  #failed = false;

  constructor(args: string[]) {
    this.#args = args;
    if (args.filter((arg) => arg === '-').length > 1) {
      throw new AlexnodeError('ERR_USAGE', '- (stdin) was given twice', { hint: 'It can be read once.' });
    }
  }

  /** 0, or 4 where something could not be used. */
  get exitCode(): number {
    return this.#failed ? EXIT.data : EXIT.ok;
  }

  /** Tells why something cannot be used. */
  fail(error: AlexnodeError): void {
    this.#failed = true;
    printError(error, false);
  }

  /** How a picture is called: `-` is the one from stdin. */
  name(image: ImageInput): string {
    return typeof image === 'string' ? image : '-';
  }

  [Symbol.dispose](): void {
    if (this.#args.includes('-')) process.stdin.destroy();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ImageInput, void> {
    for (const arg of this.#args) {
      if (arg === '-') yield* fromStdin();
      else if (await isFolder(arg)) yield* await this.#folder(arg);
      else yield arg;
    }
  }

  async #folder(path: string): Promise<string[]> {
    try {
      return await listPictures(path);
    } catch (error) {
      if (!(error instanceof AlexnodeError) || error.code !== 'ERR_DATA') throw error;
      this.fail(error);
      return [];
    }
  }
}

/** What cannot be looked at is no folder: as a file it is an error that names it, and no reason to give up the others. */
async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

/** The picture that stdin is, by its first bytes, or the paths of pictures that it names, one a line, as they come. */
async function* fromStdin(): AsyncGenerator<ImageInput, void> {
  const chunks = process.stdin[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let read: Buffer = Buffer.alloc(0);
  let ended = false;
  const more = async () => {
    const next = await chunks.next();
    if (next.done === true) ended = true;
    else read = Buffer.concat([read, next.value]);
  };
  // A first line is enough to tell that they are paths: a second one may be long in coming.
  while (!ended && read.length < 16 && !read.includes(LINE_FEED)) await more();
  if (isPicture(read)) {
    const parts = [read];
    let size = read.length;
    for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) {
      parts.push(next.value);
      size += next.value.length;
      if (size > MOST_STDIN)
        throw new AlexnodeError('ERR_DATA', `-: more than ${MOST_STDIN} bytes are no picture file`);
    }
    yield Buffer.concat(parts);
    return;
  }
  while (read.length > 0 || !ended) {
    const end = read.indexOf(LINE_FEED);
    if (end < 0 && !ended) {
      await more();
      continue;
    }
    const line = read.toString('utf8', 0, end < 0 ? read.length : end).replace(/\r$/, '');
    read = end < 0 ? Buffer.alloc(0) : read.subarray(end + 1);
    if (line !== '') yield line;
  }
}
