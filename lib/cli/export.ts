/** `alexnode export`. */
import type { Command } from 'commander';

import { AlexnodeError, exportOnnx, exportSafetensors } from '../index.js';
import { line } from './banner.js';
import { EXIT, printJson } from './exit.js';
import { bytes } from './format.js';

interface Flags {
  onnx?: string;
  safetensors?: string;
  embedPreprocessing?: boolean;
  json?: boolean;
}

/** Adds the verb. */
export function addExport(program: Command, setCode: (code: number) => void): void {
  program
    .command('export')
    .description('Write a trained network as a file for other programs.')
    .argument('<model>', "a run folder (its best checkpoint), a checkpoint, or torchvision's alexnet as .safetensors")
    .option('--onnx <file>', 'an ONNX model, with labels and preprocessing in its metadata')
    .option('--embed-preprocessing', 'the ONNX model takes stored images (uint8, NHWC) and crops them itself')
    .option('--safetensors <file>', 'the weights without momentum')
    .option('--json', 'machine-readable output on stdout')
    .action(async (model: string, flags: Flags) => {
      await run(model, flags);
      setCode(EXIT.ok);
    });
}

async function run(model: string, { onnx, safetensors, embedPreprocessing = false, json = false }: Flags) {
  if (onnx === undefined && safetensors === undefined) {
    throw new AlexnodeError('ERR_USAGE', 'export: no file was named', {
      hint: 'Name one with --onnx FILE or --safetensors FILE.',
    });
  }
  if (onnx !== undefined) {
    const written = await exportOnnx({ model, file: onnx, embedPreprocessing });
    if (json) printJson({ type: 'export', format: 'onnx', ...written });
    else {
      const { path, opset, input, dtype, shape } = written;
      process.stdout.write(line('onnx', `${path}: ${bytes(written.bytes)}, opset ${opset}`));
      process.stdout.write(line('input', `${input}: ${dtype} ${shape.join(' x ')}, RGB, 0 to 255`));
    }
  }
  if (safetensors !== undefined) {
    const written = await exportSafetensors({ model, file: safetensors });
    if (json) printJson({ type: 'export', format: 'safetensors', ...written });
    else process.stdout.write(line('weights', `${written.path}: ${bytes(written.bytes)}, sha256 ${written.sha256}`));
  }
}
