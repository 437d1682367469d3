/** What a run has told so far: from `events.ndjson` of a run folder, or event by event while it trains. */
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import type { EpochEvent, StartEvent, StepEvent, TrainEvent, TrainResult, WarningEvent } from '../events.js';

/** Points of a curve inside epochs; more than a picture can show. */
const MOST_POINTS = 1000;

/** The events of a run in the form in which they are shown. */
export class History {
  start: StartEvent | undefined;
  /** The last event of each epoch, oldest first. */
  epochs: EpochEvent[] = [];
  /** Some of the segments, evenly spread. */
  steps: StepEvent[] = [];
  last: StepEvent | undefined;
  warnings: WarningEvent[] = [];
  paused = false;
  result: TrainResult | undefined;
  #every = 1;
  #seen = 0;

  /** Takes the next event. A resumed session takes back what its checkpoint does not have. */
  add(event: TrainEvent): void {
    switch (event.type) {
      case 'start':
        this.start = event;
        this.result = undefined;
        this.epochs = this.epochs.filter(({ epoch }) => epoch <= event.cursor.epoch);
        this.steps = this.steps.filter(({ step }) => step <= event.cursor.step);
        break;
      case 'step':
        this.last = event;
        this.#point(event);
        break;
      case 'epoch':
        this.epochs = [...this.epochs.filter(({ epoch }) => epoch !== event.epoch), event];
        break;
      case 'warning':
        this.warnings.push(event);
        break;
      case 'pause':
        this.paused = event.paused;
        break;
      case 'end':
        this.result = event.result;
        break;
      case 'checkpoint':
        break;
    }
  }

  #point(event: StepEvent): void {
    this.#seen += 1;
    if (this.#seen % this.#every !== 0) return;
    this.steps.push(event);
    if (this.steps.length < MOST_POINTS) return;
    this.steps = this.steps.filter((_, index) => index % 2 === 1);
    this.#every *= 2;
  }
}

/** The history of the run in `folder`. Lines that are no events (half a line of a killed run) are passed over. */
export async function readHistory(folder: string): Promise<History> {
  const history = new History();
  const input = createReadStream(join(folder, 'events.ndjson'));
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  try {
    for await (const line of lines) {
      const event = eventOf(line);
      if (event !== undefined) history.add(event);
    }
  } catch (error) {
    // A run without a log has its configuration and its checkpoints to show.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return history;
}

function eventOf(line: string): TrainEvent | undefined {
  try {
    const event = JSON.parse(line) as TrainEvent;
    if (typeof event !== 'object' || event === null || typeof event.type !== 'string') return undefined;
    // Runs of earlier versions lack what is told of layers.
    if (event.type === 'epoch')
      return { ...event, layers: event.layers ?? [], units: event.units ?? [], warnings: event.warnings ?? [] };
    if (event.type === 'warning') return { ...event, evidence: event.evidence ?? {} };
    return event;
  } catch {
    return undefined;
  }
}
