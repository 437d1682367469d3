/** Learning rates over a run: what the words of `ScheduleSpec` and `Recipe` mean in numbers. */
import { AlexnodeError } from './errors.js';
import type { Progress, RatePair, Rates, Recipe, Schedule, ScheduleSpec, ScheduleState } from './recipe.js';

/** What a plateau schedule remembers: the best validation error so far, epochs since then, drops so far. */
type Plateau = { best: number | null; waited: number; drops: number };

/** The schedule of a recipe, at its beginning. */
export function createSchedule(recipe: Recipe): Schedule {
  // Each rate that moves by itself, under a name for the state.
  const specs: Record<string, ScheduleSpec> = { schedule: recipe.schedule };
  if (recipe.biasSchedule) specs.biasSchedule = recipe.biasSchedule;
  for (const [layer, spec] of Object.entries(recipe.layerSchedules ?? {})) specs[`layerSchedules.${layer}`] = spec;

  let memory: Record<string, Plateau> = {};
  for (const [name, spec] of Object.entries(specs)) {
    if (spec.type === 'plateau') memory[name] = { best: null, waited: 0, drops: 0 };
  }
  const factor = (name: string, progress: Progress) => factorOf(specs[name]!, progress, memory[name]?.drops ?? 0);
  const special = new Set(
    [recipe.layerRates, recipe.layerSchedules, recipe.freezeAt].flatMap((record) => Object.keys(record ?? {})),
  );

  return {
    rates(progress: Progress): Rates {
      const weight = recipe.lr * factor('schedule', progress);
      const bias = recipe.biasLr * factor(recipe.biasSchedule ? 'biasSchedule' : 'schedule', progress);
      const layers: Record<string, RatePair> = {};
      for (const layer of special) {
        const frozen = progress.epoch >= (recipe.freezeAt?.[layer] ?? Number.POSITIVE_INFINITY);
        const own = `layerSchedules.${layer}`;
        const base = { weight: own in specs ? recipe.lr * factor(own, progress) : weight, bias };
        layers[layer] = frozen ? { weight: 0, bias: 0 } : scaled(base, recipe.layerRates?.[layer] ?? 1);
      }
      return { weight, bias, colourNoise: colourNoise(recipe, progress), layers };
    },
    observe(valError: number | undefined): void {
      if (valError === undefined) return;
      for (const [name, plateau] of Object.entries(memory)) {
        const spec = specs[name]!;
        if (spec.type === 'plateau') memory[name] = observed(spec, plateau, valError);
      }
    },
    state: () => structuredClone(memory),
    restore(state: ScheduleState): void {
      memory = checked(state, Object.keys(memory));
    },
  };
}

function factorOf(spec: ScheduleSpec, { epoch, batch, batches, epochs }: Progress, drops: number): number {
  switch (spec.type) {
    case 'constant':
      return 1;
    case 'step':
      return spec.factor ** spec.at.filter((at) => epoch + batch / batches >= at).length;
    case 'plateau':
      return spec.factor ** drops;
    case 'dexp': {
      // Part i holds for i / steps < progress <= (i + 1) / steps; whole numbers, so that the boundary is exact.
      const part = Math.ceil(((epoch * batches + batch) * spec.steps) / (epochs * batches)) - 1;
      return (1 / spec.factor) ** (Math.min(Math.max(part, 0), spec.steps - 1) / (spec.steps - 1));
    }
  }
}

function observed(spec: ScheduleSpec & { type: 'plateau' }, { best, waited, drops }: Plateau, error: number): Plateau {
  if (best === null || error < best - spec.minDelta) return { best: error, waited: 0, drops };
  if (waited + 1 < spec.patience || drops >= spec.drops) return { best, waited: waited + 1, drops };
  return { best, waited: 0, drops: drops + 1 };
}

function scaled({ weight, bias }: RatePair, by: number | RatePair): RatePair {
  const factors = typeof by === 'number' ? { weight: by, bias: by } : by;
  return { weight: weight * factors.weight, bias: bias * factors.bias };
}

/** Constant during an epoch. */
function colourNoise({ colourNoise, colourNoiseOffAt }: Recipe, { epoch, epochs }: Progress): number {
  return colourNoiseOffAt !== undefined && epoch / epochs >= colourNoiseOffAt ? 0 : colourNoise;
}

function checked(state: ScheduleState, names: string[]): Record<string, Plateau> {
  const found = Object.keys(state);
  const fits = found.length === names.length && names.every((name) => isPlateau(state[name]));
  if (!fits) {
    const list = (keys: string[]) => keys.join(', ') || 'none';
    throw new AlexnodeError(
      'ERR_CHECKPOINT',
      `the checkpoint has the plateau state of ${list(found)}, the recipe needs that of ${list(names)}`,
      { hint: 'Resume with the schedule that the run was started with, or start the new schedule afresh.' },
    );
  }
  return structuredClone(state) as Record<string, Plateau>;
}

function isPlateau(value: unknown): value is Plateau {
  if (typeof value !== 'object' || value === null) return false;
  const { best, waited, drops } = value as Record<string, unknown>;
  return (best === null || typeof best === 'number') && Number.isInteger(waited) && Number.isInteger(drops);
}
