/** What a training tells while it runs. Plain JSON: the same objects go to `for await`, `--json` and `events.ndjson`. */

/** Loss (mean negative log probability, nats) and errors (shares from 0 to 1) over some images. */
export interface Metrics {
  loss: number;
  top1Error: number;
  top5Error: number;
}

/** How a training ended: planned end, `steps` reached, stopped by the caller, non-finite loss, any other error. */
export type Status = 'completed' | 'stopped' | 'interrupted' | 'diverged' | 'failed';

/** The outcome of a training, as it stands at the end of `run.json`. */
export interface TrainResult {
  status: Status;
  /** Epochs and optimiser steps done since the run began, over all its sessions. */
  epochs: number;
  steps: number;
  /** Wall-clock time of training and validating over all sessions, without start-up. */
  seconds: number;
  /** Training images per second of training time, validation and checkpoints left out. */
  imagesPerSecond: number;
  /** Running means over the images of the last epoch that trained on any; `null` before the first step. */
  train: { loss: number; top1Error: number } | null;
  /** The last validation; `null` where there was none yet. */
  val: Metrics | null;
  /** Why it ended, where `status` is `diverged` or `failed`. */
  error?: { code: string; message: string; hint?: string };
}

/** What the training was found to suffer from. */
export type Finding =
  | 'LOSS_AT_CHANCE'
  | 'DEAD_UNITS'
  | 'UPDATES_VANISH'
  | 'UPDATES_EXPLODE'
  | 'LR_TOO_LOW'
  | 'LR_TOO_HIGH'
  | 'INPUT_BOUND'
  | 'OVERFITTING'
  | 'LABEL_SUSPECT';

/** Something to know about that does not stop the run. */
export interface WarningEvent {
  type: 'warning';
  code:
    | Finding
    | 'CHECKPOINT_BROKEN'
    | 'DATA_CHANGED'
    | 'IMAGES_SKIPPED'
    | 'CLASS_WITHOUT_VAL'
    | 'PICTURE_FAILED'
    | 'DISK_LOW'
    | 'CLASSES_DIFFER'
    | 'PREPROCESSING_DIFFERS'
    | 'FROZEN_FRESH';
  /** What was found, in words. */
  message: string;
  /** The remedy. */
  hint: string;
  /** The numbers and names behind it. */
  evidence: Record<string, string | number | string[]>;
}

/** How the weights of a layer move. All are root mean squares over its weights. */
export interface LayerHealth {
  name: string;
  /** Of the weights. */
  weight: number;
  /** Of the last update. */
  update: number;
  /** Of the part of it that is not weight decay. */
  gradient: number;
  /** The network keeps its weights: there is no update. */
  frozen?: true;
}

/** What a ReLU layer makes of some images. A unit is a map of a convolution or an output of a linear layer. */
export interface UnitHealth {
  name: string;
  units: number;
  /** Units that are 0 everywhere on every image. */
  dead: number;
  /** Share of outputs above 0. */
  active: number;
}

/** A field of the run's configuration which a resume changed. */
export interface Change {
  key: string;
  from: unknown;
  to: unknown;
}

/** Where a training stands: everything that the order of images, augmentation and dropout depend on besides the seed. */
export interface Cursor {
  /** Running epoch, from 0. */
  epoch: number;
  /** Batches of it that are done; all of them where only its validation is missing. */
  batch: number;
  /** Optimiser steps of the run that are done. */
  step: number;
}

/** How a layer begins. */
export interface InitLayer {
  layer: string;
  weights: 'loaded' | 'fresh';
  /** Why it is fresh. */
  why?: string;
  /** Whether it stays as it is. */
  frozen: boolean;
}

/** What a training started from. */
export interface InitReport {
  path: string;
  sha256: string;
  /** Its network. */
  network: string;
  /** Whose mean image is subtracted: the file's, which is what its weights are used to, or that of the data. */
  mean: 'file' | 'data';
  layers: InitLayer[];
}

/** The first event. */
export interface StartEvent {
  type: 'start';
  /** Folder of the run; `null` where nothing is written. */
  run: string | null;
  network: string;
  parameters: number;
  classes: number;
  devices: string[];
  batch: number;
  batches: number;
  epochs: number;
  /** Where it starts: all zero, or the cursor of the checkpoint that it resumes. */
  cursor: Cursor;
  resumed: string | null;
  /** What the resume changed in the configuration. */
  changed: Change[];
  /** What other network's weights it started from; `null` where it drew its own. */
  init: InitReport | null;
}

/** One segment of steps (about half a second) is done. */
export interface StepEvent extends Metrics {
  type: 'step';
  /** Number of the running epoch, from 1. */
  epoch: number;
  /** Batches of this epoch done, and how many it has. */
  batch: number;
  batches: number;
  /** Optimiser steps of the run done. */
  step: number;
  /** Images of this segment; the metrics are means over them. */
  samples: number;
  lr: number;
  biasLr: number;
  imagesPerSecond: number;
  /** Share of the segment, 0 to 1, in which the step waited for images. */
  waitShare: number;
  /** To the planned end, validation included. */
  etaSeconds: number;
}

/** An epoch is trained and, where it was its turn, validated. The fields are the columns of `metrics.csv`. */
export interface EpochEvent {
  type: 'epoch';
  /** Epochs done. */
  epoch: number;
  /** Optimiser steps done. */
  steps: number;
  /** Wall-clock time of the run so far, over all its sessions. */
  seconds: number;
  /** Training images per second in this epoch. */
  imagesPerSecond: number;
  waitShare: number;
  lr: number;
  biasLr: number;
  /** Running means during the epoch (dropout and augmentation on). */
  train: Metrics | null;
  /** `null` where this epoch was not validated. */
  val: Metrics | null;
  /** Lowest validation top-1 error so far. */
  best: boolean;
  /** Layers with weights; empty where this epoch was not validated. */
  layers: LayerHealth[];
  /** ReLU layers; empty where this epoch was not validated. */
  units: UnitHealth[];
  /** Codes of the warnings since the epoch before. */
  warnings: string[];
}

/** The training waits, or goes on. */
export interface PauseEvent {
  type: 'pause';
  paused: boolean;
}

/** A checkpoint is on the disk. */
export interface CheckpointEvent {
  type: 'checkpoint';
  path: string;
  step: number;
  bytes: number;
  sha256: string;
  seconds: number;
  /** `best.safetensors` now names the same weights. */
  best: boolean;
  why: 'epoch' | 'timer' | 'request' | 'end';
}

/** The last event; `AlexnodeError` follows where the status is `diverged` or `failed`. */
export interface EndEvent {
  type: 'end';
  result: TrainResult;
}

/** Everything a training tells. */
export type TrainEvent = StartEvent | StepEvent | EpochEvent | CheckpointEvent | WarningEvent | PauseEvent | EndEvent;

/** Loss and errors summed over images, so that means over unequal parts add up right. Plain JSON. */
export interface Totals {
  samples: number;
  loss: number;
  top1Error: number;
  top5Error: number;
  seconds: number;
  waitSeconds: number;
}

/** No images yet. */
export function noTotals(): Totals {
  return { samples: 0, loss: 0, top1Error: 0, top5Error: 0, seconds: 0, waitSeconds: 0 };
}

/** Adds the means of `report` over its images. */
export function addTotals(
  totals: Totals,
  report: Metrics & { samples: number; seconds: number; waitSeconds: number },
): void {
  totals.samples += report.samples;
  totals.loss += report.loss * report.samples;
  totals.top1Error += report.top1Error * report.samples;
  totals.top5Error += report.top5Error * report.samples;
  totals.seconds += report.seconds;
  totals.waitSeconds += report.waitSeconds;
}

/** The means, or `null` over no images. */
export function means(totals: Totals): Metrics | null {
  if (totals.samples === 0) return null;
  return {
    loss: totals.loss / totals.samples,
    top1Error: totals.top1Error / totals.samples,
    top5Error: totals.top5Error / totals.samples,
  };
}
