import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { which } from 'zx';

import { PLATFORMS } from '../lib/platform.js';
import { locked, root } from '../lib/scripts/native.js';
import { copyOfLib, pretend } from './helpers.js';

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

/** The project with an addon that has nothing but `source` in it, so that cargo is done with it at once. */
function project(source: string): string {
  const path = copyOfLib();
  mkdirSync(join(path, 'crates', 'node', 'src'), { recursive: true });
  writeFileSync(join(path, 'Cargo.toml'), '[workspace]\nmembers = ["crates/node"]\nresolver = "3"\n');
  const manifest = '[package]\nname = "alexnode-node"\nversion = "0.1.0"\nedition = "2024"\n';
  writeFileSync(join(path, 'crates', 'node', 'Cargo.toml'), `${manifest}[lib]\ncrate-type = ["cdylib"]\n`);
  writeFileSync(join(path, 'crates', 'node', 'src', 'lib.rs'), source);
  return path;
}

/** `npm run train` in a project whose addon is yet to be built. */
function trainIn(cwd: string, before: string, PATH = process.env.PATH): SpawnSyncReturns<string> {
  const source = `${before}; process.argv.push('run.ts', 'train'); await import('./lib/scripts/run.ts');`;
  return spawnSync(process.execPath, ['--import=tsx', '--input-type=module', '-e', source], {
    cwd,
    env: { ...process.env, PATH, TSX_DISABLE_CACHE: '1' },
    encoding: 'utf8',
  });
}

/** A folder for the PATH that has Node, a shell and the named tools. */
async function only(t: ExecutionContext, tools: string[]): Promise<string> {
  const bin = folder(t);
  symlinkSync(process.execPath, join(bin, 'node'));
  for (const tool of ['bash', 'sh', 'env', ...tools]) symlinkSync(await which(tool), join(bin, tool));
  return bin;
}

/** What the scripts say themselves: a line `alexnode: ...` and what to do below it. */
function messages(stderr: string): string[] {
  return stderr.match(/^alexnode: (?!building).*\n {2}.*$/gm) ?? [];
}

test('on an unsupported platform, a build says which are supported and fails', (t) => {
  const { status, stdout, stderr } = trainIn(project(''), pretend('freebsd-x64'));
  t.is(status, 1);
  t.is(stdout, '');
  t.is(messages(stderr).join('\n'), stderr.trimEnd(), 'one message and nothing else');
  t.regex(stderr, /^alexnode: freebsd-x64 is not supported\n {2}alexnode runs on .*: use such a machine/);
  for (const platform of PLATFORMS) t.true(stderr.includes(platform), platform);
});

const failures: [name: string, source: string, tools: string[] | undefined, reason: RegExp][] = [
  ['sources that do not compile', 'pub fn answer() -> u32 { "42" }', undefined, /error\[E0308\]: mismatched types/],
  ['a missing linker', '', ['cargo', 'rustc'], /linker `cc` not found/],
];
for (const [name, source, tools, reason] of failures) {
  test(`with ${name}, a build gives the reason, says what to do and fails`, async (t) => {
    const cwd = project(source);
    const { status, stdout, stderr } = trainIn(cwd, '', tools && (await only(t, tools)));
    t.is(status, 1);
    t.is(stdout, '');
    t.regex(stderr, reason);
    t.deepEqual(messages(stderr), [
      'alexnode: the native addon could not be built; the reason stands above\n' +
        '  it needs Rust 1.89 or newer (`rustup update`) and a C linker (`cc`; Debian and Ubuntu: `apt install build-essential`); then repeat the command',
    ]);
    t.true(stderr.trimEnd().endsWith('then repeat the command'), 'it is the last thing to be read');
    t.notRegex(stderr, /Internal Error|\n\s+at /, 'no stack trace');
    t.deepEqual(readdirSync(join(cwd, 'lib', 'native')), [], 'no half of an addon, no lock');
  });
}

test('with sources that cargo refuses, the reason is given too', (t) => {
  const cwd = project('');
  writeFileSync(join(cwd, 'crates', 'node', 'Cargo.toml'), '[package]\nname = "alexnode-node"\nversion = 1\n');
  const { status, stderr } = trainIn(cwd, '');
  t.is(status, 1);
  t.regex(stderr, /invalid type: integer/);
  t.is(messages(stderr).length, 1);
  t.notRegex(stderr, /\n\s+at /, 'no stack trace');
});

test('with a cargo that does not work, a build quotes it', async (t) => {
  const bin = await only(t, []);
  writeFileSync(join(bin, 'cargo'), '#!/bin/sh\necho "error: no default toolchain is configured" >&2\nexit 1\n', {
    mode: 0o755,
  });
  const { status, stderr } = trainIn(project(''), '', bin);
  t.is(status, 1);
  t.is(
    stderr,
    'alexnode: the native addon has to be built, and cargo does not work: error: no default toolchain is configured\n' +
      '  see to it that `cargo --version` works (with rustup: `rustup default stable`) and repeat the command\n',
  );
});

test('builds exclude each other', async (t) => {
  const lock = join(folder(t), '.lock');
  const log: string[] = [];
  const build = (name: string) =>
    locked(lock, 'is at work', async () => {
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
    locked(lock, 'is at work', async () => {
      throw new Error('no linker');
    }),
    { message: 'no linker' },
  );
  t.false(existsSync(lock));
});
