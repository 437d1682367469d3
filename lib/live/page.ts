/** What the live page has besides the report: a bar with the state and three buttons, and the script that keeps it up to date. */
import { html, raw } from 'hono/html';

import type { Html } from '../report/page.js';

/** The bar. */
export function controls(canSave: boolean): Html {
  return html`<div class="live"><header>
<button id="pause" type="button">Pause</button><button id="save" type="button" title="Saves a checkpoint, and finds the nearest training images by it"${canSave ? '' : raw(' disabled')}>Snapshot now</button><button id="stop" type="button">Stop and save</button>
<span id="status" role="status">connecting</span>
<div class="progress"><i id="progress"></i></div>
</header></div>`;
}

/** The script; `nonce` is that of the page's policy. */
export function script(nonce: string): Html {
  return html`<script nonce="${nonce}">${raw(SCRIPT)}</script>`;
}

// Texts are put in by textContent; the view comes from the server, which has escaped it.
const SCRIPT = `
const $ = (id) => document.getElementById(id);
let paused = false, over = false;
function show({ paused: waits, text, progress, ended }) {
  paused = waits;
  over = ended;
  $('status').textContent = text;
  $('progress').style.width = 100 * progress + '%';
  $('pause').textContent = paused ? 'Go on' : 'Pause';
  for (const id of ['pause', 'stop']) $(id).disabled = over;
  if (over) $('save').disabled = true;
}
async function refresh() {
  const answer = await fetch('view').catch(() => undefined);
  if (answer === undefined || !answer.ok) return;
  const open = [...document.querySelectorAll('#view details')].map((element) => element.open);
  $('view').innerHTML = await answer.text();
  const now = document.querySelectorAll('#view details');
  if (now.length === open.length) now.forEach((element, index) => { element.open = open[index]; });
}
const events = new EventSource('events');
events.addEventListener('state', (event) => show(JSON.parse(event.data)));
events.addEventListener('view', () => refresh());
events.onerror = () => {
  if (over) events.close();
  else $('status').textContent = 'the training does not answer';
};
async function act(what) {
  const answer = await fetch(what, { method: 'POST' }).catch(() => undefined);
  if (answer === undefined || !answer.ok) $('status').textContent = 'refused';
}
$('pause').addEventListener('click', () => act(paused ? 'resume' : 'pause'));
$('save').addEventListener('click', () => act('save'));
$('stop').addEventListener('click', () => act('stop'));
`;
