import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { train } from '../lib/index.js';
import { drain, TINY_CALL, temporary } from './helpers.js';

/** CRC32C bit by bit, masked as TFRecord files have it. */
function masked(data: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  crc = (crc ^ 0xffffffff) >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** The records of an event file; a wrong checksum is an error. */
function records(path: string): Buffer[] {
  const file = readFileSync(path);
  const found: Buffer[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    const data = file.subarray(at + 12, at + 12 + length);
    if (file.readUInt32LE(at + 8) !== masked(file.subarray(at, at + 8))) throw new Error('checksum of a length');
    if (file.readUInt32LE(at + 12 + length) !== masked(data)) throw new Error('checksum of a record');
    found.push(data);
    at += 16 + length;
  }
  return found;
}

/** The fields of a protocol buffer: numbers of fields, and their values as they are on the wire. */
function fields(data: Buffer): [field: number, value: number | Buffer][] {
  const found: [number, number | Buffer][] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = data.readUInt8(at);
      at += 1;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < data.length) {
    const key = varint();
    const [field, wire] = [key >>> 3, key & 7];
    if (wire === 0) found.push([field, varint()]);
    else {
      const length = wire === 2 ? varint() : wire === 1 ? 8 : 4;
      found.push([field, data.subarray(at, at + length)]);
      at += length;
    }
  }
  return found;
}

interface Note {
  wallTime: number;
  step: number;
  version?: string;
  restart?: boolean;
  scalars: Record<string, number>;
}

function note(record: Buffer): Note {
  const all = new Map(fields(record));
  const found: Note = { wallTime: (all.get(1) as Buffer).readDoubleLE(), step: Number(all.get(2) ?? 0), scalars: {} };
  const [version, summary, session] = [all.get(3), all.get(5), all.get(7)];
  if (Buffer.isBuffer(version)) found.version = version.toString();
  if (Buffer.isBuffer(session)) found.restart = new Map(fields(session)).get(1) === 1;
  for (const [, value] of Buffer.isBuffer(summary) ? fields(summary) : []) {
    const parts = new Map(fields(value as Buffer));
    found.scalars[String(parts.get(1))] = (parts.get(2) as Buffer).readFloatLE();
  }
  return found;
}

test('event files hold what the events tell, and a resumed run says where it goes on', async (t) => {
  const out = join(temporary(), 'run');
  const call = { ...TINY_CALL, out, tensorboard: true, steps: 24 };
  const before = Date.now() / 1000;
  await using first = await train(call);
  const events = await drain(first);
  await first.dispose();
  const folder = join(out, 'tensorboard');
  const [name = ''] = readdirSync(folder);
  t.regex(name, /^events\.out\.tfevents\.\d{10}\./);
  const [head, ...rest] = records(join(folder, name)).map(note);
  t.is(head?.version, 'brain.Event:2');
  t.true((head?.wallTime ?? 0) >= before - 1 && (head?.wallTime ?? 0) <= Date.now() / 1000 + 1);
  const epoch = events.find((event) => event.type === 'epoch');
  const noted = rest.find(({ scalars }) => 'loss/train' in scalars);
  t.is(noted?.step, epoch?.steps);
  t.is(noted?.scalars['loss/train'], Math.fround(epoch?.train?.loss ?? Number.NaN));
  t.is(noted?.scalars['top1Error/train'], Math.fround(epoch?.train?.top1Error ?? Number.NaN));
  const step = events.find((event) => event.type === 'step');
  const [firstStep] = rest;
  t.is(firstStep?.step, step?.step);
  t.is(firstStep?.scalars['loss/step'], Math.fround(step?.loss ?? Number.NaN));
  t.is(firstStep?.scalars['rate/weights'], Math.fround(0.05));

  // Noted in the configuration: a resumed run goes on with it.
  await using second = await train({ resume: out });
  await drain(second);
  await second.dispose();
  const names = readdirSync(folder).sort();
  t.is(names.length, 2);
  const [, restart, ...later] = records(join(folder, names.find((other) => other !== name) ?? '')).map(note);
  t.true(restart?.restart);
  t.is(restart?.step, 25);
  t.true(later.length > 0 && later.every((one) => one.step >= 25));
});
