import { feedProtocol, tokenProtocolPrefix } from '../../../src/server/feed-protocol.ts';
import { applyMessage, type FeedMessage, type JobView } from '../../../src/server/messages.ts';
import { api, ApiError, getToken } from './api.ts';
import { firstLink, nextLink, retryDelay, type Link, type LinkEvent } from './link.ts';

/** What the page draws. A new object whenever something is to be drawn anew. */
export interface Shown {
  readonly view: JobView | null;
  readonly link: Link;
  /** This machine's clock when `view` came: ages are counted from here, not from the server's clock. */
  readonly receivedAt: number;
}

/** Numbers change once a second, so that they can be read; while writes are refused, at once. */
const drawEveryMs = 1000;

/** The page's connection: one WebSocket that comes back by itself. */
export class Feed {
  #shown: Shown;
  /** What has come, of which `#shown` may be up to a second behind. */
  #view: JobView | null = null;
  #receivedAt = 0;
  #link: Link;
  #socket: WebSocket | null = null;
  #retry: number | undefined;
  #draw: number | undefined;
  #drawnAt = 0;
  readonly #listeners = new Set<() => void>();

  constructor() {
    this.#link = firstLink(Date.now());
    this.#shown = { view: null, link: this.#link, receivedAt: 0 };
  }

  start(): void {
    this.#connect();
    window.setInterval(() => this.#onLink({ type: 'tick' }), 1000);
    // A laptop that wakes up, a phone that comes back: not after the next pause of the timer, but now.
    window.addEventListener('online', () => this.tryNow());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && !this.#link.open) this.tryNow();
    });
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly read = (): Shown => this.#shown;

  tryNow(): void {
    window.clearTimeout(this.#retry);
    this.#close();
    this.#connect();
  }

  #close(): void {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #connect(): void {
    this.#onLink({ type: 'trying' });
    const token = getToken();
    const protocols = [feedProtocol, ...(token === null ? [] : [tokenProtocolPrefix + base64url(token)])];
    const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/api/v1/ws`, protocols);
    this.#socket = socket;
    socket.addEventListener('open', () => this.#onLink({ type: 'opened' }));
    socket.addEventListener('message', (event: MessageEvent<string>) => {
      if (this.#socket === socket) this.#onMessage(event.data);
    });
    socket.addEventListener('close', () => {
      if (this.#socket === socket) void this.#onClose(token);
    });
  }

  #onMessage(text: string): void {
    const message = JSON.parse(text) as FeedMessage | { readonly type: 'beat' };
    if (message.type !== 'beat') {
      const next = applyMessage(this.#view, message);
      // It does not fit: a new connection begins with everything.
      if (!next) return this.tryNow();
      this.#view = next;
    }
    this.#receivedAt = Date.now();
    this.#onLink({ type: 'message' });
    this.#drawSoon();
  }

  async #onClose(token: string | null): Promise<void> {
    this.#socket = null;
    // A browser does not say why a WebSocket was refused; REST does.
    if (!this.#link.open) {
      const why = await api.status().catch((error: unknown) => error);
      if (why instanceof ApiError && why.status === 401) return this.#onLink({ type: 'refused', tokenGiven: token !== null });
    }
    const delay = retryDelay(this.#link.failures + 1);
    this.#onLink({ type: 'closed', retryAt: Date.now() + delay });
    window.clearTimeout(this.#retry);
    this.#retry = window.setTimeout(() => this.#connect(), delay);
  }

  #onLink(event: LinkEvent): void {
    const link = nextLink(this.#link, event, Date.now());
    if (link === this.#link) return;
    const redraw = link.state !== this.#link.state;
    this.#link = link;
    if (redraw) this.#drawNow();
  }

  #drawSoon(): void {
    const urgent = this.#view?.summary.phase === 'switching-over' || this.#shown.view === null || this.#view?.summary.phase !== this.#shown.view.summary.phase;
    if (urgent) return this.#drawNow();
    this.#draw ??= window.setTimeout(() => this.#drawNow(), Math.max(0, this.#drawnAt + drawEveryMs - Date.now()));
  }

  #drawNow(): void {
    window.clearTimeout(this.#draw);
    this.#draw = undefined;
    this.#drawnAt = Date.now();
    this.#shown = { view: this.#view, link: this.#link, receivedAt: this.#receivedAt };
    for (const listener of this.#listeners) listener();
  }
}

function base64url(text: string): string {
  const bytes = new TextEncoder().encode(text);
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}
