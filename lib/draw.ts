/** The pictures of a run: what the first layer sees, and the curve. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import type { Tensor } from './engine.js';
import type { WarningEvent } from './events.js';
import { writeAtomic } from './files.js';
import type { NetworkSpec } from './layers.js';
import { filtersPng, writeCurve } from './pictures.js';
import type { Run } from './run.js';

/**
 * Draws `filters.png` and `curve.svg` into the run after `epoch` epochs, and now and then `filters/epoch-<n>.png`: how they grew. At epoch 0,
 * before the first step, there is no curve. A failure is a warning: a picture is not worth a training.
 */
export async function draw(
  run: Run,
  network: NetworkSpec,
  epoch: number,
  tensor: (name: string) => Promise<Tensor>,
): Promise<WarningEvent | undefined> {
  try {
    const first = network.layers.find((layer) => layer.type === 'conv2d');
    if (first !== undefined) {
      const filters = await tensor(`${first.name}.weight`);
      const png = filtersPng(filters, { towers: hasTowers(network) ? 2 : 1 });
      await writeAtomic(join(run.folder, 'filters.png'), png);
      if (isKept(epoch)) {
        await mkdir(join(run.folder, 'filters'), { recursive: true });
        await writeAtomic(join(run.folder, 'filters', `epoch-${epoch}.png`), png);
      }
    }
    if (epoch > 0) await writeCurve(join(run.folder, 'curve.svg'), run.rows);
    return undefined;
  } catch (error) {
    return {
      type: 'warning',
      code: 'PICTURE_FAILED',
      message: `the pictures of the run could not be written: ${error instanceof Error ? error.message : String(error)}`,
      hint: 'The training goes on without them; check that the run folder is writable and the disk not full.',
      evidence: { folder: run.folder },
    };
  }
}

/** 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: a few more pictures each time that the training has become twice as long. */
function isKept(epoch: number): boolean {
  const power = 2 ** Math.floor(Math.log2(Math.max(epoch, 1)));
  return epoch <= 1 || epoch === power || epoch === 1.5 * power;
}

/** Whether some layer keeps two halves of the channels apart, as the towers of 2012 did. */
function hasTowers(network: NetworkSpec): boolean {
  return network.layers.some((layer) => layer.type === 'conv2d' && layer.groups === 2);
}
