/** The committed files that tests compare: what the training steps of all presets do, and their networks. */
import { join } from 'node:path';
import { presetNetworks, stepCounters } from '../bench/counters.js';
import { root } from './native.js';

/** Each file with its content. */
export function counterFiles(): { path: string; content: string }[] {
  const json = (value: unknown, indent: number) => `${JSON.stringify(value, null, indent)}\n`;
  return [
    { path: join(root, 'bench/counters.json'), content: json(stepCounters(), 1) },
    {
      path: join(root, 'bench/networks.json'),
      content: `[\n${presetNetworks()
        .map((network) => JSON.stringify(network))
        .join(',\n')}\n]\n`,
    },
  ];
}
