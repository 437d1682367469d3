/** How much of the machine other programs took while something was timed. Linux tells; elsewhere nothing is known. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Ticks of /proc/stat and of /proc/<pid>/stat per second: a constant of the system's interface. */
const TICKS = 100;

/** Seconds that all processors were busy since the system began. */
function busy(): number | null {
  try {
    const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
    const [, user, nice, system, , , irq, soft, steal] = line.split(/\s+/).map(Number);
    return ((user ?? 0) + (nice ?? 0) + (system ?? 0) + (irq ?? 0) + (soft ?? 0) + (steal ?? 0)) / TICKS;
  } catch {
    return null;
  }
}

/** Seconds that a process was computing. */
function own(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  } catch {
    return 0;
  }
}

/** Runs `work`, and tells the share of the processors' time that programs other than `pids` took meanwhile. */
export async function watched<T>(pids: readonly number[], work: () => Promise<T>): Promise<[T, number | null]> {
  const mine = () => [process.pid, ...pids].reduce((sum, pid) => sum + own(pid), 0);
  const [all, begin, before] = [busy(), performance.now(), mine()];
  const outcome = await work();
  const [now, used] = [busy(), mine() - before];
  const capacity = ((performance.now() - begin) / 1000) * availableParallelism();
  if (all === null || now === null || capacity === 0) return [outcome, null];
  return [outcome, Math.min(1, Math.max(0, (now - all - used) / capacity))];
}

/** Clocks of the processors in MHz. */
export function megahertz(): number[] {
  try {
    const text = readFileSync('/proc/cpuinfo', 'utf8');
    return [...text.matchAll(/^cpu MHz\s*:\s*([\d.]+)$/gm)].map(([, value]) => Number(value));
  } catch {
    return [];
  }
}
