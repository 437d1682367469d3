import { spawnSync } from 'node:child_process';
import { readdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import test from 'ava';

import { takeLock } from '../lib/lock.js';
import { temporary } from './helpers.js';

async function place(): Promise<string> {
  return join(temporary(), 'lock');
}

/** The id of a process that has ended. */
function deadPid(): number {
  return spawnSync(process.execPath, ['-e', '']).pid;
}

test('a held lock is an error with holder and remedy; released, it is free again', async (t) => {
  const path = await place();
  const lock = await takeLock(path, 'runs/a');
  const error = await t.throwsAsync(takeLock(path, 'runs/a'), { code: 'ERR_USAGE' });
  t.regex(error?.message ?? '', new RegExp(`^runs/a: process ${process.pid} has been training in it since `));
  t.regex((error as Error & { hint: string }).hint, /--out/);
  await lock.release();
  await lock.release();
  await (await takeLock(path, 'runs/a')).release();
  t.deepEqual(await readdir(join(path, '..')), []);
});

test('the lock of a dead process is taken over', async (t) => {
  const path = await place();
  await writeFile(path, JSON.stringify({ pid: deadPid(), host: hostname(), since: 'x', token: 'y' }));
  const lock = await takeLock(path, 'runs/a');
  t.is((JSON.parse(await readFile(path, 'utf8')) as { pid: number }).pid, process.pid);
  await lock.release();
});

test('a process that got the id of the dead one does not hold its lock', async (t) => {
  if (process.platform !== 'linux') return t.pass('start times are known on Linux only');
  const path = await place();
  await writeFile(path, JSON.stringify({ pid: process.pid, host: hostname(), started: '1', since: 'x', token: 'y' }));
  await (await takeLock(path, 'runs/a')).release();
  return t.pass();
});

test('a lock of another machine is never taken over', async (t) => {
  const path = await place();
  await writeFile(path, JSON.stringify({ pid: deadPid(), host: 'elsewhere', since: 'x', token: 'y' }));
  const error = await t.throwsAsync(takeLock(path, 'runs/a'), { code: 'ERR_USAGE' });
  t.regex(error?.message ?? '', /on elsewhere/);
  t.regex((error as Error & { hint: string }).hint, /delete .*lock/);
});

test('a lock without content is someone starting, and dead when it is old', async (t) => {
  const path = await place();
  await writeFile(path, '');
  await t.throwsAsync(takeLock(path, 'runs/a'), { code: 'ERR_USAGE' });
  const past = new Date(Date.now() - 60_000);
  await utimes(path, past, past);
  await (await takeLock(path, 'runs/a')).release();
});

test('of many at once exactly one gets it, also over a dead lock', async (t) => {
  const path = await place();
  await writeFile(path, JSON.stringify({ pid: deadPid(), host: hostname(), since: 'x', token: 'y' }));
  const results = await Promise.allSettled(Array.from({ length: 8 }, () => takeLock(path, 'runs/a')));
  t.is(results.filter((result) => result.status === 'fulfilled').length, 1);
});

test('the release of a lock that another has taken over leaves it alone', async (t) => {
  const path = await place();
  const lock = await takeLock(path, 'runs/a');
  const other = JSON.stringify({ pid: process.pid, host: hostname(), since: 'x', token: 'other' });
  await writeFile(path, other);
  await lock.release();
  t.is(await readFile(path, 'utf8'), other);
});
