/** Reports as files. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

/** Writes `report` to `path`, whose folder is made where it is missing. */
export async function writeReport(path: string, report: unknown): Promise<void> {
  await mkdir(dirname(resolve(path)), { recursive: true });
  await writeFile(path, `${JSON.stringify(report, null, 1)}\n`);
}
