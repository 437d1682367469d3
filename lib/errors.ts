/** The one error class of the public API, and how native errors become one. */

/** What went wrong, in one word. */
export type ErrorCode =
  | 'ERR_USAGE'
  | 'ERR_DEVICE'
  | 'ERR_DATA'
  | 'ERR_SHAPE'
  | 'ERR_KERNEL'
  | 'ERR_CHECKPOINT'
  | 'ERR_DIVERGED'
  | 'ERR_ABORTED';

const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  'ERR_USAGE',
  'ERR_DEVICE',
  'ERR_DATA',
  'ERR_SHAPE',
  'ERR_KERNEL',
  'ERR_CHECKPOINT',
  'ERR_DIVERGED',
  'ERR_ABORTED',
]);

/** Every error that this package throws on purpose. `message` names the culprit, `hint` the remedy. */
export class AlexnodeError extends Error {
  override readonly name = 'AlexnodeError';
  readonly code: ErrorCode;
  /** What to do about it, one or two sentences; absent where there is nothing useful to say. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string | undefined; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}

/** ERR_USAGE. */
export function usage(message: string, hint?: string): AlexnodeError {
  return new AlexnodeError('ERR_USAGE', message, { hint });
}

function isCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && CODES.has(value);
}

/**
 * The typed form of whatever the addon threw. An error without one of our codes is a defect or something from outside; it
 * becomes ERR_KERNEL with the original as its cause, so that callers have one class to test for.
 */
export function fromNative(error: unknown): AlexnodeError {
  if (error instanceof AlexnodeError) return error;
  if (error instanceof Error) {
    const { code, hint } = error as Error & { code?: unknown; hint?: unknown };
    return new AlexnodeError(isCode(code) ? code : 'ERR_KERNEL', error.message, {
      hint: typeof hint === 'string' ? hint : undefined,
      cause: error,
    });
  }
  return new AlexnodeError('ERR_KERNEL', String(error));
}

/** Runs `call` and rethrows what comes out of the addon as an `AlexnodeError`. */
export function native<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fromNative(error);
  }
}

/** The same for a promise. */
export async function nativeAsync<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw fromNative(error);
  }
}

/** The system's reason of a failed file operation ("no space left on device (ENOSPC)"), for use inside a message. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = (error as NodeJS.ErrnoException).code;
  const text = /^[A-Z]+: ([^,]*)/.exec(error.message)?.[1] ?? error.message;
  return code === undefined ? text : `${text} (${code})`;
}
