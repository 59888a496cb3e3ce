import type { ChangeLog, SourceTransaction } from '../changes/change-log.ts';
import { receiveChanges } from '../changes/receive.ts';
import { interruptedError, isInterrupted } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { maxLsn, type Lsn } from '../pg/lsn.ts';

export interface SharedStreamOptions {
  readonly source: ConnectionSpec;
  readonly job: string;
  readonly slot: string;
  readonly publications: readonly string[];
  /** The slot's own position: everything after it comes. */
  readonly startLsn: Lsn;
  readonly emit: Emit;
  /** Memory of received transactions that stay for slower targets. Default 64 MB. */
  readonly keepBytes?: number;
}

/** A received transaction, or a large one that was passed over: whoever needs it decodes it for itself. */
export type SharedEntry = { readonly kind: 'transaction'; readonly transaction: SourceTransaction; readonly endLsn: Lsn } | { readonly kind: 'hole'; readonly endLsn: Lsn };

interface Reader {
  confirmed: Lsn;
  /** End of the last transaction that was handed out. */
  next: Lsn;
  attached: boolean;
}

/** Messages of one read of the slot. */
const readBytes = 1024 * 1024;

/**
 * The source decoded once for several targets: one slot, one walsender, one received copy of each transaction. Readers take what they need at their own speed; a window of what was received stays in
 * memory for those that are a little behind. Who is further behind than the window reads for itself for a while (target-log.ts). The slot is confirmed as far as the slowest reader, so that nothing
 * is lost for anybody; how much WAL that may keep on the source is the service's budget.
 */
export class SharedStream implements AsyncDisposable {
  readonly #options: SharedStreamOptions;
  readonly #upstream: ChangeLog;
  readonly #keepBytes: number;
  readonly #readers = new Map<string, Reader>();
  readonly #stop = new AbortController();
  #entries: SharedEntry[] = [];
  #bytes = 0;
  /** Everything after this and up to `#to` is in `#entries`. */
  #from: Lsn;
  #to: Lsn;
  #failure: unknown;
  #waiters = new Set<() => void>();
  #pumping: Promise<void>;

  private constructor(options: SharedStreamOptions, upstream: ChangeLog) {
    this.#options = options;
    this.#upstream = upstream;
    this.#keepBytes = options.keepBytes ?? 64 * 1024 * 1024;
    this.#from = options.startLsn;
    this.#to = options.startLsn;
    this.#pumping = this.#pump();
  }

  static async open(options: SharedStreamOptions): Promise<SharedStream> {
    return new SharedStream(options, await receiveChanges({ source: options.source, job: options.job, slot: options.slot, publications: options.publications, startLsn: options.startLsn, binary: false, emit: options.emit }));
  }

  get options(): SharedStreamOptions {
    return this.#options;
  }

  get failure(): unknown {
    return this.#failure;
  }

  /** Everything that the source wrote before it is here, or did not concern us. */
  get receivedLsn(): Lsn {
    const { receivedLsn, waitingTransactions } = this.#upstream.position();
    return waitingTransactions === 0 ? maxLsn(this.#to, receivedLsn) : this.#to;
  }

  get sourceLsn(): Lsn {
    return this.#upstream.position().sourceLsn;
  }

  get connected(): boolean {
    return this.#upstream.position().connected;
  }

  /** Holds the slot back for a target from here on, whether it reads already or not. A target that is known keeps the later of both positions. */
  register(name: string, confirmed: Lsn): void {
    const known = this.#readers.get(name);
    if (known) {
      known.confirmed = maxLsn(known.confirmed, confirmed);
      known.next = maxLsn(known.next, confirmed);
    } else this.#readers.set(name, { confirmed, next: confirmed, attached: false });
    this.#confirmUpstream();
  }

  /** The target's position no longer holds the slot back. */
  forget(name: string): void {
    this.#readers.delete(name);
    this.#confirmUpstream();
    this.#wake();
  }

  confirmedOf(name: string): Lsn | undefined {
    const reader = this.#readers.get(name);
    if (!reader) return undefined;
    return this.#idle(reader) ? maxLsn(reader.confirmed, this.#to) : reader.confirmed;
  }

  confirm(name: string, endLsn: Lsn): void {
    const reader = this.#readers.get(name);
    if (!reader || endLsn <= reader.confirmed) return;
    reader.confirmed = endLsn;
    this.#confirmUpstream();
  }

  /** Whether a reader that has everything up to `after` can go on from the window. */
  covers(after: Lsn): boolean {
    return after >= this.#from;
  }

  /** What comes after `after`, from the window, up to `maxBytes`; empty where nothing is there yet; undefined where the window has moved on. */
  take(name: string, after: Lsn, maxBytes: number, maxTransactions: number): { readonly entries: readonly SharedEntry[]; readonly more: boolean } | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (!this.covers(after)) return undefined;
    const reader = this.#readers.get(name);
    if (reader) reader.attached = true;
    let at = lowerBound(this.#entries, after);
    const entries: SharedEntry[] = [];
    for (let bytes = 0; at < this.#entries.length && entries.length < maxTransactions; at += 1) {
      const entry = this.#entries[at]!;
      const size = entry.kind === 'transaction' ? entry.transaction.bytes : 0;
      if (entries.length > 0 && bytes + size > maxBytes) break;
      entries.push(entry);
      bytes += size;
      if (entry.kind === 'hole') {
        at += 1;
        break;
      }
    }
    const last = entries.at(-1);
    if (reader && last?.kind === 'transaction') reader.next = last.endLsn;
    if (entries.length > 0) this.#wake();
    return { entries, more: at < this.#entries.length };
  }

  /** Goes back to what was confirmed. */
  rewind(name: string): Lsn {
    const reader = this.#readers.get(name);
    if (!reader) return this.#to;
    reader.next = reader.confirmed;
    return reader.confirmed;
  }

  /** A reader that reads for itself: its pace does not hold the window up. */
  detach(name: string): void {
    const reader = this.#readers.get(name);
    if (reader) reader.attached = false;
    this.#wake();
  }

  /** Resolves when something has changed: entries came, or the stream has failed. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#waiters.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiters.add(done);
      signal.addEventListener('abort', done, { once: true });
      if (signal.aborted) done();
    });
  }

  /** Ends the stream; whoever still reads it gets `reason`. */
  async close(reason: unknown = interruptedError()): Promise<void> {
    this.#failure ??= reason;
    this.#stop.abort();
    await this.#upstream.close();
    await this.#pumping;
    this.#wake();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #pump(): Promise<void> {
    const { signal } = this.#stop;
    try {
      while (!signal.aborted) {
        await this.#room(signal);
        const batch = await this.#upstream.read({ maxBytes: readBytes, signal });
        if (batch.kind === 'transactions') for (const transaction of batch.transactions) this.#append({ kind: 'transaction', transaction, endLsn: transaction.endLsn }, transaction.bytes);
        else {
          // One pass only: it cannot be kept for several. Its parts are let go of here; each target that wants it decodes it on its own.
          for await (const part of batch.transaction.parts(signal)) void part.bytes;
          this.#append({ kind: 'hole', endLsn: batch.transaction.endLsn }, 0);
        }
        this.#confirmUpstream();
        this.#wake();
      }
    } catch (error) {
      if (!signal.aborted || !isInterrupted(error)) this.#failure ??= error;
      this.#wake();
    }
  }

  /** Waits while even the fastest reader leaves half the window unread: otherwise nobody would ever meet it there. */
  async #room(signal: AbortSignal): Promise<void> {
    for (;;) {
      if (signal.aborted) return;
      const attached = [...this.#readers.values()].filter((r) => r.attached);
      const fastest = attached.reduce<Lsn>((best, r) => maxLsn(best, r.next), this.#from);
      let unread = 0;
      for (let at = lowerBound(this.#entries, fastest); at < this.#entries.length; at += 1) {
        const entry = this.#entries[at]!;
        if (entry.kind === 'transaction') unread += entry.transaction.bytes;
      }
      if (attached.length === 0 ? this.#bytes < this.#keepBytes : unread < this.#keepBytes / 2) return;
      await this.changed(signal);
    }
  }

  #append(entry: SharedEntry, bytes: number): void {
    this.#entries.push(entry);
    this.#bytes += bytes;
    this.#to = entry.endLsn;
    let drop = 0;
    while (this.#bytes > this.#keepBytes && drop < this.#entries.length - 1) {
      const old = this.#entries[drop]!;
      if (old.kind === 'transaction') this.#bytes -= old.transaction.bytes;
      this.#from = old.endLsn;
      drop += 1;
    }
    if (drop > 0) this.#entries = this.#entries.slice(drop);
  }

  /** Has taken and confirmed everything that is here. */
  #idle(reader: Reader): boolean {
    const last = this.#entries.at(-1)?.endLsn;
    return last === undefined ? reader.confirmed >= this.#from : reader.confirmed >= last;
  }

  #confirmUpstream(): void {
    const readers = [...this.#readers.values()];
    if (readers.length === 0) {
      this.#upstream.confirm(this.#to);
      return;
    }
    let least = this.#to;
    for (const reader of readers) if (reader.confirmed < least && !this.#idle(reader)) least = reader.confirmed;
    this.#upstream.confirm(least);
    // What everybody has confirmed is of no use any more.
    let drop = 0;
    while (drop < this.#entries.length && this.#entries[drop]!.endLsn <= least) {
      const old = this.#entries[drop]!;
      if (old.kind === 'transaction') this.#bytes -= old.transaction.bytes;
      this.#from = old.endLsn;
      drop += 1;
    }
    if (drop > 0) this.#entries = this.#entries.slice(drop);
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter();
  }
}

/** Index of the first entry that ends after `lsn`. */
function lowerBound(entries: readonly SharedEntry[], lsn: Lsn): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle]!.endLsn > lsn) high = middle;
    else low = middle + 1;
  }
  return low;
}
