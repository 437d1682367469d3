/** A lock file that says who holds it: two trainers in one run folder would overwrite each other's checkpoints. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { link, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';

import { AlexnodeError, reason } from './errors.js';
import { readIfThere, TEMPORARY } from './files.js';

/** Who holds a lock. `started` tells a process from a later one with the same id (Linux only). */
interface Holder {
  pid: number;
  host: string;
  started: string | undefined;
  since: string;
  token: string;
}

/** A held lock. */
export interface Lock {
  /** Gives the lock back; does nothing the second time. */
  release(): Promise<void>;
}

/** A lock file without a readable holder is being written right now, or was cut off; after this long it is the latter. */
const WRITING_MS = 5_000;

/** When a process was started, in clock ticks since boot; `undefined` where the system does not say. */
function startedAt(pid: number): string | undefined {
  try {
    // The second field is the command in brackets and may itself contain blanks and brackets.
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

function isAlive(holder: Holder): boolean {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  const started = startedAt(holder.pid);
  return holder.started === undefined || started === undefined || started === holder.started;
}

function parseHolder(text: string): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Partial<Holder>;
    return typeof holder.pid === 'number' && typeof holder.host === 'string' ? (holder as Holder) : undefined;
  } catch {
    return undefined;
  }
}

/** Creates `path` with `holder` inside; false where it exists already. */
async function create(path: string, holder: Holder): Promise<boolean> {
  const text = `${JSON.stringify(holder)}\n`;
  const temporary = `${path}.${holder.token}${TEMPORARY}`;
  try {
    // A link appears with its content; a file opened for writing would be seen empty for a moment.
    await writeFile(temporary, text, { flag: 'wx' });
    await link(temporary, path);
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (code === 'EEXIST') return false;
    if (!['EPERM', 'ENOTSUP', 'ENOSYS', 'EOPNOTSUPP'].includes(code)) throw error;
  } finally {
    await rm(temporary, { force: true });
  }
  // A file system without hard links.
  try {
    await writeFile(path, text, { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Whether the lock file that holds `text` is nobody's any more. */
async function isDead(path: string, text: string): Promise<boolean> {
  const holder = parseHolder(text);
  if (holder !== undefined) return holder.host === hostname() && !isAlive(holder);
  const { mtimeMs } = await stat(path);
  return Date.now() - mtimeMs > WRITING_MS;
}

/** Removes the dead lock that holds `text`; where another process was faster and took it, its new lock stays. */
async function bury(path: string, text: string, token: string): Promise<void> {
  const grave = `${path}.${token}.old${TEMPORARY}`;
  try {
    await rename(path, grave);
    if ((await readFile(grave, 'utf8')) !== text) await link(grave, path).catch(() => undefined);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  } finally {
    await rm(grave, { force: true });
  }
}

function held(path: string, what: string, holder: Holder | undefined): AlexnodeError {
  if (holder === undefined) {
    return new AlexnodeError('ERR_USAGE', `${what}: another process is just starting in it`, {
      hint: `Choose another folder with --out, or wait and try again.`,
    });
  }
  const here = holder.host === hostname();
  return new AlexnodeError(
    'ERR_USAGE',
    `${what}: process ${holder.pid}${here ? '' : ` on ${holder.host}`} has been training in it since ${holder.since}`,
    {
      hint: here
        ? 'Stop that process, or choose another folder with --out.'
        : `Choose another folder with --out; if that process has ended, delete ${path}.`,
    },
  );
}

/**
 * Takes the lock file `path`. A lock whose process is dead, or which was cut off while it was written, is taken over; one that is
 * held, or that another machine wrote, is ERR_USAGE with the holder and the remedy. `what` names the locked thing.
 */
export async function takeLock(path: string, what: string): Promise<Lock> {
  const holder: Holder = {
    pid: process.pid,
    host: hostname(),
    started: startedAt(process.pid),
    since: new Date().toISOString(),
    token: randomBytes(8).toString('hex'),
  };
  try {
    for (let attempt = 0; attempt < 5; attempt += 1) {
      if (await create(path, holder)) return { release: () => release(path, holder.token) };
      const text = await readIfThere(path);
      if (text === undefined) continue;
      if (!(await isDead(path, text))) throw held(path, what, parseHolder(text));
      await bury(path, text, holder.token);
    }
  } catch (error) {
    if (error instanceof AlexnodeError) throw error;
    throw new AlexnodeError('ERR_DATA', `${path}: cannot be written: ${reason(error)}`, { cause: error });
  }
  throw new AlexnodeError('ERR_USAGE', `${what}: its lock file ${path} keeps changing hands`, {
    hint: 'Several trainers are being started in one folder; start one of them.',
  });
}

async function release(path: string, token: string): Promise<void> {
  const text = await readIfThere(path);
  if (text !== undefined && parseHolder(text)?.token === token) await rm(path, { force: true });
}
