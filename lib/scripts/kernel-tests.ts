/** The program with the tests of the kernels: `cargo test -p alexnode-nn --test kernels`, built and not run. */

import { $ } from 'zx';
import { BuildError, cargoEnvironment, hostTriple, root } from './native.js';

/** Builds it, and returns its path. */
export async function kernelTests(): Promise<string> {
  // The same target as in `npm test`: what was built for one serves the other.
  const target = ['--target', await hostTriple()];
  const { exitCode, stdout } = await $({
    cwd: root,
    env: cargoEnvironment,
    stdio: ['ignore', 'pipe', 2],
    quiet: true,
    nothrow: true,
  })`cargo test -p alexnode-nn --test kernels --no-run --message-format json-render-diagnostics ${target}`;
  const program = exitCode === 0 ? executableIn(stdout) : undefined;
  if (program !== undefined) return program;
  throw new BuildError(
    'the tests of the kernels could not be built; the reason stands above',
    'see to it that `cargo test -p alexnode-nn --test kernels --no-run` works, or name a program with --kernels',
  );
}

/** The path of the test program among cargo's messages. */
function executableIn(messages: string): string | undefined {
  for (const text of messages.split('\n')) {
    if (!text.startsWith('{')) continue;
    const { reason, executable, target } = JSON.parse(text) as {
      reason: string;
      executable?: string | null;
      target?: { name: string };
    };
    if (reason === 'compiler-artifact' && target?.name === 'kernels' && executable) return executable;
  }
  return undefined;
}
