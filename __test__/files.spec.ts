import { readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';

import { readIfThere, writeAtomic } from '../lib/files.js';
import { temporary } from './helpers.js';

test('an atomic write replaces the file and leaves nothing else behind', async (t) => {
  const folder = temporary();
  const path = join(folder, 'a.json');
  await writeFile(path, 'old and much longer than the new one');
  await writeAtomic(path, 'new');
  t.is(await readFile(path, 'utf8'), 'new');
  t.deepEqual(await readdir(folder), ['a.json']);
});

test('a failed atomic write names the file and leaves the old one', async (t) => {
  const folder = temporary();
  const error = await t.throwsAsync(writeAtomic(join(folder, 'none', 'a.json'), 'x'), { code: 'ERR_DATA' });
  t.regex(error?.message ?? '', /none.a\.json: cannot be written: no such file or directory \(ENOENT\)/);
});

test('what is not there reads as undefined', async (t) => {
  t.is(await readIfThere(join(tmpdir(), 'alexnode-surely-not-there')), undefined);
  await t.throwsAsync(readIfThere(tmpdir()));
});
