/** Where alexnode runs, and what is said elsewhere. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import { AlexnodeError } from './errors.js';

/** Where the addon can be built and used, as Node names it: `process.platform` and `process.arch`. */
export const PLATFORMS = ['linux-x64', 'linux-arm64', 'darwin-x64', 'darwin-arm64'];

/** ERR_DEVICE where `platform` is none of them, with what to do; otherwise `undefined`. */
export function unsupported(platform: string): AlexnodeError | undefined {
  if (PLATFORMS.includes(platform)) return undefined;
  return new AlexnodeError('ERR_DEVICE', `${platform} is not supported`, {
    hint:
      `alexnode runs on ${PLATFORMS.slice(0, -1).join(', ')} and ${PLATFORMS.at(-1)}: use such a machine and a 64-bit Node. ` +
      'On Windows, use WSL (`wsl --install`), which is Linux.',
  });
}

/** ERR_DEVICE where the package was installed without an addon for `platform`, with what to do; otherwise `undefined`. */
export function notInstalled(platform: string): AlexnodeError | undefined {
  const beside = new URL('../lib/native/', import.meta.url);
  if (existsSync(beside) && readdirSync(beside).some((name) => name.endsWith('.node'))) return undefined;
  const { resolve } = createRequire(import.meta.url);
  // The name may end with the C library: `alexnode-linux-x64-gnu`.
  const found = ['', '-gnu', '-musl'].some((end) => {
    try {
      return resolve(`alexnode-${platform}${end}`) !== '';
    } catch {
      return false;
    }
  });
  if (found) return undefined;
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  const { optionalDependencies = {} } = JSON.parse(text) as { optionalDependencies?: Record<string, string> };
  const packages = Object.keys(optionalDependencies).filter((name) => name.startsWith('alexnode-'));
  const hint = packages.some((name) => name.startsWith(`alexnode-${platform}`))
    ? 'npm leaves it out with `--omit=optional`, or where package-lock.json comes from another platform: remove package-lock.json and node_modules and run `npm install` again.'
    : `There are ready-made addons for ${packages.map((name) => name.replace('alexnode-', '')).join(', ') || 'no platform'}; on this one, build it from the sources of alexnode: \`npm ci && npm run build\`.`;
  return new AlexnodeError('ERR_DEVICE', `the native addon of alexnode for ${platform} is not installed`, { hint });
}
