/** The command as a function: verbs, flags, exit codes. */
import { Command, CommanderError } from 'commander';

import { VERSION } from '../index.js';
import { addBench } from './bench.js';
import { addCompare } from './compare.js';
import { addData } from './data.js';
import { addDoctor } from './doctor.js';
import { addEval } from './eval.js';
import { EXIT, exitCodeOf, printError } from './exit.js';
import { addExport } from './export.js';
import { addPredict } from './predict.js';
import { addReport } from './report.js';
import { addSimilar } from './similar.js';
import { addTrain } from './train.js';

/** Runs the command with the arguments of `process.argv` (the first two are not looked at) and gives its exit code. */
export async function runCommand(argv: string[]): Promise<number> {
  let code: number = EXIT.ok;
  const setCode = (value: number) => {
    code = value;
  };
  const program = new Command('alexnode')
    .description('Train AlexNet-class image classifiers.')
    .version(VERSION)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'alexnode: ')) })
    .showHelpAfterError('Run `alexnode --help` or `alexnode <verb> --help` for all of them.');
  addTrain(program, setCode);
  addEval(program, setCode);
  addCompare(program, setCode);
  addExport(program, setCode);
  addPredict(program, setCode);
  addSimilar(program, setCode);
  addBench(program, setCode);
  addData(program, setCode);
  addReport(program, setCode);
  addDoctor(program, setCode);
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
