/** Pictures and names for a view: of a data set, for an evaluation of it. */
import { type Dataset, imagesOf, namesOf } from '../data.js';
import type { Judgement } from '../engine.js';
import { AlexnodeError } from '../errors.js';
import { passOver } from '../images.js';
import { inferenceOf, type Model } from '../model.js';
import { Nearest } from '../similar.js';
import { wilson } from '../statistics.js';
import { mistakes, spreadByClass, summarise } from './judged.js';
import { dataUri, type Tile, tilePng } from './sheets.js';
import type { JudgedView, Neighbourhood, ShownImage } from './view.js';

/** Side of a thumbnail in pixels, at most. */
const THUMBNAIL = 96;
/** Images of the paper's figure 4: left, and right with their neighbours. */
const PREDICTIONS = 12;
const QUERIES = 5;
const NEAR = 6;
const MISTAKES = 24;

const count = (value: number) => value.toLocaleString('en-US');

/** An image, as a page shows it and as its pixels. */
interface Loaded {
  shown: ShownImage;
  tile: Tile;
}

/** Images of a split with names and thumbnails. */
async function load(
  data: Dataset,
  split: 'train' | 'val',
  images: readonly { id: number; label: number; guesses?: ShownImage['guesses']; distance?: number }[],
): Promise<Loaded[]> {
  const ids = Uint32Array.from(images, ({ id }) => id);
  const size = Math.min(THUMBNAIL, data.info.imageSize);
  const names = namesOf(data, split, ids);
  const pixels = await imagesOf(data, split, ids, size);
  return images.map(({ label, guesses = [], distance }, index) => {
    const tile = { size, pixels: pixels[index] ?? new Uint8Array(size * size * 3) };
    const shown: ShownImage = {
      path: names[index] ?? '',
      label: data.classes[label] ?? '',
      guesses,
      picture: dataUri(tilePng(tile)),
    };
    if (distance !== undefined) shown.distance = distance;
    return { shown, tile };
  });
}

/** The image at `index` of a judgement. */
function judgedImage(judged: Judgement, index: number, classes: readonly string[]) {
  const { top } = judged;
  const guesses = Array.from({ length: top }, (_, place) => ({
    label: classes[judged.classes[index * top + place] ?? 0] ?? '',
    probability: judged.probabilities[index * top + place] ?? 0,
  }));
  return { id: judged.ids[index] ?? 0, label: judged.labels[index] ?? 0, guesses };
}

/** An evaluation of the validation images, with pictures; `tiles` are those of the mistakes. */
export async function judgedView(
  data: Dataset,
  judged: Judgement,
  what: string,
): Promise<{ view: JudgedView; tiles: Tile[] }> {
  const { classes } = data;
  const images = (indices: number[]) =>
    load(
      data,
      'val',
      indices.map((index) => judgedImage(judged, index, classes)),
    );
  const predictions = await images(spreadByClass(judged.labels, PREDICTIONS));
  const wrong = await images(mistakes(judged, MISTAKES));
  const share = (error: number) => ({ share: error, interval: wilson(error, judged.samples) });
  const all = judged.samples >= data.info.val ? 'all' : `${count(judged.samples)} of`;
  const { samples, loss, top1Error, top5Error, seconds } = judged;
  return {
    tiles: wrong.map(({ tile }) => tile),
    view: {
      what,
      images: `${all} ${count(data.info.val)} validation images`,
      result: { samples, loss, top1Error, top5Error, seconds },
      top1: share(top1Error),
      top5: share(top5Error),
      summary: summarise(judged, classes),
      predictions: predictions.map(({ shown }) => shown),
      mistakes: wrong.map(({ shown }) => shown),
    },
  };
}

/**
 * Some validation images with the training images nearest to them, by the outputs of the last hidden layer. Of more than `most` training images as many are
 * drawn. ERR_ABORTED where `signal` is aborted.
 */
export async function neighbourhoods(
  model: Model,
  data: Dataset,
  judged: Judgement,
  most: number,
  signal: AbortSignal | undefined,
): Promise<{ rows: Neighbourhood[]; tiles: Tile[][]; among: string }> {
  const layer = model.hiddenLayer;
  const stopped = () => {
    if (signal?.aborted === true) throw new AlexnodeError('ERR_ABORTED', 'the search was stopped');
  };
  const wanted = spreadByClass(judged.labels, QUERIES).map((index) => judgedImage(judged, index, data.classes));
  const queries = await load(data, 'val', wanted);
  const { imageSize } = model.network.input;
  const ids = Uint32Array.from(wanted, ({ id }) => id);
  const images = await imagesOf(data, 'val', ids, imageSize);
  const features: Float32Array[] = [];
  const pixels = images.map((rgb) => ({ data: rgb, width: imageSize, height: imageSize }));
  for await (const row of model.features(pixels, { layer })) features.push(row);
  const inference = inferenceOf(model);
  const nearest = features.map(() => new Nearest(NEAR));
  const limit = data.info.train > most ? { limit: most } : {};
  const pass = { split: 'train', batch: model.batch, seed: data.config.seed, ...limit } as const;
  for await (const images of passOver(data, pass)) {
    stopped();
    const rows = await inference.outputs(images, layer);
    for (const [index, feature] of features.entries()) nearest[index]?.look(feature, rows, images.ids, images.labels);
  }
  const rows: Neighbourhood[] = [];
  const tiles: Tile[][] = [];
  for (const [index, query] of queries.entries()) {
    const hits = (nearest[index]?.hits ?? []).map(({ id, label, square }) => ({
      id,
      label,
      distance: Math.sqrt(square),
    }));
    const near = await load(data, 'train', hits);
    rows.push({ query: query.shown, near: near.map(({ shown }) => shown) });
    tiles.push([query.tile, ...near.map(({ tile }) => tile)]);
  }
  const among =
    data.info.train > most ? `${count(most)} of the ${count(data.info.train)} training images` : 'the training images';
  return { rows, tiles, among };
}
