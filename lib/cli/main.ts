#!/usr/bin/env node
/** The `alexnode` command. A thin client of the public API. */
import { exitCodeOf, printError } from './exit.js';

/** A closed pipe or terminal must not end a training of days. */
function ignoreClosed(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
  });
}

ignoreClosed(process.stdout);
ignoreClosed(process.stderr);
try {
  // Not a static import: where the addon cannot be loaded, that is a message like every other.
  const { runCommand } = await import('./program.js');
  process.exitCode = await runCommand(process.argv);
} catch (error) {
  printError(error, process.argv.includes('--json'));
  process.exitCode = exitCodeOf(error);
}
