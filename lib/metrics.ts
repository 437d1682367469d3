/**
 * `metrics.csv`: a row per epoch. Which columns there are depends on the layers of the network: `conv1.update`, `relu1.dead`. Layers and classes may have
 * any name, so both ways go through csv-parse and csv-stringify.
 */
import { parse } from 'csv-parse/sync';
import { stringify } from 'csv-stringify/sync';

import type { EpochEvent, LayerHealth, Metrics, UnitHealth } from './events.js';

const EPOCH = ['epoch', 'steps', 'seconds', 'imagesPerSecond', 'waitShare', 'lr', 'biasLr'] as const;
const METRICS = ['loss', 'top1Error', 'top5Error'] as const;
const LAYER = ['weight', 'update', 'gradient'] as const;
const UNIT = ['units', 'dead', 'active'] as const;

/** Rows as text with a header. What a spreadsheet would take for a formula is shown as text. */
export function csv(rows: readonly Record<string, unknown>[], columns: readonly string[]): string {
  return stringify(
    rows.map((row) => columns.map((column) => row[column] ?? '')),
    { header: true, columns: [...columns], escape_formulas: true },
  );
}

/** The epochs as the text of `metrics.csv`. */
export function metricsText(rows: readonly EpochEvent[]): string {
  const flat = rows.map(flatten);
  const own = new Set(flat.flatMap((row) => Object.keys(row)));
  const fixed = [...EPOCH, ...METRICS.map((name) => `train.${name}`), ...METRICS.map((name) => `val.${name}`)];
  const rest = [...own].filter((name) => !fixed.includes(name) && name !== 'warnings');
  return csv(flat, [...fixed, ...rest, 'warnings']);
}

function flatten(row: EpochEvent): Record<string, number | string> {
  const cells: Record<string, number | string> = {};
  for (const name of EPOCH) cells[name] = row[name];
  for (const part of ['train', 'val'] as const) {
    for (const name of METRICS) {
      const value = row[part]?.[name];
      if (value !== undefined) cells[`${part}.${name}`] = value;
    }
  }
  for (const layer of row.layers) for (const name of LAYER) cells[`${layer.name}.${name}`] = layer[name];
  for (const unit of row.units) for (const name of UNIT) cells[`${unit.name}.${name}`] = unit[name];
  cells.warnings = row.warnings.join(' ');
  return cells;
}

/** The epochs of a `metrics.csv`. Columns that it lacks are 0 or empty. */
export function metricsRows(text: string): EpochEvent[] {
  const columns = (header: string[]) => header.map((name) => name.replace(/^'(?=[=+\-@\t\r])/, ''));
  const rows = parse(text, { columns, skip_empty_lines: true, relax_column_count: true }) as Record<string, string>[];
  return rows.map(epochOf);
}

function epochOf(row: Record<string, string>): EpochEvent {
  const number = (name: string) => Number(row[name] ?? 0);
  const metrics = (part: string): Metrics | null =>
    (row[`${part}.loss`] ?? '') === ''
      ? null
      : {
          loss: number(`${part}.loss`),
          top1Error: number(`${part}.top1Error`),
          top5Error: number(`${part}.top5Error`),
        };
  // Names of layers may have dots; the last word decides.
  const named = (word: string) =>
    Object.keys(row).flatMap((column) =>
      column.endsWith(`.${word}`) && row[column] !== '' ? [column.slice(0, -word.length - 1)] : [],
    );
  const layers = named('weight').map(
    (name): LayerHealth => ({
      name,
      weight: number(`${name}.weight`),
      update: number(`${name}.update`),
      gradient: number(`${name}.gradient`),
    }),
  );
  const units = named('units').map(
    (name): UnitHealth => ({
      name,
      units: number(`${name}.units`),
      dead: number(`${name}.dead`),
      active: number(`${name}.active`),
    }),
  );
  return {
    type: 'epoch',
    epoch: number('epoch'),
    steps: number('steps'),
    seconds: number('seconds'),
    imagesPerSecond: number('imagesPerSecond'),
    waitShare: number('waitShare'),
    lr: number('lr'),
    biasLr: number('biasLr'),
    train: metrics('train'),
    val: metrics('val'),
    best: false,
    layers,
    units,
    warnings: (row.warnings ?? '').split(' ').filter(Boolean),
  };
}
