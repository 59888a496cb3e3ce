import type { NatsConnection } from '@nats-io/transport-node';
import { Backoff, sleep } from '../../core/abort.ts';
import { errorMessage, isInterrupted, PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { failpointSync } from '../../core/failpoints.ts';
import { formatBytes } from '../../core/units.ts';
import { formatLsn, maxLsn, type Lsn } from '../../pg/lsn.ts';
import { Receiver, type ReceiverOptions, type ReceiverSink } from '../receiver.ts';
import { SlotWatch } from '../slot-watch.ts';
import { connectNats, type NatsSpec } from './connection.ts';
import { encodeHeaders, logName } from './log-message.ts';
import { MessageBuilder, type BuiltMessage } from './message-builder.ts';
import { answerMs, StreamStore } from './stream-store.ts';

/** Messages, and bytes of them, that are sent ahead of JetStream's answers. */
const aheadMessages = 64;
const aheadBytes = 16 * 1024 * 1024;
/** Received bytes that are not stored yet; beyond, the source waits. */
const pendingAtMost = 32 * 1024 * 1024;

export interface PublisherOptions extends Omit<ReceiverOptions, 'acknowledgedLsn' | 'binary' | 'streaming' | 'twoPhase'> {
  readonly nats: NatsSpec;
  readonly systemId: string;
  /** The slot's confirmed position now. */
  readonly slotLsn: Lsn;
  /** On an idle source a position is written and acknowledged this often. Default 2 s. */
  readonly positionEveryMs?: number;
  /** How often the slot is looked at; 0 never. Default 2 s. */
  readonly healthEveryMs?: number;
}

export interface PublisherPosition {
  /** Everything that the source wrote before it is stored in the stream. */
  readonly publishedLsn: Lsn;
  readonly sourceLsn: Lsn;
  readonly sourceConnected: boolean;
  readonly natsConnected: boolean;
  /** Received and not stored yet. */
  readonly waitingBytes: number;
}

interface Outgoing {
  readonly message: BuiltMessage;
  readonly seq: number;
  state: 'waiting' | 'sent' | 'stored';
}

/**
 * Receives a slot once and writes its committed transactions to a stream on NATS JetStream; the slot is acknowledged as far as JetStream has acknowledged that it
 * stored them. Each message names the number of the one before it (Nats-Expected-Last-Sequence), so that none can be missing, twice or out of order; after any
 * trouble the stream's own last message tells where to go on.
 */
export class ChangePublisher implements ReceiverSink, AsyncDisposable {
  readonly #options: PublisherOptions;
  readonly #connection: NatsConnection;
  readonly #store: StreamStore;
  readonly #builder: MessageBuilder;
  readonly #emit: Emit;
  readonly #stop = new AbortController();
  readonly #positions: NodeJS.Timeout;
  #receiver: Receiver | undefined;
  #watch: SlotWatch | undefined;
  #outbox: Outgoing[] = [];
  #outboxBytes = 0;
  #sent = 0;
  #sentBytes = 0;
  #nextSeq: number;
  #publishedLsn: Lsn;
  #lastEmitAt = performance.now();
  #recovering: Promise<void> | undefined;
  #settled: (() => void) | undefined;
  #flushing = false;
  #wasFull = false;
  #failure: unknown;
  #end!: (error: unknown) => void;
  #closing: Promise<void> | undefined;

  /** Resolves with the error once it can never go on. */
  readonly ended: Promise<unknown>;

  private constructor(options: PublisherOptions, parts: { connection: NatsConnection; store: StreamStore; last: Lsn; to: Lsn; lastSeq: number }) {
    this.#options = options;
    this.#connection = parts.connection;
    this.#store = parts.store;
    this.#emit = options.emit;
    this.#nextSeq = parts.lastSeq + 1;
    this.#publishedLsn = parts.to;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    const run = `${process.pid.toString(36)}${Date.now().toString(36)}`;
    this.#builder = new MessageBuilder({ log: logName(options.systemId, options.source.database, options.slot), last: parts.last, to: parts.to, messageBytes: parts.store.messageBytes, run, emit: (message) => this.#add(message) });
    this.#positions = setInterval(() => this.#position(), options.positionEveryMs ?? 2000);
  }

  /**
   * Goes on behind the stream's last message. Throws what stands against it: no NATS server, no JetStream, somebody else's stream, another source's log, and what
   * the receiver throws of the slot.
   */
  static async open(options: PublisherOptions): Promise<ChangePublisher> {
    const connection = await connectNats(options.nats, 'publisher');
    try {
      const store = await StreamStore.open(connection, options.nats);
      const { lastSeq } = await store.ensure();
      const last = lastSeq === 0 ? undefined : await store.message(lastSeq);
      const log = logName(options.systemId, options.source.database, options.slot);
      if (last && last.log !== log) {
        throw new PgweaveError('log-of-another-source', `the stream ${store.stream} holds the changes of another source (${last.log}, ours is ${log})`, {
          retry: 'never', hint: 'Give each source a stream of its own with log.nats.stream. If the source was replaced for good, remove the stream (nats stream rm) and let the targets be copied anew.',
        });
      }
      const fresh = !last || options.slotLsn > last.to;
      if (last && fresh) {
        options.emit({
          type: 'warning', code: 'log-gap', message: `the stream ${store.stream} ends at ${formatLsn(last.to)}, the slot ${options.slot} begins at ${formatLsn(options.slotLsn)}: what lies between is lost`,
          hint: 'Targets that had not reached the second position will say so, and must be copied anew.',
        });
      }
      const publisher = new ChangePublisher(options, { connection, store, lastSeq, last: fresh ? options.slotLsn : last.last, to: fresh ? options.slotLsn : last.to });
      try {
        if (fresh) publisher.#start(log);
        await publisher.#receive();
        return publisher;
      } catch (error) {
        await publisher.close();
        throw error;
      }
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  get failure(): unknown {
    return this.#failure;
  }

  position(): PublisherPosition {
    return {
      publishedLsn: this.#publishedLsn, sourceLsn: maxLsn(maxLsn(this.#builder.to, this.#receiver?.serverLsn ?? this.#publishedLsn), this.#watch?.sourceLsn ?? this.#publishedLsn), sourceConnected: this.#receiver?.connected ?? false,
      natsConnected: this.#recovering === undefined && !this.#connection.isClosed(), waitingBytes: this.#pendingBytes,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#positions);
    // What was received in whole is stored and acknowledged, where NATS answers soon.
    this.#builder.flush();
    this.#send();
    const deadline = performance.now() + answerMs;
    while (this.#outbox.length > 0 && this.#failure === undefined && performance.now() < deadline) await sleep(20);
    await Promise.all([this.#receiver?.close(), this.#watch?.stop()]);
    this.#stop.abort();
    await this.#connection.close();
    await this.#recovering;
    this.#end(undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // The receiver's side.

  accept(bytes: Buffer, start: number, end: number): void {
    if (this.#failure !== undefined) throw this.#failure as Error;
    this.#builder.frames(bytes, start, end);
    this.#flushSoon();
  }

  get full(): boolean {
    const full = this.#pendingBytes > pendingAtMost;
    this.#wasFull ||= full;
    return full;
  }

  get receivedLsn(): Lsn {
    return this.#builder.to;
  }

  get durableLsn(): Lsn {
    return this.#publishedLsn;
  }

  get startLsn(): Lsn {
    return this.#builder.to;
  }

  connected(): void {
    this.#builder.connection();
  }

  disconnected(): void {
    this.#builder.connection();
  }

  failedOver(switchLsn: Lsn): void {
    if (this.#builder.to <= switchLsn) return;
    throw new PgweaveError('log-ahead-of-source', `the stream ${this.#store.stream} holds changes up to ${formatLsn(this.#builder.to)}, which the new primary, taking over at ${formatLsn(switchLsn)}, never had`, {
      retry: 'never', hint: 'The failover lost transactions that were already given to the targets. Remove the stream (nats stream rm) and the slot, and let the targets be copied anew.',
    });
  }

  fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#end(error);
  }

  // The stream's side.

  get #pendingBytes(): number {
    return this.#outboxBytes + this.#builder.pendingBytes;
  }

  /** The first message of a log, or the first behind a gap. */
  #start(log: string): void {
    const at = this.#publishedLsn;
    this.#add({ kind: 'start', log, after: at, last: at, to: at, part: 0, more: false, data: Buffer.alloc(0), id: `start ${formatLsn(at)} ${Date.now().toString(36)}` });
  }

  async #receive(): Promise<void> {
    const { nats: _nats, slotLsn: _slotLsn, positionEveryMs: _position, healthEveryMs = 2000, ...receiver } = this.#options;
    this.#receiver = new Receiver({ ...receiver, binary: false, acknowledgedLsn: this.#publishedLsn }, this);
    await this.#receiver.start();
    if (healthEveryMs === 0) return;
    const { source, slot, job } = this.#options;
    this.#watch = new SlotWatch({ source, slot, everyMs: healthEveryMs, emit: this.#emit, onLost: (error) => this.fail(error), onTrouble: () => this.#receiver?.letGo(), onStopping: () => this.#receiver?.restart(), ...(job === undefined ? {} : { job }) });
  }

  /** What arrives in one turn of the event loop goes out together. */
  #flushSoon(): void {
    if (this.#flushing || !this.#builder.waiting) return;
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      // While answers are outstanding, what comes gathers into larger messages.
      if (this.#sent < aheadMessages / 2) this.#builder.flush();
    });
  }

  #position(): void {
    const { maxAgeMs } = this.#options.nats;
    // The server tells of WAL that is none of ours only when it is asked.
    this.#receiver?.ask();
    if (this.#builder.waiting || this.#builder.open || this.#outbox.length > 0 || this.#failure !== undefined) return;
    // Repeated now and then, so that the stream of an idle source does not run empty by age.
    if (this.#builder.to > this.#publishedLsn || performance.now() - this.#lastEmitAt > Math.min(3_600_000, maxAgeMs / 4)) this.#builder.position();
  }

  #add(message: BuiltMessage): void {
    this.#lastEmitAt = performance.now();
    this.#outbox.push({ message, seq: this.#nextSeq, state: 'waiting' });
    this.#outboxBytes += message.data.length;
    this.#nextSeq += 1;
    this.#send();
  }

  #send(): void {
    if (this.#recovering || this.#failure !== undefined) return;
    for (let at = this.#sent; at < this.#outbox.length && this.#sent < aheadMessages && this.#sentBytes < aheadBytes; at += 1) {
      const out = this.#outbox[at]!;
      out.state = 'sent';
      this.#sent += 1;
      this.#sentBytes += out.message.data.length;
      void this.#publish(out);
    }
  }

  async #publish(out: Outgoing): Promise<void> {
    try {
      failpointSync('nats.before-publish');
      const ack = await this.#store.client.publish(this.#store.subject, out.message.data, {
        msgID: out.message.id, headers: encodeHeaders(out.message), expect: { streamName: this.#store.stream, lastSequence: out.seq - 1 }, timeout: answerMs,
      });
      failpointSync('nats.before-ack');
      if (ack.seq !== out.seq) throw new PgweaveError('log-out-of-step', `message ${out.seq} was stored as ${ack.seq}`);
      out.state = 'stored';
      this.#takeStored();
    } catch (error) {
      out.state = 'waiting';
      if (!this.#stop.signal.aborted) this.#recovering ??= this.#recover(error);
    }
    this.#settled?.();
  }

  /** What is stored without a gap may be acknowledged. */
  #takeStored(): void {
    let count = 0;
    while (this.#outbox[count]?.state === 'stored') {
      const { message } = this.#outbox[count]!;
      this.#publishedLsn = maxLsn(this.#publishedLsn, message.to);
      this.#outboxBytes -= message.data.length;
      this.#sentBytes -= message.data.length;
      count += 1;
    }
    if (count === 0) return;
    this.#outbox.splice(0, count);
    this.#sent -= count;
    if (this.#sent < aheadMessages / 2) this.#builder.flush();
    this.#send();
    if (this.#wasFull && !this.full) {
      this.#wasFull = false;
      this.#receiver?.room();
    }
  }

  /** Asks the stream how far it is, and sends what it has not. */
  async #recover(reason: unknown): Promise<void> {
    const { signal } = this.#stop;
    const backoff = new Backoff({ firstMs: 100, maxMs: 5000 });
    const began = performance.now();
    let told = false;
    try {
      while (this.#outbox.some((o) => o.state === 'sent')) {
        await new Promise<void>((resolve) => {
          this.#settled = resolve;
        });
      }
      for (let cause = reason; ; ) {
        if (!told && performance.now() - began > answerMs) {
          told = true;
          this.#emit({ type: 'warning', code: 'nats-silent', message: `NATS stores nothing: ${errorMessage(cause)}; ${formatBytes(this.#pendingBytes)} wait here, and the source keeps its WAL meanwhile` });
        }
        try {
          await this.#askAndTake();
          break;
        } catch (error) {
          if (signal.aborted) return;
          // A stream that is gone is made again by whoever opens the next publisher.
          if (error instanceof PgweaveError && (error.retry !== 'backoff' || error.code === 'log-missing')) throw error;
          cause = error;
        }
        await sleep(backoff.next(), signal);
      }
      if (told) this.#emit({ type: 'log', level: 'info', message: 'NATS stores messages again' });
    } catch (error) {
      if (!isInterrupted(error)) this.fail(error);
    } finally {
      this.#settled = undefined;
      this.#recovering = undefined;
    }
    this.#takeStored();
    this.#send();
  }

  async #askAndTake(): Promise<void> {
    const { lastSeq } = await this.#store.state();
    const first = this.#outbox[0];
    if (!first) return;
    if (lastSeq < first.seq - 1) {
      throw new PgweaveError('log-cut', `the stream ${this.#store.stream} ends at message ${lastSeq}; ${first.seq - 1} was acknowledged: NATS has lost messages`, { hint: 'Its disk was restored or lost. Targets that had read them go on; others will say that they must be copied anew.' });
    }
    const last = lastSeq < first.seq ? undefined : this.#outbox[lastSeq - first.seq];
    if (lastSeq >= first.seq && (!last || (await this.#store.message(lastSeq))?.id !== last.message.id)) {
      throw new PgweaveError('log-shared', `somebody else writes to the stream ${this.#store.stream}`, { hint: 'One publisher alone may. What was not acknowledged comes again from the source.' });
    }
    this.#sent = 0;
    this.#sentBytes = 0;
    for (const out of this.#outbox) {
      out.state = out.seq <= lastSeq ? 'stored' : 'waiting';
      if (out.state !== 'stored') continue;
      this.#sent += 1;
      this.#sentBytes += out.message.data.length;
    }
  }
}
