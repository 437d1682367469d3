#!/usr/bin/env node
/** `npm run gpu:check` of an installed package: `node dist/cli/gpu-check-main.js`. */
import { exitCodeOf, printError } from './exit.js';

try {
  // Not a static import: where the addon cannot be loaded, that is a message like every other.
  const { runGpuCheck } = await import('./gpu-check.js');
  process.exitCode = await runGpuCheck(process.argv);
} catch (error) {
  printError(error, process.argv.includes('--json'));
  process.exitCode = exitCodeOf(error);
}
