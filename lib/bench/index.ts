/**
 * `bench()`: the throughput of training and of inference, layer by layer, against what the machine can do and beside other programs on the same network,
 * weights and batch.
 *
 * All that is compared takes turns in one run: ours, each peer in each setting, ours again, in another order each round, so that whatever else the machine does hits all of them.
 * Every layer is timed inside whole steps, by stamps, with the data and the caches that training leaves to it.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { check } from '../config.js';
import { doctor } from '../doctor.js';
import { environment } from '../environment.js';
import { AlexnodeError } from '../errors.js';
import { gpus } from '../gpu-check/gpus.js';
import { RATE_OF_2012 } from '../gpu-check/index.js';
import type { NetworkSpec } from '../layers.js';
import { chooseDevices } from '../network.js';
import { any, count, devices, flag, positive, type Shape, text, texts, whole } from '../options.js';
import type { Precision } from '../precision.js';
import { type Ceilings, measureCeilings, type Spread } from '../timings.js';
import { type Meanwhile, OwnRunner, PeerRunner, peerOf, round } from './contest.js';
import { Peer, type PeerName, type PeerPlaces } from './peers.js';
import { differenceOf, type Reference, reference } from './reference.js';
import { type BenchPeer, type BenchReport, type MissingPeer, missingPeer, rateOf, spreadOf } from './report.js';
import { joined, layersOf, shapesOf, stepFlops, stepOf } from './steps.js';
import { chosenRows, openSubject, type Subject, type SubjectOptions, workOf } from './subject.js';

export { type BaselineOutcome, compareWithBaseline, type Slower } from './baseline.js';
export { benchLatency, type LatencyOptions, type LatencyReport } from './latency.js';
export { benchLoader, LOADER_STAGES, type LoaderOptions, type LoaderReport, type LoaderStage } from './loader.js';
export { PEERS, type PeerName, type PeerPlaces } from './peers.js';
export { writeRoofline } from './plot.js';
export type * from './report.js';
export { STEP_PARTS } from './report.js';

/** What to measure. */
export interface BenchOptions {
  /** Default `paper`. */
  preset?: string;
  /** Images of a step; default: the preset's. */
  batch?: number;
  /** Default: the first usable CUDA device, otherwise the CPU. */
  devices?: string[];
  precision?: Precision;
  /** CPU threads, of the peers too; default all. */
  threads?: number;
  /** Only these layers in the table; default all. */
  layers?: string[];
  /** Rounds in which everything has its turn; default 5. */
  rounds?: number;
  /** Seconds of a turn: short steps are repeated in it. Default 0.5. */
  turn?: number;
  peers?: PeerName[];
  places?: PeerPlaces;
  seed?: number;
  /** Whether stderr is told of what takes long; default `false`. */
  notices?: boolean;
  signal?: AbortSignal;
}

/** What a bench tells: what begins, and at last everything. */
export type BenchEvent = { type: 'progress'; message: string } | { type: 'report'; report: BenchReport };

const benchSchema = z.strictObject({
  preset: text,
  batch: count,
  devices,
  precision: text,
  threads: count,
  layers: texts,
  rounds: count,
  turn: positive,
  peers: texts,
  places: z.record(z.string(), any).optional(),
  seed: whole,
  notices: flag,
  signal: any,
} satisfies Shape<BenchOptions>);

/** Runs the bench. A peer that cannot take part is named in `missing`, with what installs it. */
export async function* bench(options: BenchOptions = {}): AsyncGenerator<BenchEvent, void> {
  check(benchSchema, options, 'bench');
  const { preset = 'paper', rounds = 5, turn = 0.5, peers: names = [], seed = 1, notices = false, signal } = options;
  const { precision = 'fp32', devices = chooseDevices().devices, threads, batch } = options;
  const start = performance.now();
  const progress = (message: string): BenchEvent => ({ type: 'progress', message });
  const limits = threads === undefined ? {} : { threads };

  yield progress('ceilings');
  // First: afterwards the trainer has the memory.
  const measured = () => measureCeilings(devices[0] ?? 'cpu', { precision, notices, rounds, ...limits });
  const before = await measured();
  signal?.throwIfAborted();
  yield progress(`${preset}: planning`);
  const given = { preset, devices, precision, seed, notices, ...limits, ...(batch === undefined ? {} : { batch }) };
  const folder = await mkdtemp(join(tmpdir(), 'alexnode-bench-'));
  const theirs: PeerRunner[] = [];
  const missing: MissingPeer[] = [];
  const meanwhile: Meanwhile = { others: [], megahertz: [] };
  try {
    const expected = names.length > 0 ? await expectation(given, folder) : undefined;
    await using subject = await openSubject(given);
    const { network } = subject;
    const chosen = chosenRows(network, options.layers);
    const ours = new OwnRunner(subject.trainer, signal);
    yield progress('warming up');
    await ours.warm(turn);
    if (expected !== undefined) {
      for (const name of names) yield* enter(name, { options, subject, expected, turn }, theirs, missing);
    }
    const pids = theirs.map(({ peer }) => peer.pid);
    for (let index = 0; index < rounds; index += 1) {
      yield progress(`round ${index + 1} of ${rounds}`);
      await round([ours, ...theirs], index, pids, meanwhile, signal);
    }
    const peers: Record<string, BenchPeer> = {};
    for (const name of names) {
      const own = theirs.filter(({ peer }) => peer.name === name);
      const found = await peerOf(own, ours, subject.recipe.batch);
      if (found !== null) peers[name] = found;
    }
    yield progress('ceilings again');
    // Its memory and that of a large copy would be held at once, which no training does.
    await subject.trainer.dispose();
    const ceilings = better(before, await measured());
    const report = await reportOf({ subject, options, ceilings, ours, peers, missing, meanwhile, rounds });
    report.layers = report.layers.filter(({ name }) => chosen(name));
    report.shapes = report.shapes.filter(({ name }) => chosen(name));
    report.seconds = (performance.now() - start) / 1000;
    yield { type: 'report', report };
  } catch (error) {
    if (signal?.aborted === true) throw new AlexnodeError('ERR_ABORTED', 'the bench was stopped');
    throw error;
  } finally {
    await Promise.all(theirs.map(({ peer }) => peer.close()));
    await rm(folder, { recursive: true, force: true });
  }
}

/** Of two measurements of the same device, each ceiling as it was reached. */
function better(one: Ceilings, two: Ceilings): Ceilings {
  const best = (a: Spread, b: Spread) => (b.most > a.most ? b : a);
  const multiply = { ...one.multiply };
  for (const [name, rate] of Object.entries(two.multiply)) {
    const key = name as Precision;
    multiply[key] = best(multiply[key] ?? rate, rate);
  }
  const gemm = one.gemm === null || two.gemm === null ? (one.gemm ?? two.gemm) : best(one.gemm, two.gemm);
  return { ...one, copy: best(one.copy, two.copy), multiply, gemm };
}

/** Where a peer enters. */
interface Entry {
  options: BenchOptions;
  subject: Subject;
  expected: Expectation;
  turn: number;
}

/** What a peer begins with, and what it must make of it. */
interface Expectation extends Reference {
  /** A checkpoint with the weights that the subject has. */
  weights: string;
}

/** Of a subject that is closed again: two networks would be held at once otherwise, which no training does. The seed makes the same weights again. */
async function expectation(given: SubjectOptions, folder: string): Promise<Expectation> {
  const weights = join(folder, 'weights.safetensors');
  let network: NetworkSpec;
  {
    await using subject = await openSubject(given);
    network = subject.network;
    await subject.trainer.save(weights);
  }
  return { weights, ...(await reference(network, folder, weights)) };
}

/** Opens a peer in all its settings, sees whether it computes the same, and warms it up. */
async function* enter(
  name: PeerName,
  { options, subject, expected, turn }: Entry,
  theirs: PeerRunner[],
  missing: MissingPeer[],
): AsyncGenerator<BenchEvent, void> {
  const { network, recipe } = subject;
  const { places = {}, signal } = options;
  const threads = options.threads ?? availableParallelism();
  for (const { setting, batch } of Peer.settings(name, recipe.batch)) {
    yield { type: 'progress', message: `${name} (${setting}): opening and warming up` };
    let peer: Peer | undefined;
    try {
      const job = { network, batch, threads, momentum: recipe.momentum, weights: expected.weights };
      peer = await Peer.open(name, setting, job, places, signal);
      const runner = new PeerRunner(peer, await differenceOf(peer, expected));
      await runner.warm(turn);
      theirs.push(runner);
    } catch (error) {
      await peer?.close();
      signal?.throwIfAborted();
      missing.push(missingPeer(`${name} (${setting})`, error));
    }
  }
}

/** What a report is made from. */
interface Findings {
  subject: Subject;
  options: BenchOptions;
  ceilings: Ceilings;
  ours: OwnRunner;
  peers: Record<string, BenchPeer>;
  missing: MissingPeer[];
  meanwhile: Meanwhile;
  rounds: number;
}

async function reportOf({
  subject,
  options,
  ceilings,
  ours,
  peers,
  missing,
  meanwhile,
  rounds,
}: Findings): Promise<BenchReport> {
  const { preset, network, recipe, trainer } = subject;
  const { precision = 'fp32', threads } = options;
  const shapes = shapesOf(network, trainer.info, recipe.batch);
  const trained = joined(ours.profiles.train);
  const layers = layersOf(network, shapes, trained, ceilings, precision);
  for (const layer of layers) {
    for (const [name, { settings }] of Object.entries(peers)) {
      const same = settings.flatMap((one) =>
        one.layers.filter((it) => it.name === layer.name && it.pass === layer.pass),
      );
      if (same.length > 0) layer.peers[name] = { ms: Math.min(...same.map(({ ms }) => ms)) };
    }
  }
  const step = stepOf(trained, stepFlops(layers));
  const ratios = Object.values(peers).map(({ ratio }) => ratio);
  const least = (of: 'step' | 'inference') => Math.min(...ratios.map((ratio) => ratio[of]));
  const { counters, memory } = trainer.info;
  const onCuda = trained.slots.some(({ device }) => device.startsWith('cuda'));
  const { images } = workOf(preset);
  return {
    type: 'bench',
    date: new Date().toISOString(),
    preset,
    classes: network.classes,
    batch: recipe.batch,
    devices: trained.slots.map(({ device: name, description }) => ({ name, description })),
    precision,
    threads: threads ?? null,
    rounds,
    environment: await environment(),
    clocks: {
      megahertz: meanwhile.megahertz.length > 0 ? spreadOf(meanwhile.megahertz) : null,
      gpus: onCuda ? await gpus() : null,
      driver: onCuda ? ((await doctor()).cuda.driver ?? null) : null,
    },
    others: meanwhile.others.length > 0 ? spreadOf(meanwhile.others) : null,
    ceilings,
    shapes,
    layers,
    step,
    inference: rateOf(ours.seconds.infer.flat(), recipe.batch),
    peers,
    missing,
    ratio: ratios.length > 0 ? { step: least('step'), inference: least('inference') } : null,
    counters: {
      ...counters,
      memoryBytes: memory.map(({ totalBytes }) => totalBytes),
      peakBytes: process.resourceUsage().maxRSS * 1024,
    },
    of2012: RATE_OF_2012,
    forecast: { epochs: recipe.epochs, images, seconds: (recipe.epochs * images) / step.imagesPerSecond },
    seconds: 0,
  };
}
