import type { Consumer, ConsumerMessages, JsMsg } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { Backoff, sleep } from '../../core/abort.ts';
import { errorMessage, PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { formatLsn, maxLsn, type Lsn } from '../../pg/lsn.ts';
import type { Batch, ChangeLog, ChangeLogPosition, ReadOptions } from '../change-log.ts';
import { FrameBuffer } from '../frame-buffer.ts';
import { frameKind, keepaliveLength, payloadKind, payloadOffset } from '../frames.ts';
import { LogCore } from '../log-core.ts';
import { coreOptions, closeOnAbort } from '../receive.ts';
import { connectNats, type NatsSpec } from './connection.ts';
import { decodeHeaders, type LogMessage } from './log-message.ts';
import { answerMs, StreamStore, type StoredMessage } from './stream-store.ts';

/** One request for messages lasts so long; a consumer that is gone is noticed within the same time. */
const fetchMs = 3000;
/**
 * One request asks for so many: 8 MB where they are large. Not for a number of bytes: NATS ends such a request with an error where the next message does not fit
 * into the rest. Source: nats-server 2.9, "Message Size Exceeds MaxBytes" in consumer.go.
 */
const fetchMessages = 16;

export interface NatsLogOptions {
  readonly nats: NatsSpec;
  /** What the messages must say of their source (logName). */
  readonly log: string;
  /** Everything up to here is on the target. Undefined: begin at the stream's end. */
  readonly startLsn: Lsn | undefined;
  readonly emit?: Emit;
  readonly signal?: AbortSignal | undefined;
  readonly memoryBytes?: number;
  readonly largeBytes?: number;
}

/** A reading that must begin anew at the place that the position gives. */
class OutOfStep extends Error {}

/**
 * The log on NATS JetStream as one target reads it: from the message that follows the target's own position, found by it, through a consumer that NATS forgets when
 * nobody asks. Nothing is acknowledged to NATS: the stream keeps messages by size and age, whoever read them. A reader that needs what the stream has no more
 * fails with `resync-needed`; it never skips anything.
 */
export class NatsLog implements ChangeLog {
  readonly #connection: NatsConnection;
  readonly #store: StreamStore;
  readonly #options: NatsLogOptions;
  readonly #core: LogCore;
  readonly #emit: Emit;
  readonly #stop = new AbortController();
  #fetching: ConsumerMessages | undefined;
  #frames = new FrameBuffer();
  /** The part of a group that must come next; 0 between groups. */
  #nextPart = 0;
  /** Everything before it was read, or is on the target. */
  #have: Lsn;
  /** Where to go on after trouble on the way; undefined: find the place anew. */
  #resumeAt: number | undefined;
  /** Raised when the reader goes back. */
  #generation = 0;
  #connected = false;
  #onRoom: (() => void) | undefined;
  #running: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  private constructor(connection: NatsConnection, store: StreamStore, options: NatsLogOptions, startLsn: Lsn) {
    this.#connection = connection;
    this.#store = store;
    this.#options = options;
    this.#emit = options.emit ?? (() => undefined);
    this.#have = startLsn;
    const sizes = { startLsn, ...(options.memoryBytes === undefined ? {} : { memoryBytes: options.memoryBytes }), ...(options.largeBytes === undefined ? {} : { largeBytes: options.largeBytes }) };
    this.#core = new LogCore({ ...coreOptions(sizes), onRoom: () => this.#onRoom?.(), ask: () => undefined });
  }

  /** Throws what stands against it: no NATS, no such stream, another source's log, and `resync-needed`. */
  static async open(options: NatsLogOptions): Promise<NatsLog> {
    const connection = await connectNats(options.nats, 'reader');
    try {
      const store = await StreamStore.open(connection, options.nats);
      const { lastSeq } = await store.state();
      const last = lastSeq === 0 ? undefined : await store.message(lastSeq);
      if (last) checkLog(last, store.stream, options.log);
      if (!last && options.startLsn === undefined) {
        throw new PgweaveError('log-empty', `the stream ${store.stream} on NATS holds nothing`, { retry: 'backoff', hint: 'The publisher writes its first message as soon as it reads the source: start pgweave fanout publish.' });
      }
      const log = new NatsLog(connection, store, options, options.startLsn ?? last!.to);
      // Told at once rather than at the first read.
      await log.#seek();
      log.#running = log.#run();
      closeOnAbort(log, options.signal);
      return log;
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  read(options: ReadOptions): Promise<Batch> {
    return this.#core.read(options);
  }

  confirm(endLsn: Lsn): void {
    this.#core.confirm(endLsn);
  }

  rewind(): Promise<void> {
    if (this.#core.failure !== undefined) return Promise.reject(this.#core.failure as Error);
    this.#core.rewind();
    this.#have = this.#core.confirmedEnd;
    this.#resumeAt = undefined;
    this.#generation += 1;
    this.#nextPart = 0;
    this.#fetching?.stop();
    this.#onRoom?.();
    return Promise.resolve();
  }

  position(): ChangeLogPosition {
    const { receivedLsn, confirmedLsn, waitingBytes, waitingTransactions } = this.#core;
    return { receivedLsn, confirmedLsn, sourceLsn: receivedLsn, connected: this.#connected, waitingBytes, waitingTransactions };
  }

  waitUntilConfirmed(lsn: Lsn, signal?: AbortSignal): Promise<void> {
    return this.#core.waitUntilConfirmed(lsn, signal);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#stop.abort();
    this.#fetching?.stop();
    this.#onRoom?.();
    await this.#running;
    await this.#connection.close();
    this.#core.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const backoff = new Backoff({ firstMs: 100, maxMs: 5000 });
    let told = false;
    let troubleSince: number | undefined;
    while (!signal.aborted) {
      try {
        const generation = this.#generation;
        const trusted = this.#resumeAt === undefined;
        const seq = this.#resumeAt ?? (await this.#seek());
        if (generation !== this.#generation) continue;
        await this.#readFrom(seq, generation, trusted, () => {
          backoff.reset();
          troubleSince = undefined;
          if (told) this.#emit({ type: 'log', level: 'info', message: 'the stream on NATS can be read again' });
          told = false;
        });
      } catch (error) {
        this.#connected = false;
        if (signal.aborted) return;
        if (error instanceof PgweaveError && error.retry !== 'backoff') {
          this.#core.fail(error);
          return;
        }
        this.#emit({ type: 'log', level: 'debug', message: `reading the stream ${this.#store.stream} on NATS was broken off: ${errorMessage(error)}` });
        troubleSince ??= performance.now();
        if (!told && performance.now() - troubleSince > answerMs) {
          told = true;
          this.#emit({ type: 'warning', code: 'nats-silent', message: `the stream ${this.#store.stream} on NATS cannot be read: ${errorMessage(error)}; tried again until it can` });
        }
        await sleep(backoff.next(), signal).catch(() => undefined);
      }
    }
  }

  /** Reads on from a number until something is wrong (throws) or the reader went back. `trusted`: the place was just found by the position, so that a gap is one. */
  async #readFrom(seq: number, generation: number, trusted: boolean, well: () => void): Promise<void> {
    const { signal } = this.#stop;
    const current = () => generation === this.#generation && !signal.aborted;
    if (trusted && this.#nextPart > 0) this.#breakOff();
    const consumer: Consumer = await this.#store.readFrom(seq);
    let expected = seq;
    let silent = 0;
    try {
      while (current()) {
        await this.#room(current);
        if (!current()) return;
        this.#fetching = await consumer.fetch({ max_messages: fetchMessages, expires: fetchMs });
        this.#connected = true;
        let came = false;
        for await (const message of this.#fetching) {
          if (!current()) return;
          if (message.seq !== expected) throw this.#lost(`message ${expected} was awaited, ${message.seq} came`);
          this.#take(message, trusted);
          came = true;
          expected += 1;
          this.#resumeAt = expected;
          well();
          await this.#room(current);
        }
        silent = came ? 0 : silent + 1;
        if (came || !current()) continue;
        // A stream that lost its end would give its next messages numbers that were read already.
        const { firstSeq, lastSeq } = await this.#store.state();
        if (lastSeq < expected - 1 || firstSeq > expected || (lastSeq >= expected && silent > 1)) throw this.#lost(`the stream holds messages ${firstSeq} to ${lastSeq}, ${expected} is next`);
        well();
      }
    } finally {
      this.#fetching = undefined;
      await this.#store.forget(consumer);
    }
  }

  /** The place must be found anew. */
  #lost(why: string): OutOfStep {
    this.#resumeAt = undefined;
    return new OutOfStep(why);
  }

  /** What is incomplete comes again from its beginning. */
  #breakOff(): void {
    this.#nextPart = 0;
    this.#core.reset();
  }

  async #room(current: () => boolean): Promise<void> {
    while (this.#core.full && current()) {
      await new Promise<void>((resolve) => {
        this.#onRoom = resolve;
      });
    }
    this.#onRoom = undefined;
  }

  #take(message: JsMsg, trusted: boolean): void {
    const facts = decodeHeaders(message.headers);
    if (!facts) throw new PgweaveError('log-foreign-message', `message ${message.seq} of the stream ${this.#store.stream} was not written by pgweave`, { retry: 'never', hint: 'Nobody else may publish to its subject. Take the right away, remove the stream, and let the targets be copied anew.' });
    checkLog(facts, this.#store.stream, this.#options.log);
    if (facts.after > this.#have) {
      if (!trusted) throw this.#lost('a message does not follow what was read');
      throw resyncNeeded(this.#store.stream, this.#have, facts.after);
    }
    if (facts.part !== this.#nextPart) {
      // The publisher was broken off and began the group again.
      if (facts.part !== 0) throw this.#lost(`part ${this.#nextPart} was awaited, ${facts.part} came`);
      this.#breakOff();
    }
    if (facts.kind === 'changes') {
      if (facts.part === 0) this.#frames = new FrameBuffer();
      this.#accept(message.data);
      this.#nextPart = facts.more ? facts.part + 1 : 0;
      if (facts.more) return;
    }
    this.#have = maxLsn(this.#have, facts.to);
    const keepalive = keepaliveAt(facts.to);
    this.#core.accept(keepalive, 0, keepalive.length);
  }

  #accept(data: Uint8Array): void {
    this.#frames.append(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    let run: { readonly bytes: Buffer; readonly start: number; end: number } | undefined;
    this.#frames.takeFrames((bytes, start, end) => {
      if (run) run.end = end;
      else run = { bytes, start, end };
    });
    if (run) this.#core.accept(run.bytes, run.start, run.end);
  }

  /**
   * The number of the message that begins with what the target lacks first: the first whose transactions end behind its position, found by halving. Throws
   * `resync-needed` where the stream has it no more.
   */
  async #seek(): Promise<number> {
    const from = this.#core.lastEnd;
    // Positions that were read count too: behind a gap nothing else tells that nothing is missing.
    this.#have = maxLsn(from, this.#core.receivedLsn);
    const { firstSeq, lastSeq } = await this.#store.state();
    if (lastSeq < firstSeq) return lastSeq + 1;
    let low = firstSeq;
    let high = lastSeq + 1;
    let before: StoredMessage | undefined;
    let found: StoredMessage | undefined;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const message = await this.#store.message(middle);
      // Removed since we asked, as the oldest are.
      if (!message || message.last <= from) {
        low = middle + 1;
        if (message) before = message;
      } else {
        high = middle;
        found = message;
      }
    }
    // Whatever came before it, up to here nothing was for this reader.
    if (before?.seq === low - 1) this.#have = maxLsn(this.#have, before.to);
    if (!found) return low;
    checkLog(found, this.#store.stream, this.#options.log);
    const begin = found.seq - found.part;
    if (found.after > this.#have || begin < firstSeq) throw resyncNeeded(this.#store.stream, from, found.after);
    return begin;
  }
}

function checkLog(message: LogMessage, stream: string, log: string): void {
  if (message.log === log) return;
  throw new PgweaveError('log-of-another-source', `the stream ${stream} holds the changes of another source or publication (${message.log}, ours is ${log})`, { retry: 'never', hint: 'Publisher and targets must use the same source, publication_name and log.nats.stream.' });
}

function resyncNeeded(stream: string, have: Lsn, begins: Lsn): PgweaveError {
  return new PgweaveError('resync-needed', `the stream ${stream} on NATS no longer has what the target lacks: the target stands at ${formatLsn(have)}, what is there begins at ${formatLsn(begins)}`, {
    retry: 'manual', hint: 'Its rows must be copied anew: with when_wal_budget_is_spent: drop-and-resync the service does so by itself. Raise max_bytes and max_age of log.nats so that the stream outlasts a target\'s absence.',
  });
}

/** A frame that tells a position, as a server sends it. */
function keepaliveAt(lsn: Lsn): Buffer {
  const frame = Buffer.alloc(keepaliveLength);
  frame[0] = frameKind.copyData;
  frame.writeInt32BE(keepaliveLength - 1, 1);
  frame[payloadOffset] = payloadKind.keepalive;
  frame.writeBigUInt64BE(lsn, payloadOffset + 1);
  return frame;
}
