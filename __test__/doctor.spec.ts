import { join } from 'node:path';
import test from 'ava';

import { type Diagnosis, doctor } from '../lib/index.js';
import { cli, temporary } from './helpers.js';

test('the machine is described', async (t) => {
  const { processor, memory, node, cache } = await doctor();
  t.is(node, process.version);
  t.true(processor.name !== '' && processor.threads >= 1);
  t.true(memory.bytes > 1e8 && (memory.freeBytes ?? 1) <= memory.bytes);
  t.true(cache.bytes >= 0);
});

test('what is missing is named with its remedy', async (t) => {
  const folder = temporary();
  const environment = { CXX: join(folder, 'no-compiler'), ALEXNODE_CACHE: join(folder, 'cache') };
  const { code, stdout } = await cli(['doctor', '--json'], folder, environment).ended;
  t.is(code, 0);
  const { emulator, cache } = JSON.parse(stdout) as Diagnosis;
  t.is(emulator.compiler, undefined);
  t.regex(emulator.problem?.message ?? '', /no-compiler/);
  t.regex(emulator.problem?.remedy ?? '', /CXX/);
  t.deepEqual(cache, { path: join(folder, 'cache'), bytes: 0 });
});

test('people get a line for each part', async (t) => {
  const { code, stdout } = await cli(['doctor'], temporary()).ended;
  t.is(code, 0);
  for (const part of ['alexnode', 'cpu', 'memory', 'emulated', 'cache']) {
    t.regex(stdout, new RegExp(`^ ${part} `, 'm'));
  }
});
