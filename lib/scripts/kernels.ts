/**
 * `npm run kernels`: compiles every kernel that the presets launch, for every architecture, and writes what each takes of a device to
 * `cuda/kernels.tsv`. Only what has changed since is compiled; `--all` compiles everything. It fails where a kernel spills registers or does not fit.
 *
 * `-- --check` compares the table with the sources instead. It compiles a part: `paper` for sm_80 and sm_90a, and of the rows that the last
 * change of the table touched, as many as take a minute or two.
 *
 * `-- --pack FOLDER --architectures 90 --presets paper,demo` writes the machine code itself, for machines without a compiler; with `--gpu-check`
 * also of what `npm run gpu:check` runs.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { $ } from 'zx';
import { checkedTrainings } from '../gpu-check/trainings.js';
import { PRESETS, type PresetName, preset } from '../models/index.js';
import { kernelTests } from './kernel-tests.js';
import { BuildError, cargoEnvironment, hostTriple, root, script } from './native.js';
import { ensureNvrtc } from './nvrtc.js';

const TABLE = 'cuda/kernels.tsv';
/** Compute capabilities, times ten. */
const ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120];
/** The preset that every check compiles. */
const ALWAYS: PresetName = 'paper';
/** Classes of the data sets that the presets are made for; the others have 1000. */
const CLASSES: Partial<Record<PresetName, number>> = { demo: 10, small: 10 };

await script(async () => {
  const { values } = parseArgs({
    options: {
      all: { type: 'boolean', default: false },
      check: { type: 'boolean', default: false },
      pack: { type: 'string' },
      architectures: { type: 'string' },
      presets: { type: 'string' },
      'gpu-check': { type: 'boolean', default: false },
    },
  });
  if (values.pack === undefined && (values.architectures || values.presets || values['gpu-check']))
    throw new BuildError(
      '--architectures, --presets and --gpu-check choose what goes into a pack',
      'add `--pack FOLDER`',
    );
  const task = values.pack
    ? { type: 'pack', folder: values.pack }
    : values.check
      ? { type: 'check', table: TABLE, previous: await previous() }
      : { type: 'write', table: TABLE, all: values.all };
  const names = (values.presets?.split(',') ?? Object.keys(PRESETS)) as PresetName[];
  const architectures = values.architectures?.split(',').map(Number) ?? ARCHITECTURES;
  const request: Request = { networks: names.map(network), architectures, task };
  if (!values['gpu-check']) return ask(request);
  const folder = mkdtempSync(join(tmpdir(), 'alexnode-kernels-'));
  try {
    const programs = await testPrograms(join(folder, 'programs'));
    await ask({ ...request, networks: [...request.networks, ...checkedTrainings()], ceilings: true, programs });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

/** What the tool is asked for: crates/kernels/src/request.rs. */
interface Request {
  networks: object[];
  architectures: number[];
  ceilings?: boolean;
  programs?: string;
  task: object;
}

/** Runs the tool. */
async function ask(request: Request): Promise<void> {
  // The version that the table is made with, unless the user names another.
  const ALEXNODE_NVRTC = process.env.ALEXNODE_NVRTC || (await ensureNvrtc());
  const cargo = ['run', '--quiet', '--package', 'alexnode-kernels', '--target', await hostTriple()];
  const { exitCode } = await $({
    cwd: root,
    env: { ...cargoEnvironment, ALEXNODE_NVRTC },
    input: JSON.stringify(request),
    stdio: ['pipe', 'inherit', 'inherit'],
    nothrow: true,
  })`cargo ${cargo}`;
  if (exitCode !== 0) process.exitCode = 1;
}

/** Writes the programs that the tests of the kernels launch to `file`, by running them on an emulated device. */
async function testPrograms(file: string): Promise<string> {
  const env = { ...process.env, ALEXNODE_TEST_DEVICES: 'emulated:0', ALEXNODE_TEST_PROGRAMS: file };
  const { exitCode } = await $({
    cwd: root,
    env,
    stdio: ['ignore', 2, 2],
    nothrow: true,
  })`${await kernelTests()} --quiet`;
  if (exitCode === 0) return file;
  throw new BuildError('the tests of the kernels fail on an emulated device; see above', 'repair them first');
}

/** A preset as the tool wants it. */
function network(name: PresetName) {
  const classes = CLASSES[name] ?? (name.startsWith('cifar') ? 10 : 1000);
  const { network, recipe } = preset(name, { classes });
  const towers = network.layers.some((layer) => 'groups' in layer && layer.groups === 2);
  const { batch, momentum } = recipe;
  return { network, batch, momentum, devices: towers ? [1, 2] : [1], always: name === ALWAYS };
}

/** The table before its last change, as far as git knows it. */
async function previous(): Promise<string | null> {
  const git = $({ cwd: root, quiet: true, nothrow: true });
  const touched = (await git`git diff --quiet HEAD -- ${TABLE}`).exitCode !== 0;
  const { exitCode, stdout } = await git`git show ${touched ? 'HEAD' : 'HEAD^'}:${TABLE}`;
  return exitCode === 0 ? stdout : null;
}
