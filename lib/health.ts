/** From what the engine measures inside a network to what is told of its layers. */
import type { Statistics } from './engine.js';
import type { LayerHealth, UnitHealth } from './events.js';
import type { NetworkSpec } from './layers.js';
import type { RatePair, Rates } from './recipe.js';

/** Images that the units are looked at with: enough for a unit that answers to one image in a hundred. */
export const LOOKED_AT = 256;

/**
 * The layers that have weights, and the ReLU layers, after `steps` steps. Under a steady rate the weight decay alone makes an update of
 * `rate * decay * (1 - momentum ** steps) / (1 - momentum) * weight`; what is left of the update without it is the gradient's.
 */
export function healthOf(
  { parameters, relus }: Statistics,
  network: NetworkSpec,
  { momentum, steps, rates }: { momentum: number; steps: number; rates: Rates },
): { layers: LayerHealth[]; units: UnitHealth[] } {
  const layers = network.layers.flatMap((layer): LayerHealth[] => {
    const found = parameters.find(({ name }) => name === `${layer.name}.weight`);
    if (found === undefined) return [];
    const { weight, update, product } = found;
    if ('frozen' in layer && layer.frozen === true)
      return [{ name: layer.name, weight, update: 0, gradient: 0, frozen: true }];
    const decay = 'weightDecay' in layer ? (layer.weightDecay ?? 0) : 0;
    const kept = momentum < 1 ? (1 - momentum ** steps) / (1 - momentum) : steps;
    const share = rateOf(rates, layer.name).weight * decay * kept;
    const square = update * update + 2 * share * product + share * share * weight * weight;
    return [{ name: layer.name, weight, update, gradient: Math.sqrt(Math.max(0, square)) }];
  });
  const units = relus.map(({ layer, units: count, dead, active }) => ({ name: layer, units: count, dead, active }));
  return { layers, units };
}

/** The rates of a layer. */
export function rateOf(rates: Rates, layer: string): RatePair {
  return rates.layers[layer] ?? rates;
}

/** How far an update moves the weights, as a share of them; 0 where there are none. */
export function updateRatio({ weight, update }: LayerHealth): number {
  return weight > 0 ? update / weight : 0;
}
