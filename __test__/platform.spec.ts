import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';

import { PLATFORMS, unsupported } from '../lib/platform.js';
import { copyOfLib, pretend, ROOT } from './helpers.js';

/** Runs a program that sees the sources of the folder as `./lib`. */
function run(cwd: string, source: string): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, ['--import=tsx', '--input-type=module', '-e', source], {
    cwd,
    env: { ...process.env, TSX_DISABLE_CACHE: '1' },
    encoding: 'utf8',
  });
}

/** The command. */
function command(...args: string[]): string {
  return `process.argv.push('alexnode', ...${JSON.stringify(args)}); await import('./lib/cli/main.js');`;
}

/** A copy of the package, installed with addons for the `platforms` only. */
function installed(platforms: string[]): string {
  const folder = copyOfLib();
  mkdirSync(join(folder, 'lib', 'native'));
  cpSync(join(ROOT, 'lib', 'native', 'index.js'), join(folder, 'lib', 'native', 'index.js'));
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  manifest.optionalDependencies = Object.fromEntries(platforms.map((name) => [`alexnode-${name}`, manifest.version]));
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
  return folder;
}

test('where alexnode does not run, the error names the platforms where it does, and what to do', (t) => {
  for (const platform of PLATFORMS) t.is(unsupported(platform), undefined, platform);
  for (const platform of ['win32-x64', 'linux-ia32', 'freebsd-x64', 'linux-riscv64']) {
    const error = unsupported(platform);
    t.is(error?.code, 'ERR_DEVICE');
    t.is(error?.message, `${platform} is not supported`);
    for (const supported of PLATFORMS) t.true(error?.hint?.includes(supported), supported);
    t.regex(error?.hint ?? '', /use such a machine and a 64-bit Node.*On Windows, use WSL/);
  }
});

test('on such a platform the command ends with that message alone', (t) => {
  const { status, stdout, stderr } = run(ROOT, pretend('freebsd-x64') + command('train', '--json'));
  const { message, hint } = unsupported('freebsd-x64') ?? {};
  t.is(stderr, `alexnode: ${message} (ERR_DEVICE)\n  ${hint}\n`);
  t.is(status, 3);
  t.deepEqual(JSON.parse(stdout), { type: 'error', code: 'ERR_DEVICE', message, hint });
});

test('and a program gets it as a typed error when it imports the package', (t) => {
  const source = `
    ${pretend('linux-ia32')}
    const error = await import('./lib/index.js').catch((error) => error);
    console.log(error.name, error.code, error.message);
  `;
  t.is(run(ROOT, source).stdout, 'AlexnodeError ERR_DEVICE linux-ia32 is not supported\n');
});

test('a package that was installed without its addon says how to get it', (t) => {
  const own = `${process.platform}-${process.arch}`;
  const omitted = run(installed([`${own}-gnu`]), command('train'));
  t.is(omitted.status, 3);
  t.regex(
    omitted.stderr,
    /^alexnode: the native addon of alexnode for \S+ is not installed \(ERR_DEVICE\)\n {2}.*`npm install` again\.\n$/,
  );
  const never = run(installed(['plan9-mips', 'aix-ppc64']), command('train'));
  t.is(never.status, 3);
  t.regex(
    never.stderr,
    /is not installed \(ERR_DEVICE\)\n {2}There are ready-made addons for plan9-mips, aix-ppc64; .*`npm ci && npm run build`\.\n$/,
  );
});
