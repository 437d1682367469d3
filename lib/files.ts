/** Small file helpers: atomic writes, reading what may not be there. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { access, constants, type FileHandle, mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

import { AlexnodeError, reason } from './errors.js';

/** The ending of every temporary file; whatever carries it is left over from a run that was killed. */
export const TEMPORARY = '.tmp';

/** Makes a rename or a new file in `folder` survive a power cut. */
async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, 'r');
    await handle.sync();
  } catch (error) {
    // Windows and some network file systems cannot sync a folder; the rename itself is still atomic there.
    if (!['EISDIR', 'EPERM', 'EINVAL', 'ENOTSUP', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) {
      throw error;
    }
  } finally {
    await handle?.close();
  }
}

/**
 * Replaces `path` by `content`: a temporary file in the same folder, fsync, rename, fsync of the folder. A reader sees the old
 * file or the new one, never a part. ERR_DATA names the file and the system's reason.
 */
export async function writeAtomic(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.${randomBytes(4).toString('hex')}${TEMPORARY}`;
  try {
    const handle = await open(temporary, 'wx');
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    throw new AlexnodeError('ERR_DATA', `${path}: cannot be written: ${reason(error)}`, { cause: error });
  }
}

/** The text of `path`, or `undefined` where there is no such file. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The nearest folder above `path` that exists, or `path` itself. */
export function nearestFolder(path: string): string {
  let place = path;
  while (!existsSync(place)) place = dirname(place);
  return place;
}

/** Makes a folder with all above it. ERR_USAGE: `what`, then the system's reason. */
export async function makeFolder(path: string, what: string): Promise<void> {
  try {
    // Asked first, because Node calls a folder that may not be written "no such file" when it makes several at once.
    if (!existsSync(path)) await access(nearestFolder(path), constants.W_OK);
    await mkdir(path, { recursive: true });
  } catch (error) {
    throw new AlexnodeError('ERR_USAGE', `${what}: ${reason(error)}`, {
      hint: 'Choose another folder with --out.',
      cause: error,
    });
  }
}
