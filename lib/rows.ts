/**
 * The rows of tables of times: a layer with those behind it that work element by element, because much of what these do happens in their neighbours' kernels; and a
 * normalisation with the max pooling right behind it, which are one operation.
 */
import type { LayerSpec, NetworkSpec } from './layers.js';
import type { Pass } from './timings.js';

const ELEMENTWISE: readonly LayerSpec['type'][] = ['relu', 'tanh', 'dropout'];

/** The layers of each row, by the name of the first; an elementwise layer at the very beginning belongs to `input`. */
export function rowsOf(network: NetworkSpec): Map<string, LayerSpec[]> {
  const rows = new Map<string, LayerSpec[]>([['input', []]]);
  let row = 'input';
  let below: LayerSpec['type'] | undefined;
  for (const layer of network.layers) {
    const withNorm = below === 'localResponseNorm' && layer.type === 'maxPool2d';
    if (!ELEMENTWISE.includes(layer.type) && !withNorm) row = layer.name;
    rows.set(row, [...(rows.get(row) ?? []), layer]);
    below = layer.type;
  }
  return rows;
}

/** `input`, the rows of layers, and `loss`. */
export function rowNames(network: NetworkSpec): string[] {
  return [...rowsOf(network).keys(), 'loss'];
}

/** Finds the row of a part of a step. */
export function rowFinder(network: NetworkSpec): (part: { layer: string | null; pass: Pass }) => string {
  const rowOf = new Map<string, string>();
  for (const [row, layers] of rowsOf(network)) for (const { name } of layers) rowOf.set(name, row);
  return ({ layer, pass }) => {
    if (pass === 'loss') return 'loss';
    return layer === null ? 'input' : (rowOf.get(layer) ?? layer);
  };
}
