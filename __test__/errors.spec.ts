import test from 'ava';

import { AlexnodeError, fromNative, native, reason } from '../lib/errors.js';

test('a native error keeps its code, message and hint, and is the cause', (t) => {
  const raw = Object.assign(new Error('conv2 (Conv2d): expected 96 input channels, got 48'), {
    code: 'ERR_SHAPE',
    hint: 'check groups',
  });
  const error = fromNative(raw);
  t.true(error instanceof AlexnodeError);
  t.is(error.code, 'ERR_SHAPE');
  t.is(error.message, raw.message);
  t.is(error.hint, 'check groups');
  t.is(error.cause, raw);
});

test('what has none of our codes becomes ERR_KERNEL', (t) => {
  t.is(fromNative(Object.assign(new Error('x'), { code: 'GenericFailure' })).code, 'ERR_KERNEL');
  t.is(fromNative('text').message, 'text');
});

test('one of ours passes through unchanged', (t) => {
  const error = new AlexnodeError('ERR_DATA', 'photos: no images');
  t.is(
    t.throws(() =>
      native(() => {
        throw error;
      }),
    ),
    error,
  );
});

test('the reason of a failed file operation is the system`s', (t) => {
  const error = Object.assign(new Error("ENOSPC: no space left on device, write '/x'"), { code: 'ENOSPC' });
  t.is(reason(error), 'no space left on device (ENOSPC)');
  t.is(reason(new Error('odd')), 'odd');
});
