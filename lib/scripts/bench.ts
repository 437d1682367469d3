/**
 * `npm run bench -- ...`: the CLI's bench straight from its sources, after the addon was built if need be. `npm run bench -- kernels [filter]` runs the
 * micro-benchmarks of the Rust bodies (criterion), `npm run bench -- counters` writes bench/counters.json anew.
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cargoEnvironment, ensureNative, hostTriple, root, script } from './native.js';

await script(async () => {
  const [what, ...rest] = process.argv.slice(2);
  if (what === 'kernels') {
    process.exitCode = await kernels(rest);
    return;
  }
  await ensureNative();
  if (what === 'counters') {
    const { counterFiles } = await import('./counters.js');
    for (const { path, content } of counterFiles()) writeFileSync(path, content);
    return;
  }
  // The CLI reads process.argv; it must look as if the bin had been called.
  process.argv.splice(1, 1, 'alexnode', 'bench');
  await import('../cli/main.js');
});

/** Criterion takes what stands behind `kernels`: a part of a benchmark's name, or its own flags. */
async function kernels(args: string[]): Promise<number> {
  const target = ['--target', await hostTriple()];
  const child = spawn(
    'cargo',
    ['bench', '-p', 'alexnode-nn', '--profile', 'dev', ...target, '--bench', 'bodies', '--', ...args],
    {
      cwd: root,
      env: cargoEnvironment,
      stdio: 'inherit',
    },
  );
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}
