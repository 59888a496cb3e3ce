import { PgweaveError } from '../core/errors.ts';
import { decodeMessage, messageKind } from '../pgoutput/decoder.ts';
import type { BeginPrepare, Begin, Commit, CommitPrepared, PgoutputMessage, Prepare, Relation, RollbackPrepared, StreamAbort, StreamCommit, StreamPrepare } from '../pgoutput/messages.ts';
import { formatLsn, maxLsn, type Lsn } from '../pg/lsn.ts';
import { appendRun, frameEnd, messageOffset, payloadKind, payloadOffset, type FrameRun } from './frames.ts';
import type { HeldTransaction, HeldTransactions } from './held-transactions.ts';
import type { RelationHistory } from './relation-history.ts';
import type { TransactionQueue } from './transaction-queue.ts';
import { ArrivingTransaction, isChange, transactionInterrupted, type TransactionHead } from './transactions.ts';

export interface AssemblerOptions {
  readonly queue: TransactionQueue;
  readonly relations: RelationHistory;
  readonly held: HeldTransactions;
  /** Whether transactions that carry this origin are left out. */
  readonly leaveOut: (origin: string) => boolean;
  /** A transaction that has grown to this before its end is given to the reader as it arrives. */
  readonly largeBytes: number;
  /** Transactions that end here or before are known already. */
  readonly startLsn: Lsn;
}

/** A transaction between Begin and Commit: it is committed, and its frames come without interruption. */
interface OpenTransaction {
  readonly head: { xid: number; commitLsn: Lsn; commitTime: bigint; origin: string | undefined; gid: undefined };
  /** Known already, or of an origin to leave out. */
  skip: boolean;
  readonly version: number;
  readonly epoch: number;
  runs: FrameRun[];
  bytes: number;
  changeCount: number;
  arriving: ArrivingTransaction | undefined;
}

/**
 * Makes whole transactions of the frames of a stream, and puts them into the queue in commit order. Decodes only what frames a transaction; row changes are
 * counted and kept as they came.
 *
 * Streamed transactions (between Stream Start and Stop) and prepared ones may turn out to be rolled back: they are held until their fate is known, on disk where they
 * are large. A transaction between Begin and Commit is committed already: where it is large, the reader gets it while it arrives.
 */
export class Assembler {
  readonly #options: AssemblerOptions;
  #open: OpenTransaction | undefined;
  /** Between Begin Prepare and Prepare. */
  #preparing: HeldTransaction | undefined;
  /** Between Stream Start and Stream Stop. */
  #streaming: HeldTransaction | undefined;
  /** Committed prepared transactions that the reader has not confirmed. */
  #preparedGiven: { readonly prepareLsn: Lsn; readonly endLsn: Lsn }[] = [];
  #epoch = 0;
  /** Ends of epochs: what was complete then is needed until it is confirmed. */
  #epochs: { readonly epoch: number; readonly lastEnd: Lsn }[] = [];
  /** Transactions that began in an earlier epoch than they ended. */
  #spans: { readonly epoch: number; readonly endLsn: Lsn }[] = [];
  #lastEnd: Lsn;
  #receivedLsn: Lsn;

  constructor(options: AssemblerOptions) {
    this.#options = options;
    this.#lastEnd = options.startLsn;
    this.#receivedLsn = options.startLsn;
  }

  /** End of the newest transaction that was put into the queue. */
  get lastEnd(): Lsn {
    return this.#lastEnd;
  }

  /** Something has begun whose end or fate is not known. */
  get open(): boolean {
    return this.#open !== undefined || Number.isFinite(this.#options.held.firstEpoch);
  }

  /** Everything that the source wrote before it has been received in whole, or did not concern us. */
  get receivedLsn(): Lsn {
    return this.#receivedLsn;
  }

  /** The reader has been given, or can be given, a transaction whose end has not come yet. */
  get arriving(): boolean {
    return this.#open?.arriving !== undefined;
  }

  /**
   * Prepared transactions begin here whose fate is open, or whose COMMIT PREPARED is not confirmed: what is acknowledged must stay before it, else the server
   * would send the COMMIT PREPARED again without what was prepared.
   */
  heldBackLsn(confirmedLsn: Lsn): Lsn | undefined {
    if (this.#preparedGiven.length > 0) this.#preparedGiven = this.#preparedGiven.filter((p) => p.endLsn > confirmedLsn);
    let first = this.#options.held.firstPreparedLsn;
    for (const { prepareLsn } of this.#preparedGiven) if (first === undefined || prepareLsn < first) first = prepareLsn;
    return first;
  }

  /** What follows lies in a further part of the log. */
  enter(epoch: number): void {
    if (epoch === this.#epoch) return;
    this.#epochs.push({ epoch: this.#epoch, lastEnd: this.#lastEnd });
    this.#epoch = epoch;
  }

  /** The earliest part of the log that must be kept: in it began something whose fate is open, or that is not confirmed. */
  neededEpoch(confirmedLsn: Lsn): number {
    this.#epochs = this.#epochs.filter((e) => e.lastEnd > confirmedLsn);
    this.#spans = this.#spans.filter((s) => s.endLsn > confirmedLsn);
    let needed = Math.min(this.#epoch, this.#options.held.firstEpoch, this.#open && !this.#open.skip ? this.#open.epoch : this.#epoch, this.#epochs[0]?.epoch ?? this.#epoch);
    for (const { epoch } of this.#spans) needed = Math.min(needed, epoch);
    return needed;
  }

  /** A new connection: what was incomplete comes again from its beginning. */
  reset(): void {
    const open = this.#open;
    this.#open = undefined;
    this.#streaming = undefined;
    this.#preparing?.discard();
    this.#preparing = undefined;
    this.#options.held.discardStreams();
    if (open?.arriving) {
      this.#options.queue.takeBack(open.arriving);
      open.arriving.fail(transactionInterrupted());
    }
  }

  /** Back to `lsn`: everything that ends later comes again. The queue is the caller's to clear. */
  rewind(lsn: Lsn): void {
    this.reset();
    this.#options.held.discardAll();
    this.#epochs = [];
    this.#spans = [];
    this.#preparedGiven = [];
    this.#lastEnd = lsn;
    this.#receivedLsn = lsn;
  }

  /** Takes whole CopyData frames. Throws PgoutputError or `protocol-violation`. */
  accept(bytes: Buffer, start: number, end: number): void {
    let rangeStart = start;
    let rangeVersion = this.#options.relations.version;
    let changes = 0;
    const closeRange = (at: number) => {
      this.#append({ bytes, start: rangeStart, end: at }, changes, rangeVersion);
      changes = 0;
    };
    for (let at = start; at < end;) {
      const next = frameEnd(bytes, at);
      if (bytes[at + payloadOffset] !== payloadKind.xlogData) {
        // Where a transaction is open its changes come after, and have lower positions.
        if (!this.#open && !this.#preparing) this.#receivedLsn = maxLsn(this.#receivedLsn, bytes.readBigUInt64BE(at + 6) as Lsn);
        at = next;
        continue;
      }
      const kind = bytes[at + messageOffset]!;
      if (isChange(kind)) {
        if (this.#open || this.#streaming || this.#preparing) changes += 1;
        // Messages that are not transactional stand between transactions.
        else if (kind !== messageKind.message) throw violation('a change outside of a transaction');
      } else if (kind === messageKind.relation) {
        this.#relation(bytes, at + messageOffset, next);
      } else if (kind !== messageKind.type) {
        closeRange(at);
        this.#frame(decodeMessage(bytes, at + messageOffset, next, this.#streaming !== undefined));
        rangeStart = next;
        rangeVersion = this.#options.relations.version;
      }
      at = next;
    }
    closeRange(end);
  }

  /** Adds a range of frames to the transaction that is under way, if one is. */
  #append(run: FrameRun, changes: number, version: number): void {
    const bytes = run.end - run.start;
    if (bytes === 0) return;
    const held = this.#streaming ?? this.#preparing;
    if (held) {
      held.append(run, changes);
      this.#options.held.limitMemory();
      return;
    }
    const open = this.#open;
    if (!open || open.skip) return;
    if (open.arriving) {
      this.#options.queue.grow(bytes);
      open.arriving.push([run], bytes, changes, version);
      return;
    }
    appendRun(open.runs, run);
    open.bytes += bytes;
    open.changeCount += changes;
    if (open.bytes >= this.#options.largeBytes) {
      open.arriving = new ArrivingTransaction(open.head, this.#options.relations, (released) => this.#options.queue.release(released));
      this.#options.queue.grow(open.bytes);
      open.arriving.push(open.runs, open.bytes, open.changeCount, open.version);
      open.runs = [];
      this.#options.queue.pushArriving(open.arriving);
    }
  }

  #relation(bytes: Buffer, start: number, end: number): void {
    const m = decodeMessage(bytes, start, end, this.#streaming !== undefined) as Relation;
    // In a stream block it holds for that transaction alone until it commits (pgoutput.c, maybe_send_schema and cleanup_rel_sync_cache).
    if (this.#streaming) this.#streaming.relations.push(m);
    else this.#options.relations.set(m);
  }

  #frame(m: PgoutputMessage): void {
    if (this.#streaming && m.type !== 'stream-stop' && m.type !== 'origin') throw violation(`${m.type} inside a stream block`);
    switch (m.type) {
      case 'begin': return this.#begin(m);
      case 'commit': return this.#commit(m);
      case 'origin': return this.#origin(m.name);
      case 'stream-start':
        if (this.#open || this.#preparing) throw violation('a stream block inside a transaction');
        this.#streaming = this.#options.held.stream(m.xid, m.firstSegment, this.#options.relations.version, this.#epoch);
        return;
      case 'stream-stop':
        if (!this.#streaming) throw violation('the end of a stream block without its beginning');
        this.#streaming = undefined;
        return;
      case 'stream-commit': return this.#streamCommit(m);
      case 'stream-abort': return this.#streamAbort(m);
      case 'stream-prepare': return this.#streamPrepare(m);
      case 'begin-prepare': return this.#beginPrepare(m);
      case 'prepare': return this.#prepare(m);
      case 'commit-prepared': return this.#commitPrepared(m);
      case 'rollback-prepared': return this.#rollbackPrepared(m);
      default: throw violation(`a message of type ${m.type} where none may stand`);
    }
  }

  #begin(m: Begin): void {
    if (this.#open || this.#preparing) throw violation('a transaction inside another');
    this.#open = {
      head: { xid: m.xid, commitLsn: m.finalLsn, commitTime: m.commitTime, origin: undefined, gid: undefined }, skip: m.finalLsn < this.#lastEnd, version: this.#options.relations.version, epoch: this.#epoch, runs: [], bytes: 0, changeCount: 0,
      arriving: undefined,
    };
  }

  #commit(m: Commit): void {
    const open = this.#open;
    if (!open) throw violation('a commit without a transaction');
    this.#open = undefined;
    if (open.arriving) {
      open.arriving.end(m.endLsn);
      this.#finished(m.endLsn, true, open.epoch);
    } else {
      const given = !open.skip && open.changeCount > 0;
      if (given) {
        const { runs, bytes, changeCount, version } = open;
        this.#options.queue.push(open.head, m.endLsn, { runs, bytes, changeCount, relations: this.#options.relations, version, inStream: false });
      }
      this.#finished(m.endLsn, given, open.epoch);
    }
  }

  #origin(name: string): void {
    const held = this.#streaming ?? this.#preparing;
    if (held) {
      held.origin = name;
    } else if (this.#open) {
      this.#open.head.origin = name;
      this.#open.skip ||= this.#options.leaveOut(name);
    } else throw violation('an origin outside of a transaction');
  }

  #streamCommit(m: StreamCommit): void {
    const held = this.#options.held.takeStream(m.xid);
    if (!held) throw violation(`the commit of transaction ${m.xid}, of which nothing was streamed`);
    this.#give(held, { xid: m.xid, commitLsn: m.commitLsn, commitTime: m.commitTime, origin: held.origin, gid: undefined }, m.endLsn);
    for (const relation of held.relations) this.#options.relations.set(relation);
  }

  #streamAbort(m: StreamAbort): void {
    if (m.subxid !== m.xid) this.#options.held.peekStream(m.xid)?.aborted.add(m.subxid);
    else this.#options.held.takeStream(m.xid)?.discard();
  }

  #streamPrepare(m: StreamPrepare): void {
    const held = this.#options.held.takeStream(m.xid);
    if (!held) throw violation(`PREPARE TRANSACTION ${m.gid}, of which nothing was streamed`);
    held.prepareLsn = m.prepareLsn;
    this.#options.held.keepPrepared(m.xid, m.gid, held);
    this.#receivedLsn = maxLsn(this.#receivedLsn, m.endLsn);
  }

  #beginPrepare(m: BeginPrepare): void {
    if (this.#open || this.#preparing) throw violation('a transaction inside another');
    this.#preparing = this.#options.held.prepared(m.prepareLsn, this.#options.relations.version, this.#epoch);
  }

  #prepare(m: Prepare): void {
    if (!this.#preparing) throw violation('the end of a prepared transaction without its beginning');
    this.#options.held.keepPrepared(m.xid, m.gid, this.#preparing);
    this.#preparing = undefined;
    this.#receivedLsn = maxLsn(this.#receivedLsn, m.endLsn);
  }

  #commitPrepared(m: CommitPrepared): void {
    const held = this.#options.held.takePrepared(m.xid, m.gid);
    if (!held) {
      if (m.commitLsn < this.#lastEnd) return;
      throw new PgweaveError('prepared-transaction-missing', `COMMIT PREPARED of ${m.gid} at ${formatLsn(m.commitLsn)}, but the source has not sent what was prepared`, {
        retry: 'never', hint: 'The slot was moved past the prepared transaction. Copy the tables again: pgweave clone --follow with a new job.',
      });
    }
    this.#give(held, { xid: m.xid, commitLsn: m.commitLsn, commitTime: m.commitTime, origin: held.origin, gid: m.gid }, m.endLsn);
  }

  #rollbackPrepared(m: RollbackPrepared): void {
    this.#options.held.takePrepared(m.xid, m.gid)?.discard();
    this.#receivedLsn = maxLsn(this.#receivedLsn, m.rollbackEndLsn);
  }

  /** Puts a held transaction that has turned out to be committed into the queue. */
  #give(held: HeldTransaction, head: TransactionHead, endLsn: Lsn): void {
    const given = head.commitLsn >= this.#lastEnd && held.changeCount > 0 && !(held.origin !== undefined && this.#options.leaveOut(held.origin));
    if (given) this.#options.queue.push(head, endLsn, held.body(this.#options.relations));
    else held.discard();
    if (given && held.prepareLsn !== undefined) this.#preparedGiven.push({ prepareLsn: held.prepareLsn, endLsn });
    this.#finished(endLsn, given, held.epoch);
  }

  #finished(endLsn: Lsn, given: boolean, epoch: number): void {
    if (given && epoch < this.#epoch) this.#spans.push({ epoch, endLsn });
    if (given) this.#lastEnd = maxLsn(this.#lastEnd, endLsn);
    this.#receivedLsn = maxLsn(this.#receivedLsn, endLsn);
  }
}

function violation(what: string): PgweaveError {
  return new PgweaveError('protocol-violation', `the source sent ${what}`, { retry: 'never', hint: 'Please report it with the server\'s version.' });
}
