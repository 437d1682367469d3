import test from 'ava';
import { NativeTrainer } from '#native';

import { AlexnodeError, train } from '../lib/index.js';
import { drain, TINY_CALL, temporary } from './helpers.js';

// The panic itself is expected: its message on stderr is enough.
process.env.RUST_BACKTRACE = '0';

/** The addon panics on the trainer's thread when this is called: there for this test, in no type. */
type Panicking = { __panic(): Promise<string> };

test('a panic in the addon is an error of that trainer only; Node and the other trainers go on', async (t) => {
  await using other = await train({ ...TINY_CALL, out: `${temporary()}/other` });
  await using training = await train({ ...TINY_CALL, out: `${temporary()}/run` });
  const { run } = NativeTrainer.prototype;
  let segments = 0;
  NativeTrainer.prototype.run = function (this: NativeTrainer, segment: string) {
    segments += 1;
    return segments < 3 ? run.call(this, segment) : (this as unknown as Panicking).__panic();
  };
  try {
    const error = await t.throwsAsync(drain(training), { instanceOf: AlexnodeError, code: 'ERR_KERNEL' });
    t.regex(error?.message ?? '', /a panic on purpose/);
  } finally {
    NativeTrainer.prototype.run = run;
  }
  t.is(training.result?.status, 'failed');
  await t.throwsAsync(training.trainer.tensor('conv1.weight'), { code: 'ERR_KERNEL', message: /earlier failure/ });
  await drain(other);
  t.is(other.result?.status, 'completed');
});
