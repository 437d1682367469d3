/**
 * `npm run pack:check`: packs both tarballs, installs them into an empty folder with install scripts off, and there, with no cargo on
 * the PATH, runs the README's example and the command.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { $ } from 'zx';
import { BuildError, root, script } from './native.js';
import { pack } from './pack.js';

/** The README's first example: a whole program that uses the package. */
function example(): string {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const block = [...readme.matchAll(/^```(?:js|javascript|ts|typescript)\n(.*?)^```$/gms)].map((match) => match[1]!);
  const program = block.find((text) => text.includes("from 'alexnode'"));
  if (!program)
    throw new BuildError("README.md has no example with `from 'alexnode'`", 'add one, it is what this check runs');
  return program;
}

await script(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'alexnode-pack-'));
  try {
    const tarballs = await pack(folder, 'dev');
    console.log(`packed ${tarballs.map((file) => basename(file)).join(' and ')}`);
    writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
    writeFileSync(join(folder, 'try.js'), example());
    // Only Node and npm: no cargo, no compiler.
    const env = { ...process.env, PATH: dirname(process.execPath) };
    const run = $({ cwd: folder, env, stdio: ['ignore', 2, 2], nothrow: true });
    if ((await run`npm install --ignore-scripts ${tarballs}`).exitCode !== 0) {
      throw new BuildError('the tarballs cannot be installed', 'see the messages above');
    }
    if ((await run`node try.js`).exitCode !== 0)
      throw new BuildError('the installed package does not work', 'see the messages above');
    if ((await run`node node_modules/.bin/alexnode --version`).exitCode !== 0)
      throw new BuildError('the bin does not start', 'see the messages above');
    console.log('the installed package trains and evaluates');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
