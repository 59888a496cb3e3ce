import { sleep, throwIfAborted } from '../../core/abort.ts';
import { errorMessage, interruptedError, isInterrupted, PgweaveError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoints.ts';
import type { TableRef } from '../../core/tables.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { maxLsn, zeroLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';
import type { Batch, ChangeLog, LargeTransaction, SourceTransaction } from '../change-log.ts';
import { recordTableEvent } from '../table-states.ts';
import type { WrittenUnit } from './batch-writer.ts';
import { applyCarefully, writeRest } from './careful.ts';
import { buildContent, type ChangeSource, type Content } from './content.ts';
import { DrainQueue } from './drain-queue.ts';
import { mayRetry, settleUnits, type Failure } from './failures.ts';
import { HoldPoint } from './hold-point.ts';
import { applyLarge } from './large.ts';
import { OrderNeeded } from './merge.ts';
import { caughtUpSql } from './parked-drain.ts';
import { ProgressReport } from './progress-report.ts';
import { ReadAhead } from './read-ahead.ts';
import { SourceOrder } from './source-order.ts';
import { TableGates, type Gate, type GateOptions } from './table-gates.ts';
import { TargetConnection } from './target-connection.ts';

export interface ApplierOptions extends Omit<GateOptions, 'binary'> {
  readonly target: ConnectionSpec;
  /** Values come in binary form. */
  readonly binary: boolean;
  /** From how many rows on a table's changes in one batch go by COPY and set statements; for tests. */
  readonly setWiseFrom?: number | undefined;
  /** A session for everything but the changes themselves; owned by the caller, who replaces it where it is lost. */
  readonly control: () => Promise<Session>;
  /** Called with the end of what the target has committed, before the log is told. */
  readonly onCommitted?: ((endLsn: Lsn) => void) | undefined;
  /** Called when the target was connected again, and its states are read: it may have lost what was not flushed. */
  readonly onReconnected?: (() => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Target transactions sent ahead of their answers. */
const maxInFlight = 6;
/** Bytes written to the target's connection and not yet sent. */
const maxUnsentBytes = 24_000_000;
/** In source order, row by row, 40 to 200 rows a commit are fastest: longer chains of row versions cannot be pruned within one transaction. */
const carefulChanges = 200;
const transientRetries = 6;

interface InFlight {
  readonly transactions: readonly SourceTransaction[];
  /** Of what was sent only the counts are kept: rows that live until the answer comes would be copied by the garbage collector again and again. */
  readonly counts: Content['counts'];
  readonly units: readonly WrittenUnit[];
  readonly caughtUp: readonly Gate[];
  readonly endLsn: Lsn;
  done: Promise<void>;
}

/**
 * Applies a log of source transactions to the target, exactly once, in commit order. See docs/follow.md, "How changes are applied".
 *
 * The loop sends target transactions ahead of their answers. When one fails, those behind it refuse themselves (progress.ts); everything from the failed one on is
 * done again: once more as it was where trying again may help, else change by change in source order, which tells whose fault it is (careful.ts).
 */
export class Applier {
  readonly gates: TableGates;
  readonly report: ProgressReport;
  readonly #options: ApplierOptions;
  #log: ChangeLog | undefined;
  #readAhead: ReadAhead | undefined;
  readonly #target: TargetConnection;
  readonly #inFlight: InFlight[] = [];
  #failure: { readonly entry: InFlight; readonly failure: Failure } | undefined;
  /** Read and not yet sent. */
  #carry: SourceTransaction[] = [];
  #large: LargeTransaction | undefined;
  readonly #boundaryWork: (() => Promise<void>)[] = [];
  #wake: (() => void) | undefined;
  readonly #holdPoint = new HoldPoint();
  readonly #sourceOrder = new SourceOrder();
  readonly #drains = new DrainQueue();
  readonly #stop = new AbortController();
  /** Connecting again ends with either. */
  readonly #ending: AbortSignal;
  #fatal: unknown;
  #ended = false;
  #transientFailures = 0;

  constructor(options: ApplierOptions) {
    this.#options = options;
    this.#ending = AbortSignal.any([this.#stop.signal, ...(options.signal ? [options.signal] : [])]);
    this.#target = new TargetConnection(options, () => this.#wake?.());
    this.gates = new TableGates(() => this.#target.control, options);
    this.report = new ProgressReport(() => this.#log?.position(), options.emit);
  }

  /** The log to apply; before `run`. Without one only work at boundaries and drains is done. */
  attach(log: ChangeLog): void {
    this.#log = log;
    this.#readAhead = new ReadAhead(log, this.#options.signal);
  }

  /** Ends the connection. After `run` it is closed already. */
  close(): Promise<void> {
    this.report.close();
    this.#target.close();
    return Promise.resolve();
  }

  /** End of the last source transaction that the target has committed. */
  get appliedLsn(): Lsn {
    return this.#target.committedLsn;
  }

  get job(): string {
    return this.#options.job;
  }

  /** The session for states and parked changes. Use it at a boundary only. */
  get control(): Session {
    return this.#target.control;
  }

  get held(): boolean {
    return this.#holdPoint.held;
  }

  /** Connects, reads where the target stands. Returns the LSN from which the log must be read; undefined: from the slot's own position. */
  async open(): Promise<Lsn | undefined> {
    await this.#target.connect();
    await this.gates.load();
    const at = this.#target.session.committedLsn;
    this.report.startAt(at);
    return at === 0n ? undefined : at;
  }

  /** Applies until the signal fires, `stop` was called, or something cannot go on. What is in flight is finished first. */
  async run(): Promise<void> {
    try {
      for (;;) {
        throwIfAborted(this.#options.signal);
        if (this.#fatal) throw this.#fatal;
        if (this.#failure) await this.#recover();
        else if (this.#boundaryWork.length > 0) await this.#atRest(() => this.#runBoundaryWork());
        else if (this.#stop.signal.aborted) break;
        // Where something is in flight, its failure tells what has to be done again.
        else if (this.#target.session.pipeline.failure && this.#inFlight.length === 0) await this.#reconnect(this.#target.session.pipeline.failure);
        else if (!this.#drains.empty && !this.#holdPoint.held) await this.#atRest(() => this.#drainOne());
        else if (this.#holdPoint.held || !this.#log) await this.#waitForWake();
        else await this.#step();
      }
      await this.#drainInFlight();
    } catch (error) {
      // The transactions that were sent are finished or fail; nothing new begins.
      if (isInterrupted(error)) await this.#drainInFlight();
      // Stopped while the target was away: what it lacks comes again the next time.
      if (!(isInterrupted(error) && this.#stop.signal.aborted && !this.#options.signal?.aborted)) throw error;
    } finally {
      this.report.close();
      this.#target.close();
      this.#ended = true;
      for (const work of this.#boundaryWork.splice(0)) await work().catch(() => undefined);
      this.#drains.end(endedError());
    }
  }

  /** Finishes what is in flight; `run` then resolves. */
  stop(): void {
    this.#stop.abort();
    this.#wake?.();
  }

  /** Runs `work` between two target transactions, with nothing in flight. */
  atBoundary<T>(work: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#ended) return reject(endedError());
      // Work that was not begun when the applier ends is told so.
      this.#boundaryWork.push(() => (this.#ended ? Promise.reject(endedError()) : work()).then(resolve, reject));
      this.#wake?.();
    });
  }

  /** Stops applying after the transaction in hand; resolves with the LSN that is applied. */
  hold(): Promise<Lsn> {
    return this.atBoundary(() => {
      this.#holdPoint.hold();
      this.#options.emit({ type: 'log', level: 'debug', message: 'applying is held' });
      return Promise.resolve(this.report.appliedLsn());
    });
  }

  /**
   * Applies exactly the transactions whose commit record begins below `lsn`, then holds; resolves once that is so. `lsn` must not lie below what is applied already:
   * hold first, then take the LSN (a slot's consistent point), then call this.
   */
  runTo(lsn: Lsn): Promise<Lsn> {
    return new Promise<Lsn>((resolve, reject) => {
      void this.atBoundary(() => {
        if (lsn < this.appliedLsn) throw new PgweaveError('already-past', 'the target is past that LSN already', { retry: 'manual', hint: 'Hold the applier before taking the LSN.' });
        this.#holdPoint.runTo(lsn, () => resolve(this.report.appliedLsn()));
        // On an idle source no later transaction tells that the LSN was passed; the log asks the server.
        this.#log?.waitUntilConfirmed(lsn, this.#options.signal).then(() => {
          if (this.#holdPoint.pass(lsn)) this.#wake?.();
        }, () => undefined);
        return Promise.resolve();
      }).catch(reject);
    });
  }

  /** Goes on after `hold` or `runTo`. */
  release(): void {
    this.#holdPoint.release();
    this.#wake?.();
  }

  /** Applies the changes that wait for a table; resolves when they are through or failed: its state tells. */
  drain(gate: Gate): Promise<void> {
    const drained = this.#drains.add(gate);
    this.#wake?.();
    return drained;
  }

  // ---- one step -----------------------------------------------------------------------------------------------------------------------------------------

  async #step(): Promise<void> {
    await this.#promoteIdle();
    if (this.#reachedLimit()) return;
    if (this.#carry.length === 0 && !this.#large) {
      const batch = await this.#next();
      if (!batch) return;
      if (batch.kind === 'large') this.#large = batch.transaction;
      else this.#carry.push(...batch.transactions);
    }
    if (this.#reachedLimit()) return;
    if (this.#large && this.#carry.length === 0) {
      const transaction = this.#large;
      await this.#atRest(async () => {
        await this.#applyLarge(transaction);
        this.#large = undefined;
      });
      return;
    }
    const { limit, transactions } = this.#take();
    if (transactions.length > 0) {
      if (this.#target.session.replica) await this.#submit(transactions);
      else await this.#atRest(() => this.#carefully(transactions));
    }
    if (limit) return;
    while (!this.#failure && !this.#fatal && (this.#inFlight.length >= maxInFlight || this.#target.session.pipeline.unsentBytes > maxUnsentBytes) && this.#inFlight[0]) await this.#inFlight[0].done;
  }

  /** What may be applied now, without what was applied before. */
  #take(): { limit: boolean; transactions: SourceTransaction[] } {
    const { limit } = this.#holdPoint;
    let end = this.#carry.length;
    if (limit !== undefined) {
      const beyond = this.#carry.findIndex((t) => t.commitLsn >= limit);
      if (beyond >= 0) end = beyond;
    }
    const taken = this.#carry.splice(0, end);
    const known = this.#target.session.sentLsn;
    const fresh = taken.filter((t) => t.endLsn > known);
    if (fresh.length < taken.length && this.#inFlight.length === 0) this.#log?.confirm(this.#target.session.committedLsn);
    return { limit: limit !== undefined, transactions: fresh };
  }

  #reachedLimit(): boolean {
    const tell = this.#holdPoint.holdAt((this.#carry[0] ?? this.#large)?.commitLsn);
    if (!tell) return false;
    this.#boundaryWork.unshift(() => {
      tell();
      return Promise.resolve();
    });
    return true;
  }

  /** The next batch; undefined where something else wants attention first. The read goes on meanwhile. */
  async #next(): Promise<Batch | undefined> {
    const woken = new Promise<void>((resolve) => (this.#wake = resolve));
    if (this.#needsAttention()) return undefined;
    const batch = await this.#readAhead!.next(woken);
    this.#wake = undefined;
    return batch;
  }

  #needsAttention(): boolean {
    return this.#failure !== undefined || this.#fatal !== undefined || (this.#target.session.pipeline.failure !== undefined && this.#inFlight.length === 0) || this.#boundaryWork.length > 0 || this.#stop.signal.aborted || !this.#drains.empty || this.#holdPoint.held || this.#holdPoint.passed;
  }

  async #waitForWake(): Promise<void> {
    const { signal } = this.#options;
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => reject(interruptedError());
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#wake = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      if ((!this.#holdPoint.held && this.#log) || this.#stop.signal.aborted || this.#boundaryWork.length > 0 || (!this.#drains.empty && !this.#holdPoint.held)) this.#wake();
    });
    this.#wake = undefined;
  }

  // ---- merged batches -----------------------------------------------------------------------------------------------------------------------------------

  async #build(sources: readonly ChangeSource[]): Promise<Content> {
    const inOrder = new Set<string>();
    for (;;) {
      try {
        const built = buildContent(sources, this.gates, (plan) => inOrder.has(plan.key) || this.#sourceOrder.has(plan));
        if (!('unresolved' in built)) return built;
        await this.gates.resolve(built.unresolved, built.commitLsn);
      } catch (error) {
        if (!(error instanceof OrderNeeded)) throw error;
        inOrder.add(error.tableKey);
      }
    }
  }

  async #submit(transactions: readonly SourceTransaction[]): Promise<void> {
    const content = await this.#build(transactions);
    await failpoint('apply.batch');
    const session = this.#target.session;
    const last = transactions.at(-1)!;
    const caughtUp = [...this.gates.copied()].filter((gate) => !gate.parked && (gate.record.copiedLsn === undefined || gate.record.copiedLsn <= last.commitLsn));
    let units: WrittenUnit[];
    try {
      const prepared = session.writer.prepare(content.segments, (statement) => session.neutral(statement));
      session.begin();
      for (const segment of content.segments) session.writer.segment(segment);
      writeRest(session, this.#options.job, content.parked, content.markers);
      for (const gate of caughtUp) session.writer.statement(caughtUpSql(this.#options.job, gate));
      session.commit(last.endLsn, last.commitTime);
      units = session.writer.takeUnits();
      session.pipeline.flush();
      for (const result of prepared) {
        result.then((answer) => {
          if (answer.error) session.writer.scratchRefused = true;
        }, () => undefined);
      }
    } catch (error) {
      // Half a COPY cannot be taken back: the connection goes, and these tables go row by row from now on.
      this.#sourceOrder.addForGood(content.counts.keys());
      session.destroy();
      units = [{ result: Promise.reject(error as Error), plan: undefined, rows: [] }];
      units[0]!.result.catch(() => undefined);
    }
    this.#sourceOrder.batchSent(content.counts);
    const before = this.#inFlight.at(-1)?.done ?? Promise.resolve();
    const entry: InFlight = { transactions, counts: content.counts, units, caughtUp, endLsn: last.endLsn, done: Promise.resolve() };
    this.#inFlight.push(entry);
    await failpoint('apply.sent');
    entry.done = before.then(() => this.#settle(entry)).catch((error: unknown) => {
      this.#fatal ??= error;
      this.#wake?.();
    });
  }

  async #settle(entry: InFlight): Promise<void> {
    // Those behind a failed one were refused by the server; recovery takes them up again.
    if (this.#failure) return;
    const failure = await settleUnits(entry.units, (rows, plan) => this.#missed(rows, plan.relation));
    if (failure) {
      this.#failure = { entry, failure };
      this.#wake?.();
      return;
    }
    this.#inFlight.shift();
    this.#transientFailures = 0;
    this.#applied(entry.transactions, entry.counts);
    for (const gate of entry.caughtUp) {
      gate.record = { ...gate.record, state: { name: 'streaming' } };
      this.gates.announce(gate);
    }
    await failpoint('apply.committed');
  }

  #applied(transactions: readonly SourceTransaction[], counts: ReadonlyMap<string, { inserts: number; updates: number; deletes: number }>): void {
    const last = transactions.at(-1)!;
    this.#target.session.committed(last.endLsn);
    this.#options.onCommitted?.(last.endLsn);
    this.#log?.confirm(last.endLsn);
    this.report.applied(last.endLsn, last.commitTime, transactions.length, counts);
  }

  #missed(rows: number, table: TableRef): void {
    this.#options.emit({ type: 'counter', name: 'conflicts', by: rows });
    this.report.missed(rows, table);
  }

  // ---- failures -----------------------------------------------------------------------------------------------------------------------------------------

  async #recover(): Promise<void> {
    // All that is in flight settles first: what is behind the failed one is refused.
    const { entry, failure } = this.#failure!;
    for (const other of this.#inFlight) await Promise.allSettled([other.done, ...other.units.map((unit) => unit.result)]);
    const open = this.#inFlight.splice(0);
    this.#failure = undefined;
    const transactions = open.flatMap((x) => x.transactions);
    if (failure.lost) {
      await this.#reconnect(failure.error);
      this.#carry.unshift(...transactions);
      return;
    }
    await this.#target.session.reset();
    if (failure.outOfTurn) {
      throw new PgweaveError('progress-moved', `somebody else has moved the progress of job "${this.#options.job}" on the target`, { hint: 'Is another follower running on this job? Stop it, then start this one again: it goes on from where the target stands.', retry: 'manual' });
    }
    const rest = open.slice(open.indexOf(entry) + 1).flatMap((x) => x.transactions);
    if (mayRetry(failure.error) && this.#transientFailures < transientRetries) {
      await this.#pauseBeforeRetry(failure.error);
      this.#carry.unshift(...transactions);
      return;
    }
    this.#transientFailures = 0;
    if (failure.plan) this.#sourceOrder.add(failure.plan);
    this.#options.emit({ type: 'log', level: 'debug', message: `a batch was refused and goes in source order: ${errorMessage(failure.error)}` });
    await this.#carefully(entry.transactions);
    this.#carry.unshift(...rest);
  }

  async #pauseBeforeRetry(error: unknown): Promise<void> {
    this.#transientFailures += 1;
    this.#options.emit({ type: 'counter', name: 'retries', by: 1 });
    this.#options.emit({ type: 'log', level: 'info', message: `the target refused a batch for now, trying again: ${errorMessage(error)}` });
    await sleep(20 * 2 ** this.#transientFailures, this.#options.signal);
  }

  /** Source order, a few transactions at a time; a table whose change fails is paused. Nothing may be in flight. */
  async #carefully(transactions: readonly SourceTransaction[]): Promise<void> {
    const queue = transactions.filter((t) => t.endLsn > this.#target.session.committedLsn);
    while (queue.length > 0) {
      throwIfAborted(this.#options.signal);
      const chunk: SourceTransaction[] = [];
      for (let changes = 0; queue[0] && (chunk.length === 0 || changes + queue[0].changeCount <= carefulChanges); ) {
        changes += queue[0].changeCount;
        chunk.push(queue.shift()!);
      }
      const result = await applyCarefully(
        { job: this.#options.job, session: this.#target.session, gates: this.gates, onMissed: (rows, table) => this.#missed(rows, table) }, chunk,
        (error) => mayRetry(error) && this.#transientFailures < transientRetries,
      );
      if (result.done) {
        this.#transientFailures = 0;
        this.#applied(chunk, result.counts);
        for (const gate of result.paused) this.gates.announce(gate);
        continue;
      }
      const { failure } = result;
      if (failure.lost) await this.#reconnect(failure.error);
      else if (mayRetry(failure.error) && this.#transientFailures < transientRetries) await this.#pauseBeforeRetry(failure.error);
      else if (chunk.length > 1) {
        // Whose fault it is cannot be told in company.
        for (const transaction of chunk) await this.#carefully([transaction]);
        continue;
      } else throw failure.error;
      queue.unshift(...chunk.filter((t) => t.endLsn > this.#target.session.committedLsn));
    }
  }

  #tried: { readonly commitLsn: Lsn; replanned: boolean; readonly inOrder: Set<string> } | undefined;

  #triedOf(transaction: LargeTransaction): { replanned: boolean; readonly inOrder: Set<string> } {
    if (this.#tried?.commitLsn !== transaction.commitLsn) this.#tried = { commitLsn: transaction.commitLsn, replanned: false, inOrder: new Set() };
    return this.#tried;
  }

  async #applyLarge(transaction: LargeTransaction): Promise<void> {
    const outcome = await applyLarge({
      job: this.#options.job, session: this.#target.session, gates: this.gates, signal: this.#options.signal, build: (sources) => this.#build(sources), keepInOrder: (plan) => this.#sourceOrder.add(plan),
      onMissed: (rows, table) => this.#missed(rows, table), tried: this.#triedOf(transaction),
    }, transaction);
    switch (outcome.kind) {
      case 'applied':
        this.#transientFailures = 0;
        if (outcome.endLsn > this.#target.session.committedLsn) {
          this.#target.session.committed(outcome.endLsn);
          this.#options.onCommitted?.(outcome.endLsn);
          this.report.applied(outcome.endLsn, transaction.commitTime, 1, outcome.counts);
        }
        this.#log?.confirm(outcome.endLsn);
        return;
      case 'again':
        if (outcome.failure?.lost) await this.#reconnect(outcome.failure.error);
        else if (outcome.failure) await this.#pauseBeforeRetry(outcome.failure.error);
        if (outcome.rewind) await this.#log?.rewind();
        return;
      default:
        outcome satisfies never;
    }
  }

  // ---- connection ---------------------------------------------------------------------------------------------------------------------------------------

  async #reconnect(reason: Error): Promise<void> {
    await this.#target.reconnect(reason, this.#ending, () => this.gates.load());
    const at = this.#target.committedLsn;
    if (at > 0n) {
      this.#options.onCommitted?.(at);
      this.#log?.confirm(at);
    }
    this.report.startAt(maxLsn(at, this.report.appliedLsn()));
    this.#options.emit({ type: 'log', level: 'info', message: 'connected to the target again' });
    this.#options.onReconnected?.();
  }

  // ---- between transactions -----------------------------------------------------------------------------------------------------------------------------

  async #atRest(work: () => Promise<void>): Promise<void> {
    await this.#drainInFlight();
    if (!this.#failure && !this.#fatal) await work();
  }

  async #drainInFlight(): Promise<void> {
    while (this.#inFlight[0] && !this.#failure && !this.#fatal) await this.#inFlight[0].done;
  }

  async #runBoundaryWork(): Promise<void> {
    const work = this.#boundaryWork.shift();
    await work?.();
  }

  async #drainOne(): Promise<void> {
    try {
      await this.#drains.slice({ job: this.#options.job, session: this.#target.session, gates: this.gates, control: () => this.#target.control, signal: this.#options.signal });
    } catch (error) {
      if (!this.#target.session.pipeline.failure && !this.#target.control.lost) throw error;
      await this.#reconnect(error as Error);
    }
  }

  /** Lets copied tables stream on a source where nothing happens. */
  async #promoteIdle(): Promise<void> {
    if (this.#inFlight.length > 0) return;
    for (const gate of this.gates.copied()) {
      if (gate.parked) continue;
      if (gate.record.copiedLsn !== undefined && gate.record.copiedLsn > maxLsn((this.#log?.position().confirmedLsn ?? zeroLsn), this.appliedLsn)) continue;
      gate.record = await recordTableEvent(this.#target.control, this.#options.job, gate.record, { type: 'caught-up' });
      this.gates.announce(gate);
    }
  }
}

function endedError(): PgweaveError {
  return new PgweaveError('applier-ended', 'the applier has ended', { retry: 'manual' });
}
