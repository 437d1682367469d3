/**
 * `npm run gpu:check -- --devices cuda:0`: the kernels of this working directory on a GPU, after the addon and the tests of the kernels were built if need
 * be. An installed package does the same without any building: `node dist/cli/gpu-check-main.js`.
 */
import { kernelTests } from './kernel-tests.js';
import { ensureNative, script } from './native.js';

await script(async () => {
  await ensureNative();
  const { runGpuCheck } = await import('../cli/gpu-check.js');
  process.exitCode = await runGpuCheck(process.argv, kernelTests);
});
