import { PgweaveError } from '../core/errors.ts';
import { formatLsn, maxLsn, type Lsn } from '../pg/lsn.ts';
import type { Batch, ChangeLog, ChangeLogPosition, ReadOptions } from './change-log.ts';
import type { LogCore } from './log-core.ts';
import type { Receiver, ReceiverSink } from './receiver.ts';
import type { SlotWatch } from './slot-watch.ts';

/**
 * The log in memory: received frames become transactions at once, and where the reader is slower the source waits. Only what the reader confirmed is acknowledged;
 * what is lost with the process the source sends again.
 */
export class MemoryLog implements ChangeLog, ReceiverSink {
  readonly #core: LogCore;
  #receiver!: Receiver;
  #watch: SlotWatch | undefined;
  #closing: Promise<void> | undefined;
  /** After going back, frames of the old connection are not wanted until there is a new one. */
  #deaf = false;

  constructor(core: LogCore) {
    this.#core = core;
  }

  /** Begins to receive; throws what stands against it. */
  async start(receiver: Receiver, watch: () => SlotWatch | undefined): Promise<void> {
    this.#receiver = receiver;
    await receiver.start();
    this.#watch = watch();
  }

  get receiver(): Receiver {
    return this.#receiver;
  }

  // The reader's side.

  read(options: ReadOptions): Promise<Batch> {
    return this.#core.read(options);
  }

  confirm(endLsn: Lsn): void {
    this.#core.confirm(endLsn);
  }

  async rewind(): Promise<void> {
    if (this.#core.failure !== undefined) throw this.#core.failure;
    this.#deaf = true;
    this.#core.rewind();
    this.#receiver.restart();
  }

  position(): ChangeLogPosition {
    const { receivedLsn, confirmedLsn } = this.#core;
    return {
      receivedLsn, confirmedLsn, sourceLsn: maxLsn(maxLsn(receivedLsn, this.#receiver.serverLsn), this.#watch?.sourceLsn ?? receivedLsn), connected: this.#receiver.connected, waitingBytes: this.#core.waitingBytes,
      waitingTransactions: this.#core.waitingTransactions,
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
    await Promise.all([this.#receiver.close(), this.#watch?.stop()]);
    this.#core.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // The receiver's side.

  accept(bytes: Buffer, start: number, end: number): void {
    if (!this.#deaf) this.#core.accept(bytes, start, end);
  }

  get full(): boolean {
    return this.#core.full;
  }

  get receivedLsn(): Lsn {
    return this.#core.receivedLsn;
  }

  get durableLsn(): Lsn {
    const { confirmedLsn, heldBackLsn } = this.#core;
    return heldBackLsn !== undefined && heldBackLsn < confirmedLsn ? heldBackLsn : confirmedLsn;
  }

  get startLsn(): Lsn {
    return this.#core.lastEnd;
  }

  connected(): void {
    this.#deaf = false;
  }

  disconnected(): void {
    this.#core.reset();
  }

  failedOver(switchLsn: Lsn): void {
    if (this.#core.confirmedEnd > switchLsn) {
      throw new PgweaveError('target-ahead-of-source', `the target has changes up to ${formatLsn(this.#core.confirmedEnd)}, which the new primary, taking over at ${formatLsn(switchLsn)}, never had`, {
        retry: 'never', hint: 'The failover lost transactions that were already replicated. Compare and repair with pgweave verify --repair, or begin again with a new copy.',
      });
    }
    if (this.#core.lastEnd > switchLsn) this.#core.rewind();
  }

  fail(error: unknown): void {
    this.#core.fail(error);
  }
}
