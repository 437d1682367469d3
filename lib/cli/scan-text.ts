/** What a scan has found, as people read it: each finding with what follows from it and what to do. */
import type { ScanFindings } from '../index.js';
import { line } from './banner.js';
import { bytes, count, shortPath } from './format.js';

/** Names of files or classes that are shown of each finding. */
const SHOWN = 3;
/** From here on it is worth a word that a class has so many times the images of another. */
const UNEVEN = 3;

interface Finding {
  name: string;
  /** How many; nothing is said about what there is none of. */
  number: number;
  /** Of what there are so many. */
  unit: string;
  examples: string[];
  consequence: string;
  remedy: string;
}

const NOTHING = 'nothing to do';

/** `source` as it was named; the list has been written to `quarantine`. */
export function findingsText(source: string, findings: ScanFindings, quarantine: string): string {
  const { report, summary } = findings;
  const path = shortPath(quarantine);
  const there = findingsOf(findings, source, path).filter(({ number }) => number > 0);
  const number = findings.quarantine.length;
  return [
    line('folder', `${source}: ${count(report.images)} images, ${bytes(summary.bytes)}`),
    line('images', imagesText(findings)),
    line('classes', classesText(findings)),
    ...there.map(findingText),
    there.length === 0 ? line('found', 'nothing that stands in the way') : '',
    line('list', `${path}: ${count(number)} files to leave out`),
    number > 0
      ? line('next', `alexnode train --data ${source} --quarantine ${path}   (npm run train -- ...)`)
      : line('next', `alexnode train --data ${source}   (npm run train -- --data ${source})`),
  ].join('');
}

function imagesText({ report, summary }: ScanFindings): string {
  const formats = Object.entries(summary.formats).map(([name, number]) => `${name} ${count(number)}`);
  const { shortSides } = summary;
  if (shortSides === null) return 'none can be read';
  const [least, median, most] = shortSides.map(count);
  const grey = report.grey.length + report.cmyk.length;
  const colours = grey === 0 ? 'all in RGB' : `${count(report.grey.length)} grey, ${count(report.cmyk.length)} CMYK`;
  return `${formats.join(', ')}; ${colours}; shorter side ${least} to ${most} pixels, half of them up to ${median}`;
}

function classesText({ report, summary }: ScanFindings): string {
  const { classes } = report;
  const sum = (side: 'train' | 'val') => count(classes.reduce((total, one) => total + one[side], 0));
  const split = summary.given
    ? `train ${sum('train')}, val ${sum('val')}`
    : `${sum('train')} images, val is split off by content when it is trained on`;
  const sizes = classes.map((one) => one.train);
  const range =
    classes.length <= 6
      ? classes.map(({ name, train, val }) => `${name} ${summary.given ? `${train} + ${val}` : train}`).join(', ')
      : `${count(Math.min(...sizes))} to ${count(Math.max(...sizes))} training images each`;
  return classes.length === 0 ? 'none: images lie in no folders' : `${classes.length}: ${split}; ${range}`;
}

function findingsOf({ report, summary }: ScanFindings, source: string, list: string): Finding[] {
  const leaveOut = (what: string) =>
    `alexnode data scan ${source} --leave-out ${what}, then train --quarantine ${list}`;
  const files = (name: string, examples: string[], consequence: string, remedy: string): Finding => {
    return { name, number: examples.length, unit: 'files', examples, consequence, remedy };
  };
  const groups = (name: string, all: string[][], consequence: string, remedy: string): Finding => {
    const examples = all.map((paths) => paths.slice(0, SHOWN).join(' = '));
    return { name, number: all.length, unit: 'groups', examples, consequence, remedy };
  };
  const conflicts = (number: number) =>
    number === 0 ? '' : `; ${count(number)} groups are in several classes: the same image under two labels`;
  const unmatched = [
    ...summary.onlyTrain.map((name) => `${name} (only in train)`),
    ...summary.onlyVal.map((name) => `${name} (only in val)`),
  ];
  const single = summary.given ? [] : report.classes.filter(({ train }) => train === 1).map(({ name }) => name);
  const uneven = report.imbalance >= UNEVEN;
  const together = summary.given ? '' : '; all of a group go to one side of the split';
  return [
    files(
      'unreadable',
      report.unreadable.map(({ path, reason }) => `${path} (${reason})`),
      'a training stops at the first of them',
      `train --quarantine ${list}`,
    ),
    {
      ...files('classes differ', unmatched, 'a training refuses them', leaveOut('unmatchedClasses')),
      unit: 'classes',
    },
    {
      ...files(
        'too small',
        single,
        'a training refuses them: one image to learn from, one to be judged on',
        'add images',
      ),
      unit: 'classes',
    },
    {
      ...files('empty', report.emptyClasses, 'they are no classes of the network', 'add images, or remove the folders'),
      unit: 'folders',
    },
    {
      name: 'outside',
      number: summary.outside,
      unit: 'files',
      examples: [],
      consequence: 'in no class folder: they are not used',
      remedy: 'move them into one',
    },
    { ...files('hidden', report.hiddenFolders, 'they are not looked into', NOTHING), unit: 'folders' },
    files('misnamed', report.wrongExtension, 'read as what they are, whatever they are called', NOTHING),
    files('cmyk', report.cmyk, 'their inks become red, green and blue', NOTHING),
    files('grey', report.grey, 'they get three equal channels', NOTHING),
    files('rotated', report.exifRotated, 'turned upright by their EXIF orientation, everywhere', NOTHING),
    files('tiny', report.tiny, 'they are enlarged and show little', leaveOut('tiny')),
    files('huge', report.huge, 'they take long to read, in every epoch', leaveOut('huge')),
    groups(
      'duplicates',
      report.duplicates,
      `copies count as often as they occur${together}${conflicts(summary.conflicts)}`,
      leaveOut('duplicates'),
    ),
    groups(
      'near',
      report.nearDuplicates,
      `they look the same${together}${conflicts(summary.nearConflicts)}`,
      leaveOut('nearDuplicates'),
    ),
    groups(
      'leaks',
      report.leaks,
      'in train and in val: the error is measured on what was learnt by heart',
      leaveOut('leaks'),
    ),
    {
      name: 'uneven',
      number: uneven ? report.classes.length : 0,
      unit: 'classes',
      examples: [],
      consequence: `the largest has ${report.imbalance.toFixed(1)} times the images of the smallest, and will be favoured`,
      remedy: 'train --balance sample, or loss',
    },
  ];
}

function findingText({ name, number, unit, examples, consequence, remedy }: Finding): string {
  const more = examples.length > SHOWN ? ` and ${count(examples.length - SHOWN)} more` : '';
  const shown = examples.length === 0 ? '' : line('', `  ${examples.slice(0, SHOWN).join(', ')}${more}`);
  return `${line(name.slice(0, 10), `${count(number)} ${unit}: ${consequence} -> ${remedy}`)}${shown}`;
}
