/** Which steps come next: as many as share their rates and fit into the epoch. */
import type { Segment } from './engine.js';
import type { Cursor } from './events.js';
import type { Rates, Recipe, Schedule } from './recipe.js';

/** What decides about segments, apart from where the training stands. */
export interface SegmentPlan {
  recipe: Recipe;
  schedule: Schedule;
  /** Batches per epoch. */
  batches: number;
  /** Names of the layers that have weights. */
  layers: readonly string[];
}

/** The rates of batch `batch` of an epoch. */
export function ratesAt({ recipe, schedule, batches }: SegmentPlan, epoch: number, batch: number): Rates {
  return schedule.rates({ epoch, batch, batches, epochs: recipe.epochs });
}

/** The segment that starts at `cursor`, of at most `most` steps. Ends where a rate changes, so that it has one set of them. */
export function nextSegment(plan: SegmentPlan, cursor: Cursor, most: number): Segment {
  const { epoch, batch, step } = cursor;
  const { augment } = plan.recipe;
  const rates = ratesAt(plan, epoch, batch);
  const end = Math.min(plan.batches, batch + most);
  let next = batch + 1;
  while (next < end && sameRates(rates, ratesAt(plan, epoch, next))) next += 1;
  return {
    epoch,
    batch,
    step,
    steps: next - batch,
    rates: Object.fromEntries(
      plan.layers.map((name) => {
        const { weight, bias } = rates.layers[name] ?? rates;
        return [name, [weight, bias]];
      }),
    ),
    colourNoise: augment ? rates.colourNoise : 0,
    augment,
  };
}

function sameRates(a: Rates, b: Rates): boolean {
  if (a.weight !== b.weight || a.bias !== b.bias || a.colourNoise !== b.colourNoise) return false;
  const names = Object.keys(a.layers);
  return (
    names.length === Object.keys(b.layers).length &&
    names.every(
      (name) => a.layers[name]?.weight === b.layers[name]?.weight && a.layers[name]?.bias === b.layers[name]?.bias,
    )
  );
}
