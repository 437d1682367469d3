/** What a run was made on, for `run.json`. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { promisify } from 'node:util';

/** This package's version. */
export const VERSION: string = (
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
).version;

/** Versions and machine. */
export interface Environment {
  alexnode: string;
  node: string;
  system: string;
  cpu: string;
  threads: number;
  memoryBytes: number;
  /** The commit of the working directory, where it is in a git repository. */
  git?: { commit: string; changed: boolean };
}

async function git(): Promise<Environment['git']> {
  const run = promisify(execFile);
  try {
    const commit = (await run('git', ['rev-parse', 'HEAD'], { timeout: 5_000 })).stdout.trim();
    const changed = (await run('git', ['status', '--porcelain', '-uno'], { timeout: 5_000 })).stdout.trim() !== '';
    return { commit, changed };
  } catch {
    // No git, no repository, or one that takes too long: the run is as good without it.
    return undefined;
  }
}

/** Looks around. */
export async function environment(): Promise<Environment> {
  const commit = await git();
  return {
    alexnode: VERSION,
    node: process.version,
    system: `${platform()} ${arch()} ${release()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    threads: availableParallelism(),
    memoryBytes: totalmem(),
    ...(commit === undefined ? {} : { git: commit }),
  };
}
