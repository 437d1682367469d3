/** `alexnode data pack`. */
import { type Command, Option } from 'commander';

import { type PackForecast, type PackOptions, packDataset } from '../index.js';
import { line } from './banner.js';
import { Bar } from './bar.js';
import { EXIT, printJson } from './exit.js';
import { oneOf, share, whole } from './flags.js';
import { bytes, count, shortPath, time } from './format.js';
import { Interrupt } from './interrupt.js';

interface Flags extends Omit<PackOptions, 'source' | 'target' | 'imageSize'> {
  size?: number;
  json?: boolean;
}

/** Adds the verb. */
export function addDataPack(data: Command, setCode: (code: number) => void): void {
  data
    .command('pack')
    .description('Prepare all images of a data set once, in files that trainings read at the rate of the disk.')
    .argument('<source>', 'what `train --data` reads: a folder, archives, a list, the CIFAR-10 binaries')
    .argument('<target>', 'the folder to write; where a pack was interrupted, the same command goes on')
    .addOption(
      new Option('--format <name>', '"npy": pixels; "tar": JPEGs in the form of WebDataset (default: npy)').argParser(
        oneOf(['npy', 'tar']),
      ),
    )
    .option(
      '--size <pixels>',
      'short side of the images; trainings need theirs or a larger one (default: 256)',
      whole(1),
    )
    .option('--shard-images <n>', 'images per file (default: 2048 raw ones or 8192 JPEGs)', whole(1))
    .option(
      '--val-fraction <share>',
      'of the images for validation, where the source has no split (default: 0.1)',
      share,
    )
    .addOption(
      new Option('--on-bad-image <what>', 'an undecodable image: "error" or "skip"').argParser(
        oneOf(['error', 'skip']),
      ),
    )
    .option('--threads <n>', 'CPU threads (default: all)', whole(1))
    .option('--json', 'machine-readable output on stdout')
    .action(async (source: string, target: string, flags: Flags) => setCode(await run(source, target, flags)));
}

async function run(source: string, target: string, { size, json = false, ...rest }: Flags): Promise<number> {
  using interrupt = new Interrupt();
  await using packing = await packDataset({
    ...rest,
    source,
    target,
    ...(size === undefined ? {} : { imageSize: size }),
  });
  const { forecast } = packing;
  if (json) printJson({ type: 'forecast', target: packing.target, ...forecast });
  else process.stdout.write(forecastText(source, packing.target, forecast));
  const begin = performance.now();
  let written = 0;
  {
    using bar = new Bar('images', forecast.images, forecast.done);
    for await (const progress of packing.run({ signal: interrupt.signal })) {
      written = progress.bytes;
      if (json) printJson({ type: 'progress', ...progress });
      else bar.update(progress.done);
    }
  }
  const seconds = (performance.now() - begin) / 1000;
  if (json) printJson({ type: 'pack', target: packing.target, images: forecast.images, seconds });
  else if (!forecast.complete) {
    const rate = count((forecast.images - forecast.done) / seconds);
    process.stdout.write(line('done', `${bytes(written)} in ${time(seconds)}, ${rate} images/s`));
  }
  return EXIT.ok;
}

function forecastText(source: string, target: string, forecast: PackForecast): string {
  const { images, done, classes, splits, skipped, complete, left, free } = forecast;
  const [train, val] = splits;
  const here = shortPath(target);
  const what = `${count(images)} images of ${count(classes.length)} classes (train ${count(train)}, val ${count(val)})`;
  return [
    line('source', `${source}: ${what}`),
    skipped.length > 0 ? line('left out', `${count(skipped.length)} files that cannot be decoded`) : '',
    complete
      ? line('pack', `${here}: complete, nothing to do`)
      : line('pack', `${here}: ${bytes(left)} to write, ${bytes(free)} free`),
    done > 0 && !complete ? line('resumed', `${count(done)} images are there already`) : '',
  ].join('');
}
