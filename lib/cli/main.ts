#!/usr/bin/env node
/** The `alexnode` command: verbs, flags, exit codes. A thin client of the public API. */
import { Command, CommanderError } from 'commander';

import { VERSION } from '../index.js';
import { addEval } from './eval.js';
import { EXIT, exitCodeOf, printError } from './exit.js';
import { addTrain } from './train.js';

/** A closed pipe or terminal must not end a training of days. */
function ignoreClosedOutput(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
  });
}

async function main(argv: string[]): Promise<number> {
  const program = new Command('alexnode')
    .description('Train AlexNet-class image classifiers.')
    .version(VERSION)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'alexnode: ')) })
    .showHelpAfterError('Run `alexnode --help` or `alexnode <verb> --help` for all of them.');
  let code: number = EXIT.ok;
  const setCode = (value: number) => {
    code = value;
  };
  addTrain(program, setCode);
  addEval(program, setCode);
  for (const command of program.commands) command.exitOverride().copyInheritedSettings(program);
  try {
    await program.parseAsync(argv);
    return code;
  } catch (error) {
    // Commander has printed its message already; help and version are no errors.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    printError(error, argv.includes('--json'));
    return exitCodeOf(error);
  }
}

ignoreClosedOutput(process.stdout);
ignoreClosedOutput(process.stderr);
process.exitCode = await main(process.argv);
