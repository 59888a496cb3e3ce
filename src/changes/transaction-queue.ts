import { interruptedError } from '../core/errors.ts';
import type { Lsn } from '../pg/lsn.ts';
import type { Batch, ReadOptions } from './change-log.ts';
import { MemoryTransaction, StoredTransaction, type ArrivingTransaction, type TransactionBody, type TransactionHead } from './transactions.ts';

type Entry =
  | { readonly kind: 'whole'; readonly head: TransactionHead; readonly endLsn: Lsn; readonly body: TransactionBody; readonly memoryBytes: number }
  | { readonly kind: 'arriving'; readonly transaction: ArrivingTransaction };

/** Transactions that were received and wait for the reader, in commit order, with a count of the memory they take. */
export class TransactionQueue {
  readonly #limitBytes: number;
  readonly #onRoom: () => void;
  #entries: Entry[] = [];
  /** Entries before this index are taken. */
  #first = 0;
  #bytes = 0;
  #full = false;
  #failure: unknown;
  #waiters: (() => void)[] = [];
  /** The large transaction that was given out last. */
  #given: ArrivingTransaction | StoredTransaction | undefined;

  /** `limitBytes`: from here on `full`, until half of it is taken; `onRoom` is called then. */
  constructor(limitBytes: number, onRoom: () => void) {
    this.#limitBytes = limitBytes;
    this.#onRoom = onRoom;
  }

  get full(): boolean {
    return this.#full;
  }

  get waitingBytes(): number {
    return this.#bytes;
  }

  get length(): number {
    return this.#entries.length - this.#first;
  }

  push(head: TransactionHead, endLsn: Lsn, body: TransactionBody): void {
    let memoryBytes = 0;
    for (const run of body.runs) memoryBytes += run.end - run.start;
    this.#entries.push({ kind: 'whole', head, endLsn, body, memoryBytes });
    this.grow(memoryBytes);
    this.#wake();
  }

  pushArriving(transaction: ArrivingTransaction): void {
    this.#entries.push({ kind: 'arriving', transaction });
    this.#wake();
  }

  /** Takes an arriving transaction back that nobody has begun to read; false where somebody has. */
  takeBack(transaction: ArrivingTransaction): boolean {
    const at = this.#entries.findIndex((e, i) => i >= this.#first && e.kind === 'arriving' && e.transaction === transaction);
    if (at < 0) return false;
    this.#entries.splice(at, 1);
    return true;
  }

  /** More memory is taken. */
  grow(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes >= this.#limitBytes) this.#full = true;
  }

  /** Memory is given back. */
  release(bytes: number): void {
    this.#bytes -= bytes;
    if (this.#full && this.#bytes <= this.#limitBytes / 2) {
      this.#full = false;
      this.#onRoom();
    }
  }

  /** The log can never go on: this and all later reads reject. */
  fail(error: unknown): void {
    this.#failure ??= error;
    this.#wake();
  }

  get failure(): unknown {
    return this.#failure;
  }

  /** Forgets everything that was not read, with its files; a large transaction that is being read is given up. */
  clear(): void {
    this.#given?.abandon();
    this.#given = undefined;
    const dropped = this.#entries.slice(this.#first);
    this.#entries = [];
    this.#first = 0;
    let bytes = 0;
    for (const entry of dropped) {
      if (entry.kind === 'whole') {
        bytes += entry.memoryBytes;
        void entry.body.spill?.close();
      } else entry.transaction.abandon();
    }
    this.release(bytes);
  }

  async read(options: ReadOptions): Promise<Batch> {
    const { signal } = options;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      if (signal?.aborted) throw interruptedError();
      if (this.length > 0) return this.#take(options);
      await new Promise<void>((resolve) => {
        const done = () => {
          signal?.removeEventListener('abort', done);
          resolve();
        };
        signal?.addEventListener('abort', done, { once: true });
        this.#waiters.push(done);
      });
    }
  }

  #take(options: ReadOptions): Batch {
    const transactions: MemoryTransaction[] = [];
    const most = options.maxTransactions ?? Number.POSITIVE_INFINITY;
    let bytes = 0;
    let changeCount = 0;
    let released = 0;
    while (this.length > 0 && transactions.length < most) {
      const entry = this.#entries[this.#first]!;
      const wholeBytes = entry.kind === 'whole' ? (entry.body.spill ? undefined : entry.body.bytes) : entry.transaction.whole?.bytes;
      if (wholeBytes === undefined || wholeBytes > options.maxBytes) {
        if (transactions.length > 0) break;
        this.#shift();
        this.#given = entry.kind === 'arriving' ? entry.transaction : this.#stored(entry);
        return { kind: 'large', transaction: this.#given };
      }
      if (transactions.length > 0 && bytes + wholeBytes > options.maxBytes) break;
      this.#shift();
      const taken = entry.kind === 'whole' ? new MemoryTransaction(entry.head, entry.endLsn, entry.body) : entry.transaction.takeWhole();
      transactions.push(taken);
      bytes += taken.bytes;
      changeCount += taken.changeCount;
      if (entry.kind === 'whole') released += entry.memoryBytes;
    }
    this.release(released);
    return { kind: 'transactions', transactions, bytes, changeCount, more: this.length > 0 };
  }

  #stored(entry: Extract<Entry, { kind: 'whole' }>): StoredTransaction {
    return new StoredTransaction(entry.head, entry.endLsn, entry.body, () => this.release(entry.memoryBytes));
  }

  #shift(): void {
    this.#first += 1;
    if (this.#first === this.#entries.length) {
      this.#entries = [];
      this.#first = 0;
    } else if (this.#first > 4096) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    }
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}
