/** Trained networks as files for other programs: `exportOnnx()`, `exportSafetensors()`. */

import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import { exportOnnx as onnxNative, exportSafetensors as safetensorsNative } from '#native';
import type { Saved } from './checkpoint.js';
import { check } from './config.js';
import { VERSION } from './environment.js';
import { nativeAsync, usage } from './errors.js';
import type { NetworkSpec } from './layers.js';
import { flag, type Shape } from './options.js';
import { fileOf, openWeights, type Weights } from './weights.js';

/** What to export, and where to. */
export interface ExportCall {
  /** A run folder (its best checkpoint, or the newest where none was validated), a checkpoint, or any other file with weights that is known. */
  model: string;
  /** The file to make. ERR_USAGE where there is one already. */
  file: string;
}

/** The same for an ONNX model. */
export interface ExportOnnxCall extends ExportCall {
  /** The model takes stored images (uint8, n x size x size x RGB) and crops them itself. Default `false`: central crops as float32, n x RGB x crop x crop. */
  embedPreprocessing?: boolean;
}

/** An ONNX model that was written. */
export interface OnnxFile {
  path: string;
  bytes: number;
  /** Version of the operators. */
  opset: number;
  /** Name of the input, its extents ("n" images) and its type. Pixels are from 0 to 255 in both. */
  input: string;
  shape: string[];
  dtype: 'float32' | 'uint8';
}

const file = { model: z.string().min(1), file: z.string().min(1) };

const exportSchema = z.strictObject(file satisfies Shape<ExportCall>);

const exportOnnxSchema = z.strictObject({ ...file, embedPreprocessing: flag } satisfies Shape<ExportOnnxCall>);

/**
 * Writes a network as an ONNX model: `images` in, `probabilities` and `logits` out. Mean and scale are inside; its metadata hold `classes` and
 * `preprocessing`, both JSON, and where it comes from. ERR_CHECKPOINT where the weights are missing or damaged.
 */
export async function exportOnnx(options: ExportOnnxCall): Promise<OnnxFile> {
  check(exportOnnxSchema, options, 'export');
  const { model, file, embedPreprocessing = false } = options;
  const weights = await open(model, file);
  const { metadata, sha256 } = weights;
  const { network } = metadata.config;
  const request = {
    ...requestOf(weights, file),
    embedPreprocessing,
    version: VERSION,
    metadata: {
      alexnode: VERSION,
      classes: JSON.stringify(metadata.classes),
      preprocessing: JSON.stringify(preprocessing(network, embedPreprocessing)),
      network: JSON.stringify(network),
      step: String(metadata.cursor.step),
      sha256,
    },
  };
  return JSON.parse(await nativeAsync(() => onnxNative(JSON.stringify(request)))) as OnnxFile;
}

/** From a picture to the model's input, for people and programs. */
function preprocessing({ input: { imageSize, cropSize } }: NetworkSpec, embedded: boolean) {
  return {
    resize: 'shorter side, bilinear with antialiasing',
    imageSize,
    centralSquare: imageSize,
    centralCrop: embedded ? 'in the model' : cropSize,
    colours: 'RGB',
    range: [0, 255],
    layout: embedded ? 'NHWC' : 'NCHW',
    meanAndScale: 'in the model',
  };
}

/**
 * Writes weights without momentum as safetensors: `<layer>.weight` (of convolutions [out][in / groups][row][column]; of linear layers [out][in], the
 * inputs of one behind maps in the order channel, row, column), `<layer>.bias`, `input.mean`, `input.colour`; `alexnode` in the header holds the network,
 * its classes and its training as JSON. `loadModel()` and `train({ init })` read it. ERR_CHECKPOINT where the weights are missing or damaged.
 */
export async function exportSafetensors(options: ExportCall): Promise<Saved> {
  check(exportSchema, options, 'export');
  const { model, file } = options;
  const weights = await open(model, file);
  const request = { ...requestOf(weights, file), metadata: JSON.stringify(weights.metadata) };
  return JSON.parse(await nativeAsync(() => safetensorsNative(JSON.stringify(request)))) as Saved;
}

async function open(model: string, file: string): Promise<Weights> {
  if (existsSync(file)) throw usage(`${file}: there is a file of this name`, 'Choose another name, or remove it.');
  return openWeights(model);
}

function requestOf(weights: Weights, file: string) {
  return { weights: fileOf(weights), network: weights.metadata.config.network, file: resolve(file) };
}
