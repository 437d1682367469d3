/**
 * NVRTC, NVIDIA's compiler of CUDA kernels, as a library. It comes as a Python package, of which only the file is wanted: it goes into the cache
 * folder, where the addon and the tests look for it. No GPU and no Python are needed to use it.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { $ } from 'zx';
import { BuildError, locked } from './native.js';

/** The version that `cuda/kernels.tsv` is made with. */
export const VERSION = '13.0.88';
const PACKAGE = `nvidia-cuda-nvrtc==${VERSION}`;

/** The cache of compiled kernels, as `crates/cuda/src/cache.rs` finds it. */
function cacheFolder(): string {
  const { ALEXNODE_CACHE, XDG_CACHE_HOME, HOME } = process.env;
  if (ALEXNODE_CACHE) return ALEXNODE_CACHE;
  if (XDG_CACHE_HOME) return join(XDG_CACHE_HOME, 'alexnode');
  return HOME ? join(HOME, '.cache', 'alexnode') : join(tmpdir(), 'alexnode');
}

/** Sees to it that NVRTC lies in the cache, and returns its folder. */
export async function ensureNvrtc(): Promise<string> {
  const folder = join(cacheFolder(), 'nvrtc');
  if (isInstalled(folder)) return folder;
  mkdirSync(cacheFolder(), { recursive: true });
  await locked(join(cacheFolder(), 'nvrtc.lock'), 'is installing NVRTC', async () => {
    if (!isInstalled(folder)) await install(folder);
  });
  return folder;
}

function isInstalled(folder: string): boolean {
  const version = join(folder, 'version');
  return existsSync(version) && readFileSync(version, 'utf8').trim() === VERSION;
}

async function install(folder: string): Promise<void> {
  const python = await findPip();
  process.stderr.write(`alexnode: downloading ${PACKAGE} (90 MB) from the Python package index\n`);
  // Beside its place, then renamed: it is there whole or not at all.
  const temporary = mkdtempSync(join(folder, '..', '.building-'));
  try {
    const run = $({ cwd: temporary, stdio: ['ignore', 2, 2], nothrow: true, quiet: true });
    const options = ['--no-deps', '--only-binary', ':all:', '--disable-pip-version-check', '--quiet', '--dest', '.'];
    const download = await run`${python} -m pip download ${options} ${PACKAGE}`;
    const wheel = readdirSync(temporary).find((name) => name.endsWith('.whl'));
    if (download.exitCode !== 0 || !wheel) {
      throw new BuildError(
        `pip could not download ${PACKAGE}; the reason stands above`,
        'see to the network or to the index that pip uses, and repeat the command',
      );
    }
    // A wheel is a zip archive.
    if ((await run`${python} -m zipfile -e ${wheel} .`).exitCode !== 0) {
      throw new BuildError(`${wheel} cannot be unpacked; the reason stands above`, 'see to the space on the disk');
    }
    const libraries = findLibraries(temporary);
    writeFileSync(join(libraries, 'version'), `${VERSION}\n`);
    rmSync(folder, { recursive: true, force: true });
    renameSync(libraries, folder);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  process.stderr.write(`alexnode: NVRTC ${VERSION} lies in ${folder}\n`);
}

/** The folder below `unpacked` that has the libraries in it; those that nobody uses are removed. */
function findLibraries(unpacked: string): string {
  const nvidia = join(unpacked, 'nvidia');
  const found = readdirSync(nvidia)
    .map((name) => join(nvidia, name, 'lib'))
    .find((path) => existsSync(path) && readdirSync(path).some((name) => name.startsWith('libnvrtc.so')));
  if (!found) throw new BuildError(`there is no libnvrtc.so in ${PACKAGE}`, 'report it: the package has changed');
  for (const name of readdirSync(found)) if (name.includes('.alt.') || name.endsWith('.a')) rmSync(join(found, name));
  return found;
}

/** A Python that has pip. */
async function findPip(): Promise<string> {
  for (const python of ['python3', 'python']) {
    const { exitCode } = await $({ quiet: true, nothrow: true })`${python} -m pip --version`;
    if (exitCode === 0) return python;
  }
  throw new BuildError(
    'NVRTC is a Python package, and there is no python3 with pip here to download it',
    'install them (Debian and Ubuntu: `apt install python3-pip`), or set ALEXNODE_NVRTC to the folder of a libnvrtc.so',
  );
}
