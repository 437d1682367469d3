/** Line charts as SVG, drawn by vega: it scales, labels and escapes; nothing of it is needed to look at them. */
import type { Spec } from 'vega';

/** One line; points whose `y` is `null` or not finite are left out. */
export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number | null | undefined])[];
  /** Thin and without points, behind the others: what happens inside epochs. */
  faint?: boolean;
}

/** One diagram. */
export interface Chart {
  title: string;
  series: Series[];
  /** d3-format of the numbers on the y axis; default `~g`. */
  format?: string;
  log?: boolean;
  /** The highest x; default: that of the points. */
  last?: number;
}

/** Colours as SVG takes them: values, or CSS variables of the page that the SVG is part of. */
export interface Palette {
  background: string | null;
  text: string;
  grid: string;
  series: string[];
}

/** For files of their own. */
export const PAPER: Palette = {
  background: 'white',
  text: '#333333',
  grid: '#dddddd',
  series: ['#4c78a8', '#e4572e', '#54a24b', '#b279a2', '#b8860b', '#2a9d8f', '#9d755d', '#7f7f7f'],
};

type Mark = NonNullable<Spec['marks']>[number];
interface Point {
  x: number;
  y: number;
  series: string;
}

const SIZE = { width: 275, height: 190 };

/** The charts side by side in one SVG, with one legend where all of them have the same series. */
export async function chartsSvg(charts: readonly Chart[], palette: Palette = PAPER): Promise<string> {
  // Loaded when there is something to draw: it is large.
  const { parse, View } = await import('vega');
  const view = new View(parse(specOf(charts, palette)), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

function specOf(charts: readonly Chart[], palette: Palette): Spec {
  const names = [
    ...new Set(charts.flatMap(({ series }) => series.filter(({ faint }) => !faint).map(({ name }) => name))),
  ];
  const spec: Spec = {
    padding: 8,
    layout: { columns: charts.length, padding: 24, align: 'all' },
    config: {
      axis: {
        labelColor: palette.text,
        titleColor: palette.text,
        domainColor: palette.text,
        tickColor: palette.text,
        gridColor: palette.grid,
        labelLimit: 120,
      },
      legend: { labelColor: palette.text, labelLimit: 160 },
    },
    data: charts.flatMap(({ series, log }, index) => {
      const list = (faint: boolean) =>
        series.filter((line) => (line.faint ?? false) === faint).flatMap((line) => pointsOf(line, log ?? false));
      return [
        { name: `lines${index}`, values: list(false) },
        { name: `faint${index}`, values: list(true) },
      ];
    }),
    scales: [{ name: 'colour', type: 'ordinal', domain: names, range: palette.series }],
    legends:
      names.length > 1
        ? [{ stroke: 'colour', symbolType: 'stroke', orient: 'top', direction: 'horizontal', columns: 4 }]
        : [],
    marks: charts.map((chart, index) => panel(chart, index)),
  };
  if (palette.background !== null) spec.background = palette.background;
  return spec;
}

function pointsOf({ name, points }: Series, log: boolean): Point[] {
  return points.flatMap(([x, y]) =>
    typeof y === 'number' && Number.isFinite(y) && (!log || y > 0) ? [{ x, y, series: name }] : [],
  );
}

function panel({ series, title, format = '~g', log = false, last }: Chart, index: number): Mark {
  const all = series.flatMap((line) => pointsOf(line, log));
  const [low, high] = all.reduce(([a, b], { y }) => [Math.min(a, y), Math.max(b, y)], [Number.POSITIVE_INFINITY, 0]);
  const end = Math.max(2, last ?? 0, ...all.map(({ x }) => x));
  const first = Math.min(1, ...all.map(({ x }) => x));
  // Powers of ten alone, where there are some: the lines between them say nothing.
  const tens = log && all.length > 0 && low < high ? powersOfTen(low, high) : [];
  const position = { x: { scale: 'x', field: 'x' }, y: { scale: 'y', field: 'y' } };
  const colour = { scale: 'colour', field: 'series' };
  const lines = (data: string, width: number, opacity: number): Mark => ({
    type: 'line',
    from: { data },
    encode: {
      enter: { ...position, stroke: colour, strokeWidth: { value: width }, strokeOpacity: { value: opacity } },
    },
  });
  const grouped = (data: string, marks: (name: string) => Mark[]): Mark => ({
    type: 'group',
    from: { facet: { name: `${data}By`, data, groupby: 'series' } },
    marks: marks(`${data}By`),
  });
  return {
    type: 'group',
    encode: { enter: { width: { value: SIZE.width }, height: { value: SIZE.height } } },
    // The axes measure their grids by these.
    signals: [
      { name: 'width', value: SIZE.width },
      { name: 'height', value: SIZE.height },
    ],
    scales: [
      { name: 'x', type: 'linear', domain: [first, end], range: 'width', zero: false },
      log
        ? {
            name: 'y',
            type: 'log',
            domain:
              all.length > 0 && low < high
                ? [low, high]
                : [(low || 1) / 2, (high || 1) * 2].map((v) => (Number.isFinite(v) ? v : 1)),
            range: 'height',
            nice: true,
          }
        : { name: 'y', type: 'linear', domain: [0, all.length > 0 ? high || 1 : 1], range: 'height', nice: 6 },
    ],
    axes: [
      { scale: 'x', orient: 'bottom', title: 'epoch', format: 'd', tickMinStep: 1, tickCount: 8 },
      {
        scale: 'y',
        orient: 'left',
        title,
        format,
        grid: true,
        ...(tens.length > 2 ? { values: tens } : { tickCount: log ? 4 : 6 }),
      },
    ],
    marks: [
      grouped(`faint${index}`, (name) => [lines(name, 1, 0.35)]),
      grouped(`lines${index}`, (name) => [
        lines(name, 2, 1),
        { type: 'symbol', from: { data: name }, encode: { enter: { ...position, fill: colour, size: { value: 16 } } } },
      ]),
    ],
  };
}

/** Those that a logarithmic axis from `low` to `high` shows. */
function powersOfTen(low: number, high: number): number[] {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  return Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
}
