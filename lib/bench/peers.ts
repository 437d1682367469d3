/**
 * Other programs that train the same network, under the clock of a bench: each is an adapter in bench/peers that reads a request per line and answers with
 * one, so that steps of all can take turns.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';

import { AlexnodeError } from '../errors.js';
import type { NetworkSpec } from '../layers.js';
import type { Pass } from '../timings.js';

/** The peers that there are adapters for. */
export const PEERS = ['torch', 'tfjs'] as const;
export type PeerName = (typeof PEERS)[number];

/** Where a peer's programs are found. */
export interface PeerPlaces {
  /** A Python with PyTorch; default `python3`. */
  python?: string;
  /** A folder whose `node_modules` have TensorFlow.js; default: the current one. */
  modules?: string;
}

/** How an adapter is started. */
interface Adapter {
  file: string;
  program: (places: PeerPlaces) => string;
  settings: { name: string; environment: (threads: number) => Record<string, string> }[];
  remedy: string;
  /** At most so many images of a minibatch: what is a hundred times slower cannot be waited for. */
  most?: number;
}

/** One thread per core, each on its own: else a single other program can put two of them on one. */
const pinned = (threads: number) => ({
  OMP_NUM_THREADS: String(threads),
  OMP_PROC_BIND: 'true',
  OMP_PLACES: 'cores',
});

/** The allocator of glibc keeps all memory and takes it in huge pages: a first touch of fresh memory costs as much as arithmetic. */
const KEEP_MEMORY = {
  MALLOC_MMAP_MAX_: '0',
  MALLOC_TRIM_THRESHOLD_: '68719476736',
  MALLOC_TOP_PAD_: '268435456',
  MALLOC_ARENA_MAX: '1',
  GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1',
};

const ADAPTERS: Record<PeerName, Adapter> = {
  torch: {
    file: 'torch_peer.py',
    program: ({ python }) => python ?? 'python3',
    settings: [
      { name: 'plain', environment: (threads) => ({ OMP_NUM_THREADS: String(threads) }) },
      { name: 'tuned', environment: (threads) => ({ ...pinned(threads), ...KEEP_MEMORY }) },
    ],
    remedy:
      'python3 -m venv torchenv && torchenv/bin/pip install torch==2.13.0 numpy, then --python torchenv/bin/python (its tuned setting needs g++)',
  },
  tfjs: {
    file: 'tfjs-peer.mjs',
    program: () => process.execPath,
    settings: [{ name: 'plain', environment: () => ({}) }],
    remedy: 'npm install --prefix tfjsenv @tensorflow/tfjs@4.22.0, then --modules tfjsenv',
    most: 4,
  },
};

/** What an adapter is asked to do. */
export interface PeerJob {
  network: NetworkSpec;
  batch: number;
  threads: number;
  momentum: number;
  /** A checkpoint with the weights. */
  weights: string;
}

type Answer = { type: string; message?: string } & Record<string, unknown>;

/** Seconds of each step. */
export interface PeerSamples {
  seconds: number[];
  peakBytes: number;
}

/** Seconds of a row's pass in each step. */
export interface PeerRow {
  row: string;
  phase: Pass;
  seconds: number[];
}

/** An adapter at work. */
export class Peer {
  readonly name: PeerName;
  readonly setting: string;
  readonly batch: number;
  version = '';
  details = '';
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;
  #stderr = '';

  private constructor(name: PeerName, setting: string, batch: number, child: ChildProcessByStdio<Writable, Readable, Readable>) {
    this.name = name;
    this.setting = setting;
    this.batch = batch;
    this.#child = child;
    this.#reader = createInterface({ input: child.stdout });
    this.#lines = this.#reader[Symbol.asyncIterator]();
    // What the program says of its own accord is told only where it fails.
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-2000);
    });
    child.stdin.on('error', () => undefined);
  }

  /** The settings of a peer, and how many images it is asked to train on at a time where the bench trains on `batch`. */
  static settings(name: PeerName, batch: number): { setting: string; batch: number }[] {
    const { settings, most } = ADAPTERS[name];
    return settings.map((setting) => ({ setting: setting.name, batch: Math.min(batch, most ?? batch) }));
  }

  /** What installs a peer. */
  static remedy(name: PeerName): string {
    return ADAPTERS[name].remedy;
  }

  /** Starts an adapter in a setting. What keeps it from taking part is an error with its own words; ERR_ABORTED where `signal` is aborted. */
  static async open(name: PeerName, setting: string, job: PeerJob, places: PeerPlaces, signal?: AbortSignal): Promise<Peer> {
    const adapter = ADAPTERS[name];
    const found = adapter.settings.find((one) => one.name === setting);
    const file = fileURLToPath(new URL(`../../bench/peers/${adapter.file}`, import.meta.url));
    if (!existsSync(file)) {
      throw new AlexnodeError('ERR_USAGE', `the adapter ${adapter.file} is not part of the package`, {
        hint: 'Run `npm run bench` in the repository.',
      });
    }
    const child = spawn(adapter.program(places), [file], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...found?.environment(job.threads), ALEXNODE_MODULES: places.modules ?? process.cwd() },
      ...(signal === undefined ? {} : { signal }),
    });
    const peer = new Peer(name, setting, job.batch, child);
    try {
      await new Promise((resolve, reject) => {
        child.once('spawn', resolve);
        child.once('error', reject);
      });
      child.on('error', () => undefined);
      const { version, details } = await peer.#ask({ type: 'open', setting, ...job });
      peer.version = String(version);
      peer.details = String(details);
      return peer;
    } catch (error) {
      await peer.close();
      throw error;
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async train(steps: number): Promise<PeerSamples> {
    return (await this.#ask({ type: 'train', steps })) as unknown as PeerSamples;
  }

  async infer(steps: number): Promise<PeerSamples> {
    return (await this.#ask({ type: 'infer', steps })) as unknown as PeerSamples;
  }

  /** `null` where it cannot tell. */
  async layers(steps: number): Promise<PeerRow[] | null> {
    const { rows } = await this.#ask({ type: 'layers', steps });
    return (rows ?? null) as PeerRow[] | null;
  }

  /** Multiplications and additions per second of a product of matrices; `null` where it has none. */
  async gemm(): Promise<number | null> {
    const { flopsPerSecond } = await this.#ask({ type: 'gemm' });
    return (flopsPerSecond ?? null) as number | null;
  }

  /** What the last layer puts out, a row per image, for the central crops of `images` pictures of the size that the network stores. */
  async outputs(pixels: string, images: number): Promise<number[][]> {
    const { outputs } = await this.#ask({ type: 'check', pixels, images });
    return outputs as number[][];
  }

  /** Ends it. */
  async close(): Promise<void> {
    this.#child.stdin.end();
    this.#reader.close();
    if (this.#child.exitCode === null && this.#child.signalCode === null && this.#child.pid !== undefined) {
      const gone = new Promise((resolve) => this.#child.once('close', resolve));
      this.#child.kill();
      await gone;
    }
  }

  async #ask(request: Record<string, unknown>): Promise<Answer> {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#lines.next();
    if (done === true) {
      const last = this.#stderr.trim().split('\n').at(-1) ?? '';
      throw new AlexnodeError('ERR_DEVICE', `${this.name} (${this.setting}) ended without an answer${last === '' ? '' : `: ${last}`}`);
    }
    const answer = JSON.parse(value) as Answer;
    if (answer.type === 'error' || answer.type === 'missing') {
      throw new AlexnodeError('ERR_DEVICE', `${this.name} (${this.setting}): ${answer.message ?? 'it failed'}`);
    }
    return answer;
  }
}
