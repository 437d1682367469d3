/** `npm run build`: the native addon and `dist/`; with `--native` only the addon. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { $ } from 'zx';
import { BuildError, ensureNative, root, script } from './native.js';

await script(async () => {
  await ensureNative();
  if (process.argv.includes('--native')) return;
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  const { exitCode } = await $({
    cwd: root,
    stdio: 'inherit',
    nothrow: true,
  })`node_modules/.bin/tsc -p tsconfig.build.json`;
  if (exitCode !== 0) throw new BuildError('the TypeScript sources do not compile', 'see the messages above');
});
