/**
 * The words in which a network is written: plain, typed layer specs and the functions that make them. A network is a list of
 * layers from input to output; the last one is `linear` with as many outputs as there are classes, and softmax with
 * cross-entropy follows by itself.
 *
 * Where the layers run is not said here: one device or two, the network is the same. On two devices every layer but the last linear one
 * has half of its channels on each; `groups: 2` keeps a layer inside its half.
 */

/**
 * How initial weights are drawn.
 *
 * - `normal`: N(0, std^2), as the paper (section 5) and the 2012 code do.
 * - `he`: N(0, 2 / fanIn), for layers that ReLU follows.
 * - `xavier`: N(0, 2 / (fanIn + fanOut)), for tanh and for the last layer.
 */
export type Init = { type: 'normal'; std: number } | { type: 'he' } | { type: 'xavier' };

/** What all layers with weights have in common. */
export interface Parametric {
  /** Unique in the network; its tensors are `<name>.weight` and `<name>.bias`. */
  name: string;
  /** @default he() when made by a function of this file */
  weightInit: Init;
  /** Initial value of every bias. @default 0 */
  biasInit?: number;
  /** Pulls the weights, not the biases, towards 0: the update takes off `lr * weightDecay * w`. @default 0 */
  weightDecay?: number;
  /** The layer keeps its weights. @default false */
  frozen?: boolean;
}

/** A window that slides over an image. Sizes in pixels. */
export interface Sliding {
  kernelSize: number;
  /** @default 1 for convolutions */
  stride?: number;
  /** Zeros around the image, on the top and left; the bottom and right see as much, or what `ceilMode` needs. @default 0 */
  padding?: number;
  /** A last, incomplete window counts: size = 1 + ceil((input + 2 padding - kernel) / stride), as in the 2012 code. @default true */
  ceilMode?: boolean;
}

/** Convolution: `outChannels` filters, shared by all positions, a bias each. */
export interface Conv2dSpec extends Parametric, Sliding {
  type: 'conv2d';
  outChannels: number;
  /** Filters of group g see only channels of group g. @default 1 */
  groups?: number;
}

/** Unshared convolution: as `conv2d`, but with own filters and biases at every position. */
export interface Local2dSpec extends Parametric, Sliding {
  type: 'local2d';
  outChannels: number;
  /** @default 1 */
  groups?: number;
}

/** Fully connected layer over everything that comes in. */
export interface LinearSpec extends Parametric {
  type: 'linear';
  outFeatures: number;
}

/** max(0, x). */
export interface ReluSpec {
  type: 'relu';
  name: string;
}

/** tanh(x). */
export interface TanhSpec {
  type: 'tanh';
  name: string;
}

/**
 * Local response normalisation across channels (paper, section 3.3):
 * y_i = x_i * (k + a * sum x_j^2)^-beta over the `size` channels around i, with a = alpha / size (the 2012 code, PyTorch, Caffe) or
 * a = alpha (the paper's formula read literally: `alphaDividedBySize: false`).
 */
export interface LocalResponseNormSpec {
  type: 'localResponseNorm';
  name: string;
  size: number;
  k: number;
  alpha: number;
  beta: number;
  /** @default true */
  alphaDividedBySize?: boolean;
  /** Windows stay inside their group of channels. @default 1 */
  groups?: number;
}

/** The same within each map: the sum runs over a window of `size` x `size` pixels, and alpha is divided by size^2. */
export interface MapResponseNormSpec {
  type: 'mapResponseNorm';
  name: string;
  size: number;
  k: number;
  alpha: number;
  beta: number;
  /** @default true */
  alphaDividedBySize?: boolean;
}

/** The largest value of each window; of equal ones the first gets the gradient. */
export interface MaxPool2dSpec extends Sliding {
  type: 'maxPool2d';
  name: string;
  stride: number;
}

/** The mean of each window, of the pixels inside the image only. */
export interface AvgPool2dSpec extends Sliding {
  type: 'avgPool2d';
  name: string;
  stride: number;
}

/** Sets each element to 0 with probability `p` in training. */
export interface DropoutSpec {
  type: 'dropout';
  name: string;
  p: number;
  /**
   * false: the paper's form (section 4.2), outputs times 1 - p at test time; true: survivors times 1 / (1 - p) in training.
   * @default false
   */
  inverted?: boolean;
}

/** Any layer. */
export type LayerSpec =
  | Conv2dSpec
  | Local2dSpec
  | LinearSpec
  | ReluSpec
  | TanhSpec
  | LocalResponseNormSpec
  | MapResponseNormSpec
  | MaxPool2dSpec
  | AvgPool2dSpec
  | DropoutSpec;

/** How an image becomes the input of the first layer: crop, flip, minus the central crop of the mean image, noise, scale. */
export interface InputSpec {
  /** Side of the stored images, in pixels. */
  imageSize: number;
  /** Side of the crop that the network sees: at random in training, central (or ten of them) in a test. */
  cropSize: number;
  /** Mirror half of the training images. */
  flip: boolean;
  /** Training images are divided by it while colour noise is on; 1.1 in the 2012 code, otherwise 1. */
  noiseDivisor: number;
  /** Factor on the pixels (0 to 255 before it); 1 in the 2012 code. */
  scale: number;
}

/** A whole network. */
export interface NetworkSpec {
  name: string;
  /** Number of classes; the last layer has as many outputs. */
  classes: number;
  input: InputSpec;
  layers: LayerSpec[];
}

/** N(0, std^2). */
export const normal = (std: number): Init => ({ type: 'normal', std });
/** N(0, 2 / fanIn). */
export const he = (): Init => ({ type: 'he' });
/** N(0, 2 / (fanIn + fanOut)). */
export const xavier = (): Init => ({ type: 'xavier' });

/** The options of a layer: its spec without type and name; the initialisation may be left out. */
type Options<S extends LayerSpec> = Omit<S, 'type' | 'name' | 'weightInit'> &
  Partial<Pick<S, Extract<'weightInit', keyof S>>>;

/** A convolution, by default initialised by `he()`. */
export function conv2d(name: string, options: Options<Conv2dSpec>): Conv2dSpec {
  return { type: 'conv2d', name, weightInit: he(), ...options };
}

/** An unshared convolution, by default initialised by `he()`. */
export function local2d(name: string, options: Options<Local2dSpec>): Local2dSpec {
  return { type: 'local2d', name, weightInit: he(), ...options };
}

/** A fully connected layer, by default initialised by `he()`. */
export function linear(name: string, options: Options<LinearSpec>): LinearSpec {
  return { type: 'linear', name, weightInit: he(), ...options };
}

/** max(0, x). */
export function relu(name: string): ReluSpec {
  return { type: 'relu', name };
}

/** tanh(x). */
export function tanh(name: string): TanhSpec {
  return { type: 'tanh', name };
}

/** Normalisation across channels; by default with the paper's size 5, k 2, alpha 1e-4, beta 0.75. */
export function localResponseNorm(
  name: string,
  options: Partial<Options<LocalResponseNormSpec>> = {},
): LocalResponseNormSpec {
  return { type: 'localResponseNorm', name, size: 5, k: 2, alpha: 1e-4, beta: 0.75, ...options };
}

/** Normalisation within a map. */
export function mapResponseNorm(name: string, options: Options<MapResponseNormSpec>): MapResponseNormSpec {
  return { type: 'mapResponseNorm', name, ...options };
}

/** Max pooling; by default the paper's overlapping windows of 3 pixels, 2 apart. */
export function maxPool2d(name: string, options: Partial<Options<MaxPool2dSpec>> = {}): MaxPool2dSpec {
  return { type: 'maxPool2d', name, kernelSize: 3, stride: 2, ...options };
}

/** Average pooling; by default windows of 3 pixels, 2 apart. */
export function avgPool2d(name: string, options: Partial<Options<AvgPool2dSpec>> = {}): AvgPool2dSpec {
  return { type: 'avgPool2d', name, kernelSize: 3, stride: 2, ...options };
}

/** Dropout, by default with the paper's p = 0.5 and in the paper's form. */
export function dropout(name: string, options: Partial<Options<DropoutSpec>> = {}): DropoutSpec {
  return { type: 'dropout', name, p: 0.5, ...options };
}
