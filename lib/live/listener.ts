/** A browser that listens: it gets the newest state as fast as it takes it, and nothing piles up behind a slow one. */
import type { SSEStreamingApi } from 'hono/streaming';

/** What a page is told: the state for its bar, and that there is a new view to fetch. */
export type Message = 'state' | 'view';

/** One open page. */
export class Listener {
  readonly #stream: SSEStreamingApi;
  readonly #state: () => string;
  readonly #wanted = new Set<Message>();
  #sending: Promise<void> | undefined;

  constructor(stream: SSEStreamingApi, state: () => string) {
    this.#stream = stream;
    this.#state = state;
  }

  /** Sends a message; twice the same one that has not gone out yet is one. */
  tell(message: Message): void {
    this.#wanted.add(message);
    this.#sending ??= this.#send();
  }

  async #send(): Promise<void> {
    for (const message of this.#wanted) {
      this.#wanted.delete(message);
      // A page that is gone is its own affair.
      await this.#stream
        .writeSSE({ event: message, data: message === 'state' ? this.#state() : '' })
        .catch(() => undefined);
    }
    this.#sending = undefined;
  }

  /** Ends the stream, after what was told is out: a browser that does not take it within a second has to do without. */
  async close(): Promise<void> {
    await Promise.race([this.#sending, new Promise((late) => setTimeout(late, 1000).unref())]);
    await this.#stream.close();
  }
}
