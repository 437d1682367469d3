/** `serveLive()`: the report of a training while it trains, for the browser on the same machine, with pause, stop and snapshot. */

import { randomBytes } from 'node:crypto';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import { Hono } from 'hono';
import { secureHeaders } from 'hono/secure-headers';
import { type SSEStreamingApi, streamSSE } from 'hono/streaming';
import { z } from 'zod';
import { check } from '../config.js';
import { environment } from '../environment.js';
import { AlexnodeError, reason } from '../errors.js';
import type { TrainEvent } from '../events.js';
import type { Shape } from '../options.js';
import { judgedView } from '../report/gather.js';
import { History, readHistory } from '../report/history.js';
import { filterPictures } from '../report/index.js';
import { duration, renderPage, renderView } from '../report/page.js';
import type { JudgedView, View } from '../report/view.js';
import { describeData, type Training } from '../train.js';
import { admitted } from './guard.js';
import { Listener, type Message } from './listener.js';
import { Look } from './look.js';
import { controls, script } from './page.js';

/** How to serve it. */
export interface LiveOptions {
  /** Default: a free one that the system chooses. ERR_USAGE where it is taken. */
  port?: number;
}

/** A page that is being served. */
export interface Live extends AsyncDisposable {
  /** With its token: whoever knows it may stop the training. */
  readonly url: string;
  /** To be told everything that the training tells, in order. */
  event(event: TrainEvent): void;
  /** Ends it; open pages keep what they show. */
  close(): Promise<void>;
}

/** Between two messages of a page's state. */
const STATE_MS = 250;

const liveSchema = z.strictObject({
  port: z.int().min(0).max(65_535).optional(),
} satisfies Shape<LiveOptions>);

/**
 * Serves the page of a training on 127.0.0.1. What happens to browsers does not touch the training. Requests with another Host or Origin, or without the token,
 * get nothing. ERR_USAGE where the port cannot be had.
 *
 * ```ts
 * await using live = await serveLive(training);
 * console.log(live.url);
 * for await (const event of training) live.event(event);
 * ```
 */
export async function serveLive(training: Training, options: LiveOptions = {}): Promise<Live> {
  check(liveSchema, options, 'live');
  const page = new LivePage(training, await viewOf(training));
  const token = randomBytes(24).toString('base64url');
  let port = 0;
  const app = new Hono();
  app.use(async (c, next) => {
    const caller = { method: c.req.method, path: c.req.path, header: (name: string) => c.req.header(name) };
    return admitted(caller, port, token) ? next() : c.body(null, 404);
  });
  app.use(
    secureHeaders({
      crossOriginResourcePolicy: 'same-origin',
      crossOriginOpenerPolicy: 'same-origin',
      referrerPolicy: 'no-referrer',
      xFrameOptions: 'DENY',
      strictTransportSecurity: false,
    }),
  );
  app.use(async (c, next) => {
    await next();
    c.header('Cache-Control', 'no-store');
  });
  const at = (path: string) => `/${token}/${path}`;
  app.get(at(''), async (c) => c.html(await page.html()));
  app.get(at('view'), async (c) => c.html(await page.view()));
  app.get(at('events'), (c) => streamSSE(c, (stream) => page.stream(stream)));
  const act = (what: string, action: () => void) =>
    app.post(at(what), (c) => {
      action();
      return c.body(null, 204);
    });
  act('pause', () => training.pause());
  act('resume', () => training.pause(false));
  act('save', () => training.requestSave());
  act('stop', () => training.stop());
  const server = createAdaptorServer({ fetch: app.fetch, overrideGlobalObjects: false }) as Server;
  await listen(server, options.port ?? 0);
  ({ port } = server.address() as AddressInfo);
  // The page must not keep a process alive whose training is over.
  server.unref();
  const close = async () => {
    await page.close();
    const closed = new Promise<void>((done) => server.close(() => done()));
    server.closeIdleConnections();
    // What does not end by itself, such as a browser that does not read.
    setTimeout(() => server.closeAllConnections(), 1000).unref();
    await closed;
  };
  return {
    url: `http://127.0.0.1:${port}/${token}/`,
    event: (event) => page.event(event),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((done, failed) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      failed(
        new AlexnodeError('ERR_USAGE', `the live page cannot be served on port ${port}: ${reason(error)}`, {
          hint: 'Choose another port with --ui-port, or none: then the system does.',
          cause: error,
        }),
      ),
    );
    server.listen(port, '127.0.0.1', () => done());
  });
}

/** The view before anything has happened. */
async function viewOf({ trainer, data, run }: Training): Promise<View> {
  const { config, info } = trainer;
  const manifest = run?.manifest ?? {
    name: config.network.name,
    createdAt: new Date().toISOString(),
    config,
    data: describeData(data),
    environment: await environment(),
    sessions: [],
    network: { parameters: info.parameters, macs: info.macs },
  };
  // What earlier sessions told.
  const history = run === undefined ? new History() : await readHistory(run.folder);
  Object.assign(history, { paused: false, result: undefined });
  return {
    title: `${manifest.name}: ${config.network.name}`,
    manifest,
    history,
    layers: info.layers,
    warnings: history.warnings,
    filters: undefined,
    grown: [],
    judged: undefined,
    neighbours: undefined,
    data: data.info,
    missing: [
      data.info.val === 0
        ? 'what needs validation images (there are none)'
        : 'what needs an evaluation, which comes with the first validated epoch',
    ],
  };
}

/** What is shown, and to whom. */
class LivePage {
  readonly #training: Training;
  readonly #view: View;
  readonly #listeners = new Set<Listener>();
  /** The view as HTML, until there is something new in it. */
  #rendered: Promise<string> | undefined;
  #judged: { of: unknown; view: JudgedView } | undefined;
  #stateAt = 0;
  /** Whether pictures may have come that no view has. */
  #stale = false;
  readonly #look: Look;

  constructor(training: Training, view: View) {
    this.#training = training;
    this.#view = view;
    this.#look = new Look(training, (neighbours, missing) => {
      if (neighbours !== undefined) view.neighbours = neighbours;
      else if (view.neighbours !== undefined) missing = `newer ones of ${missing}`;
      view.missing = missing === undefined ? [] : [missing];
      this.#renew();
    });
  }

  event(event: TrainEvent): void {
    this.#view.history.add(event);
    if (event.type === 'checkpoint' && event.why !== 'end') this.#look.checkpoint(event);
    // The images may go with the training.
    if (event.type === 'end') void this.#look.close();
    const now = performance.now();
    if (event.type === 'step' && now - this.#stateAt < STATE_MS && !this.#stale) return;
    this.#stateAt = now;
    this.#tell('state');
    // The pictures of an epoch are there when the next step comes; a step alone moves only the bar.
    const stale = event.type === 'epoch' || event.type === 'checkpoint';
    if (this.#stale || (event.type !== 'step' && event.type !== 'checkpoint')) {
      this.#renew();
    }
    this.#stale = stale;
    // Now: when a browser asks, the images may be gone.
    if (event.type === 'end') this.view().catch(() => undefined);
  }

  /** There is something new to see. */
  #renew(): void {
    this.#rendered = undefined;
    this.#tell('view');
  }

  #tell(message: Message): void {
    for (const listener of this.#listeners) listener.tell(message);
  }

  /** The whole page. */
  async html(): Promise<string> {
    const nonce = randomBytes(16).toString('base64');
    await this.#fill();
    return renderPage(this.#view, {
      policy: `default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'nonce-${nonce}'; connect-src 'self'; base-uri 'none'; form-action 'none'`,
      before: controls(this.#training.run !== undefined),
      after: script(nonce),
    });
  }

  /** Its sections. */
  view(): Promise<string> {
    this.#rendered ??= this.#render();
    return this.#rendered;
  }

  async #render(): Promise<string> {
    await this.#fill();
    return String(await renderView(this.#view));
  }

  /** What the events do not carry: pictures. */
  async #fill(): Promise<void> {
    const { trainer, data, run } = this.#training;
    if (run !== undefined) Object.assign(this.#view, await filterPictures(run.folder));
    const { judgement } = trainer;
    if (judgement === undefined || this.#judged?.of === judgement) return;
    const what = `the weights after epoch ${this.#view.history.epochs.at(-1)?.epoch ?? '?'}`;
    this.#judged = { of: judgement, view: (await judgedView(data, judgement, what)).view };
    this.#view.judged = this.#judged.view;
    if (this.#view.neighbours === undefined) {
      this.#view.missing = [
        run === undefined
          ? 'the nearest training images, which need checkpoints (a run folder)'
          : `the nearest training images, ${this.#view.history.result === undefined ? 'which come with a checkpoint' : 'for which there was no time: the report has them'}`,
      ];
    }
  }

  #state(): string {
    const { history } = this.#view;
    const { last, result, start } = history;
    const epochs = start?.epochs ?? this.#training.trainer.config.recipe.epochs;
    const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
    const done = last === undefined ? 0 : (last.epoch - 1 + last.batch / last.batches) / epochs;
    const parts =
      last === undefined
        ? ['waiting for the first step']
        : [
            `epoch ${last.epoch}/${epochs}`,
            `step ${last.step.toLocaleString('en-US')}`,
            `loss ${last.loss.toFixed(3)}`,
            `error ${percent(last.top1Error)}`,
            `${Math.round(last.imagesPerSecond).toLocaleString('en-US')} images/s`,
            `${duration(last.etaSeconds)} left`,
          ];
    if (history.paused) parts.unshift('paused');
    if (result !== undefined) parts.unshift(result.status);
    return JSON.stringify({
      paused: history.paused,
      text: parts.join(' · '),
      progress: Math.min(1, done),
      ended: result !== undefined,
    });
  }

  /** Serves a page's events until it goes away. */
  async stream(stream: SSEStreamingApi): Promise<void> {
    const listener = new Listener(stream, () => this.#state());
    this.#listeners.add(listener);
    const gone = new Promise<void>((resolve) => stream.onAbort(resolve));
    listener.tell('state');
    await gone;
    this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    await this.#look.close();
    await Promise.all([...this.#listeners].map((listener) => listener.close()));
    this.#listeners.clear();
  }
}
