/** The training loop. It reads from top to bottom: epochs, segments of steps, validation, checkpoint. */

import { z } from 'zod';
import { type CheckpointMetadata, parseMetadata, type Saved } from './checkpoint.js';
import { check } from './config.js';
import { checkClasses, type Dataset, namesOf } from './data.js';
import {
  causeOfChance,
  diagnoseEpoch,
  diagnoseStart,
  FIRST_STEPS,
  inputBound,
  labelSuspects,
  suspects,
} from './diagnose.js';
import { draw } from './draw.js';
import {
  Engine,
  type EvaluateOptions,
  type Evaluation,
  type Judgement,
  type SegmentReport,
  type Tensor,
  testSchema,
} from './engine.js';
import { VERSION } from './environment.js';
import { AlexnodeError, fromNative, usage } from './errors.js';
import type {
  Change,
  CheckpointEvent,
  Cursor,
  EpochEvent,
  LayerHealth,
  Metrics,
  StartEvent,
  Status,
  StepEvent,
  TrainEvent,
  TrainResult,
  UnitHealth,
  WarningEvent,
} from './events.js';
import { dataWarnings, diverged, Guard } from './guard.js';
import { healthOf, LOOKED_AT } from './health.js';
import type { Adoption } from './init.js';
import { describeNetwork, type NetworkInfo, parametricLayers } from './network.js';
import { any, type Shape, whole } from './options.js';
import { Pace } from './pace.js';
import type { Rates, Recipe } from './recipe.js';
import type { Run } from './run.js';
import { createSchedule } from './schedule.js';
import { nextSegment, ratesAt, type SegmentPlan } from './segment.js';
import { type RunConfig, settle, type TrainerOptions, trainerSchema } from './settle.js';
import { Standing } from './standing.js';
import type { Profile, ProfileOptions, TimingOptions, Timings } from './timings.js';
import { profileSchema, timingSchema } from './timings.js';

/** How far and where to train. */
export interface TrainerRunOptions {
  /** Run folder for events, metrics, checkpoints and pictures; without it nothing is written. */
  run?: Run;
  /** Stop after this many steps. */
  steps?: number;
  /** Finish the running step, save, end. */
  signal?: AbortSignal;
  /** For the start event: the checkpoint gone on from, and what was changed. */
  resumed?: { path: string; changed: Change[] };
  /** To be told after the start event. */
  warnings?: WarningEvent[];
}

const runSchema = z.strictObject({
  run: any,
  steps: whole,
  signal: any,
  resumed: any,
  warnings: any,
} satisfies Shape<TrainerRunOptions>);

/** What one call of `train` keeps in mind. */
class Session {
  readonly run: Run | undefined;
  readonly pace = new Pace();
  /** The step at which it is to stop. */
  readonly until: number;
  stopping = false;
  saveRequested = false;
  savedAt = performance.now();
  /** The cursor of the last checkpoint. */
  saved: Cursor | undefined;
  /** Whether it waits, and what ends the waiting. */
  paused = false;
  wake: () => void = () => undefined;

  constructor(run: Run | undefined, until: number) {
    this.run = run;
    this.until = until;
  }
}

/** What a validation found, of the images and of the layers. */
interface Validated {
  val: Metrics | null;
  layers: LayerHealth[];
  units: UnitHealth[];
}

const NOT_VALIDATED: Validated = { val: null, layers: [], units: [] };

/** A network, its optimiser and where the training stands. One `train` or `evaluate` at a time. */
export class Trainer implements AsyncDisposable {
  readonly config: RunConfig;
  readonly data: Dataset;
  /** Layers, memory and counters of the network on these devices. */
  readonly info: NetworkInfo;
  /** Batches per epoch; the last may be short. */
  readonly batches: number;
  readonly #engine: Engine;
  readonly #plan: SegmentPlan;
  readonly #standing = new Standing();
  #guard: Guard;
  #session: Session | undefined;
  #judgement: Judgement | undefined;
  /** Codes of the warnings since the last epoch. */
  readonly #warnedInEpoch: string[] = [];

  private constructor(config: RunConfig, data: Dataset, info: NetworkInfo, engine: Engine) {
    this.config = config;
    this.data = data;
    this.info = info;
    this.batches = Math.ceil(data.info.train / config.recipe.batch);
    this.#engine = engine;
    const { recipe, network } = config;
    const layers = parametricLayers(network);
    this.#plan = { recipe, schedule: createSchedule(recipe), batches: this.batches, layers };
    this.#guard = this.#newGuard();
  }

  /** Plans the network, takes the devices, draws the weights. ERR_USAGE, ERR_SHAPE or ERR_DEVICE names what does not fit. */
  static async create(options: TrainerOptions): Promise<Trainer> {
    check(trainerSchema, options, 'trainer');
    const { data } = options;
    const config = settle(options);
    const { network, recipe, devices, threads, seed, precision } = config;
    const { batch, momentum } = recipe;
    const limits = threads === null ? {} : { threads };
    const classWeights = data.config.balance === 'loss';
    const info = describeNetwork(network, { batch, devices, precision, classWeights, ...limits });
    const notices = options.notices ?? false;
    const engine = await Engine.create(
      { network, devices, batch, seed, momentum, precision, notices, ...limits },
      data,
    );
    return new Trainer(config, data, info, engine);
  }

  /** How data gets from one device to another, and how fast, in words; `null` where there is nothing to tell. */
  get link(): string | null {
    return this.#engine.link;
  }

  /** What the network made of each validation image the last time. */
  get judgement(): Judgement | undefined {
    return this.#judgement;
  }

  /** Where the training stands. */
  get cursor(): Readonly<Cursor> {
    return this.#standing.cursor;
  }

  /**
   * Trains from where it stands to the planned end and tells what happens. Leaving the `for await` loop early, `stop()` and the
   * signal do the same: the running step is finished, a checkpoint saved (with a run folder), the training ended as `interrupted`.
   * A non-finite loss ends it as `diverged` and throws ERR_DIVERGED after the `end` event.
   */
  async *train(options: TrainerRunOptions = {}): AsyncGenerator<TrainEvent, TrainResult> {
    check(runSchema, options, 'train');
    if (this.#session !== undefined) throw usage('this trainer is training already');
    const { run, signal } = options;
    const session = new Session(run, this.cursor.step + (options.steps ?? Number.POSITIVE_INFINITY));
    const stop = () => this.stop();
    this.#session = session;
    signal?.addEventListener('abort', stop, { once: true });
    if (signal?.aborted === true) this.stop();
    let ended = false;
    try {
      yield await this.#tell(this.#startEvent(options));
      for (const warning of [...(options.warnings ?? []), ...dataWarnings(this.data.info)])
        yield await this.#tell(warning);
      yield* this.#epochs(session);
      if (run !== undefined && session.saved !== this.cursor) yield await this.#checkpoint(run, 'end');
      ended = true;
      const result = this.#standing.result(this.#status(session));
      yield await this.#tell({ type: 'end', result });
      return result;
    } catch (error) {
      if (ended) throw error;
      ended = true;
      const failure = await this.#explain(error, run);
      const status = failure.code === 'ERR_DIVERGED' ? 'diverged' : 'failed';
      const end: TrainEvent = { type: 'end', result: this.#standing.result(status, failure) };
      // The disk may be what failed: the caller is to see the first error, not the second.
      yield await this.#tell(end).catch(() => end);
      throw failure;
    } finally {
      try {
        if (!ended) await this.#abandon(session);
      } finally {
        signal?.removeEventListener('abort', stop);
        this.#session = undefined;
      }
    }
  }

  async *#epochs(session: Session): AsyncGenerator<TrainEvent, void> {
    const { run } = session;
    if (run !== undefined && this.cursor.step === 0) {
      const failed = await this.#draw(run);
      if (failed !== undefined) yield await this.#tell(failed);
    }
    while (this.cursor.epoch < this.config.recipe.epochs) {
      while (this.cursor.batch < this.batches) {
        if (session.paused) yield* this.#wait(session);
        if (session.stopping || this.cursor.step >= session.until) return;
        const report = await this.#segment(session);
        if (report.steps > 0) yield await this.#tell(this.#stepEvent(session, report));
        for (const warning of await this.#diagnoseSteps(report)) yield await this.#tell(warning);
        if (run !== undefined && this.#saveIsDue(session)) {
          yield await this.#checkpoint(run, session.saveRequested ? 'request' : 'timer');
        }
      }
      if (session.stopping) return;
      const validated = this.#validationIsDue();
      const found = validated ? await this.#validate(session) : NOT_VALIDATED;
      if (found === 'stopped') return;
      const { event, warnings } = this.#closeEpoch(found);
      yield await this.#tell(event);
      for (const warning of warnings) yield await this.#tell(warning);
      if (run === undefined || !validated) continue;
      yield await this.#checkpoint(run, 'epoch', event.best);
      const failed = await this.#draw(run);
      if (failed !== undefined) yield await this.#tell(failed);
    }
  }

  async #draw(run: Run): Promise<WarningEvent | undefined> {
    return draw(run, this.config.network, this.cursor.epoch, (name) => this.tensor(name));
  }

  /** Waits until it is to go on or to end; a checkpoint that is asked for meanwhile is saved. */
  async *#wait(session: Session): AsyncGenerator<TrainEvent, void> {
    yield await this.#tell({ type: 'pause', paused: true });
    while (session.paused && !session.stopping) {
      if (session.run !== undefined && session.saveRequested) {
        yield await this.#checkpoint(session.run, 'request');
      } else {
        await new Promise<void>((resolve) => {
          session.wake = resolve;
        });
      }
    }
    yield await this.#tell({ type: 'pause', paused: false });
  }

  /** Those that were not told before in this run; they are noted for the row of the epoch. */
  #news(warnings: readonly (WarningEvent | undefined)[]): WarningEvent[] {
    const { warned } = this.#standing.progress;
    const news = warnings.filter(
      (warning) => warning !== undefined && !warned.includes(warning.code),
    ) as WarningEvent[];
    const codes = news.map(({ code }) => code);
    warned.push(...codes);
    this.#warnedInEpoch.push(...codes);
    return news;
  }

  /** What the steps so far show. */
  async #diagnoseSteps({ steps, loss }: SegmentReport): Promise<WarningEvent[]> {
    const chance = this.#guard.observe(this.cursor.step, steps, loss);
    const { waitSeconds, seconds } = this.#standing.progress.totals;
    // The first seconds are no measure: the loader's threads start, caches are cold.
    const waits = seconds > 10 ? inputBound(waitSeconds / seconds, seconds, this.data.info) : undefined;
    const found = [chance, waits];
    try {
      if (chance !== undefined) {
        const { layers, units } = await this.#look();
        chance.hint = `${causeOfChance(layers, units)} ${chance.hint}`;
      }
      if (steps > 0 && this.cursor.step === FIRST_STEPS) {
        const { layers } = await this.#look(1);
        found.push(diagnoseStart(layers, this.config.recipe, this.#ratesOfLastBatch()));
      }
    } catch (error) {
      if (!(this.#session?.stopping === true && fromNative(error).code === 'ERR_ABORTED')) throw error;
    }
    return this.#news(found);
  }

  /** Steps under one set of rates, for about half a second. */
  async #segment(session: Session): Promise<SegmentReport> {
    const { step } = this.cursor;
    const first = step < FIRST_STEPS ? FIRST_STEPS - step : Number.POSITIVE_INFINITY;
    const most = Math.min(session.pace.steps, session.until - step, first);
    const start = performance.now();
    const report = await this.#engine.run(nextSegment(this.#plan, this.cursor, most));
    session.pace.observe(report.steps, report.seconds);
    this.#standing.addSegment(report, (performance.now() - start) / 1000);
    return report;
  }

  /**
   * After every epoch, and with few training images (`limit`) only when at least as many were trained on as a validation has. A
   * clock must not decide: the plateau schedule follows the validations.
   */
  #validationIsDue(): boolean {
    const last = this.cursor.epoch + 1 >= this.config.recipe.epochs;
    return last || this.#standing.progress.sinceVal >= this.data.info.val;
  }

  async #validate(session: Session): Promise<Validated | 'stopped'> {
    const start = performance.now();
    try {
      const judged = this.data.info.val === 0 ? undefined : await this.#engine.judge({ split: 'val', crops: 1 });
      const health = await this.#look();
      if (judged === undefined) return { val: null, ...health };
      const seconds = (performance.now() - start) / 1000;
      this.#judgement = judged;
      session.pace.observeValidation(seconds);
      const { loss, top1Error, top5Error } = judged;
      const val = { loss, top1Error, top5Error };
      this.#standing.addValidation(val, seconds);
      return { val, ...health };
    } catch (error) {
      if (session.stopping && fromNative(error).code === 'ERR_ABORTED') return 'stopped';
      throw error;
    }
  }

  /** How the layers are doing; their units by `limit` images. */
  async #look(limit = LOOKED_AT): Promise<{ layers: LayerHealth[]; units: UnitHealth[] }> {
    const split = this.data.info.val > 0 ? 'val' : 'train';
    const statistics = await this.#engine.statistics({ split, limit });
    const { network, recipe } = this.config;
    const { momentum } = recipe;
    return healthOf(statistics, network, { momentum, steps: this.cursor.step, rates: this.#ratesOfLastBatch() });
  }

  #ratesOfLastBatch(): Rates {
    return ratesAt(this.#plan, this.cursor.epoch, Math.max(0, this.cursor.batch - 1));
  }

  /** Ends the epoch: what to tell of it, and what it shows. */
  #closeEpoch({ val, layers, units }: Validated): { event: EpochEvent; warnings: WarningEvent[] } {
    const rates = this.#ratesOfLastBatch();
    const { seconds } = this.#standing.progress.totals;
    this.#plan.schedule.observe(val?.top1Error);
    const event = this.#standing.closeEpoch(val, { lr: rates.weight, biasLr: rates.bias }, { layers, units });
    const { recipe } = this.config;
    const data = this.data.info;
    const bestEpoch = this.#standing.progress.best?.epoch;
    const found = diagnoseEpoch({ event, rates, recipe, data, bestEpoch, seconds });
    const labels = val !== null && event.epoch >= recipe.epochs ? this.#suspectLabels(val) : undefined;
    const warnings = this.#news([...found, labels]);
    event.warnings = this.#warnedInEpoch.splice(0);
    return { event, warnings };
  }

  /** Labels that look wrong to the trained network. */
  #suspectLabels(val: Metrics): WarningEvent | undefined {
    if (this.#judgement === undefined) return undefined;
    const found = suspects(this.#judgement);
    const ids = Uint32Array.from(found, ({ id }) => id);
    return labelSuspects(found, namesOf(this.data, 'val', ids), this.data.classes, val, this.data.info.kind);
  }

  async #checkpoint(run: Run, why: CheckpointEvent['why'], best = false): Promise<CheckpointEvent> {
    const { cursor } = this;
    const saved = await run.checkpoints.store(cursor.step, best, (path) => this.save(path));
    if (this.#session !== undefined) {
      Object.assign(this.#session, { saved: cursor, savedAt: performance.now(), saveRequested: false });
    }
    return this.#tell({ type: 'checkpoint', ...saved, step: cursor.step, best, why });
  }

  #saveIsDue(session: Session): boolean {
    const { saveEvery } = this.config;
    return session.saveRequested || (saveEvery !== null && performance.now() - session.savedAt >= saveEvery * 1000);
  }

  async #tell<E extends TrainEvent>(event: E): Promise<E> {
    await this.#session?.run?.record(event);
    return event;
  }

  /** The caller left the loop: what `stop()` would have done. */
  async #abandon({ run, saved }: Session): Promise<void> {
    if (run === undefined) return;
    if (saved !== this.cursor) await this.#checkpoint(run, 'end');
    await this.#tell({ type: 'end', result: this.#standing.result('interrupted') });
  }

  #status(session: Session): Status {
    if (this.cursor.epoch >= this.config.recipe.epochs) return 'completed';
    return session.stopping ? 'interrupted' : 'stopped';
  }

  async #explain(error: unknown, run: Run | undefined): Promise<AlexnodeError> {
    const typed = fromNative(error);
    if (typed.code !== 'ERR_DIVERGED') return typed;
    const saved = run !== undefined && (await run.checkpoints.steps().catch(() => [])).length > 0;
    return diverged(typed, this.config.recipe, saved ? run.folder : undefined);
  }

  #newGuard(): Guard {
    const { network, recipe } = this.config;
    const done = this.#standing.progress.warned.includes('LOSS_AT_CHANCE');
    return new Guard({ classes: network.classes, batches: this.batches, recipe, done });
  }

  #startEvent({ run, resumed }: TrainerRunOptions): StartEvent {
    const { network, recipe, devices } = this.config;
    return {
      type: 'start',
      run: run?.folder ?? null,
      network: network.name,
      parameters: this.info.parameters,
      classes: network.classes,
      devices,
      batch: recipe.batch,
      batches: this.batches,
      epochs: recipe.epochs,
      cursor: this.cursor,
      resumed: resumed?.path ?? null,
      changed: resumed?.changed ?? [],
      init: this.config.init ?? null,
    };
  }

  #stepEvent(session: Session, report: SegmentReport): StepEvent {
    const { epoch, batch, step } = this.cursor;
    const { recipe } = this.config;
    const { train, val } = this.data.info;
    const { loss, top1Error, top5Error, samples, seconds, waitSeconds } = report;
    const { weight: lr, bias: biasLr } = ratesAt(this.#plan, epoch, batch - 1);
    const stepsLeft = (recipe.epochs - epoch) * this.batches - batch;
    const left = Math.min(stepsLeft, session.until - step);
    const validations = left < stepsLeft ? left / this.batches : recipe.epochs - epoch;
    const share = Math.min(1, train / Math.max(val, 1));
    return {
      type: 'step',
      epoch: epoch + 1,
      batch,
      batches: this.batches,
      step,
      loss,
      top1Error,
      top5Error,
      samples,
      lr,
      biasLr,
      imagesPerSecond: seconds > 0 ? samples / seconds : 0,
      waitShare: seconds > 0 ? waitSeconds / seconds : 0,
      etaSeconds: session.pace.eta(left, validations * share, recipe.batch, val),
    };
  }

  /** The running step is finished, then the training ends as `interrupted`. Does nothing where none is running. */
  stop(): void {
    if (this.#session === undefined) return;
    this.#session.stopping = true;
    this.#session.wake();
    this.#engine.cancel();
  }

  /** The running training waits after about half a second, or goes on. The result does not depend on it. */
  pause(paused = true): void {
    if (this.#session === undefined) return;
    this.#session.paused = paused;
    this.#session.wake();
  }

  /** Whether the running training waits, or is about to. */
  get paused(): boolean {
    return this.#session?.paused ?? false;
  }

  /** The running training saves a checkpoint within about half a second (with a run folder). */
  requestSave(): void {
    if (this.#session === undefined) return;
    this.#session.saveRequested = true;
    this.#session.wake();
  }

  /** Loss and errors over a split; not while it is training. ERR_ABORTED where `signal` is aborted. */
  async evaluate(options: EvaluateOptions & { signal?: AbortSignal } = {}): Promise<Evaluation> {
    check(testSchema, options, 'evaluate');
    if (this.#session !== undefined) throw usage('this trainer is training; evaluate before or after');
    const { signal, ...request } = options;
    return this.#cancelled(signal, 'the evaluation was stopped', () => this.#engine.evaluate(request));
  }

  /**
   * How long a training step takes, as a whole and operation by operation, on the first minibatch of an epoch; not while it is
   * training. Nothing has been learnt afterwards. ERR_ABORTED where `signal` is aborted.
   */
  async timings(options: TimingOptions & { signal?: AbortSignal } = {}): Promise<Timings> {
    check(timingSchema, options, 'timings');
    if (this.#session !== undefined) throw usage('this trainer is training; measure before or after');
    const { signal, ...request } = options;
    return this.#cancelled(signal, 'the measurement was stopped', () => this.#engine.timings(request));
  }

  /**
   * Where the time of whole steps goes, on the first minibatch of an epoch; not while it is training. The first call touches memory and loads code: leave
   * its times out. Weights and momentum change, by steps of a rate of 1e-6. ERR_ABORTED where `signal` is aborted.
   */
  async profile(options: ProfileOptions & { signal?: AbortSignal }): Promise<Profile> {
    check(profileSchema, options, 'profile');
    if (this.#session !== undefined) throw usage('this trainer is training; measure before or after');
    const { signal, ...request } = options;
    return this.#cancelled(signal, 'the measurement was stopped', () => this.#engine.profile(request));
  }

  async #cancelled<T>(signal: AbortSignal | undefined, message: string, call: () => Promise<T>): Promise<T> {
    if (signal?.aborted === true) throw new AlexnodeError('ERR_ABORTED', message);
    const cancel = () => this.#engine.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      return await call();
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Writes a checkpoint with everything that going on needs; complete or not at all. */
  async save(path: string): Promise<Saved> {
    const { classes, fingerprint, train, val } = this.data.info;
    const { cursor, progress } = this.#standing;
    const metadata: CheckpointMetadata = {
      format: 'alexnode-checkpoint',
      version: 1,
      alexnode: VERSION,
      config: this.config,
      classes,
      data: { fingerprint, train, val },
      cursor,
      schedule: this.#plan.schedule.state(),
      progress,
    };
    return this.#engine.save(path, JSON.stringify(metadata));
  }

  /**
   * Takes over weights, momentum and the standing of a checkpoint, so that `train` goes on there. ERR_CHECKPOINT where it is broken
   * or belongs to another network or to other classes. With `only: 'weights'` the standing stays (to evaluate).
   */
  async load(path: string, options: { only?: 'weights' } = {}): Promise<CheckpointMetadata> {
    if (this.#session !== undefined) throw usage('this trainer is training; load before or after');
    const metadata = parseMetadata(path, await this.#engine.load(path));
    checkClasses(path, metadata.classes, this.data.classes);
    if (options.only === 'weights') return metadata;
    this.#standing.restore(metadata, this.config.recipe.batch, this.batches);
    // Another kind of schedule begins anew: it could make nothing of what the old one has seen.
    if (scheduleKinds(metadata.config.recipe) === scheduleKinds(this.config.recipe)) {
      this.#plan.schedule.restore(metadata.schedule);
    }
    this.#guard = this.#newGuard();
    return metadata;
  }

  /** Takes over what another network has learnt, before the first step. ERR_CHECKPOINT where its file is damaged; nothing has changed then. */
  async adopt({ weights, parameters, report }: Adoption): Promise<void> {
    await this.#engine.adopt({ weights, parameters, mean: report.mean === 'file' });
  }

  /** A parameter (`conv1.weight`, [out][in / groups][height][width]; `conv1.bias`) or its momentum (`momentum.conv1.weight`). */
  async tensor(name: string): Promise<Tensor> {
    return this.#engine.tensor(name);
  }

  /** Stops what is running and gives devices and memory back. Does nothing the second time. */
  async dispose(): Promise<void> {
    this.stop();
    await this.#engine.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/** The kinds of all schedules of a recipe, as one text. */
function scheduleKinds({ schedule, biasSchedule, layerSchedules }: Recipe): string {
  const layers = Object.entries(layerSchedules ?? {}).map(([name, { type }]) => `${name}:${type}`);
  return [schedule.type, biasSchedule?.type ?? '', ...layers.sort()].join(' ');
}
