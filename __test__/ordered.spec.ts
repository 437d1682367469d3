import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';

import { ordered, type Started } from '../lib/ordered.js';

/** Things that are settled by hand. */
class Desk {
  readonly started: number[] = [];
  readonly cancelled: number[] = [];
  readonly #settle = new Map<number, (result: string | Error) => void>();

  readonly start = (item: number): Started<string> => {
    this.started.push(item);
    const result = new Promise<string>((resolve, reject) => {
      this.#settle.set(item, (value) => (value instanceof Error ? reject(value) : resolve(value)));
    });
    return { result, cancel: () => this.cancelled.push(item) };
  };

  settle(item: number, result: string | Error = `of ${item}`): void {
    this.#settle.get(item)?.(result);
  }
}

/** A source that gives 1, 2, 3, ... and notes that it was closed. */
class Source {
  given = 0;
  closed = false;

  *[Symbol.iterator](): Generator<number, void> {
    try {
      for (;;) {
        this.given += 1;
        yield this.given;
      }
    } finally {
      this.closed = true;
    }
  }
}

test('results come in the order of the items, whatever is done first, with as many under way as the window has', async (t) => {
  const desk = new Desk();
  const source = new Source();
  const results = ordered(source, 3, desk.start);
  const first = results.next();
  await turn();
  t.deepEqual(desk.started, [1, 2, 3]);
  desk.settle(3);
  desk.settle(2);
  await turn();
  t.deepEqual(desk.started, [1, 2, 3]);
  desk.settle(1);
  t.deepEqual((await first).value, [1, 'of 1']);
  t.deepEqual((await results.next()).value, [2, 'of 2']);
  await results.return();
  t.true(source.closed);
  t.deepEqual(
    desk.started.filter((item) => item > 3),
    desk.cancelled.filter((item) => item > 3),
    'what was under way has been called off',
  );
});

test('a source that hesitates holds no result back', async (t) => {
  const desk = new Desk();
  const results = ordered(
    (async function* () {
      yield 1;
      await new Promise(() => undefined);
    })(),
    8,
    desk.start,
  );
  const first = results.next();
  await turn();
  desk.settle(1);
  t.deepEqual((await first).value, [1, 'of 1']);
});

test('an error of an item comes in its place, and calls off the others', async (t) => {
  const desk = new Desk();
  const source = new Source();
  const results = ordered(source, 3, desk.start);
  const first = results.next();
  await turn();
  desk.settle(1);
  await first;
  // While whoever listens is busy with the first: a rejection that nobody handles in time would end the process.
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on('unhandledRejection', note);
  desk.settle(2, new Error('no'));
  await turn();
  process.off('unhandledRejection', note);
  t.deepEqual(unhandled, []);
  await t.throwsAsync(results.next(), { message: 'no' });
  t.true(desk.cancelled.includes(3));
  await turn();
  t.true(source.closed);
});

test('a signal ends it at once, even while the source hesitates', async (t) => {
  const desk = new Desk();
  const stop = new AbortController();
  const never = (async function* (): AsyncGenerator<number> {
    yield 1;
    await new Promise(() => undefined);
  })();
  const results = ordered(never, 8, desk.start, stop.signal);
  const first = results.next();
  await turn();
  stop.abort();
  await t.throwsAsync(first, { code: 'ERR_ABORTED' });
  t.deepEqual(desk.cancelled, [1]);
  const late = ordered([1], 8, desk.start, stop.signal);
  await t.throwsAsync(late.next(), { code: 'ERR_ABORTED' });
});
