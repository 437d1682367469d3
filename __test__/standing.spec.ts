import test from 'ava';

import type { CheckpointMetadata } from '../lib/checkpoint.js';
import type { SegmentReport } from '../lib/engine.js';
import { Standing } from '../lib/standing.js';

const RATES = { lr: 0.1, biasLr: 0.2 };

function report(steps: number, samples: number, loss: number): SegmentReport {
  return { steps, samples, loss, top1Error: loss / 10, top5Error: 0, seconds: 2, waitSeconds: 1 };
}

test('means are over images, not over segments', (t) => {
  const standing = new Standing();
  standing.addSegment(report(3, 300, 1), 2);
  standing.addSegment(report(1, 100, 5), 2);
  t.deepEqual(standing.cursor, { epoch: 0, batch: 4, step: 4 });
  const event = standing.closeEpoch({ loss: 1, top1Error: 0.5, top5Error: 0.1 }, RATES);
  t.is(event.train?.loss, 2);
  t.is(event.imagesPerSecond, 100);
  t.is(event.waitShare, 0.5);
  t.is(event.epoch, 1);
  t.is(event.steps, 4);
  t.deepEqual(standing.cursor, { epoch: 1, batch: 0, step: 4 });
});

test('the best epoch is the one with the lowest validation error, the first of equals', (t) => {
  const standing = new Standing();
  const errors = [0.5, 0.4, 0.4, 0.45, 0.1];
  const best = errors.map((top1Error) => standing.closeEpoch({ loss: 1, top1Error, top5Error: 0 }, RATES).best);
  t.deepEqual(best, [true, true, false, false, true]);
  t.false(standing.closeEpoch(null, RATES).best);
  t.is(standing.progress.best?.epoch, 5);
});

test('the result has the running epoch, or else the last full one', (t) => {
  const standing = new Standing();
  t.is(standing.result('stopped').train, null);
  standing.addSegment(report(1, 10, 3), 1);
  standing.closeEpoch(null, RATES);
  t.is(standing.result('completed').train?.loss, 3);
  standing.addSegment(report(1, 10, 2), 1);
  t.is(standing.result('interrupted').train?.loss, 2);
  t.is(standing.result('interrupted').val, null);
});

test('what is saved comes back whole', (t) => {
  const standing = new Standing();
  standing.addSegment(report(5, 640, 2), 1);
  const { cursor, progress } = structuredClone({ cursor: standing.cursor, progress: standing.progress });
  const metadata = { cursor, progress, config: { recipe: { batch: 128 } } } as CheckpointMetadata;
  const other = new Standing();
  other.restore(metadata, 128, 10);
  t.deepEqual({ ...other }, { ...standing });
  other.addSegment(report(1, 128, 2), 1);
  t.deepEqual(metadata.cursor, cursor);
  t.deepEqual(metadata.progress, progress);
});

test('with another batch size the epoch goes on at the same image, rounded down', (t) => {
  const at = (batch: number, batches: number) => {
    const standing = new Standing();
    const metadata = { cursor: { epoch: 2, batch: 5, step: 25 }, progress: standing.progress };
    standing.restore({ ...metadata, config: { recipe: { batch: 100 } } } as CheckpointMetadata, batch, batches);
    return standing.cursor;
  };
  t.deepEqual(at(200, 5), { epoch: 2, batch: 2, step: 25 });
  t.deepEqual(at(50, 20), { epoch: 2, batch: 10, step: 25 });
  t.is(at(10, 30).batch, 30);
});
