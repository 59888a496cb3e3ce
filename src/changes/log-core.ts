import { interruptedError } from '../core/errors.ts';
import { maxLsn, type Lsn } from '../pg/lsn.ts';
import { Assembler } from './assemble.ts';
import type { Batch, ReadOptions } from './change-log.ts';
import { HeldTransactions } from './held-transactions.ts';
import { RelationHistory } from './relation-history.ts';
import { TransactionQueue } from './transaction-queue.ts';

/** Held transactions on their way to disk may take this much memory beside their limit. */
const spillPendingBytes = 16 * 1024 * 1024;
/** While somebody waits for a position the source is asked for its own this often. */
const askEveryMs = 100;

export interface LogCoreOptions {
  /** Progress of the reader: what ends here or before is known already. */
  readonly startLsn: Lsn;
  /** Received transactions that wait to be read take at most about this much memory. */
  readonly memoryBytes: number;
  /** A transaction of this size is given out while it arrives, or in parts. */
  readonly largeBytes: number;
  /** Where held transactions (streamed, prepared) are put aside that need more memory than `heldBytes` together. */
  readonly spillFolder: string;
  readonly heldBytes: number;
  readonly leaveOut: (origin: string) => boolean;
  /** There is room again after `full`. */
  readonly onRoom: () => void;
  /** The source should be asked for its position. */
  readonly ask: () => void;
}

interface Waiter {
  readonly lsn: Lsn;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** What the logs have in common: frames in, whole transactions out, and what may be acknowledged. */
export class LogCore {
  readonly #options: LogCoreOptions;
  readonly #relations = new RelationHistory();
  readonly #queue: TransactionQueue;
  readonly #held: HeldTransactions;
  readonly #assembler: Assembler;
  #confirmedLsn: Lsn;
  #waiters: Waiter[] = [];
  #asking: NodeJS.Timeout | undefined;
  #wasFull = false;

  constructor(options: LogCoreOptions) {
    this.#options = options;
    this.#confirmedLsn = options.startLsn;
    this.#queue = new TransactionQueue(options.memoryBytes, () => this.#room());
    this.#held = new HeldTransactions({
      folder: options.spillFolder, memoryBytes: options.heldBytes,
      onWritten: (error) => {
        if (error !== undefined) this.fail(error);
        this.#room();
      },
    });
    this.#assembler = new Assembler({ queue: this.#queue, relations: this.#relations, held: this.#held, leaveOut: options.leaveOut, largeBytes: options.largeBytes, startLsn: options.startLsn });
  }

  get relations(): RelationHistory {
    return this.#relations;
  }

  /** Nothing more should be fed in until `onRoom`. */
  get full(): boolean {
    const full = this.#queue.full || this.#held.pendingBytes > spillPendingBytes;
    this.#wasFull ||= full;
    return full;
  }

  get waitingBytes(): number {
    return this.#queue.waitingBytes;
  }

  get waitingTransactions(): number {
    return this.#queue.length;
  }

  get receivedLsn(): Lsn {
    return this.#assembler.receivedLsn;
  }

  /** End of the newest transaction that was put into the queue. */
  get lastEnd(): Lsn {
    return this.#assembler.lastEnd;
  }

  /** Start of the oldest prepared transaction whose fate is open, or whose COMMIT PREPARED is not confirmed: nothing beyond it may be acknowledged. */
  get heldBackLsn(): Lsn | undefined {
    return this.#assembler.heldBackLsn(this.#confirmedLsn);
  }

  /** As Assembler: parts of the log, for a log that keeps its frames until they are not needed any more. */
  enter(epoch: number): void {
    this.#assembler.enter(epoch);
  }

  get neededEpoch(): number {
    return this.#assembler.neededEpoch(this.#confirmedLsn);
  }

  /** A transaction has begun whose end or fate is not known. */
  get open(): boolean {
    return this.#assembler.open;
  }

  get inFlight(): boolean {
    return this.#assembler.arriving || this.#confirmedLsn < this.#assembler.lastEnd;
  }

  /** Everything before it is durable at the reader's side: where nothing is in flight this is all that was received [hard case 19]. */
  get confirmedLsn(): Lsn {
    return this.inFlight ? this.#confirmedLsn : maxLsn(this.#confirmedLsn, this.#assembler.receivedLsn);
  }

  /** The end of the newest transaction that the reader confirmed. */
  get confirmedEnd(): Lsn {
    return this.#confirmedLsn;
  }

  get failure(): unknown {
    return this.#queue.failure;
  }

  accept(bytes: Buffer, start: number, end: number): void {
    this.#assembler.accept(bytes, start, end);
    this.#check();
  }

  /** Transactions that were incomplete come again. */
  reset(): void {
    this.#assembler.reset();
  }

  /** Everything after the last confirmed transaction comes again. */
  rewind(): void {
    this.#assembler.rewind(this.#confirmedLsn);
    this.#queue.clear();
  }

  read(options: ReadOptions): Promise<Batch> {
    return this.#queue.read(options);
  }

  confirm(endLsn: Lsn): void {
    if (endLsn <= this.#confirmedLsn) return;
    this.#confirmedLsn = endLsn;
    this.#check();
  }

  /** As ChangeLog.waitUntilConfirmed. */
  waitUntilConfirmed(lsn: Lsn, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(interruptedError());
      if (this.failure !== undefined) return reject(this.failure);
      if (this.#reached(lsn)) return resolve();
      const onAbort = () => leave(() => reject(interruptedError()));
      const leave = (finish: () => void) => {
        signal?.removeEventListener('abort', onAbort);
        this.#waiters = this.#waiters.filter((w) => w !== waiter);
        if (this.#waiters.length === 0) clearInterval(this.#asking);
        finish();
      };
      const waiter: Waiter = { lsn, resolve: () => leave(resolve), reject: (error) => leave(() => reject(error)) };
      signal?.addEventListener('abort', onAbort, { once: true });
      if (this.#waiters.length === 0) this.#asking = setInterval(() => this.#options.ask(), askEveryMs);
      this.#waiters.push(waiter);
      this.#options.ask();
    });
  }

  /** The log can never go on. */
  fail(error: unknown): void {
    this.#queue.fail(error);
    for (const waiter of this.#waiters) waiter.reject(this.#queue.failure);
  }

  /** Gives everything back; running reads reject. */
  close(): void {
    this.fail(interruptedError());
    this.#assembler.rewind(this.#confirmedLsn);
    this.#queue.clear();
  }

  #reached(lsn: Lsn): boolean {
    return this.confirmedLsn >= endOfRecord(lsn);
  }

  #check(): void {
    if (this.#waiters.length === 0) return;
    for (const waiter of this.#waiters) if (this.#reached(waiter.lsn)) waiter.resolve();
  }

  #room(): void {
    if (!this.#wasFull || this.full) return;
    this.#wasFull = false;
    this.#options.onRoom();
  }
}

/**
 * pg_current_wal_insert_lsn() at the end of a page points behind the header of the next one (24 bytes, 40 in a segment's first), which an idle server never
 * passes: a record that ends there ends at the page's start for everybody else. Source: xlog.c, XLogBytePosToRecPtr and XLogBytePosToEndRecPtr; pages of 8 kB.
 */
export function endOfRecord(lsn: Lsn): Lsn {
  const offset = lsn & 8191n;
  return (offset === 24n || offset === 40n ? lsn - offset : lsn) as Lsn;
}
