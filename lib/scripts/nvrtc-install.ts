/** `npm run nvrtc:install`: NVRTC into the cache folder, if it is not there yet. */
import { script } from './native.js';
import { ensureNvrtc, VERSION } from './nvrtc.js';

await script(async () => {
  console.log(`NVRTC ${VERSION}: ${await ensureNvrtc()}`);
});
