/** The live page: over HTTP as others might try it, and in Chromium as a user does. */
import { existsSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import test from 'ava';
import { chromium, type Page } from 'playwright-core';

import { report, serveLive, type Training, train } from '../lib/index.js';
import { admitted } from '../lib/live/guard.js';
import { chromiumPath, cli, drain, linesOf, newest, TINY_CALL, temporary, tensorBytes } from './helpers.js';

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

/** A request with any headers; `fetch` would not let us lie about Host and Origin. */
function ask(url: string, method = 'GET', headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((done, failed) => {
    const sent = request(url, { method, headers }, (answer) => {
      let body = '';
      answer.on('data', (chunk: Buffer) => {
        body += chunk.toString();
      });
      answer.on('end', () => done({ status: answer.statusCode ?? 0, headers: answer.headers, body }));
    });
    sent.on('error', failed);
    sent.end();
  });
}

test('only the own browser with the token is admitted', (t) => {
  const call = (method: string, path: string, headers: Record<string, string>) =>
    admitted({ method, path, header: (name) => headers[name] }, 4711, 'secret');
  const host = '127.0.0.1:4711';
  t.true(call('GET', '/secret/', { host }));
  t.true(call('GET', '/secret/', { host: 'localhost:4711' }));
  t.true(call('POST', '/secret/stop', { host, origin: `http://${host}`, 'sec-fetch-site': 'same-origin' }));
  for (const [method, path, headers] of [
    ['GET', '/', { host }],
    ['GET', '/other/', { host }],
    ['GET', '/secre/', { host }],
    ['GET', '/secret/', {}],
    ['GET', '/secret/', { host: 'rebound.example:4711' }],
    ['GET', '/secret/', { host: '127.0.0.1:80' }],
    ['GET', '/secret/', { host, origin: 'http://evil.example' }],
    ['GET', '/secret/', { host, origin: 'null' }],
    ['GET', '/secret/', { host, 'sec-fetch-site': 'cross-site' }],
    ['POST', '/secret/stop', { host }],
    ['POST', '/secret/stop', { host, origin: 'http://localhost:4711' }],
    ['POST', '/secret/stop', { host, origin: `https://${host}` }],
  ] as const) {
    t.false(call(method, path, headers), `${method} ${path} ${JSON.stringify(headers)}`);
  }
});

test('others get nothing, and cannot stop a training', async (t) => {
  await using training = await train({ ...TINY_CALL, steps: 4 });
  await using live = await serveLive(training);
  const { host, origin } = new URL(live.url);
  const whole = await ask(live.url);
  t.is(whole.status, 200);
  t.regex(whole.body, /Snapshot now/);
  t.regex(String(whole.headers['cache-control']), /no-store/);
  t.is(whole.headers['access-control-allow-origin'], undefined);
  t.is(whole.headers['referrer-policy'], 'no-referrer');
  const tokenless = origin + new URL(live.url).pathname.replace(/\/[^/]+/, `/${'x'.repeat(32)}`);
  for (const refused of [
    await ask(origin),
    await ask(tokenless),
    await ask(live.url, 'GET', { host: 'evil.example' }),
    await ask(live.url, 'GET', { origin: 'http://evil.example' }),
    await ask(`${live.url}events`, 'GET', { 'sec-fetch-site': 'cross-site' }),
    await ask(`${live.url}stop`, 'POST', { origin: 'http://evil.example' }),
    await ask(`${live.url}stop`, 'POST'),
    await ask(`${live.url}stop`, 'POST', { host: `evil.example:${new URL(live.url).port}`, origin }),
    await ask(`${live.url}stop`, 'OPTIONS', { origin: 'http://evil.example', 'access-control-request-method': 'POST' }),
  ]) {
    t.is(refused.status, 404);
    t.is(refused.body, '');
    t.is(refused.headers['access-control-allow-origin'], undefined);
  }
  t.is((await ask(`${live.url}nothing`)).status, 404);
  for await (const event of training) live.event(event);
  t.is(training.result?.status, 'stopped', 'none of it has interrupted the training');
  t.regex((await ask(`${live.url}view`, 'GET', { host })).body, /stopped/);
});

test('a taken port is an error that names the remedy', async (t) => {
  await using training = await train({ ...TINY_CALL, steps: 1 });
  await using first = await serveLive(training);
  const port = Number(new URL(first.url).port);
  await t.throwsAsync(serveLive(training, { port }), { code: 'ERR_USAGE', message: /port/ });
});

test('pausing changes no bit, a snapshot is saved meanwhile, and stopping ends the wait', async (t) => {
  const folder = temporary();
  const straight = join(folder, 'straight');
  {
    await using whole = await train({ ...TINY_CALL, out: straight });
    await drain(whole);
  }
  const out = join(folder, 'paused');
  await using training = await train({ ...TINY_CALL, out });
  const told: string[] = [];
  let steps = 0;
  for await (const event of training) {
    if (event.type === 'pause') {
      told.push(event.paused ? 'paused' : 'on');
      if (event.paused) setTimeout(() => training.requestSave(), 30);
    }
    if (event.type === 'checkpoint' && event.why === 'request') {
      told.push('saved');
      setTimeout(() => training.pause(false), 10);
    }
    if (event.type === 'step') {
      steps += 1;
      if (steps === 3) training.pause();
    }
  }
  t.deepEqual(told, ['paused', 'saved', 'on']);
  t.deepEqual(tensorBytes(newest(out)), tensorBytes(newest(straight)));

  await using again = await train({ ...TINY_CALL });
  for await (const event of again) {
    if (event.type === 'step') again.pause();
    if (event.type === 'pause' && event.paused) setTimeout(() => again.stop(), 10);
  }
  t.is(again.result?.status, 'interrupted');
});

/** The view, once it matches. */
async function viewWith(url: string, text: RegExp): Promise<string> {
  let body = '';
  for (let tries = 0; tries < 1500; tries++) {
    ({ body } = await ask(`${url}view`));
    if (text.test(body)) return body;
    await new Promise((later) => setTimeout(later, 20));
  }
  throw new Error(`never matched ${text}: ${body}`);
}

const sections = (page: string) => [...page.matchAll(/<h2 id="(\w+)"/g)].map(([, id]) => id);

test('it has all that the report has, nearest training images of a checkpoint, too, and of a snapshot at once', async (t) => {
  const out = join(temporary(), 'run');
  await using training = await train({ ...TINY_CALL, out });
  await using live = await serveLive(training);
  t.regex((await ask(live.url)).body, /Missing here: .*first validated epoch/);
  const looked: string[] = [];
  let view = '';
  for await (const event of training) {
    live.event(event);
    if (event.type !== 'checkpoint' || event.why === 'end' || looked.includes('request')) continue;
    looked.push(event.why);
    view = await viewWith(live.url, new RegExp(`weights after step ${event.step}\\b`));
    if (event.why === 'epoch') training.requestSave();
  }
  t.deepEqual(looked, ['epoch', 'request']);
  t.notRegex(view, /Missing here/);
  t.is(view.match(/<div class="near">/g)?.length, 5);
  const ended = (await ask(`${live.url}view`)).body;
  const { path } = await report({ run: out });
  t.deepEqual(sections(ended), sections(readFileSync(path, 'utf8')));
  t.true(sections(ended).includes('neighbours'));
});

test('a snapshot before the first validation is told to come too early, and later ones are looked at', async (t) => {
  await using training = await train({ ...TINY_CALL, out: join(temporary(), 'run') });
  await using live = await serveLive(training);
  let asked = false;
  let early = '';
  let looked = '';
  for await (const event of training) {
    live.event(event);
    if (event.type === 'step' && !asked) {
      training.requestSave();
      asked = true;
    }
    if (event.type !== 'checkpoint' || event.why === 'end' || looked !== '') continue;
    if (event.why === 'request') early = await viewWith(live.url, /which need a validated epoch/);
    else looked = await viewWith(live.url, new RegExp(`weights after step ${event.step}\\b`));
  }
  t.regex(early, /Missing here: .*nearest training images/);
  t.notRegex(looked, /Missing here/);
});

test('without checkpoints it says what it lacks', async (t) => {
  await using training = await train({ ...TINY_CALL, recipe: { ...TINY_CALL.recipe, epochs: 1 } });
  await using live = await serveLive(training);
  for await (const event of training) live.event(event);
  const { body } = await ask(`${live.url}view`);
  t.regex(body, /Missing here: .*nearest training images, which need checkpoints/);
  t.true(sections(body).includes('confusion'));
});

/** Waits until the page's bar says so. */
async function status(page: Page, text: RegExp): Promise<void> {
  await page.getByRole('status').filter({ hasText: text }).waitFor();
}

test('in Chromium it loads, updates, pauses, saves and stops a run', async (t) => {
  const executablePath = chromiumPath(t);
  if (executablePath === undefined) return;
  const folder = temporary();
  const args = ['train', '--json', '--ui', '--out', 'run', '--limit', '1000', '--epochs', '500'];
  const training = cli(args, folder);
  await training.line((line) => line.includes('"page"'));
  const url = String(linesOf(training.stdout).find(({ type }) => type === 'page')?.url);
  t.regex(url, /^http:\/\/127\.0\.0\.1:\d+\/[\w-]{32}\/$/);
  const chrome = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
  try {
    const page = await chrome.newPage();
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') faults.push(message.text());
    });
    await page.goto(url);
    await status(page, /step \d+/);
    // A view that came after the page was loaded: the first validated epoch.
    await page.locator('#view h2', { hasText: 'Confusion' }).waitFor();
    await page.locator('#view img[alt="filters of the first layer"]').waitFor();
    await page.locator('#neighbours ~ .near').first().waitFor();
    t.true((await page.locator('#view svg').count()) >= 5);
    await page.getByRole('button', { name: 'Pause' }).click();
    await status(page, /^paused/);
    await page.getByRole('button', { name: 'Snapshot now' }).click();
    await training.line((line) => line.includes('"request"'));
    await page.getByRole('button', { name: 'Go on' }).click();
    await status(page, /^epoch/);
    // Others may come and go.
    const second = await chrome.newPage();
    await second.goto(url);
    await status(second, /step \d+/);
    await second.close();
    // A page of another origin gets nothing.
    const evil = await chrome.newPage();
    await evil.goto('data:text/html,<title>evil</title>');
    const stolen = await evil.evaluate(
      (target) =>
        fetch(`${target}stop`, { method: 'POST', mode: 'no-cors' }).then(
          ({ status: code, type }) => `${type} ${code}`,
          () => 'failed',
        ),
      url,
    );
    t.true(stolen === 'failed' || stolen === 'opaque 0', stolen);
    await status(page, /^epoch/);
    await page.getByRole('button', { name: 'Stop and save' }).click();
    await status(page, /^interrupted/);
    t.deepEqual(faults, []);
  } finally {
    await chrome.close();
  }
  const ended = await training.ended;
  t.is(ended.code, 130, ended.stderr);
  t.true(existsSync(newest(join(folder, 'run'))));
  t.regex(readFileSync(join(folder, 'run', 'report.html'), 'utf8'), /interrupted/);
});

test('closing the browser changes nothing', async (t) => {
  const executablePath = chromiumPath(t);
  if (executablePath === undefined) return;
  const run = async (look: (training: Training) => Promise<void>): Promise<Buffer> => {
    const out = join(temporary(), 'run');
    await using training = await train({ ...TINY_CALL, out });
    await look(training);
    return tensorBytes(newest(out));
  };
  const alone = await run(async (training) => {
    await drain(training);
  });
  const watched = await run(async (training) => {
    await using live = await serveLive(training);
    const chrome = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
    const page = await chrome.newPage();
    await page.goto(live.url);
    let epochs = 0;
    for await (const event of training) {
      live.event(event);
      if (event.type !== 'epoch') continue;
      epochs += 1;
      if (epochs === 1) await chrome.close();
    }
  });
  t.deepEqual(watched, alone);
});
