/** The pictures of a run: what the first layer sees, and the curve. */
import { join } from 'node:path';

import type { Tensor } from './engine.js';
import type { WarningEvent } from './events.js';
import type { NetworkSpec } from './layers.js';
import { writeCurve, writeFilters } from './pictures.js';
import type { Run } from './run.js';

/** Draws `filters.png` and `curve.svg` into the run. A failure is a warning: a picture is not worth a training. */
export async function draw(
  run: Run,
  network: NetworkSpec,
  tensor: (name: string) => Promise<Tensor>,
): Promise<WarningEvent | undefined> {
  try {
    const first = network.layers.find((layer) => layer.type === 'conv2d');
    if (first !== undefined) {
      const filters = await tensor(`${first.name}.weight`);
      await writeFilters(join(run.folder, 'filters.png'), filters, { towers: hasTowers(network) ? 2 : 1 });
    }
    await writeCurve(join(run.folder, 'curve.svg'), run.rows);
    return undefined;
  } catch (error) {
    return {
      type: 'warning',
      code: 'PICTURE_FAILED',
      message: `the pictures of the run could not be written: ${error instanceof Error ? error.message : String(error)}`,
      hint: 'The training goes on without them; check that the run folder is writable and the disk not full.',
    };
  }
}

/** Whether some layer keeps two halves of the channels apart, as the towers of 2012 did. */
function hasTowers(network: NetworkSpec): boolean {
  return network.layers.some((layer) => layer.type === 'conv2d' && layer.groups === 2);
}
