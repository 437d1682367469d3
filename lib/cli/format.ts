/** Numbers and tables as people read them. */
import { isAbsolute, relative } from 'node:path';
import Table from 'cli-table3';
import prettyBytes from 'pretty-bytes';
import prettyMilliseconds from 'pretty-ms';

/** `1,234,567`. */
export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** `1 epoch`, `1,234 epochs`. */
export function plural(value: number, unit: string): string {
  return `${count(value)} ${unit}${value === 1 ? '' : 's'}`;
}

/** `12.3 M`. */
export function millions(value: number): string {
  return value < 1e5 ? count(value) : `${(value / 1e6).toLocaleString('en-US', { maximumFractionDigits: 1 })} M`;
}

/** `6.1 %` of a share from 0 to 1. */
export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** `0.0123`, without needless digits. */
export function rateText(value: number): string {
  return value === 0 ? '0' : String(Number(value.toPrecision(3)));
}

/** `1h 2m`, `1m 52s`, `8s`. */
export function time(seconds: number): string {
  if (!Number.isFinite(seconds)) return 'unknown';
  return prettyMilliseconds(Math.max(0, seconds) * 1000, {
    secondsDecimalDigits: seconds < 10 ? 1 : 0,
    unitCount: 2,
  });
}

/** `12.6 MB`. */
export function bytes(value: number): string {
  return prettyBytes(value);
}

/** `4.31 TB/s`, `151 GFLOP/s`. */
export function perSecond(rate: number, unit: string): string {
  return rate < 1e12 ? `${(rate / 1e9).toPrecision(3)} G${unit}/s` : `${(rate / 1e12).toPrecision(3)} T${unit}/s`;
}

/** `12.3 us`, `4,711 us`, `12.3 ms`, `1.23 s`. */
export function shortTime(seconds: number): string {
  const value = seconds * 1e6;
  if (value >= 999_500) return `${seconds.toPrecision(3)} s`;
  if (value >= 10_000) return `${(value / 1e3).toPrecision(3)} ms`;
  return `${value < 100 ? value.toFixed(1) : count(value)} us`;
}

/** `NVIDIA H200` as a part of a file's name. */
export function slug(text: string): string {
  const [name = ''] = text.split(',');
  return name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

/**
 * Text from outside (names of files and classes, messages that quote them) as one line without commands to the terminal: control
 * characters, line breaks and what turns the direction of writing are shown as escapes.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (char) => {
    const code = char.charCodeAt(0);
    const known: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };
    return (
      known[char] ??
      (code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`)
    );
  });
}

/** A path as short as it can be said from here. */
export function shortPath(path: string): string {
  const fromHere = relative(process.cwd(), path);
  return fromHere === '' || fromHere.startsWith('..') || isAbsolute(fromHere) ? path : fromHere;
}

/** Columns without borders; all but the first two to the right. */
export function table(head: string[], rows: string[][], left = 2): string {
  const none = '';
  const made = new Table({
    head,
    colAligns: head.map((_, index) => (index < left ? 'left' : 'right')),
    style: { head: [], border: [], 'padding-left': 1, 'padding-right': 1 },
    chars: {
      top: none,
      'top-mid': none,
      'top-left': none,
      'top-right': none,
      bottom: none,
      'bottom-mid': none,
      'bottom-left': none,
      'bottom-right': none,
      left: none,
      'left-mid': none,
      mid: none,
      'mid-mid': none,
      right: none,
      'right-mid': none,
      middle: none,
    },
  });
  made.push(...rows);
  return made.toString();
}
