import type { Batch, ChangeLog, ChangeLogPosition, ReadOptions } from '../changes/change-log.ts';
import { receiveChanges } from '../changes/receive.ts';
import { sleep } from '../core/abort.ts';
import { interruptedError } from '../core/errors.ts';
import { maxLsn, type Lsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { quoteLiteral } from '../pg/identifiers.ts';
import type { SharedStream } from './shared-stream.ts';
import { TableFilter } from './table-filter.ts';

export interface TargetLogOptions {
  readonly shared: SharedStream;
  /** The target's job: names its position in the shared stream, and the slot that it reads from for a while when it is far behind. */
  readonly job: string;
  /** Everything up to here is applied. */
  readonly startLsn: Lsn;
  /** Which tables of the shared stream are this target's, by `tableKey`; another set when that changes. */
  readonly wanted: () => ReadonlySet<string>;
}

/**
 * One target's view of a shared stream: its tables alone, its own position. While the target keeps up it reads from the window in memory. Where the window has moved on, or a transaction is too large to be
 * kept, it reads for itself: from a temporary copy of the shared slot, which stands where the slowest target is, until it meets the window again.
 */
export class TargetLog implements ChangeLog {
  readonly #options: TargetLogOptions;
  readonly #stop = new AbortController();
  readonly #filter: TableFilter;
  #next: Lsn;
  #own: { readonly log: ChangeLog; readonly session: Session } | undefined;

  constructor(options: TargetLogOptions) {
    this.#options = options;
    this.#next = options.startLsn;
    this.#filter = new TableFilter(options.wanted);
    options.shared.register(options.job, options.startLsn);
  }

  /** Whether it reads for itself at this moment. */
  get readsAlone(): boolean {
    return this.#own !== undefined;
  }

  async read(options: ReadOptions): Promise<Batch> {
    const { shared, job } = this.#options;
    const signal = options.signal ? AbortSignal.any([options.signal, this.#stop.signal]) : this.#stop.signal;
    for (;;) {
      if (signal.aborted) throw interruptedError();
      if (shared.failure !== undefined) throw shared.failure;
      if (this.#own) {
        const batch = await this.#readAlone(options, signal);
        if (batch) return batch;
        continue;
      }
      const taken = shared.take(job, this.#next, options.maxBytes, options.maxTransactions ?? Number.MAX_SAFE_INTEGER);
      if (!taken || taken.entries[0]?.kind === 'hole') {
        await this.#beginAlone();
        continue;
      }
      const transactions = taken.entries.flatMap((e) => (e.kind === 'transaction' ? [this.#filter.transaction(e.transaction)] : []));
      if (transactions.length === 0) {
        await shared.changed(signal);
        continue;
      }
      this.#next = transactions.at(-1)!.endLsn;
      return { kind: 'transactions', transactions, bytes: transactions.reduce((sum, t) => sum + t.bytes, 0), changeCount: transactions.reduce((sum, t) => sum + t.changeCount, 0), more: taken.more };
    }
  }

  confirm(endLsn: Lsn): void {
    this.#own?.log.confirm(endLsn);
    this.#options.shared.confirm(this.#options.job, endLsn);
  }

  async rewind(): Promise<void> {
    await this.#endAlone();
    this.#next = this.#options.shared.rewind(this.#options.job);
  }

  position(): ChangeLogPosition {
    const { shared, job } = this.#options;
    const own = this.#own?.log.position();
    const confirmedLsn = shared.confirmedOf(job) ?? this.#next;
    return {
      receivedLsn: own ? own.receivedLsn : maxLsn(shared.receivedLsn, this.#next), confirmedLsn, sourceLsn: shared.sourceLsn, connected: own?.connected ?? shared.connected, waitingBytes: own?.waitingBytes ?? 0, waitingTransactions: own?.waitingTransactions ?? 0,
    };
  }

  /** Polls: it tells a phase to people and holds nothing up. */
  async waitUntilConfirmed(lsn: Lsn, signal?: AbortSignal): Promise<void> {
    const { shared, job } = this.#options;
    const ended = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
    for (;;) {
      if (ended.aborted) throw interruptedError();
      if (shared.failure !== undefined) throw shared.failure;
      // Confirmed whole, or nothing waits and the shared stream has come so far.
      const confirmed = shared.confirmedOf(job);
      if (!this.#own && confirmed !== undefined && (confirmed >= lsn || (shared.receivedLsn >= lsn && this.#next <= confirmed))) return;
      await sleep(50, ended);
    }
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#options.shared.detach(this.#options.job);
    await this.#endAlone();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Undefined where it has met the window again. */
  async #readAlone(options: ReadOptions, signal: AbortSignal): Promise<Batch | undefined> {
    const { shared } = this.#options;
    if (shared.covers(this.#next) && !this.#facesHole()) {
      await this.#endAlone();
      return undefined;
    }
    const batch = await this.#own!.log.read({ ...options, signal });
    if (batch.kind === 'large') {
      const passed = (endLsn: Lsn) => {
        this.#next = maxLsn(this.#next, endLsn);
      };
      return { kind: 'large', transaction: this.#filter.large(batch.transaction, passed) };
    }
    const fresh = batch.transactions.filter((t) => t.endLsn > this.#next);
    if (fresh.length === 0) return undefined;
    this.#next = fresh.at(-1)!.endLsn;
    return { ...batch, transactions: fresh.map((t) => this.#filter.transaction(t)) };
  }

  #facesHole(): boolean {
    return this.#options.shared.take('', this.#next, 0, 1)?.entries[0]?.kind === 'hole';
  }

  async #beginAlone(): Promise<void> {
    const { shared, job } = this.#options;
    shared.detach(job);
    const { source, slot, publications } = shared.options;
    const session = await Session.open(source, { role: 'fanout catch-up', job, side: 'the source' });
    try {
      const copy = `pgweave_${job}_copy`;
      await session.query('select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where slot_name = $1 and active_pid is null', [copy]);
      // The copy stands where the shared slot is confirmed: at the slowest target, which may be this one.
      await session.query(`select pg_catalog.pg_copy_logical_replication_slot(${quoteLiteral(slot)}, ${quoteLiteral(copy)}, false)`);
      const log = await receiveChanges({ source, job, slot: copy, publications, startLsn: this.#next, binary: false });
      this.#own = { log, session };
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  async #endAlone(): Promise<void> {
    const own = this.#own;
    if (!own) return;
    this.#own = undefined;
    await own.log.close();
    // The walsender needs a moment to let go of the slot.
    for (let attempt = 0; attempt < 100; attempt += 1) {
      try {
        await own.session.query('select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where slot_name = $1', [`pgweave_${this.#options.job}_copy`]);
        break;
      } catch {
        await sleep(50);
      }
    }
    await own.session.close();
  }
}
