/** The rows of tables of times: a layer with those behind it that work element by element, because much of what these do happens in their neighbours' kernels. */
import type { LayerSpec, NetworkSpec } from './layers.js';
import type { Pass } from './timings.js';

const ELEMENTWISE: readonly LayerSpec['type'][] = ['relu', 'tanh', 'dropout'];

/** The layers of each row, by the name of the first; an elementwise layer at the very beginning belongs to `input`. */
export function rowsOf(network: NetworkSpec): Map<string, LayerSpec[]> {
  const rows = new Map<string, LayerSpec[]>([['input', []]]);
  let row = 'input';
  for (const layer of network.layers) {
    if (!ELEMENTWISE.includes(layer.type)) row = layer.name;
    rows.set(row, [...(rows.get(row) ?? []), layer]);
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
