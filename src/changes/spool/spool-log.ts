import { rmSync } from 'node:fs';
import { PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { formatBytes } from '../../core/units.ts';
import { formatLsn, maxLsn, type Lsn } from '../../pg/lsn.ts';
import type { Batch, ChangeLog, ChangeLogPosition, ReadOptions } from '../change-log.ts';
import type { LogCore } from '../log-core.ts';
import type { Receiver, ReceiverSink } from '../receiver.ts';
import type { SlotWatch } from '../slot-watch.ts';
import { segmentPath, type Recovered } from './segments.ts';
import type { SpoolFolder } from './spool-folder.ts';
import { SpoolReader } from './spool-reader.ts';
import { SpoolWriter, type SpoolPosition } from './spool-writer.ts';

/** Received bytes that are not on disk yet take at most this much memory. */
const pendingAtMost = 32 * 1024 * 1024;
/** Receiving goes on when a full spool has shrunk to this share of its limit. */
const goOnBelow = 0.75;

export interface SpoolLogOptions {
  readonly folder: SpoolFolder;
  readonly recovered: Recovered;
  readonly core: LogCore;
  readonly startLsn: Lsn;
  readonly segmentBytes: number;
  readonly maxBytes: number;
  /** stop: the log fails with `spool-full`. wait: nothing is received until the reader has made room; the source keeps the WAL meanwhile. */
  readonly whenFull: 'stop' | 'wait';
  /** On an idle source a keepalive's position is written and acknowledged this often. */
  readonly keepaliveEveryMs: number;
  readonly emit: Emit;
}

/**
 * The log on disk: what is received goes to segment files and is acknowledged once it is synced there, so that the source can recycle its WAL however far the
 * reader is behind. A reader that keeps up gets everything from memory at the same time; one that does not is served from the files. Segments are removed once
 * all that began in them is confirmed.
 */
export class SpoolLog implements ChangeLog, ReceiverSink {
  readonly #options: SpoolLogOptions;
  readonly #core: LogCore;
  readonly #writer: SpoolWriter;
  #reader: SpoolReader;
  #receiver!: Receiver;
  #watch: SlotWatch | undefined;
  /** A step of the reader is under way: what arrives meanwhile is read from disk. */
  #stepping = false;
  #pumping: Promise<void> = Promise.resolve();
  #wake: (() => void) | undefined;
  #closed = false;
  #closing: Promise<void> | undefined;
  #wasFull = false;
  #overLimit = false;
  #keepaliveAt = Number.NEGATIVE_INFINITY;
  /** Raised when the reader goes back: a step that was under way is void. */
  #generation = 0;

  constructor(options: SpoolLogOptions) {
    this.#options = options;
    this.#core = options.core;
    this.#writer = new SpoolWriter({
      folder: options.folder.path, segmentBytes: options.segmentBytes, recovered: options.recovered, startLsn: options.startLsn,
      onWritten: () => {
        this.#wakeUp();
        this.#room();
      },
      onSynced: () => this.#room(),
      onError: (error) => this.fail(error),
    });
    this.#reader = this.#readerFrom(options.recovered.segments[0]?.number ?? this.#writer.end.segment);
    // A spool that was full when the last process stopped is drained first.
    this.#overLimit = this.#writer.totalBytes >= options.maxBytes * goOnBelow;
  }

  /** Begins to receive; throws what stands against it. A spool that is full begins once it is drained. */
  async start(receiver: Receiver, watch: () => SlotWatch | undefined): Promise<void> {
    this.#receiver = receiver;
    this.#pumping = this.#pump();
    if (this.full) {
      this.#options.emit({ type: 'warning', code: 'spool-full', message: `the spool holds ${formatBytes(this.#writer.totalBytes)} of ${formatBytes(this.#options.maxBytes)}: nothing is received until it is drained` });
      void this.#startReceiver(watch).catch((error: unknown) => this.fail(error));
    } else await this.#startReceiver(watch);
  }

  async #startReceiver(watch: () => SlotWatch | undefined): Promise<void> {
    await this.#receiver.start();
    if (this.#receiver.systemId !== undefined) this.#options.folder.setSystemId(this.#receiver.systemId);
    if (!this.#closed) this.#watch = watch();
  }

  get receiver(): Receiver {
    return this.#receiver;
  }

  /** For tests: whether the reader gets what arrives from memory. */
  get caughtUp(): boolean {
    return !this.#stepping && same(this.#reader.position, this.#writer.end);
  }

  // The reader's side.

  read(options: ReadOptions): Promise<Batch> {
    return this.#core.read(options);
  }

  confirm(endLsn: Lsn): void {
    this.#core.confirm(endLsn);
    this.#prune();
  }

  rewind(): Promise<void> {
    if (this.#core.failure !== undefined) return Promise.reject(this.#core.failure as Error);
    const needed = this.#core.neededEpoch;
    const from = this.#writer.segments.find((n) => n >= needed) ?? this.#writer.end.segment;
    this.#core.rewind();
    // At once: from now on what is needed begins there.
    this.#core.enter(from);
    this.#generation += 1;
    this.#reader.close();
    this.#reader = this.#readerFrom(from);
    this.#wakeUp();
    return Promise.resolve();
  }

  position(): ChangeLogPosition {
    // Keepalives are not all written, but they count while the reader keeps up.
    const received = this.caughtUp ? maxLsn(this.#writer.appendedLsn, this.#core.receivedLsn) : this.#writer.appendedLsn;
    const confirmed = this.caughtUp && !this.#core.inFlight ? maxLsn(this.#core.confirmedLsn, received) : this.#core.confirmedLsn;
    return {
      receivedLsn: received, confirmedLsn: confirmed, sourceLsn: maxLsn(maxLsn(received, this.#receiver.serverLsn), this.#watch?.sourceLsn ?? received), connected: this.#receiver.connected,
      waitingBytes: this.#core.waitingBytes, waitingTransactions: this.#core.waitingTransactions, spoolBytes: this.#writer.totalBytes,
    };
  }

  waitUntilConfirmed(lsn: Lsn, signal?: AbortSignal): Promise<void> {
    return this.#core.waitUntilConfirmed(lsn, signal);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#receiver.close();
    this.#closed = true;
    await Promise.all([this.#watch?.stop(), this.#writer.close()]);
    this.#wakeUp();
    await this.#pumping;
    this.#reader.close();
    // Drained to the last byte: nothing needs to be read again.
    this.#drained = this.caughtUp && !this.#core.inFlight && !this.#core.open && this.#core.failure === undefined;
    if (this.#drained) for (const number of this.#writer.segments) rmSync(segmentPath(this.#options.folder.path, number), { force: true });
    this.#core.close();
    this.#options.folder.close();
  }

  #drained = false;

  get drained(): boolean {
    return this.#drained;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // The receiver's side.

  accept(bytes: Buffer, start: number, end: number): void {
    if (this.#core.failure !== undefined) throw this.#core.failure as Error;
    const caughtUp = this.caughtUp;
    const now = performance.now();
    const keepalives = now - this.#keepaliveAt > this.#options.keepaliveEveryMs;
    if (keepalives) this.#keepaliveAt = now;
    this.#writer.frames(bytes, start, end, keepalives);
    if (caughtUp && !this.#core.full) {
      const behind = this.#writer.end;
      this.#core.enter(behind.segment);
      this.#reader.skipTo(behind);
      this.#core.accept(bytes, start, end);
    }
    this.#limit();
  }

  get full(): boolean {
    const full = this.#overLimit || this.#writer.pendingBytes > pendingAtMost;
    this.#wasFull ||= full;
    return full;
  }

  get receivedLsn(): Lsn {
    return this.#writer.appendedLsn;
  }

  get durableLsn(): Lsn {
    return this.#writer.syncedLsn;
  }

  get startLsn(): Lsn {
    return this.#writer.appendedLsn;
  }

  connected(): void {
    const caughtUp = this.caughtUp;
    this.#writer.connection();
    if (!caughtUp) return;
    const behind = this.#writer.end;
    this.#core.reset();
    this.#core.enter(behind.segment);
    this.#reader.skipTo(behind);
  }

  disconnected(): void {
    // A reader in the middle of a large transaction need not wait for the new connection.
    if (this.caughtUp) this.#core.reset();
  }

  failedOver(switchLsn: Lsn): void {
    if (maxLsn(this.#writer.appendedLsn, this.#core.confirmedEnd) <= switchLsn) return;
    throw new PgweaveError('spool-ahead-of-source', `the spool holds changes up to ${formatLsn(this.#writer.appendedLsn)}, which the new primary, taking over at ${formatLsn(switchLsn)}, never had`, {
      retry: 'never', hint: 'The failover lost transactions that were already replicated. Compare and repair with pgweave verify --repair, or begin again with a new copy.',
    });
  }

  fail(error: unknown): void {
    this.#core.fail(error);
    this.#wakeUp();
  }

  /** The core has room again. */
  coreRoom(): void {
    this.#wakeUp();
  }

  // Between the two.

  async #pump(): Promise<void> {
    try {
      while (!this.#closed && this.#core.failure === undefined) {
        if (!this.#core.full && (await this.#step())) continue;
        if (this.#closed) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          // What came between the last look and now must not be slept over.
          if (!this.#core.full && before(this.#reader.position, this.#writer.written)) resolve();
        });
      }
    } catch (error) {
      this.fail(error);
    }
  }

  async #step(): Promise<boolean> {
    const reader = this.#reader;
    const generation = this.#generation;
    if (!before(reader.position, this.#writer.written)) return false;
    this.#stepping = true;
    try {
      return await reader.step(this.#writer.written, this.#writer.segments);
    } catch (error) {
      // The reader went back while this step was waiting for the disk.
      if (generation !== this.#generation) return true;
      throw error;
    } finally {
      this.#stepping = false;
      this.#prune();
    }
  }

  #readerFrom(segment: number): SpoolReader {
    const generation = this.#generation;
    const current = (work: () => void) => {
      if (generation === this.#generation) work();
    };
    return new SpoolReader(this.#options.folder.path, {
      segment: (number) => current(() => this.#core.enter(number)),
      connection: () => current(() => this.#core.reset()),
      frames: (bytes, start, end) => current(() => this.#core.accept(bytes, start, end)),
    }, segment);
  }

  #prune(): void {
    try {
      this.#writer.prune(this.#core.neededEpoch);
    } catch (error) {
      this.fail(error);
    }
    if (!this.#overLimit) return;
    // The segment that is being written stays, however small the limit is.
    if (this.#writer.totalBytes < this.#options.maxBytes * goOnBelow || (this.caughtUp && !this.#core.inFlight)) {
      this.#overLimit = false;
      this.#room();
    }
  }

  #limit(): void {
    const { maxBytes, whenFull, emit } = this.#options;
    if (this.#overLimit || this.#writer.totalBytes < maxBytes) return;
    this.#overLimit = true;
    const message = `the spool in ${this.#options.folder.path} has reached its limit of ${formatBytes(maxBytes)}`;
    if (whenFull === 'wait') {
      emit({ type: 'warning', code: 'spool-full', message: `${message}: nothing is received until the target has caught up; the source keeps its WAL meanwhile` });
      return;
    }
    const error = new PgweaveError('spool-full', message, {
      hint: 'Raise the limit with --spool-limit, or find out why the target is slow. Nothing is lost: run the same command again, it applies what is there before it receives more.', details: { maxBytes, spoolBytes: this.#writer.totalBytes },
    });
    this.fail(error);
    throw error;
  }

  #room(): void {
    if (!this.#wasFull || this.full) return;
    this.#wasFull = false;
    this.#receiver.room();
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

function same(a: SpoolPosition, b: SpoolPosition): boolean {
  return a.segment === b.segment && a.offset === b.offset;
}

function before(a: SpoolPosition, b: SpoolPosition): boolean {
  return a.segment < b.segment || (a.segment === b.segment && a.offset < b.offset);
}
