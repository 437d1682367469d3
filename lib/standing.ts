/** Where a training stands: the cursor, the sums behind the metrics, the best validation. Saved and resumed whole. */
import type { CheckpointMetadata, Progressed } from './checkpoint.js';
import type { SegmentReport } from './engine.js';
import type { AlexnodeError } from './errors.js';
import {
  addTotals,
  type Cursor,
  type EpochEvent,
  type LayerHealth,
  type Metrics,
  means,
  noTotals,
  type Status,
  type TrainResult,
  type UnitHealth,
} from './events.js';

/** The progress of a training that has taken no step. */
export function notBegun(): Progressed {
  return {
    seconds: 0,
    trainSeconds: 0,
    samples: 0,
    sinceVal: 0,
    train: null,
    val: null,
    totals: noTotals(),
    best: null,
    warned: [],
  };
}

/** The moving part of a training that is not in the weights. */
export class Standing {
  cursor: Cursor = { epoch: 0, batch: 0, step: 0 };
  progress: Progressed = notBegun();

  /** Takes the steps of a segment which took `seconds`. */
  addSegment(report: SegmentReport, seconds: number): void {
    const { cursor, progress } = this;
    progress.seconds += seconds;
    progress.trainSeconds += report.seconds;
    progress.samples += report.samples;
    progress.sinceVal += report.samples;
    if (report.samples > 0) addTotals(progress.totals, report);
    this.cursor = { epoch: cursor.epoch, batch: cursor.batch + report.steps, step: cursor.step + report.steps };
  }

  /** Takes a validation which took `seconds`. */
  addValidation(metrics: Metrics, seconds: number): void {
    this.progress.seconds += seconds;
    this.progress.sinceVal = 0;
    this.progress.val = metrics;
  }

  /** Puts the cursor on the next epoch; what to tell about this one. `val` is `null` where it was not validated. */
  closeEpoch(
    val: Metrics | null,
    rates: { lr: number; biasLr: number },
    health: { layers: LayerHealth[]; units: UnitHealth[] } = { layers: [], units: [] },
  ): EpochEvent {
    const { cursor, progress } = this;
    const { samples, seconds, waitSeconds } = progress.totals;
    const train = means(progress.totals);
    const epoch = cursor.epoch + 1;
    const best = val !== null && (progress.best === null || val.top1Error < progress.best.top1Error);
    if (best) progress.best = { epoch, step: cursor.step, top1Error: val.top1Error };
    progress.train = train ?? progress.train;
    progress.totals = noTotals();
    this.cursor = { epoch, batch: 0, step: cursor.step };
    return {
      type: 'epoch',
      epoch,
      steps: cursor.step,
      seconds: progress.seconds,
      imagesPerSecond: seconds > 0 ? samples / seconds : 0,
      waitShare: seconds > 0 ? waitSeconds / seconds : 0,
      ...rates,
      train,
      val,
      best,
      ...health,
      warnings: [],
    };
  }

  /** The outcome as of now. */
  result(status: Status, error?: AlexnodeError): TrainResult {
    const { seconds, samples, trainSeconds, totals, train, val } = this.progress;
    const now = means(totals) ?? train;
    const result: TrainResult = {
      status,
      epochs: this.cursor.epoch,
      steps: this.cursor.step,
      seconds,
      imagesPerSecond: trainSeconds > 0 ? samples / trainSeconds : 0,
      train: now === null ? null : { loss: now.loss, top1Error: now.top1Error },
      val,
    };
    if (error !== undefined) {
      const { code, message, hint } = error;
      result.error = hint === undefined ? { code, message } : { code, message, hint };
    }
    return result;
  }

  /** Goes on where `metadata` stands. With another batch size the running epoch goes on at the same image, rounded down. */
  restore(metadata: CheckpointMetadata, batch: number, batches: number): void {
    const { epoch, batch: done, step } = metadata.cursor;
    const before = metadata.config.recipe.batch;
    this.cursor = { epoch, batch: Math.min(Math.floor((done * before) / batch), batches), step };
    this.progress = structuredClone(metadata.progress);
  }
}
