/** Ours and the peers, each in its turn: who runs, how often, and what came of it. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Pass, Profile, ProfileMode } from '../timings.js';
import type { Trainer } from '../trainer.js';
import { megahertz, watched } from './busy.js';
import type { Peer } from './peers.js';
import { type BenchPeer, type BenchSetting, rateOf, spreadOf } from './report.js';

/** Seconds between two turns: the threads of whoever had the last one stop to wait for work. */
const PAUSE = 0.2;
/** The most steps of a turn. */
const MOST_STEPS = 50;

type Verb = 'train' | 'infer';

/** Something that takes turns. */
export abstract class Runner {
  /** Seconds of each step, by round. */
  readonly seconds: Record<Verb, number[][]> = { train: [], infer: [] };
  readonly #steps: Record<Verb, number> = { train: 1, infer: 1 };
  /** Whether what is measured counts. */
  #counts = false;

  protected abstract run(verb: Verb, steps: number, counts: boolean): Promise<number[]>;
  /** Steps in which every layer is timed, where that is another thing. */
  protected abstract layers(steps: number, counts: boolean): Promise<void>;

  /** The first steps touch memory, compile and load; the next ones tell how many fit into a turn of `turn` seconds. */
  async warm(turn: number): Promise<void> {
    for (const verb of ['train', 'infer'] as const) {
      await this.run(verb, 1, false);
      const [seconds = turn] = await this.run(verb, 1, false);
      this.#steps[verb] = Math.min(MOST_STEPS, Math.max(1, Math.round(turn / seconds)));
    }
    await this.layers(1, false);
    this.#counts = true;
  }

  /** One turn. */
  async turn(): Promise<void> {
    for (const verb of ['train', 'infer'] as const) {
      this.seconds[verb].push(await this.run(verb, this.#steps[verb], this.#counts));
    }
  }

  /** The layers have a turn of their own. */
  async layerTurn(): Promise<void> {
    await this.layers(this.#steps.train, this.#counts);
  }
}

/** This package's trainer: its steps tell of their layers by themselves. */
export class OwnRunner extends Runner {
  readonly profiles: Record<ProfileMode, Profile[]> = { train: [], evaluate: [] };
  readonly #trainer: Trainer;
  readonly #signal: AbortSignal | undefined;

  constructor(trainer: Trainer, signal: AbortSignal | undefined) {
    super();
    this.#trainer = trainer;
    this.#signal = signal;
  }

  protected async run(verb: Verb, steps: number, counts: boolean): Promise<number[]> {
    const mode = verb === 'train' ? 'train' : 'evaluate';
    const stop = this.#signal === undefined ? {} : { signal: this.#signal };
    const profile = await this.#trainer.profile({ mode, steps, ...stop });
    if (counts) this.profiles[mode].push(profile);
    return profile.steps.map(({ seconds }) => seconds);
  }

  protected async layers(): Promise<void> {}
}

/** A peer in one setting. */
export class PeerRunner extends Runner {
  readonly peer: Peer;
  /** Of its outputs from ours. */
  readonly difference: number;
  #peakBytes = 0;
  readonly #rows = new Map<string, { name: string; pass: Pass; seconds: number[] }>();

  constructor(peer: Peer, difference: number) {
    super();
    this.peer = peer;
    this.difference = difference;
  }

  protected async run(verb: Verb, steps: number): Promise<number[]> {
    const { seconds, peakBytes } = await this.peer[verb](steps);
    this.#peakBytes = peakBytes;
    return seconds;
  }

  protected async layers(steps: number, counts: boolean): Promise<void> {
    for (const { row: name, phase: pass, seconds } of (await this.peer.layers(steps)) ?? []) {
      if (!counts) continue;
      const key = `${name} ${pass}`;
      const entry = this.#rows.get(key) ?? { name, pass, seconds: [] };
      entry.seconds.push(...seconds);
      this.#rows.set(key, entry);
    }
  }

  /** What is to be told of it. */
  setting(): BenchSetting {
    const { setting, details, batch } = this.peer;
    return {
      setting,
      details,
      step: rateOf(this.seconds.train.flat(), batch),
      inference: rateOf(this.seconds.infer.flat(), batch),
      peakBytes: this.#peakBytes,
      layers: [...this.#rows.values()].map(({ name, pass, seconds }) => ({
        name,
        pass,
        ms: spreadOf(seconds).median * 1e3,
      })),
      difference: this.difference,
    };
  }
}

/** What the machine did meanwhile. */
export interface Meanwhile {
  /** Share of the processors' time that other programs took, by turn. */
  others: number[];
  megahertz: number[];
}

/** One round: everybody has a turn, in another order each time. */
export async function round(
  runners: readonly Runner[],
  index: number,
  pids: readonly number[],
  meanwhile: Meanwhile,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const runner of turned(runners, index)) {
    signal?.throwIfAborted();
    await sleep(PAUSE * 1000);
    const [, share] = await watched(pids, () => runner.turn());
    if (share !== null) meanwhile.others.push(share);
    meanwhile.megahertz.push(...megahertz());
    await runner.layerTurn();
  }
}

/** `items` in the order of a round: each begins once, forwards and backwards in turn. */
export function turned<T>(items: readonly T[], index: number): T[] {
  const from = index % items.length;
  const order = [...items.slice(from), ...items.slice(0, from)];
  return index % 2 === 0 ? order : order.reverse();
}

/** A peer in all its settings. */
export async function peerOf(runners: readonly PeerRunner[], ours: Runner, batch: number): Promise<BenchPeer | null> {
  const found = runners.map((runner) => ({ runner, setting: runner.setting() }));
  const [fastest] = found.sort((a, b) => b.setting.step.imagesPerSecond - a.setting.step.imagesPerSecond);
  if (fastest === undefined) return null;
  const { peer } = fastest.runner;
  const settings = found.map(({ setting }) => setting);
  return {
    version: peer.version,
    fastest: peer.setting,
    batch: peer.batch,
    step: fastest.setting.step,
    inference: settings
      .map(({ inference }) => inference)
      .reduce((a, b) => (b.imagesPerSecond > a.imagesPerSecond ? b : a)),
    settings,
    gemm: await peer.gemm(),
    ratio: ratioOf(ours, runners, batch / peer.batch),
  };
}

/** Images per second, ours over the fastest of theirs, in each round. `images`: how many times as many a step of ours has. */
function ratioOf(ours: Runner, theirs: readonly Runner[], images: number): BenchPeer['ratio'] {
  const of = (verb: Verb) =>
    spreadOf(
      ours.seconds[verb].map((seconds, index) => {
        const best = Math.min(...theirs.map((one) => spreadOf(one.seconds[verb][index] ?? []).median));
        return (images * best) / spreadOf(seconds).median;
      }),
    );
  const [step, inference] = [of('train'), of('infer')];
  return { step: step.median, inference: inference.median, spread: { step, inference } };
}
