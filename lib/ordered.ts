/** Many items under way at once, whose results come in the order of the items. */
import { AlexnodeError } from './errors.js';

/** Something that is under way and may be called off. */
export interface Started<R> {
  result: Promise<R>;
  cancel(): void;
}

/**
 * Starts up to `window` items at a time and yields each with its result as soon as it and all before it are there; a source that hesitates
 * holds nothing back. Leaving the loop, an error and `signal` (ERR_ABORTED) call off what is under way.
 */
export async function* ordered<T, R>(
  source: Iterable<T> | AsyncIterable<T>,
  window: number,
  start: (item: T) => Started<R>,
  signal?: AbortSignal,
): AsyncGenerator<[T, R], void> {
  const iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  const pending: { item: T; started: Started<R> }[] = [];
  let wake = (): void => undefined;
  const onAbort = () => wake();
  signal?.addEventListener('abort', onAbort, { once: true });
  let next: Promise<IteratorResult<T>> | undefined;
  let ended = false;
  try {
    for (;;) {
      if (!ended && next === undefined && pending.length < window) next = Promise.resolve(iterator.next());
      const head = pending[0];
      if (head === undefined && next === undefined) return;
      if (signal?.aborted === true) throw new AlexnodeError('ERR_ABORTED', 'the prediction was stopped');
      const event = await new Promise<'aborted' | 'next' | 'head'>((resolve, reject) => {
        wake = () => resolve('aborted');
        next?.then(() => resolve('next'), reject);
        head?.started.result.then(() => resolve('head'), reject);
      });
      if (event === 'next' && next !== undefined) {
        const step = await next;
        next = undefined;
        if (step.done === true) ended = true;
        else {
          const started = start(step.value);
          // It may fail long before its turn.
          started.result.catch(() => undefined);
          pending.push({ item: step.value, started });
        }
      } else if (event === 'head' && head !== undefined) {
        pending.shift();
        yield [head.item, await head.started.result];
      }
    }
  } finally {
    signal?.removeEventListener('abort', onAbort);
    for (const { started } of pending) started.cancel();
    // Not waited for: a source may be waiting itself, for instance for a line of stdin.
    if (!ended) {
      next?.catch(() => undefined);
      Promise.resolve(iterator.return?.()).catch(() => undefined);
    }
  }
}
