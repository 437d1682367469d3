/** `alexnode data`: what is done to a data set before it is trained on. */
import type { Command } from 'commander';
import { addDataPack } from './data-pack.js';
import { addDataScan } from './data-scan.js';
import { addDataVerify } from './data-verify.js';

/** Adds the verbs. */
export function addData(program: Command, setCode: (code: number) => void): void {
  const data = program.command('data').description('Prepare data sets.');
  addDataScan(data, setCode);
  addDataPack(data, setCode);
  addDataVerify(data, setCode);
}
