/**
 * `npm run pack [-- folder]`: the two tarballs that are published, by default into `packages/`: `alexnode` (JavaScript and types) and
 * `alexnode-<platform>` (the addon for this platform). `--dev` packs the addon of the last build instead of building one for distribution.
 */
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { $ } from 'zx';
import { addonIn, BuildError, buildNative, ensureNative, nativeFolder, root, script } from './native.js';

interface Manifest {
  name: string;
  version: string;
  optionalDependencies?: Record<string, string>;
  [key: string]: unknown;
}

if (import.meta.url === `file://${process.argv[1]}`) {
  await script(async () => {
    const folder = process.argv.slice(2).find((argument) => !argument.startsWith('-')) ?? 'packages';
    for (const file of await pack(resolve(root, folder), process.argv.includes('--dev') ? 'dev' : 'dist'))
      console.log(file);
  });
}

/** Writes both tarballs into `folder`, and returns their paths. */
export async function pack(folder: string, profile: 'dev' | 'dist'): Promise<string[]> {
  await ensureNative();
  const quiet = $({ cwd: root, stdio: ['ignore', 2, 2] });
  await quiet`npm run --silent build`;

  const staging = join(folder, '.staging');
  rmSync(staging, { recursive: true, force: true });
  try {
    const addons = profile === 'dev' ? nativeFolder : join(staging, 'addon');
    mkdirSync(addons, { recursive: true });
    if (profile === 'dist') await buildNative(addons, 'dist');
    const platform = stagePlatform(addons, join(staging, 'platform'));
    stageMain(platform, join(staging, 'main'));
    const files = [];
    for (const part of ['main', 'platform']) files.push(await packFolder(join(staging, part), folder));
    return files;
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

function readManifest(): Manifest {
  return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
}

/** The package with the addon; returns its name. */
function stagePlatform(addons: string, folder: string): string {
  const addon = addonIn(addons);
  const platform = addon && /^alexnode\.(.+)\.node$/.exec(addon)?.[1];
  if (!addon || !platform) throw new BuildError(`there is no addon in ${addons}`, 'run `npm run build`');
  const { name, version, license, engines } = readManifest();
  const [os, cpu, abi] = platform.split('-');
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(addons, addon), join(folder, addon));
  copyLicences(folder);
  writeManifest(folder, {
    name: `${name}-${platform}`,
    version,
    description: `The native addon of ${name} for ${platform}`,
    license,
    engines,
    main: addon,
    files: [addon],
    os: [os],
    cpu: [cpu],
    ...(abi === 'gnu' ? { libc: ['glibc'] } : {}),
  });
  return `${name}-${platform}`;
}

/** The main package: as package.json says, with the platform's package instead of what only developers need. */
function stageMain(platform: string, folder: string): void {
  const { devDependencies: _1, scripts: _2, ava: _3, napi: _4, allowScripts: _5, ...manifest } = readManifest();
  mkdirSync(join(folder, 'lib/native'), { recursive: true });
  cpSync(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
  for (const file of ['lib/native/index.js', 'lib/native/index.d.ts'])
    copyFileSync(join(root, file), join(folder, file));
  if (existsSync(join(root, 'README.md'))) copyFileSync(join(root, 'README.md'), join(folder, 'README.md'));
  copyLicences(folder);
  writeManifest(folder, {
    ...manifest,
    optionalDependencies: { ...manifest.optionalDependencies, [platform]: manifest.version },
  });
}

function copyLicences(folder: string): void {
  for (const name of ['LICENSE', 'LICENSE-MIT', 'LICENSE-APACHE']) copyFileSync(join(root, name), join(folder, name));
}

function writeManifest(folder: string, manifest: Manifest): void {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

async function packFolder(from: string, to: string): Promise<string> {
  const output = await $({
    cwd: from,
    stdio: ['ignore', 'pipe', 2],
    quiet: true,
  })`npm pack --json --ignore-scripts --pack-destination ${to}`;
  const [{ filename }] = JSON.parse(output.stdout) as [{ filename: string }];
  return join(to, filename);
}
