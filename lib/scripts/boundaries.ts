/**
 * Part of `npm run lint`: who may import whom (ARCHITECTURE.md), and how long a file may be. Prints every violation, and exits with 1 if
 * there is one.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { extname, join, relative } from 'node:path';
import { root } from './native.js';

/** The workspace crates that a crate may use, apart from dev-dependencies. */
const CRATES: Record<string, string[]> = {
  'alexnode-core': [],
  'alexnode-cpu': ['alexnode-core'],
  'alexnode-cuda': ['alexnode-core'],
  'alexnode-data': ['alexnode-core'],
  'alexnode-interchange': ['alexnode-core', 'alexnode-nn'],
  'alexnode-kernels': ['alexnode-core', 'alexnode-cuda', 'alexnode-nn'],
  'alexnode-nn': ['alexnode-core'],
  'alexnode-node': [
    'alexnode-core',
    'alexnode-cpu',
    'alexnode-cuda',
    'alexnode-data',
    'alexnode-interchange',
    'alexnode-nn',
  ],
};
/** Libraries that have one home. */
const HOMES: [library: RegExp, home: string][] = [
  [/^napi(-.*)?$/, 'alexnode-node'],
  [/^cudarc$/, 'alexnode-cuda'],
  [/^(prost.*|crc32c)$/, 'alexnode-interchange'],
  [/^(zune-.*|image|png|jpeg-.*|fast_image_resize|tar|.*xz.*|.*lzma.*)$/, 'alexnode-data'],
];
/** The only files that see the addon: each wraps a native class or function. */
const WRAPPERS = [
  'lib/checkpoint.ts',
  'lib/data.ts',
  'lib/doctor.ts',
  'lib/engine.ts',
  'lib/export.ts',
  'lib/images.ts',
  'lib/inference.ts',
  'lib/network.ts',
  'lib/scan.ts',
  'lib/pack.ts',
  'lib/tensorboard.ts',
  'lib/timings.ts',
];
const LONG = 400;
const TOO_LONG = 600;

const problems: string[] = [];

interface Package {
  name: string;
  dependencies: { name: string; kind: 'dev' | 'build' | null }[];
}

const metadata = execFileSync('cargo', ['metadata', '--no-deps', '--format-version', '1'], {
  cwd: root,
  encoding: 'utf8',
  maxBuffer: 1 << 26,
});
for (const { name, dependencies } of (JSON.parse(metadata) as { packages: Package[] }).packages) {
  const allowed = CRATES[name];
  if (!allowed) problems.push(`${name}: unknown crate; say in lib/scripts/boundaries.ts what it may use`);
  for (const dependency of dependencies.filter((d) => d.kind !== 'dev')) {
    if (dependency.name in CRATES && !allowed?.includes(dependency.name)) {
      problems.push(`${name}: must not depend on ${dependency.name}`);
    }
    for (const [library, home] of HOMES) {
      if (library.test(dependency.name) && name !== home)
        problems.push(`${name}: ${dependency.name} belongs to ${home} only`);
    }
  }
}

for (const file of files('lib', ['.ts'])) {
  for (const target of imports(readFileSync(join(root, file), 'utf8'))) {
    const own = target.startsWith('.') ? relative(root, join(root, file, '..', target)) : target;
    if (own === '#native' && !WRAPPERS.includes(file))
      problems.push(`${file}: only ${WRAPPERS.join(', ')} import #native`);
    if (
      file.startsWith('lib/cli/') &&
      own.startsWith('lib/') &&
      !own.startsWith('lib/cli/') &&
      own !== 'lib/index.js'
    ) {
      problems.push(`${file}: imports ${own}; the CLI uses the public entry, lib/index.ts, only`);
    }
    if (own.startsWith('lib/cli/') && !file.startsWith('lib/cli/') && !file.startsWith('lib/scripts/')) {
      problems.push(`${file}: the library must not import the CLI (${own})`);
    }
    if (own.startsWith('lib/scripts/') && !file.startsWith('lib/scripts/')) {
      problems.push(`${file}: imports ${own}; scripts are not part of the package`);
    }
  }
}

for (const file of [
  ...files('lib', ['.ts']),
  ...files('crates', ['.rs']),
  ...(existsSync(join(root, 'cuda')) ? files('cuda', ['.cu', '.cuh']) : []),
]) {
  if (/\/tests?\/|tests\.rs$/.test(file)) continue;
  const lines = readFileSync(join(root, file), 'utf8').split('\n').length - 1;
  if (lines > TOO_LONG) problems.push(`${file}: ${lines} lines; split it (at most ${TOO_LONG})`);
  else if (lines > LONG) console.warn(`note: ${file} has ${lines} lines; think about splitting it`);
}

for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exitCode = 1;

/** The files below `folder` with one of the extensions, as paths from the root; without generated ones. */
function files(folder: string, extensions: string[]): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return path === 'lib/native' ? [] : files(path, extensions);
    return extensions.includes(extname(path)) ? [path] : [];
  });
}

/** What a TypeScript file imports, re-exports or loads. */
function imports(source: string): string[] {
  return [...source.matchAll(/(?:\bfrom\s+|\bimport\s*\(\s*|^import\s+)['"]([^'"]+)['"]/gm)].map((match) => match[1]!);
}
