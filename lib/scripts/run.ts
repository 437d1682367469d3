/** `npm run train -- ...` and its siblings: the CLI straight from its sources, after the addon was built if need be. */
import { ensureNative, script } from './native.js';

await script(async () => {
  await ensureNative();
  // The CLI reads process.argv; it must look as if the bin had been called.
  process.argv.splice(1, 1, 'alexnode');
  await import('../cli/main.js');
});
