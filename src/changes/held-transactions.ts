import type { Relation } from '../pgoutput/messages.ts';
import type { Lsn } from '../pg/lsn.ts';
import { appendRun, type FrameRun } from './frames.ts';
import type { RelationHistory } from './relation-history.ts';
import { SpillFile } from './spill-file.ts';
import type { TransactionBody } from './transactions.ts';

/** A transaction whose fate is open: streamed while it ran, or prepared. */
export class HeldTransaction {
  readonly inStream: boolean;
  readonly version: number;
  /** Part of the log in which it began (Assembler.epoch). */
  readonly epoch: number;
  /** Subtransactions that were rolled back. */
  readonly aborted = new Set<number>();
  /** Descriptions of tables that it brought; they hold for others once it has committed. */
  readonly relations: Relation[] = [];
  origin: string | undefined;
  /** Start of the prepare record, once known. */
  prepareLsn: Lsn | undefined;
  changeCount = 0;
  #runs: FrameRun[] = [];
  #memoryBytes = 0;
  #spilledBytes = 0;
  #spill: SpillFile | undefined;

  constructor(inStream: boolean, version: number, epoch: number) {
    this.inStream = inStream;
    this.version = version;
    this.epoch = epoch;
  }

  get memoryBytes(): number {
    return this.#memoryBytes;
  }

  /** Bytes on their way to disk. */
  get pendingBytes(): number {
    return this.#spill?.pendingBytes ?? 0;
  }

  append(run: FrameRun, changes: number): void {
    appendRun(this.#runs, run);
    this.#memoryBytes += run.end - run.start;
    this.changeCount += changes;
  }

  /** Moves what is in memory to disk. */
  spill(folder: string, onWritten: () => void): void {
    this.#spill ??= new SpillFile(folder, onWritten);
    this.#spill.append(this.#runs);
    this.#spilledBytes += this.#memoryBytes;
    this.#runs = [];
    this.#memoryBytes = 0;
  }

  get spillError(): unknown {
    return this.#spill?.error;
  }

  body(relations: RelationHistory): TransactionBody {
    return {
      runs: this.#runs, bytes: this.#memoryBytes + this.#spilledBytes, changeCount: this.changeCount, relations, version: this.version, inStream: this.inStream, aborted: this.aborted.size > 0 ? this.aborted : undefined,
      spill: this.#spill,
    };
  }

  discard(): void {
    this.#runs = [];
    this.#memoryBytes = 0;
    void this.#spill?.close();
  }
}

export interface HeldOptions {
  /** Where large ones are put aside. */
  readonly folder: string;
  /** All of them together take at most this much memory. */
  readonly memoryBytes: number;
  /** Bytes have been written to disk; where `error` is set writing has failed. */
  readonly onWritten: (error: unknown) => void;
}

/** The transactions that are held, by their ids, with a limit on memory: the largest goes to disk first. */
export class HeldTransactions {
  readonly #options: HeldOptions;
  readonly #streams = new Map<number, HeldTransaction>();
  readonly #prepared = new Map<string, HeldTransaction>();
  #preparing: HeldTransaction | undefined;

  constructor(options: HeldOptions) {
    this.#options = options;
  }

  /** Bytes on their way to disk. */
  get pendingBytes(): number {
    let sum = 0;
    for (const held of this.#all()) sum += held.pendingBytes;
    return sum;
  }

  /** The earliest part of the log in which one of them began. */
  get firstEpoch(): number {
    let first = Number.POSITIVE_INFINITY;
    for (const held of this.#all()) first = Math.min(first, held.epoch);
    return first;
  }

  get firstPreparedLsn(): Lsn | undefined {
    let first: Lsn | undefined;
    for (const { prepareLsn } of this.#prepared.values()) if (prepareLsn !== undefined && (first === undefined || prepareLsn < first)) first = prepareLsn;
    return first;
  }

  /** The streamed transaction `xid`; a new one where this is its first block. */
  stream(xid: number, first: boolean, version: number, epoch: number): HeldTransaction {
    const known = this.#streams.get(xid);
    if (known && !first) return known;
    known?.discard();
    const held = new HeldTransaction(true, version, epoch);
    this.#streams.set(xid, held);
    return held;
  }

  peekStream(xid: number): HeldTransaction | undefined {
    return this.#streams.get(xid);
  }

  takeStream(xid: number): HeldTransaction | undefined {
    const held = this.#streams.get(xid);
    this.#streams.delete(xid);
    return held;
  }

  /** A transaction between Begin Prepare and Prepare. */
  prepared(prepareLsn: Lsn, version: number, epoch: number): HeldTransaction {
    const held = new HeldTransaction(false, version, epoch);
    held.prepareLsn = prepareLsn;
    this.#preparing = held;
    return held;
  }

  keepPrepared(xid: number, gid: string, held: HeldTransaction): void {
    const key = `${xid} ${gid}`;
    // After a reconnect it may come again.
    this.#prepared.get(key)?.discard();
    this.#prepared.set(key, held);
    this.#preparing = undefined;
  }

  takePrepared(xid: number, gid: string): HeldTransaction | undefined {
    const key = `${xid} ${gid}`;
    const held = this.#prepared.get(key);
    this.#prepared.delete(key);
    return held;
  }

  limitMemory(): void {
    let sum = 0;
    let largest: HeldTransaction | undefined;
    for (const held of this.#all()) {
      sum += held.memoryBytes;
      if (held.memoryBytes > (largest?.memoryBytes ?? 0)) largest = held;
    }
    if (sum <= this.#options.memoryBytes || !largest) return;
    const spilling = largest;
    spilling.spill(this.#options.folder, () => this.#options.onWritten(spilling.spillError));
  }

  /** Streams come again on a new connection. */
  discardStreams(): void {
    for (const held of this.#streams.values()) held.discard();
    this.#streams.clear();
    this.#preparing = undefined;
  }

  discardAll(): void {
    this.discardStreams();
    for (const held of this.#prepared.values()) held.discard();
    this.#prepared.clear();
  }

  *#all(): Generator<HeldTransaction> {
    yield* this.#streams.values();
    yield* this.#prepared.values();
    if (this.#preparing) yield this.#preparing;
  }
}
