/** The pictures that arguments name: files, folders, and `-` for stdin. */
import { statSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { PassThrough } from 'node:stream';

import { AlexnodeError, type ImageInput, isPicture, listPictures } from '../index.js';
import { EXIT, printError } from './exit.js';

/** More than a picture file may have. */
const MOST_STDIN = 256 << 20;

/** Arguments that name pictures, and what becomes of those that cannot be used: each is told at once, and the exit code is 4 in the end. */
export class Pictures {
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

  async *[Symbol.asyncIterator](): AsyncGenerator<ImageInput, void> {
    for (const arg of this.#args) {
      if (arg === '-') yield* fromStdin();
      else if (statSync(arg, { throwIfNoEntry: false })?.isDirectory() === true) yield* await this.#folder(arg);
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

/** The picture that stdin is, by its first bytes, or the paths of pictures that it names, one a line, as they come. */
async function* fromStdin(): AsyncGenerator<ImageInput, void> {
  const chunks = process.stdin[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const read: Buffer[] = [];
  let size = 0;
  const more = async (): Promise<boolean> => {
    const { done, value } = await chunks.next();
    if (done === true) return false;
    read.push(value);
    size += value.length;
    return true;
  };
  // Paths come line by line: a first line is enough to tell that they are paths.
  while (size < 16 && !read.some((chunk) => chunk.includes(0x0a)) && (await more()));
  if (isPicture(Buffer.concat(read))) {
    while (size <= MOST_STDIN && (await more()));
    if (size > MOST_STDIN) throw new AlexnodeError('ERR_DATA', `-: more than ${MOST_STDIN} bytes are no picture file`);
    yield Buffer.concat(read);
    return;
  }
  const text = new PassThrough();
  const lines = createInterface({ input: text, crlfDelay: Number.POSITIVE_INFINITY });
  const feed = async () => {
    for (const chunk of read.splice(0)) text.write(chunk);
    for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) text.write(next.value);
    text.end();
  };
  feed().catch((error) => text.destroy(error as Error));
  for await (const line of lines) if (line !== '') yield line;
}
