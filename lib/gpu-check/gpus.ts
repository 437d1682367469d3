/** What `nvidia-smi`, which comes with the driver, says of the devices: names, driver, clocks, power. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const FIELDS = [
  'index',
  'name',
  'driver_version',
  'pstate',
  'clocks.sm',
  'clocks.max.sm',
  'clocks.mem',
  'power.draw',
  'power.limit',
  'temperature.gpu',
];

/** A line for each device, its fields named; `null` where the program is not there or does not answer. */
export async function gpus(): Promise<string[] | null> {
  try {
    const args = [`--query-gpu=${FIELDS.join(',')}`, '--format=csv,noheader'];
    const { stdout } = await promisify(execFile)('nvidia-smi', args, { timeout: 10_000 });
    const named = (line: string) => line.split(', ').map((value, index) => `${FIELDS[index] ?? ''} ${value}`);
    return stdout
      .trim()
      .split('\n')
      .map((line) => named(line).join(', '));
  } catch {
    return null;
  }
}
