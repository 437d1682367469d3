/** What a training shows while it runs: a bar on a terminal, a line now and then elsewhere, events with `--json`. */
import { type Params, SingleBar } from 'cli-progress';

import type { EpochEvent, Report, StartEvent, StepEvent, TrainEvent, Training, TrainResult } from '../index.js';
import { banner, line, warningText } from './banner.js';
import { printJson } from './exit.js';
import { count, percent, plural, rateText, shortPath, time } from './format.js';
import { reportText } from './report.js';

/** Shows a training. */
export interface Reporter {
  begin(training: Training): void;
  event(event: TrainEvent): void;
  /** The URL of the live page. */
  page(url: string): void;
  /** The report that was written at the end. */
  report(report: Report): void;
  /** Gives the terminal back. */
  close(): void;
}

/** Every event as a line of JSON on stdout, at once; that of the report comes behind the `end` of the training. */
export class JsonReporter implements Reporter {
  begin(): void {}
  event(event: TrainEvent): void {
    printJson(event);
  }
  page(url: string): void {
    printJson({ type: 'page', url });
  }
  report(report: Report): void {
    printJson({ type: 'report', ...report });
  }
  close(): void {}
}

/** Between lines where there is no terminal. */
const LINE_MS = 10_000;
/** When the pace is steady enough for a forecast. */
const FORECAST_MS = 2_000;

/** For people. */
export class TextReporter implements Reporter {
  readonly #out: NodeJS.WriteStream;
  #bar: SingleBar | undefined;
  #start: StartEvent | undefined;
  #began = 0;
  #lastLine = 0;
  #forecast = false;
  #drawn = false;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
  }

  begin(training: Training): void {
    this.#out.write(banner(training));
  }

  event(event: TrainEvent): void {
    switch (event.type) {
      case 'start':
        this.#start = event;
        this.#began = performance.now();
        for (const { key, from, to } of event.changed) {
          this.#print(line('changed', `${key}: ${JSON.stringify(from)} -> ${JSON.stringify(to)}`));
        }
        break;
      case 'step':
        this.#step(event);
        break;
      case 'epoch':
        this.#print(this.#epochLine(event));
        this.#drawn ||= event.val !== null;
        break;
      case 'checkpoint':
        if (event.why !== 'epoch') this.#print(line('saved', shortPath(event.path)));
        break;
      case 'warning':
        this.#print(warningText(event));
        break;
      case 'pause':
        this.#print(line(event.paused ? 'paused' : 'going on', ''));
        break;
      case 'end':
        this.#print(this.#endText(event.result));
        break;
    }
  }

  page(url: string): void {
    this.#print(line('page', url));
  }

  report(report: Report): void {
    this.#out.write(reportText(report));
  }

  close(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  /** Text above the bar, which comes back with the next step. */
  #print(text: string): void {
    this.close();
    this.#out.write(text);
  }

  #step(event: StepEvent): void {
    const now = performance.now();
    if (!this.#forecast && now - this.#began > FORECAST_MS) {
      this.#forecast = true;
      if (event.etaSeconds > 5)
        this.#print(line('forecast', `${time(event.etaSeconds)} at ${count(event.imagesPerSecond)} images/s`));
    }
    if (this.#out.isTTY) {
      this.#showBar(event);
    } else if (this.#lastLine === 0 || now - this.#lastLine >= LINE_MS) {
      this.#lastLine = now;
      const place = `epoch ${this.#epoch(event)} ${shareText(event.batch / event.batches)}`;
      this.#out.write(line('step', [count(event.step), place, ...numbers(event)].join('  ')));
    }
  }

  #epoch({ epoch }: StepEvent): string {
    return `${epoch}/${this.#start?.epochs ?? '?'}`;
  }

  #showBar(event: StepEvent): void {
    const shown: Shown = { epoch: this.#epoch(event), numbers: numbers(event) };
    if (this.#bar === undefined) {
      this.#bar = new SingleBar({
        stream: this.#out,
        clearOnComplete: true,
        gracefulExit: false,
        linewrap: false,
        format: (_, { maxWidth, progress }: Params, last: Shown) => barLine(maxWidth, progress, last),
      });
      this.#bar.start(event.batches, event.batch, shown);
    }
    this.#bar.update(event.batch, shown);
  }

  #epochLine(event: EpochEvent): string {
    const parts = [
      `${String(event.epoch).padStart(3)}/${this.#start?.epochs ?? '?'}`,
      `lr ${rateText(event.lr)}`,
      event.train === null ? '' : `loss ${event.train.loss.toFixed(4)} error ${percent(event.train.top1Error)}`,
      event.val === null ? '' : `val loss ${event.val.loss.toFixed(4)} error ${percent(event.val.top1Error)}`,
      event.imagesPerSecond > 0 ? `${count(event.imagesPerSecond)} images/s` : '',
      time(event.seconds),
      event.best ? 'best' : '',
    ];
    return line('epoch', parts.filter(Boolean).join('  '));
  }

  #endText(result: TrainResult): string {
    const { status, epochs, steps, seconds, val, train } = result;
    const folder = this.#start?.run == null ? undefined : shortPath(this.#start.run);
    const measured =
      val !== null
        ? `, validation error ${percent(val.top1Error)} (top 5: ${percent(val.top5Error)})`
        : train !== null
          ? `, training loss ${train.loss.toFixed(4)}`
          : '';
    const parts = [
      `\n`,
      line('end', `${status} after ${plural(epochs, 'epoch')}, ${plural(steps, 'step')}, ${time(seconds)}${measured}`),
    ];
    if (folder !== undefined) {
      parts.push(line('open', `${folder}: run.json, metrics.csv${this.#drawn ? ', filters.png, curve.svg' : ''}`));
      const command = status === 'completed' ? `eval ${folder}` : `train --resume ${folder}`;
      if (status === 'completed' || status === 'interrupted' || status === 'stopped') {
        parts.push(line('next', `alexnode ${command}   (npm run ${command.replace(' ', ' -- ')})`));
      }
    }
    return parts.join('');
  }
}

function numbers(event: StepEvent): string[] {
  return [
    `loss ${event.loss.toFixed(3)}`,
    `error ${percent(event.top1Error)}`,
    `${count(event.imagesPerSecond)} images/s`,
    `waiting ${Math.round(event.waitShare * 100)} %`,
    `eta ${time(event.etaSeconds)}`,
  ];
}

/** What stands beside the bar: `2/18` and the numbers of the step. */
interface Shown {
  epoch: string;
  numbers: string[];
}

const WIDEST_BAR = 24;
const NARROWEST_BAR = 4;

/**
 * The bar and its numbers in one line of `columns`. A terminal of 80 has no room for all of it: then the bar shrinks and says alone how
 * far the epoch is, so that no number is cut off.
 */
export function barLine(columns: number, progress: number, { epoch, numbers }: Shown): string {
  const wide = [` epoch ${epoch} ${shareText(progress)}`, bar(progress, WIDEST_BAR), ...numbers].join('  ');
  if (wide.length < columns) return wide;
  const text = numbers.join(' ');
  const room = Math.min(WIDEST_BAR, columns - ` ${epoch}  ${text} `.length);
  return room < NARROWEST_BAR ? ` ${epoch} ${text}` : ` ${epoch} ${bar(progress, room)} ${text}`;
}

function bar(progress: number, size: number): string {
  const done = Math.round(progress * size);
  return '█'.repeat(done) + '░'.repeat(size - done);
}

/** `16 %`, and 100 only where nothing is left. */
function shareText(share: number): string {
  return `${Math.floor(share * 100)} %`;
}
