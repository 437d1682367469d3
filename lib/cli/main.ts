#!/usr/bin/env node
/** The `alexnode` command. A thin client of the public API. */
import { runCommand } from './program.js';

/** A closed pipe or terminal must not end a training of days. */
function ignoreClosed(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
  });
}

ignoreClosed(process.stdout);
ignoreClosed(process.stderr);
process.exitCode = await runCommand(process.argv);
