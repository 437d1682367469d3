/** Who may talk to the live page: the browser on this machine that was given its URL, and no page of anybody else's. */
import { timingSafeEqual } from 'node:crypto';

/** What of a request decides. */
export interface Caller {
  method: string;
  /** Of the URL. */
  path: string;
  /** `undefined` where it is missing. */
  header(name: string): string | undefined;
}

/**
 * Whether a request is served. `Host` must name this server as a loopback address, which a page that has only rebound a DNS name to it does not; an `Origin` must be
 * the server's own, and there must be one where something is to be done; `Sec-Fetch-Site` must not tell of another site; the path must begin with the token.
 */
export function admitted({ method, path, header }: Caller, port: number, token: string): boolean {
  const hosts = [`127.0.0.1:${port}`, `localhost:${port}`];
  const host = header('host') ?? '';
  if (!hosts.includes(host)) return false;
  const origin = header('origin');
  if (origin === undefined ? method !== 'GET' && method !== 'HEAD' : origin !== `http://${host}`) return false;
  const site = header('sec-fetch-site');
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return false;
  return sameToken(path.split('/')[1] ?? '', token);
}

function sameToken(given: string, token: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(token)];
  return a.length === b.length && timingSafeEqual(a, b);
}
