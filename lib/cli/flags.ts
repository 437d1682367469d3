/** Parsers of flag values, and the flags that several verbs have. */
import { type Command, InvalidArgumentError, Option } from 'commander';

import { AlexnodeError, PRECISIONS, parseDuration, suggestion } from '../index.js';

/** A whole number of at least `least`. */
export function whole(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least) {
      throw new InvalidArgumentError(`Expected a whole number of at least ${least}.`);
    }
    return value;
  };
}

/** A number that is not negative. */
export function rate(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0) {
    throw new InvalidArgumentError('Expected a number that is not negative, for example 0.01.');
  }
  return value;
}

/** A share above 0 and below 1. */
export function share(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0 && value < 1)) {
    throw new InvalidArgumentError('Expected a number between 0 and 1, for example 0.1.');
  }
  return value;
}

/** A duration, in seconds. */
export function duration(text: string): number {
  try {
    return parseDuration(text, 'duration');
  } catch (error) {
    throw new InvalidArgumentError(error instanceof AlexnodeError ? (error.hint ?? '') : '');
  }
}

/** A list with commas. */
export function list(text: string): string[] {
  const items = text.split(',').map((item) => item.trim());
  if (items.some((item) => item === '')) throw new InvalidArgumentError('Expected names with commas between them.');
  return items;
}

/** Patterns with commas, or one with a choice in braces (`{conv1,conv2}`). */
function patterns(text: string): string[] {
  return text.includes('{') ? [text] : list(text);
}

/** Adds patterns of layers to those of a flag that may be repeated. */
export function layers(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), ...patterns(text)];
}

/** Adds one more of a flag that may be repeated. */
export function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text];
}

/** More factors of a flag that may be repeated: `fc8=10`, `conv*=0.1,fc8=10`. */
export function factors(text: string, before: Record<string, number> | undefined): Record<string, number> {
  const more = patterns(text).map((part): [string, number] => {
    const equals = part.lastIndexOf('=');
    if (equals < 1) throw new InvalidArgumentError('Expected layers and a factor, for example fc8=10.');
    return [part.slice(0, equals), rate(part.slice(equals + 1))];
  });
  return { ...before, ...Object.fromEntries(more) };
}

/** One of `names`; a slip is told the nearest. */
export function oneOf<T extends string>(names: readonly T[]): (text: string) => T {
  return (text) => {
    const name = names.find((candidate) => candidate === text);
    if (name === undefined) throw new InvalidArgumentError(suggestion(text, names));
    return name;
  };
}

/** Several of `names`, with commas. */
export function listOf<T extends string>(names: readonly T[]): (text: string) => T[] {
  return (text) => list(text).map(oneOf(names));
}

/** Views per image. */
export function cropCount(text: string): 1 | 10 {
  if (text !== '1' && text !== '10')
    throw new InvalidArgumentError('Expected 1 (the centre) or 10 (the views of the paper).');
  return text === '1' ? 1 : 10;
}

/** Where the images come from and what computes. */
export function addCommonFlags(command: Command): Command {
  command
    .option('--data <source>', '"generated", a folder, a pack, a .tar, a list (.csv, .jsonl), or the CIFAR-10 binaries')
    .addOption(
      new Option('--on-bad-image <what>', 'an undecodable image: "error" or "skip"').argParser(
        oneOf(['error', 'skip']),
      ),
    )
    .option('--quarantine <file>', 'leave out the files of this list, which `data scan` writes');
  return addDeviceFlags(command);
}

/** What computes, and how it is told. */
export function addDeviceFlags(command: Command): Command {
  return command
    .option('--devices <names>', 'one device, or two for the two towers: cpu, "cpu,cpu", cuda:0, "cuda:0,cuda:1"', list)
    .option('--threads <n>', 'CPU threads (default: all)', whole(1))
    .addOption(
      new Option('--precision <name>', 'arithmetic of the layers that multiply: fp32, tf32 or bf16 (CUDA)').argParser(
        oneOf(PRECISIONS),
      ),
    )
    .option('--json', 'machine-readable output on stdout');
}
