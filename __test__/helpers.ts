/** What the end-to-end specs share: a network that trains in a blink, temporary folders, the command as a child process. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { encode } from 'fast-png';

import type { NetworkSpec, Recipe, TrainCall, TrainEvent, Training } from '../lib/index.js';

// One listener per temporary folder.
process.setMaxListeners(100);

export const ROOT = resolve(import.meta.dirname, '..');

/** An empty folder in the system's temporary one, removed when the process ends. */
export function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'alexnode-test-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** One convolution, dropout, one linear layer over 16-pixel images: some 20,000 multiply-adds. */
export function tinyNetwork(classes: number, std = 0.1): NetworkSpec {
  return {
    name: 'tiny',
    classes,
    input: { imageSize: 16, cropSize: 14, flip: true, noiseDivisor: 1, scale: 1 / 64 },
    layers: [
      { type: 'conv2d', name: 'conv1', outChannels: 8, kernelSize: 3, stride: 2, weightInit: { type: 'normal', std } },
      { type: 'relu', name: 'relu1' },
      { type: 'maxPool2d', name: 'pool1', kernelSize: 3, stride: 2 },
      { type: 'dropout', name: 'dropout1', p: 0.2 },
      { type: 'linear', name: 'fc2', outFeatures: classes, weightInit: { type: 'normal', std }, weightDecay: 0.0005 },
    ],
  };
}

/** A hundred million multiply-adds per image of 32 pixels. */
export function slowNetwork(classes: number): NetworkSpec {
  const weightInit = { type: 'he' } as const;
  return {
    name: 'slow',
    classes,
    input: { imageSize: 32, cropSize: 32, flip: false, noiseDivisor: 1, scale: 1 / 64 },
    layers: [
      { type: 'conv2d', name: 'conv1', outChannels: 96, kernelSize: 3, padding: 1, weightInit },
      { type: 'relu', name: 'relu1' },
      { type: 'conv2d', name: 'conv2', outChannels: 96, kernelSize: 7, padding: 3, weightInit },
      { type: 'maxPool2d', name: 'pool2', kernelSize: 4, stride: 4 },
      { type: 'linear', name: 'fc3', outFeatures: classes, weightInit },
    ],
  };
}

/** Next to no work on images of 640 pixels: reading them is the work. */
export function wideNetwork(classes: number): NetworkSpec {
  const weightInit = { type: 'he' } as const;
  return {
    name: 'wide',
    classes,
    input: { imageSize: 640, cropSize: 600, flip: true, noiseDivisor: 1, scale: 1 / 64 },
    layers: [
      { type: 'conv2d', name: 'conv1', outChannels: 4, kernelSize: 20, stride: 20, weightInit },
      { type: 'linear', name: 'fc2', outFeatures: classes, weightInit },
    ],
  };
}

/** Everything on: noise, dropout, a schedule with a memory, a drop inside an epoch. */
export const TINY: Partial<Recipe> = {
  batch: 32,
  epochs: 3,
  lr: 0.05,
  biasLr: 0.1,
  schedule: { type: 'plateau', factor: 0.5, patience: 1, drops: 3, minDelta: 0 },
  biasSchedule: { type: 'step', at: [1.5], factor: 0.5 },
  colourNoise: 0.1,
};

/** A training of the tiny network on 500 generated images: 16 steps per epoch, the last one short. */
export const TINY_CALL: TrainCall = { network: tinyNetwork, recipe: TINY, limit: 500, seed: 7 };

/** All events of a training. */
export async function drain(training: Training): Promise<TrainEvent[]> {
  const events: TrainEvent[] = [];
  for await (const event of training) events.push(event);
  return events;
}

/** A copy of package.json and `lib/`, without the addon and what was built with it; removed when the process ends. */
export function copyOfLib(): string {
  const folder = temporary();
  const native = join(ROOT, 'lib', 'native');
  cpSync(join(ROOT, 'lib'), join(folder, 'lib'), { recursive: true, filter: (path) => !path.startsWith(native) });
  cpSync(join(ROOT, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

/**
 * JavaScript that makes the process take itself for one on another platform. The compiler of the sources, which has a platform of its
 * own, is started before; that needs `TSX_DISABLE_CACHE`.
 */
export function pretend(platform: string): string {
  const [os, cpu] = platform.split('-');
  return `
    await import('./lib/nearest.js');
    Object.defineProperties(process, { platform: { value: '${os}' }, arch: { value: '${cpu}' } });
  `;
}

/** The data section of a safetensors file: all tensors, byte for byte, without the metadata. */
export function tensorBytes(path: string): Buffer {
  const file = readFileSync(path);
  return file.subarray(8 + Number(file.readBigUInt64LE(0)));
}

/** The newest checkpoint of a run. */
export function newest(folder: string): string {
  const checkpoints = join(folder, 'checkpoints');
  return join(checkpoints, readFileSync(join(checkpoints, 'last'), 'utf8').trim());
}

/** How a child process ended. */
export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  seconds: number;
}

/** A child process whose stdout is read line by line. */
export class Child {
  readonly process: ChildProcess;
  readonly ended: Promise<Ended>;
  #stdout = '';
  #stderr = '';
  #waiting: { matches: (line: string) => boolean; found: () => void }[] = [];

  /** `stdin`: what it reads there; `'open'`: what is written to `process.stdin` later. */
  constructor(
    file: string,
    args: string[],
    cwd: string,
    environment: NodeJS.ProcessEnv = {},
    stdin?: Uint8Array | string | 'open',
  ) {
    const start = performance.now();
    this.process = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), file, ...args], {
      cwd,
      stdio: [stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1', ...environment },
    });
    if (stdin !== undefined && stdin !== 'open') this.process.stdin?.end(stdin);
    this.process.stderr?.on('data', (data: Buffer) => {
      this.#stderr += data.toString();
    });
    if (this.process.stdout !== null) createInterface(this.process.stdout).on('line', (line) => this.#line(line));
    this.ended = new Promise((done) => {
      this.process.on('close', (code, signal) => {
        const seconds = (performance.now() - start) / 1000;
        done({ code, signal, stdout: this.#stdout, stderr: this.#stderr, seconds });
      });
    });
  }

  /** What it has printed so far. */
  get stdout(): string {
    return this.#stdout;
  }

  #line(line: string): void {
    this.#stdout += `${line}\n`;
    for (const waiting of this.#waiting.filter(({ matches }) => matches(line))) {
      this.#waiting = this.#waiting.filter((other) => other !== waiting);
      waiting.found();
    }
  }

  /** When a line of stdout matches; an error where the process ends without one. */
  async line(matches: (line: string) => boolean): Promise<void> {
    if (this.#stdout.split('\n').some((line) => line !== '' && matches(line))) return;
    await Promise.race([
      new Promise<void>((found) => {
        this.#waiting.push({ matches, found });
      }),
      this.ended.then(({ stderr }) => {
        throw new Error(`the process ended before the line came: ${stderr}`);
      }),
    ]);
  }
}

/** The `alexnode` command, in `cwd`. */
export function cli(
  args: string[],
  cwd: string,
  environment?: NodeJS.ProcessEnv,
  stdin?: Uint8Array | string | 'open',
): Child {
  return new Child(join(ROOT, 'lib', 'cli', 'main.ts'), args, cwd, environment, stdin);
}

/** Runs the command in this process, in `cwd`: an empty folder unless it is given. Only in serial tests. */
export async function inProcess(
  args: string[],
  cwd = temporary(),
): Promise<{ code: number; stdout: string; stderr: string; files: string[] }> {
  const { runCommand } = await import('../lib/cli/program.js');
  const printed = { stdout: '', stderr: '' };
  const original = { stdout: process.stdout.write, stderr: process.stderr.write, cwd: process.cwd() };
  process.chdir(cwd);
  for (const name of ['stdout', 'stderr'] as const) {
    process[name].write = (text: string | Uint8Array) => {
      printed[name] += String(text);
      return true;
    };
  }
  try {
    const code = await runCommand(['node', 'alexnode', ...args]);
    return { code, ...printed, files: readdirSync(cwd) };
  } finally {
    process.stdout.write = original.stdout;
    process.stderr.write = original.stderr;
    process.chdir(original.cwd);
  }
}

/** The events of a training that `--json` printed; the URL of its page and its report, which the command adds, are none. */
export function eventsOf(stdout: string): TrainEvent[] {
  return linesOf(stdout).filter(({ type }) => type !== 'page' && type !== 'report') as unknown as TrainEvent[];
}

/** All lines that `--json` printed. */
export function linesOf(stdout: string): { type: string; [key: string]: unknown }[] {
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

/** The bytes of a PNG of one colour with a mark in it; another `mark` is another picture. */
export function picture(size: number, mark: number): Uint8Array {
  const data = new Uint8Array(size * size * 3).fill(90 + 20 * (mark % 5));
  // Its bytes in base 251, one pixel each.
  for (let digit = 0, rest = mark; digit < 3; digit += 1, rest = Math.floor(rest / 251)) data[digit] = rest % 251;
  return encode({ width: size, height: size, data, channels: 3 });
}

/** Writes pictures of 20 pixels, all different: `{ 'train/cat': 8 }` makes `train/cat/0.png` to `train/cat/7.png`. */
export function photos(folder: string, counts: Record<string, number>): string {
  let mark = 0;
  for (const [name, count] of Object.entries(counts)) {
    mkdirSync(join(folder, name), { recursive: true });
    for (let index = 0; index < count; index += 1) {
      mark += 1;
      writeFileSync(join(folder, name, `${index}.png`), picture(20, mark));
    }
  }
  return folder;
}

/** The shared real data, or `undefined` where this machine has none. */
export function sharedData(path: string): string | undefined {
  const full = resolve(process.env.ALEXNODE_TEST_DATA ?? join(ROOT, '..', 'shared', 'data'), path);
  return existsSync(full) ? full : undefined;
}

/**
 * Debian's Chromium, or the one that CHROMIUM names. Where there is none the test is skipped, loudly; with ALEXNODE_REQUIRE_CHROMIUM it fails.
 */
export function chromiumPath(t: { fail(why: string): void; pass(): void; title: string }): string | undefined {
  const known = [
    process.env.CHROMIUM ?? '',
    '/usr/bin/chromium',
    '/usr/bin/chromium-browser',
    '/usr/bin/google-chrome',
  ];
  const path = known.find((candidate) => candidate !== '' && existsSync(candidate));
  if (path !== undefined) return path;
  const why = 'no Chromium (apt-get install chromium, or name one in CHROMIUM)';
  if (process.env.ALEXNODE_REQUIRE_CHROMIUM !== undefined) t.fail(why);
  else {
    process.stderr.write(`SKIPPED, what "${t.title}" does in a browser: ${why}\n`);
    t.pass();
  }
  return undefined;
}
