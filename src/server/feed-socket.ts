import type { SnapshotFeed } from './snapshot-feed.ts';

/** What is used of a WebSocket of the `ws` package. */
export interface FeedSocket {
  readonly bufferedAmount: number;
  send(text: string): void;
  ping(): void;
  close(code: number, reason: string): void;
  terminate(): void;
  on(event: 'close' | 'pong' | 'message' | 'error', listener: () => void): unknown;
}

interface Client { readonly socket: FeedSocket; seq: number; sentAt: number; heardAt: number; pingedAt: number }

/** A client that answers no ping for this long is gone. */
const silentMs = 45_000;
const pingEveryMs = 15_000;
/** Each client costs a socket and up to one snapshot in its buffer. */
const mostClients = 100;
/** Clients count as stale what they hear nothing of for five seconds; a job that stands still is told to be still. */
const beatEveryMs = 2000;
const closeGraceMs = 1000;

/**
 * Sends the feed to WebSocket clients. A client whose socket has not taken the last message yet gets nothing until it has, and then the one
 * message that brings it from what it has to the newest state: nothing is queued for anybody.
 */
export class FeedSockets {
  readonly #feed: SnapshotFeed;
  readonly #clients = new Set<Client>();
  readonly #now: () => number;

  constructor(feed: SnapshotFeed, now: () => number = Date.now) {
    this.#feed = feed;
    this.#now = now;
  }

  get size(): number {
    return this.#clients.size;
  }

  add(socket: FeedSocket): void {
    socket.on('error', () => socket.terminate());
    if (this.#clients.size >= mostClients) {
      socket.close(1013, 'too many clients');
      return;
    }
    const client: Client = { socket, seq: 0, sentAt: 0, heardAt: this.#now(), pingedAt: this.#now() };
    this.#clients.add(client);
    socket.on('close', () => this.#clients.delete(client));
    socket.on('pong', () => {
      client.heardAt = this.#now();
    });
    // There is nothing to tell us here; whoever floods is sent away at the first message.
    socket.on('message', () => socket.close(1008, 'this socket only sends'));
    if (this.#feed.seq === 0) this.#feed.refresh();
    this.#sendTo(client);
  }

  /** Sends what is new to whoever is ready for it. */
  push(): void {
    for (const client of this.#clients) this.#sendTo(client);
  }

  /** Before the end: everybody gets the newest state, whether the last message was taken or not. */
  pushLast(): void {
    for (const client of this.#clients) this.#sendTo(client, true);
  }

  /** Looks for clients that are gone without a word. Call every few seconds. */
  checkLiveness(): void {
    const now = this.#now();
    for (const client of this.#clients) {
      if (now - client.heardAt > silentMs) client.socket.terminate();
      else if (now - client.pingedAt >= pingEveryMs) {
        client.pingedAt = now;
        client.socket.ping();
      }
    }
  }

  closeAll(): void {
    for (const { socket } of this.#clients) {
      socket.close(1001, 'the server ends');
      // A client that is gone answers no closing handshake.
      setTimeout(() => socket.terminate(), closeGraceMs).unref();
    }
  }

  #sendTo(client: Client, always = false): void {
    if (client.socket.bufferedAmount > 0 && !always) return;
    const text = this.#feed.since(client.seq) ?? (this.#now() - client.sentAt >= beatEveryMs ? '{"type":"beat"}' : null);
    if (text === null) return;
    client.seq = this.#feed.seq;
    client.sentAt = this.#now();
    client.socket.send(text);
  }
}
