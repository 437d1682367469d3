/**
 * Sees to it that the native addon is there and not older than its Rust sources. Every npm script that loads the addon
 * calls `ensureNative()` first, so that no command has to be run by hand and none runs at install time.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { $ } from 'zx';

import { unsupported } from '../platform.js';

/** The project's root folder. */
export const root = fileURLToPath(new URL('../..', import.meta.url));
/** Where the addon, its loader and its types lie. */
export const nativeFolder = join(root, 'lib/native');

const SOURCES = ['Cargo.toml', 'Cargo.lock', 'crates', 'cuda'];

/**
 * How the scripts call cargo. Incremental compilation is off: with optimised code it now and then leaves objects that no longer
 * link after an update of the sources ("undefined hidden symbol").
 */
export const cargoEnvironment: NodeJS.ProcessEnv = { ...process.env, CARGO_INCREMENTAL: '0' };

/** A failure that needs no stack trace: what happened, then what to do. */
export class BuildError extends Error {
  override name = 'BuildError';
  readonly remedy: string;
  constructor(message: string, remedy: string) {
    super(message);
    this.remedy = remedy;
  }
}

/** Builds the addon into `lib/native` if it is missing or older than its sources; says so on stderr. */
export async function ensureNative(): Promise<void> {
  if (isFresh()) return;
  mkdirSync(nativeFolder, { recursive: true });
  await locked(join(nativeFolder, '.lock'), 'is building the native addon', async () => {
    // Another process may have built it while this one waited.
    if (!isFresh()) await buildNative(nativeFolder, 'dev');
  });
}

/** Builds the addon with the given cargo profile and puts it, its loader and its types into `folder`. */
export async function buildNative(folder: string, profile: 'dev' | 'dist'): Promise<void> {
  await checkTools();
  notice(`building the native addon (cargo, profile ${profile}); the first time takes a few minutes`);
  const started = new Date();
  // Into a folder of its own, then renamed: a process that runs the previous addon keeps its mapped file.
  const temporary = join(folder, `.build-${process.pid}`);
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  try {
    const cli = join(root, 'node_modules/.bin/napi');
    if (!existsSync(cli)) throw new BuildError('the build tools are not installed', 'run `npm ci` first');
    const options = ['--manifest-path', 'crates/node/Cargo.toml', '--platform'];
    if (profile !== 'dev') options.push('--profile', profile);
    const output = [
      '--output-dir',
      temporary,
      '--format',
      'esm',
      '--js',
      'index.js',
      '--dts',
      'index.d.ts',
      '--no-const-enum',
    ];
    // Cargo writes to stderr itself; stdout is what the napi command has to say.
    const { exitCode, stdout } = await $({
      cwd: root,
      env: cargoEnvironment,
      stdio: ['ignore', 'pipe', 2],
      quiet: true,
      nothrow: true,
    })`${cli} build ${options} ${output}`;
    if (exitCode !== 0) {
      process.stderr.write(complaint(stdout));
      throw new BuildError(
        'the native addon could not be built; the reason stands above',
        'it needs Rust 1.89 or newer (`rustup update`) and a C linker (`cc`; Debian and Ubuntu: `apt install build-essential`); then repeat the command',
      );
    }
    for (const file of readdirSync(temporary)) renameSync(join(temporary, file), join(folder, file));
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  // The moment the build began: what was edited meanwhile is newer.
  writeFileSync(stamp(folder), '');
  utimesSync(stamp(folder), started, started);
  notice(`built in ${((Date.now() - started.getTime()) / 1000).toFixed(0)} s`);
}

/** What a failed napi command said, without its stack trace; nothing where it only repeats that cargo failed. */
function complaint(stdout: string): string {
  const lines = stripVTControlCharacters(stdout)
    .split('\n')
    .filter((text) => text.trim() !== '' && !/^\s+at /.test(text));
  return lines.some((text) => text.includes('Build failed with exit code')) ? '' : lines.map((l) => `${l}\n`).join('');
}

/** The platform that rustc builds for by itself. The addon is built for it by name, and cargo reuses only what was built for the same. */
export async function hostTriple(): Promise<string> {
  const { stdout } = await $({ cwd: root, quiet: true })`rustc -vV`;
  return /^host: (.*)$/m.exec(stdout)![1]!;
}

/** The addon's file name in `folder`, or undefined. */
export function addonIn(folder: string): string | undefined {
  return existsSync(folder) ? readdirSync(folder).find((name) => name.endsWith('.node')) : undefined;
}

/** Runs `main`, and turns a `BuildError` into one message and exit code 1. */
export async function script(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    console.error(`alexnode: ${error.message}\n  ${error.remedy}`);
    process.exitCode = 1;
  }
}

function stamp(folder: string): string {
  return join(folder, '.built');
}

function isFresh(): boolean {
  const complete = ['index.js', 'index.d.ts', '.built'].every((name) => existsSync(join(nativeFolder, name)));
  return complete && addonIn(nativeFolder) !== undefined && newest(SOURCES) <= statSync(stamp(nativeFolder)).mtimeMs;
}

/** The newest modification time among the files under the given paths. */
function newest(paths: string[]): number {
  let time = 0;
  for (const path of paths) {
    const full = join(root, path);
    if (!existsSync(full)) continue;
    const info = statSync(full);
    if (info.isFile()) time = Math.max(time, info.mtimeMs);
    else time = Math.max(time, newest(readdirSync(full).map((name) => join(path, name))));
  }
  return time;
}

async function checkTools(): Promise<void> {
  const problem = unsupported(`${process.platform}-${process.arch}`);
  if (problem !== undefined) throw new BuildError(problem.message, problem.hint ?? '');
  const { exitCode, stderr } = await $({ cwd: root, quiet: true, nothrow: true })`cargo --version`;
  // What a shell answers for a command that is not there.
  if (exitCode === 127) {
    throw new BuildError(
      'the native addon has to be built, and cargo, the Rust build tool, was not found on the PATH',
      'install Rust from https://rustup.rs, open a new shell and repeat the command',
    );
  }
  if (exitCode !== 0) {
    throw new BuildError(
      `the native addon has to be built, and cargo does not work: ${stderr.trim() || `exit code ${exitCode}`}`,
      'see to it that `cargo --version` works (with rustup: `rustup default stable`) and repeat the command',
    );
  }
}

/** Runs `work` while holding the lock file `path`; waits for a living holder, of which it says what it `does`, takes over from a dead one. */
export async function locked(path: string, does: string, work: () => Promise<void>): Promise<void> {
  let told = false;
  for (;;) {
    try {
      writeFileSync(path, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const holder = readHolder(path);
    if (holder !== undefined && !isAlive(holder)) {
      rmSync(path, { force: true });
      continue;
    }
    if (!told) notice(`waiting for process ${holder ?? '?'}, which ${does}`);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  try {
    await work();
  } finally {
    rmSync(path, { force: true });
  }
}

function readHolder(path: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(path, 'utf8'), 10) || undefined;
  } catch {
    return undefined; // released, or not written yet
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function notice(text: string): void {
  process.stderr.write(`alexnode: ${text}\n`);
}
