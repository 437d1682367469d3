/** What a preset is: a network and how it is trained. */
import type { NetworkSpec } from '../layers.js';
import type { Recipe } from '../recipe.js';

/** A network with its recipe, for a given number of classes. */
export interface Preset {
  network: NetworkSpec;
  recipe: Recipe;
}

/** What a preset needs to know of the data. */
export interface PresetOptions {
  /** Number of classes. */
  classes: number;
}
