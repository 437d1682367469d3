import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { which } from 'zx';

import { locked, root } from '../lib/scripts/native.js';

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'alexnode-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test('without cargo, a build says what to do and fails', async (t) => {
  const bin = folder(t);
  // What a machine has at least: a shell and Node.
  symlinkSync(await which('bash'), join(bin, 'bash'));
  symlinkSync(process.execPath, join(bin, 'node'));
  const source = `
    const { buildNative, script } = await import('./lib/scripts/native.js');
    await script(() => buildNative(${JSON.stringify(bin)}, 'dev'));
  `;
  const { status, stderr } = spawnSync(process.execPath, ['--import=tsx', '--input-type=module', '-e', source], {
    cwd: root,
    env: { ...process.env, PATH: bin },
    encoding: 'utf8',
  });
  t.is(status, 1);
  t.regex(stderr, /cargo, the Rust build tool, was not found on the PATH\n {2}install Rust from https:\/\/rustup\.rs/);
  t.notRegex(stderr, /\n\s+at /, 'no stack trace');
});

test('builds exclude each other', async (t) => {
  const lock = join(folder(t), '.lock');
  const log: string[] = [];
  const build = (name: string) =>
    locked(lock, async () => {
      log.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 50));
      log.push(`${name} ends`);
    });
  await Promise.all([build('a'), build('b')]);
  t.deepEqual(log, ['a begins', 'a ends', 'b begins', 'b ends']);
  t.false(existsSync(lock));
});

test('the lock of a build that was killed is taken over, that of one that failed is given back', async (t) => {
  const lock = join(folder(t), '.lock');
  const dead = spawnSync(process.execPath, ['-e', '']).pid;
  writeFileSync(lock, String(dead));
  await t.throwsAsync(
    locked(lock, async () => {
      throw new Error('no linker');
    }),
    { message: 'no linker' },
  );
  t.false(existsSync(lock));
});
