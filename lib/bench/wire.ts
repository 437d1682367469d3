/** A program that answers: a line of JSON for each line of JSON. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';

import { AlexnodeError, reason } from '../errors.js';

type Child = ChildProcessByStdio<Writable, Readable, Readable>;
/** What it said. */
export type Answer = { type: string; message?: string } & Record<string, unknown>;

/** How to start an adapter. */
export interface WireOptions {
  /** For messages. */
  name: string;
  program: string;
  /** In bench/peers. */
  file: string;
  environment: Record<string, string>;
  /** What installs the program and what it needs. */
  remedy: string;
  signal?: AbortSignal | undefined;
}

/** The line to an adapter of bench/peers. One question at a time. */
export class Wire {
  readonly #name: string;
  readonly #remedy: string;
  readonly #child: Child;
  readonly #reader: Interface;
  readonly #lines: AsyncIterator<string>;
  /** The end of what it said of its own accord: told only where it fails. */
  #stderr = '';

  private constructor(name: string, remedy: string, child: Child) {
    this.#name = name;
    this.#remedy = remedy;
    this.#child = child;
    this.#reader = createInterface({ input: child.stdout });
    this.#lines = this.#reader[Symbol.asyncIterator]();
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-2000);
    });
    // A program that has ended is noticed where its answer is missing.
    child.stdin.on('error', () => undefined);
    child.on('error', () => undefined);
  }

  /** Starts `program` with the adapter `file`. ERR_DEVICE where there is no such program, ERR_USAGE where the package has no adapters. */
  static async open(options: WireOptions): Promise<Wire> {
    const { name, program, file, environment, remedy, signal } = options;
    const adapter = fileURLToPath(new URL(`../../bench/peers/${file}`, import.meta.url));
    if (!existsSync(adapter)) {
      throw new AlexnodeError('ERR_USAGE', `the adapter ${file} is not part of the package`, {
        hint: 'Run `npm run bench` in the repository.',
      });
    }
    const child = spawn(program, [adapter], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...environment },
      ...(signal === undefined ? {} : { signal }),
    });
    const wire = new Wire(name, remedy, child);
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (error) => {
        reject(
          new AlexnodeError('ERR_DEVICE', `${name}: ${program} cannot be started: ${reason(error)}`, {
            hint: remedy,
            cause: error,
          }),
        );
      });
    });
    return wire;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Asks, and waits for the answer. ERR_DEVICE with its words where it cannot, or where it has ended. */
  async ask(request: Record<string, unknown>): Promise<Answer> {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#lines.next();
    if (done === true) {
      const last = this.#stderr.trim().split('\n').at(-1) ?? '';
      throw new AlexnodeError('ERR_DEVICE', `${this.#name} ended without an answer${last === '' ? '' : `: ${last}`}`);
    }
    const answer = JSON.parse(value) as Answer;
    if (answer.type !== 'error' && answer.type !== 'missing') return answer;
    const hint = answer.type === 'missing' ? { hint: this.#remedy } : {};
    throw new AlexnodeError('ERR_DEVICE', `${this.#name}: ${answer.message ?? 'it failed'}`, hint);
  }

  /** Ends it. */
  async close(): Promise<void> {
    this.#reader.close();
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    const gone = new Promise((resolve) => child.once('close', resolve));
    child.kill();
    await gone;
  }
}
