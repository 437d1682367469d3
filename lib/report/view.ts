/** What a report shows, gathered: of a run folder that has ended, or of a training that is going on. */
import type { DatasetInfo } from '../data.js';
import type { Evaluation } from '../engine.js';
import type { WarningEvent } from '../events.js';
import type { Guess } from '../model.js';
import type { LayerInfo } from '../network.js';
import type { Manifest } from '../run.js';
import type { History } from './history.js';
import type { ClassSummary, Share } from './judged.js';

/** A picture with what is known of it. */
export interface ShownImage {
  /** Its file, or what it is called in a source without files. */
  path: string;
  label: string;
  /** The most probable classes, the most probable first; none for a training image. */
  guesses: Guess[];
  /** Euclidean distance of the hidden layer to that of the picture that it is shown beside. */
  distance?: number;
  /** A data URI. */
  picture: string;
}

/** A test image and the training images nearest to it. */
export interface Neighbourhood {
  query: ShownImage;
  near: ShownImage[];
}

/** An evaluation with pictures. */
export interface JudgedView {
  /** What was evaluated, in words: `best.safetensors (step 320)`. */
  what: string;
  images: string;
  result: Evaluation;
  top1: Share;
  top5: Share;
  summary: ClassSummary;
  /** Figure 4 of the paper, left. */
  predictions: ShownImage[];
  mistakes: ShownImage[];
}

/** All of a report. */
export interface View {
  title: string;
  manifest: Pick<Manifest, 'name' | 'createdAt' | 'config' | 'data' | 'environment' | 'sessions' | 'network'>;
  history: History;
  layers: LayerInfo[];
  warnings: WarningEvent[];
  /** The first layer's filters, and how they were after earlier epochs, as data URIs. */
  filters: string | undefined;
  grown: { epoch: number; picture: string }[];
  judged: JudgedView | undefined;
  /** Figure 4 of the paper, right: the layer whose outputs are compared, among which images, and by which weights. */
  neighbours: { layer: string; rows: Neighbourhood[]; among: string; what: string } | undefined;
  /** The data set, where it could be opened. */
  data: Pick<DatasetInfo, 'perClass' | 'mean'> | undefined;
  /** Why parts are missing. */
  missing: string[];
}
