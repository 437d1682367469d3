/**
 * `npm run check:slots -- --preset code2012 --batch 8 --steps 20`: the same training on one slot and on two, or on any two lists of devices:
 * `--devices cuda:0 --against cuda:0,cuda:1`. Loss and momentum of every step agree to a relative L2 of 1e-4, or the exit code is 1.
 */
import { ensureNative, script } from './native.js';

await script(async () => {
  await ensureNative();
  const { main } = await import('./slots.js');
  await main();
});
