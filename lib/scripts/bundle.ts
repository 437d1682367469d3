/**
 * `npm run bundle [-- FILE]`: one archive that unpacks and runs on an offline x86-64 Linux machine with nothing but a GPU driver: Node, the
 * package with its addon and its dependencies, kernels compiled for sm_90a, the tests of kernels. By default `packages/alexnode-bundle.tar.gz`.
 */
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { $ } from 'zx';
import { kernelTests } from './kernel-tests.js';
import { BuildError, root, script } from './native.js';
import { pack } from './pack.js';

/** The most bytes that the archive may have. */
const LIMIT = 45e6;
const NAME = 'alexnode-bundle';
const PRESETS = ['demo', 'paper', 'code2012'];

/** A shell script that runs a file of the package's `dist/cli` with the archive's Node. */
function launcher(file: string, args = ''): string {
  return `#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")")
exec "$here/bin/node" "$here/node_modules/alexnode/dist/cli/${file}" ${args}"$@"
`;
}

const README = `alexnode for an offline x86-64 Linux machine. With a GPU it needs NVIDIA's driver, and nothing else.

  ./alexnode doctor                                    what this machine offers
  ./alexnode train --preset paper --devices cuda:0     a training on generated images
  ./gpu-check --devices cuda:0                         kernels against references, loss curves, slots, times of layers
  ./alexnode --help                                    everything else

Kernels of the presets ${PRESETS.join(', ')} and of gpu-check are compiled for sm_90a (H100, H200) in node_modules/alexnode-linux-x64-gnu/kernels. Other
kernels and devices need NVRTC: set ALEXNODE_NVRTC to the folder of a libnvrtc.so.

`;

await script(async () => {
  const file = resolve(root, process.argv[2] ?? `packages/${NAME}.tar.gz`);
  const work = mkdtempSync(join(tmpdir(), 'alexnode-bundle-'));
  try {
    const folder = join(work, NAME);
    await fill(folder, work);
    mkdirSync(dirname(file), { recursive: true });
    await $({ cwd: work })`tar --sort=name --owner=0 --group=0 -I ${'gzip -9'} -cf ${file} ${NAME}`;
    const { size } = statSync(file);
    if (size > LIMIT) throw new BuildError(`${file} has ${size} bytes, ${LIMIT} are allowed`, 'leave something out');
    await tryOut(file, join(work, 'elsewhere'));
    console.log(`${file}: ${(size / 1e6).toFixed(1)} MB`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
});

/** Everything that goes into the archive. */
async function fill(folder: string, work: string): Promise<void> {
  const bin = join(folder, 'bin');
  mkdirSync(bin, { recursive: true });
  const quiet = $({ cwd: folder, stdio: ['ignore', 2, 2] });
  const tarballs = await pack(join(work, 'packed'), 'dist');
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
  await quiet`npm install --ignore-scripts --no-audit --no-fund ${tarballs}`;
  withoutSources(join(folder, 'node_modules'));
  await copyStripped(process.execPath, join(bin, 'node'));
  const platform = readdirSync(join(folder, 'node_modules')).find((name) => name.startsWith('alexnode-'));
  // Compiled kernels lie beside the addon; the tests look for them beside themselves.
  const addon = join('node_modules', platform ?? 'alexnode');
  const tests = join(addon, 'kernel-tests');
  await copyStripped(await kernelTests(), join(folder, tests));
  const kernels = join(folder, addon, 'kernels');
  const choice = ['--pack', kernels, '--architectures', '90', '--presets', PRESETS.join(','), '--gpu-check'];
  await $({ cwd: root, stdio: ['ignore', 2, 2] })`npm run --silent kernels -- ${choice}`;
  writeFileSync(join(folder, 'README'), README);
  const launchers = {
    alexnode: launcher('main.js'),
    'gpu-check': launcher('gpu-check-main.js', `--kernels "$here/${tests}" `),
  };
  for (const [name, text] of Object.entries(launchers)) {
    writeFileSync(join(folder, name), text);
    chmodSync(join(folder, name), 0o755);
  }
}

/** Removes what only those need who write programs: declarations of types and maps of sources. */
function withoutSources(folder: string): void {
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }))
    if (/\.(map|[cm]?ts)$/.test(name)) rmSync(join(folder, name), { force: true });
}

/** A program without its debugging symbols. */
async function copyStripped(from: string, to: string): Promise<void> {
  copyFileSync(from, to);
  await $({ stdio: ['ignore', 2, 2] })`strip ${to}`;
}

/** Unpacks the archive and trains two steps, with nothing on the PATH but the system's own tools. */
async function tryOut(file: string, folder: string): Promise<void> {
  mkdirSync(folder);
  const env = { PATH: '/usr/bin:/bin', HOME: folder };
  const run = $({ cwd: folder, env, stdio: ['ignore', 2, 2], nothrow: true });
  const unpacked = await run`tar -xzf ${file}`;
  const trained = await run`${NAME}/alexnode train --steps 2 --limit 64 --batch 16 --out run`;
  if (unpacked.exitCode !== 0 || trained.exitCode !== 0)
    throw new BuildError('the archive does not run where it is unpacked', 'see the messages above');
}
