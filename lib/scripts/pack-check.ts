/**
 * `npm run pack:check`: packs both tarballs, installs them into an empty folder with install scripts off, and there, with no cargo on
 * the PATH, trains a few steps and evaluates with the package.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { $ } from 'zx';
import { BuildError, script } from './native.js';
import { pack } from './pack.js';

const USER = `
import { openDataset, preset, train } from 'alexnode';
`;

await script(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'alexnode-pack-'));
  try {
    const tarballs = await pack(folder, 'dev');
    console.log(`packed ${tarballs.map((file) => basename(file)).join(' and ')}`);
    writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
    writeFileSync(join(folder, 'try.js'), USER);
    // Only Node and npm: no cargo, no compiler.
    const env = { ...process.env, PATH: dirname(process.execPath) };
    const run = $({ cwd: folder, env, stdio: ['ignore', 2, 2], nothrow: true });
    if ((await run`npm install --ignore-scripts ${tarballs}`).exitCode !== 0) {
      throw new BuildError('the tarballs cannot be installed', 'see the messages above');
    }
    if ((await run`node try.js`).exitCode !== 0)
      throw new BuildError('the installed package does not work', 'see the messages above');
    if ((await run`npx --no-install alexnode --version`).exitCode !== 0)
      throw new BuildError('the bin does not start', 'see the messages above');
    console.log('the installed package trains and evaluates');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
