/** The training loop. It reads from top to bottom: epochs, segments of steps, validation, checkpoint. */
import { type CheckpointMetadata, type Cursor, parseMetadata, type Saved } from './checkpoint.js';
import { checkClasses, type Dataset } from './data.js';
import { draw } from './draw.js';
import { Engine, type EvaluateOptions, type Evaluation, type SegmentReport, type Tensor } from './engine.js';
import { VERSION } from './environment.js';
import { AlexnodeError, fromNative, usage } from './errors.js';
import type {
  Change,
  CheckpointEvent,
  EpochEvent,
  Metrics,
  StartEvent,
  Status,
  StepEvent,
  TrainEvent,
  TrainResult,
  WarningEvent,
} from './events.js';
import { dataWarnings, diverged, Guard } from './guard.js';
import type { Adoption } from './init.js';
import { describeNetwork, type NetworkInfo, parametricLayers } from './network.js';
import { Pace } from './pace.js';
import type { Recipe } from './recipe.js';
import type { Run, RunConfig } from './run.js';
import { createSchedule } from './schedule.js';
import { nextSegment, ratesAt, type SegmentPlan } from './segment.js';
import { settle, type TrainerOptions } from './settle.js';
import { Standing } from './standing.js';
import type { Profile, ProfileOptions, TimingOptions, Timings } from './timings.js';

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

  constructor(run: Run | undefined, until: number) {
    this.run = run;
    this.until = until;
  }
}

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
    const { data } = options;
    const config = settle(options);
    const { network, recipe, devices, threads, seed, precision } = config;
    const { batch, momentum } = recipe;
    const limits = threads === null ? {} : { threads };
    const info = describeNetwork(network, { batch, devices, precision, ...limits });
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
      const failure = this.#explain(error);
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
    while (this.cursor.epoch < this.config.recipe.epochs) {
      while (this.cursor.batch < this.batches) {
        if (session.stopping || this.cursor.step >= session.until) return;
        const report = await this.#segment(session);
        if (report.steps > 0) yield await this.#tell(this.#stepEvent(session, report));
        const warning = this.#guard.observe(this.cursor.step, report.steps, report.loss);
        if (warning !== undefined) {
          this.#standing.progress.warned.push(warning.code);
          yield await this.#tell(warning);
        }
        if (run !== undefined && this.#saveIsDue(session)) {
          yield await this.#checkpoint(run, session.saveRequested ? 'request' : 'timer');
        }
      }
      if (session.stopping) return;
      const validated = this.#validationIsDue();
      const val = validated ? await this.#validate(session) : null;
      if (val === 'stopped') return;
      const event = this.#closeEpoch(val);
      yield await this.#tell(event);
      if (run === undefined || !validated) continue;
      yield await this.#checkpoint(run, 'epoch', event.best);
      const warning = await draw(run, this.config.network, (name) => this.tensor(name));
      if (warning !== undefined) yield await this.#tell(warning);
    }
  }

  /** Steps under one set of rates, for about half a second. */
  async #segment(session: Session): Promise<SegmentReport> {
    const most = Math.min(session.pace.steps, session.until - this.cursor.step);
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

  async #validate(session: Session): Promise<Metrics | null | 'stopped'> {
    if (this.data.info.val === 0) return null;
    try {
      const { loss, top1Error, top5Error, seconds } = await this.#engine.evaluate({ split: 'val', crops: 1 });
      session.pace.observeValidation(seconds);
      const metrics = { loss, top1Error, top5Error };
      this.#standing.addValidation(metrics, seconds);
      return metrics;
    } catch (error) {
      if (session.stopping && fromNative(error).code === 'ERR_ABORTED') return 'stopped';
      throw error;
    }
  }

  #closeEpoch(val: Metrics | null): EpochEvent {
    const { weight: lr, bias: biasLr } = ratesAt(this.#plan, this.cursor.epoch, this.batches - 1);
    this.#plan.schedule.observe(val?.top1Error);
    return this.#standing.closeEpoch(val, { lr, biasLr });
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

  #explain(error: unknown): AlexnodeError {
    const typed = fromNative(error);
    return typed.code === 'ERR_DIVERGED' ? diverged(typed, this.config.recipe, this.#session?.run?.folder) : typed;
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
    this.#engine.cancel();
  }

  /** The running training saves a checkpoint within about half a second (with a run folder). */
  requestSave(): void {
    if (this.#session !== undefined) this.#session.saveRequested = true;
  }

  /** Loss and errors over a split; not while it is training. ERR_ABORTED where `signal` is aborted. */
  async evaluate(options: EvaluateOptions & { signal?: AbortSignal } = {}): Promise<Evaluation> {
    if (this.#session !== undefined) throw usage('this trainer is training; evaluate before or after');
    const { signal, ...request } = options;
    return this.#cancelled(signal, 'the evaluation was stopped', () => this.#engine.evaluate(request));
  }

  /**
   * How long a training step takes, as a whole and operation by operation, on the first minibatch of an epoch; not while it is
   * training. Nothing has been learnt afterwards. ERR_ABORTED where `signal` is aborted.
   */
  async timings(options: TimingOptions & { signal?: AbortSignal } = {}): Promise<Timings> {
    if (this.#session !== undefined) throw usage('this trainer is training; measure before or after');
    const { signal, ...request } = options;
    return this.#cancelled(signal, 'the measurement was stopped', () => this.#engine.timings(request));
  }

  /**
   * Where the time of whole steps goes, on the first minibatch of an epoch; not while it is training. The first call touches memory and loads code: leave
   * its times out. Weights and momentum change, by steps of a rate of 1e-6. ERR_ABORTED where `signal` is aborted.
   */
  async profile(options: ProfileOptions & { signal?: AbortSignal }): Promise<Profile> {
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
