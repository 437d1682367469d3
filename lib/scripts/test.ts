/** `npm test`: builds the addon, runs the Rust tests and the ava specs, and ends with one line that counts both. */
import { spawn } from 'node:child_process';
import { cargoEnvironment, ensureNative, hostTriple, root, script } from './native.js';

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

await script(async () => {
  await ensureNative();
  const target = ['--target', await hostTriple()];
  const rust = await run('cargo', ['test', '--workspace', '--quiet', '--no-fail-fast', ...target], countCargo);
  const node = await run('node_modules/.bin/ava', [], countAva);
  const passed = rust.passed + node.passed;
  const failed = rust.failed + node.failed;
  const skipped = rust.skipped + node.skipped;
  console.log(`\nRust: ${describe(rust)}; Node: ${describe(node)}; skipped: ${skipped}`);
  console.log(`${passed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
});

/** Runs a command, shows its output as it comes and counts the tests in it. A command that fails counts as one failed test at least. */
async function run(command: string, args: string[], count: (output: string) => Tally): Promise<Tally> {
  const child = spawn(command, args, { cwd: root, env: cargoEnvironment, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    process.stdout.write(text);
  });
  const code = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (exit) => resolve(exit ?? 1));
  });
  const tally = count(output);
  if (code !== 0 && tally.failed === 0) tally.failed = 1;
  return tally;
}

function countCargo(output: string): Tally {
  const tally = { passed: 0, failed: 0, skipped: 0 };
  for (const [, passed, failed, ignored] of output.matchAll(
    /^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored/gm,
  )) {
    tally.passed += Number(passed);
    tally.failed += Number(failed);
    tally.skipped += Number(ignored);
  }
  return tally;
}

function countAva(output: string): Tally {
  const sum = (pattern: RegExp) => [...output.matchAll(pattern)].reduce((total, [, n]) => total + Number(n), 0);
  return {
    // Its summary is silent about the passed ones where others failed.
    passed: [...output.matchAll(/^ {2}✔ /gm)].length,
    failed: sum(
      /^ {2}(\d+) (?:tests? failed|uncaught exceptions?|unhandled rejections?|hooks? failed|test files? .*)$/gm,
    ),
    skipped: sum(/^ {2}(\d+) tests? skipped$/gm),
  };
}

function describe({ passed, failed }: Tally): string {
  return `${passed} passed, ${failed} failed`;
}
