/** The kernels against their references in f64: the Rust tests, run as the program that they were built to. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';

import { AlexnodeError, reason } from '../errors.js';
import type { Findings, KernelsFound } from './report.js';

/** What to run. */
export interface KernelsOptions {
  /** The program that `cargo test -p alexnode-nn --test kernels --no-run` builds. */
  program: string | undefined;
  devices: string[];
  filter: string[];
  signal?: AbortSignal | undefined;
}

/** Runs the tests on `devices` and lists what failed. */
export async function checkKernels(options: KernelsOptions, findings: Findings<KernelsFound>): Promise<void> {
  const { program, filter } = options;
  const devices = [...new Set(options.devices)];
  if (program === undefined || !existsSync(program)) {
    const missing = program === undefined ? 'no program is named' : `${program}: there is no such program`;
    throw new AlexnodeError('ERR_USAGE', `${missing} to test the kernels with`, {
      hint: 'Name it with --kernels: cargo test -p alexnode-nn --test kernels --no-run builds it and says where.',
    });
  }
  const { output, end } = await run({ ...options, program }, devices);
  const tests = testsOf(output);
  const failed = tests.filter(({ ok }) => !ok);
  const passed = tests.length - failed.length;
  const ignored = [...output.matchAll(/^test .+ \.\.\. ignored/gm)].length;
  findings.found = { program, devices, filter, passed, failed: failed.length, ignored, tests };
  for (const { name, message } of failed) {
    findings.failures.push(`${name}: ${message?.split('\n')[0] ?? 'no message'}`);
  }
  if (end !== 'exit code 0' && failed.length === 0)
    findings.failures.push(`${program} ended with ${end}: ${tail(output)}`);
  if (end === 'exit code 0' && passed === 0) findings.failures.push(`${program} ran no tests: ${tail(output)}`);
}

/** What the program wrote, and how it ended. */
async function run(
  { program, filter, signal }: KernelsOptions & { program: string },
  devices: string[],
): Promise<{ output: string; end: string }> {
  const child = spawn(program, filter, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ALEXNODE_TEST_DEVICES: devices.join(','), RUST_BACKTRACE: '0', NO_COLOR: '1' },
    signal,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  return new Promise((resolve, reject) => {
    child.on('error', (error) => {
      const stopped = signal?.aborted === true;
      reject(
        stopped
          ? new AlexnodeError('ERR_ABORTED', 'the check was stopped')
          : new AlexnodeError('ERR_USAGE', `${program}: cannot be run: ${reason(error)}`, { cause: error }),
      );
    });
    child.on('close', (code, by) => resolve({ output, end: by === null ? `exit code ${code}` : by }));
  });
}

/** The tests in the output of Rust's test harness. */
export function testsOf(output: string): KernelsFound['tests'] {
  const messages = new Map<string, string>();
  for (const [, name, text] of output.matchAll(
    /^---- (\S+) stdout ----\n([\s\S]*?)(?=^---- |^failures:|^test result)/gm,
  )) {
    // What was panicked about; where in the sources says less.
    const lines = (text ?? '').split('\n').filter((line) => line !== '' && !/^(thread '|note: )/.test(line));
    messages.set(name ?? '', lines.join('\n'));
  }
  return [...output.matchAll(/^test (\S+)(?: - .+)? \.\.\. (ok|FAILED)$/gm)].map(([, name = '', outcome]) => {
    const message = messages.get(name);
    return outcome === 'ok' ? { name, ok: true } : { name, ok: false, ...(message === undefined ? {} : { message }) };
  });
}

/** The last words, in one line. */
function tail(output: string): string {
  return output.trim().split('\n').slice(-3).join(' | ') || 'it wrote nothing';
}
