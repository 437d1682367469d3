import test from 'ava';

import { comparePreset } from '../lib/scripts/slots.js';
import { agrees, relativeL2, type SlotsRow } from '../lib/slots.js';

for (const sameState of [false, true]) {
  const how = sameState ? 'every step from the same state' : 'each on its own way';
  test(`one slot and two: loss and momentum of 20 steps of a mini net agree to a relative L2 of 1e-4, ${how}`, async (t) => {
    const rows = await compared(20, sameState);
    t.is(rows.length, 20);
    t.deepEqual(
      rows.filter((row) => !agrees(row)),
      [],
    );
    // Only convolutions and linear layers read both towers here: even the bits are the same.
    t.true(rows.every((row) => row.loss === 0 && row.momentum === 0));
    t.true(new Set(rows.map((row) => row.one)).size > 10);
  });
}

async function compared(steps: number, sameState: boolean): Promise<SlotsRow[]> {
  const rows: SlotsRow[] = [];
  for await (const row of comparePreset({ preset: 'demo', batch: 8, steps, seed: 2, data: 'generated', sameState })) {
    rows.push(row);
  }
  return rows;
}

test('a distance is relative to the first tensor; a NaN is never near', (t) => {
  t.is(relativeL2(Float32Array.of(3, 4), Float32Array.of(3, 4.5)), 0.1);
  t.is(relativeL2(Float32Array.of(0, 0), Float32Array.of(0, 0)), 0);
  const row = { step: 0, one: 1, two: 1, loss: 0, momentum: 1e-5, tensor: 'x' };
  t.true(agrees(row));
  t.false(agrees({ ...row, momentum: 2e-4 }));
  t.false(agrees({ ...row, loss: Number.NaN }));
  t.false(agrees({ ...row, momentum: relativeL2(Float32Array.of(1), Float32Array.of(Number.NaN)) }));
});
