import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import test from 'ava';

import { train } from '../lib/index.js';
import { Child, drain, newest, ROOT, TINY_CALL, temporary, tensorBytes } from './helpers.js';

test('killed at a random moment and resumed, the bits are those of the run that was never stopped', async (t) => {
  const folder = temporary();
  const whole = join(folder, 'whole');
  {
    await using straight = await train({ ...TINY_CALL, out: whole });
    await drain(straight);
  }
  for (const attempt of [1, 2, 3]) {
    const out = join(folder, `killed-${attempt}`);
    const child = new Child(join(ROOT, '__test__', 'fixtures', 'train-child.ts'), [out], ROOT);
    await child.line((line) => line.includes('"checkpoint"'));
    const delay = randomInt(150);
    await wait(delay);
    child.process.kill('SIGKILL');
    const { signal, stdout } = await child.ended;
    const killed = signal === 'SIGKILL' && !stdout.includes('"type":"end"');
    // Killed inside a training it also leaves its lock behind, which the resume must take over.
    await using rest = await train({ resume: out });
    await drain(rest);
    t.is(rest.result?.status, 'completed');
    t.deepEqual(tensorBytes(newest(out)), tensorBytes(newest(whole)), `after ${delay} ms, killed: ${killed}`);
    t.log(`killed ${delay} ms after the first checkpoint, resumed from ${rest.resumed?.split('/').at(-1)}`);
  }
});
