/** Errors as the command shows them, and exit codes. */
import type { AlexnodeError, ErrorCode } from '../index.js';
import { printable } from './format.js';

/** The exit codes; any other failure is 1. */
export const EXIT = { ok: 0, failure: 1, usage: 2, device: 3, data: 4, diverged: 5, interrupted: 130 } as const;

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  ERR_USAGE: EXIT.usage,
  ERR_SHAPE: EXIT.usage,
  ERR_DEVICE: EXIT.device,
  ERR_DATA: EXIT.data,
  ERR_DIVERGED: EXIT.diverged,
  ERR_ABORTED: EXIT.interrupted,
};

/** By its name: the class itself cannot be imported where the addon is missing, and that has to be told, too. */
function isTyped(error: unknown): error is AlexnodeError {
  return error instanceof Error && error.name === 'AlexnodeError';
}

/** The exit code of a failure. */
export function exitCodeOf(error: unknown): number {
  return (isTyped(error) ? BY_CODE[error.code] : undefined) ?? EXIT.failure;
}

/** What went wrong and what to do, on stderr; with `json` also as an event on stdout. */
export function printError(error: unknown, json: boolean): void {
  if (!isTyped(error)) {
    process.stderr.write(`alexnode: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    if (json) printJson({ type: 'error', code: null, message: String(error), hint: null });
    return;
  }
  const { code, message, hint } = error;
  process.stderr.write(`alexnode: ${printable(message)} (${code})\n`);
  if (hint !== undefined && hint !== '') process.stderr.write(`  ${printable(hint)}\n`);
  if (json) printJson({ type: 'error', code, message, hint: hint ?? null });
}

/** One line of NDJSON. What JSON leaves as it is, but a terminal or a reader of lines may take for a command, is escaped, too. */
export function printJson(value: unknown): void {
  const escaped = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  process.stdout.write(`${JSON.stringify(value).replace(/[\u007f-\u009f\u2028\u2029]/g, escaped)}\n`);
}
