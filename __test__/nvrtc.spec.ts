/** How `npm run nvrtc:install` works: a script stands in for Python, so that nothing is downloaded. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { which } from 'zx';

import { root } from '../lib/scripts/native.js';
import { VERSION } from '../lib/scripts/nvrtc.js';
import { temporary } from './helpers.js';

/** A folder for the PATH with a `python3` that runs `script`, and what that needs. */
async function withPython(script: string): Promise<string> {
  const bin = temporary();
  for (const tool of ['bash', 'sh', 'mkdir']) symlinkSync(await which(tool), join(bin, tool));
  writeFileSync(join(bin, 'python3'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return bin;
}

function install(PATH: string, ALEXNODE_CACHE: string): SpawnSyncReturns<string> {
  const command = ['--import=tsx', 'lib/scripts/nvrtc-install.ts'];
  const env = { ...process.env, PATH, ALEXNODE_CACHE, TSX_DISABLE_CACHE: '1' };
  return spawnSync(process.execPath, command, { cwd: root, env, encoding: 'utf8' });
}

/** pip and zipfile, as far as they are used; `LOG` gets a line for each call. */
const PYTHON = `
echo "$*" >> LOG
case "$2 $3" in
'pip download') true > nvidia_cuda_nvrtc.whl;;
'zipfile -e')
  mkdir -p nvidia/cu13/lib
  for name in libnvrtc.so.13 libnvrtc.alt.so.13 libnvrtc-builtins.so.13.0; do true > nvidia/cu13/lib/$name; done;;
esac`;

test('the library comes into the cache, once', async (t) => {
  const cache = join(temporary(), 'new');
  const log = join(temporary(), 'log');
  const bin = await withPython(PYTHON.replace('LOG', log));
  const { status, stdout, stderr } = install(bin, cache);
  t.is(status, 0, stderr);
  const folder = join(cache, 'nvrtc');
  t.is(stdout, `NVRTC ${VERSION}: ${folder}\n`);
  t.deepEqual(readdirSync(cache), ['nvrtc'], 'no lock, nothing half done');
  t.deepEqual(readdirSync(folder).sort(), ['libnvrtc-builtins.so.13.0', 'libnvrtc.so.13', 'version']);
  const calls = readFileSync(log, 'utf8');
  t.true(calls.includes(`nvidia-cuda-nvrtc==${VERSION}`));

  t.is(install(bin, cache).status, 0);
  t.is(readFileSync(log, 'utf8'), calls, 'Python was called again');
  // Another version takes its place.
  writeFileSync(join(folder, 'version'), '12.0.0\n');
  t.is(install(bin, cache).status, 0);
  t.is(readFileSync(join(folder, 'version'), 'utf8'), `${VERSION}\n`);
});

test('without pip, it says what to do and fails', async (t) => {
  const cache = temporary();
  const { status, stdout, stderr } = install(await withPython('exit 1'), cache);
  t.deepEqual([status, stdout], [1, '']);
  t.regex(stderr, /^alexnode: NVRTC is a Python package, .*\n {2}install them \(Debian and Ubuntu: .*ALEXNODE_NVRTC/);
  t.notRegex(stderr, /\n\s+at /, 'no stack trace');
});

test('a download that fails leaves nothing', async (t) => {
  const cache = temporary();
  const python = 'case "$3" in download) echo "no network" >&2; exit 1;; esac';
  const { status, stderr } = install(await withPython(python), cache);
  t.is(status, 1);
  t.regex(stderr, /no network\nalexnode: pip could not download nvidia-cuda-nvrtc==.*\n {2}see to the network/);
  t.false(existsSync(join(cache, 'nvrtc')));
  t.deepEqual(readdirSync(cache), []);
});
