/**
 * Other programs that train the same network, under the clock of a bench: each is an adapter in bench/peers that reads a request per line and answers with
 * one, so that steps of all can take turns.
 */
import type { NetworkSpec } from '../layers.js';
import type { Pass } from '../timings.js';
import { Wire } from './wire.js';

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
  readonly version: string;
  readonly details: string;
  readonly #wire: Wire;

  private constructor(name: PeerName, setting: string, batch: number, wire: Wire, ready: Record<string, unknown>) {
    this.name = name;
    this.setting = setting;
    this.batch = batch;
    this.version = String(ready.version);
    this.details = String(ready.details);
    this.#wire = wire;
  }

  /** The settings of a peer, and how many images it is asked to train on at a time where the bench trains on `batch`. */
  static settings(name: PeerName, batch: number): { setting: string; batch: number }[] {
    const { settings, most } = ADAPTERS[name];
    return settings.map((setting) => ({ setting: setting.name, batch: Math.min(batch, most ?? batch) }));
  }

  /** Starts an adapter in a setting. What keeps it from taking part is an error with its own words; ERR_ABORTED where `signal` is aborted. */
  static async open(
    name: PeerName,
    setting: string,
    job: PeerJob,
    places: PeerPlaces,
    signal?: AbortSignal,
  ): Promise<Peer> {
    const { file, program, settings, remedy } = ADAPTERS[name];
    const found = settings.find((one) => one.name === setting);
    const environment = { ...found?.environment(job.threads), ALEXNODE_MODULES: places.modules ?? process.cwd() };
    const wire = await Wire.open({
      name: `${name} (${setting})`,
      program: program(places),
      file,
      environment,
      remedy,
      signal,
    });
    try {
      return new Peer(name, setting, job.batch, wire, await wire.ask({ type: 'open', setting, ...job }));
    } catch (error) {
      await wire.close();
      throw error;
    }
  }

  get pid(): number {
    return this.#wire.pid;
  }

  async train(steps: number): Promise<PeerSamples> {
    return (await this.#wire.ask({ type: 'train', steps })) as unknown as PeerSamples;
  }

  async infer(steps: number): Promise<PeerSamples> {
    return (await this.#wire.ask({ type: 'infer', steps })) as unknown as PeerSamples;
  }

  /** `null` where it cannot tell. */
  async layers(steps: number): Promise<PeerRow[] | null> {
    const { rows } = await this.#wire.ask({ type: 'layers', steps });
    return (rows ?? null) as PeerRow[] | null;
  }

  /** Multiplications and additions per second of a product of matrices; `null` where it has none. */
  async gemm(): Promise<number | null> {
    const { flopsPerSecond } = await this.#wire.ask({ type: 'gemm' });
    return (flopsPerSecond ?? null) as number | null;
  }

  /** What the last layer puts out, a row per image, for the central crops of `images` pictures of the size that the network stores. */
  async outputs(pixels: string, images: number): Promise<number[][]> {
    const { outputs } = await this.#wire.ask({ type: 'check', pixels, images });
    return outputs as number[][];
  }

  /** Ends it. */
  async close(): Promise<void> {
    await this.#wire.close();
  }
}
