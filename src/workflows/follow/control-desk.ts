import { hostname } from 'node:os';
import type { Applier } from '../../changes/apply/applier.ts';
import type { ChangeLog } from '../../changes/change-log.ts';
import { answerRequest, clearRequests, controlChannel, followerLockSql, isExpired, runningFollower, takeRequests, type OpenRequest } from '../../changes/control.ts';
import { beginCopy, dropTable, endCopy, failCopy, retryTable, skipTransaction } from '../../changes/table-commands.ts';
import { Backoff, sleep, throwIfAborted } from '../../core/abort.ts';
import { errorMessage, isInterrupted, PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { formatLsn, type Lsn } from '../../pg/lsn.ts';
import { Session } from '../../pg/session.ts';
import { isConnectionLoss } from '../../pg/sqlstate.ts';

export interface DeskOptions {
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly emit: Emit;
}

/** What the desk steers. */
export interface DeskSubject {
  readonly applier: Applier;
  readonly log: ChangeLog;
  pause(): Promise<void>;
  resume(): void;
  /** `request`: the arguments of a request from elsewhere, such as a switchover's. */
  stop(request?: Readonly<Record<string, unknown>>): void;
  readonly copyTable: (table: TableRef) => Promise<Lsn>;
  dropTable(table: TableRef): Promise<void>;
}

/** Requests are announced by NOTIFY; this often they are looked for all the same, and the follower's own row is renewed. */
const lookEveryMs = 1000;
/** Each copy takes a slot and a walsender of the source for its time, of which there are few: ten by default. */
const copiesAtOnce = 2;
/** After a crash the lock of the former follower is held until the server notices that it has gone. */
const lockWaitMs = 3000;

/** The follower's presence on the target: the lock that makes it the only one, its row in `pgweave.applier`, and the answers to requests (changes/control.ts). */
export class ControlDesk {
  readonly #options: DeskOptions;
  readonly #abort = new AbortController();
  readonly #startedAt = new Date().toISOString();
  #session: Session;
  #subject: DeskSubject | undefined;
  #wake: (() => void) | undefined;
  #running: Promise<void> = Promise.resolve();
  #hold: bigint | undefined;
  readonly #work = new Set<Promise<void>>();

  private constructor(options: DeskOptions, session: Session) {
    this.#options = options;
    this.#session = session;
  }

  /** Throws `another-follower` where the job is followed by somebody else. */
  static async open(options: DeskOptions): Promise<ControlDesk> {
    const session = await openLocked(options, lockWaitMs, undefined);
    const desk = new ControlDesk(options, session);
    await clearRequests(session, options.job, true);
    return desk;
  }

  /** Begins to answer requests. */
  serve(subject: DeskSubject): void {
    this.#subject = subject;
    this.#running = this.#serve();
  }

  async close(): Promise<void> {
    if (this.#abort.signal.aborted) return;
    this.#abort.abort();
    this.#wake?.();
    await this.#running;
    await Promise.allSettled(this.#work);
    await this.#session.query('delete from pgweave.applier where job = $1', [this.#options.job]).catch(() => undefined);
    await this.#session.close();
  }

  async #serve(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        let notified = false;
        this.#session.onNotification((_channel, payload) => {
          if (payload !== this.#options.job) return;
          notified = true;
          this.#wake?.();
        });
        await this.#session.query(`listen ${controlChannel}`);
        while (!signal.aborted) {
          notified = false;
          for (const request of await takeRequests(this.#session, this.#options.job)) this.#begin(request);
          await this.#look();
          if (notified || signal.aborted) continue;
          await new Promise<void>((resolve) => {
            const timer = setTimeout(resolve, lookEveryMs);
            this.#wake = () => {
              clearTimeout(timer);
              resolve();
            };
          });
          this.#wake = undefined;
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#options.emit({ type: 'log', level: 'debug', message: `the control connection to the target was lost: ${errorMessage(error)}` });
        await this.#reconnect();
      }
    }
  }

  /** Nobody else can apply meanwhile: each batch checks that the progress is where this follower left it. */
  async #reconnect(): Promise<void> {
    const { signal } = this.#abort;
    await this.#session.close();
    const backoff = new Backoff({ firstMs: 100, maxMs: 5000 });
    while (!signal.aborted) {
      try {
        this.#session = await openLocked(this.#options, 60_000, signal);
        return;
      } catch (error) {
        if (error instanceof PgweaveError && error.code === 'another-follower') {
          this.#options.emit({ type: 'warning', code: error.code, message: error.message });
          this.#subject?.stop();
          return;
        }
        await sleep(backoff.next(), signal).catch(() => undefined);
      }
    }
  }

  /** Ends a hold whose requester has gone, and renews the follower's row. */
  async #look(): Promise<void> {
    const { applier, log } = this.#subject!;
    if (this.#hold !== undefined && (await isExpired(this.#session, this.#hold))) {
      this.#options.emit({ type: 'warning', code: 'hold-expired', message: 'whoever held the applier has not been heard of: applying goes on' });
      this.#hold = undefined;
      applier.release();
    }
    const position = log.position();
    await this.#session.query(
      `insert into pgweave.applier as a (job, pid, host, started_at, seen_at, applied_lsn, received_lsn, source_lsn, held) values ($1, $2, $3, $4, pg_catalog.clock_timestamp(), $5, $6, $7, $8)
       on conflict (job) do update set pid = excluded.pid, host = excluded.host, started_at = excluded.started_at, seen_at = excluded.seen_at, applied_lsn = excluded.applied_lsn, received_lsn = excluded.received_lsn,
         source_lsn = excluded.source_lsn, held = excluded.held`,
      [this.#options.job, process.pid, hostname(), this.#startedAt, formatLsn(applier.report.appliedLsn()), formatLsn(position.receivedLsn), formatLsn(position.sourceLsn), applier.held],
    );
    await clearRequests(this.#session, this.#options.job, false);
  }

  /** Requests run beside one another: a table may be copied again while a verification holds the applier for a moment. */
  #begin(request: OpenRequest): void {
    const work = this.#run(request)
      .then((answer) => ({ status: 'done' as const, answer }), (error: unknown) => ({
        status: 'failed' as const, answer: { code: error instanceof PgweaveError ? error.code : 'control-failed', message: errorMessage(error), ...(error instanceof PgweaveError && error.hint !== undefined ? { hint: error.hint } : {}) },
      }))
      .then(({ status, answer }) => answerRequest(this.#session, request.id, status, answer))
      .catch((error: unknown) => this.#options.emit({ type: 'log', level: 'warn', message: `a request could not be answered: ${errorMessage(error)}` }))
      .finally(() => this.#work.delete(work));
    this.#work.add(work);
  }

  async #run(request: OpenRequest): Promise<Readonly<Record<string, unknown>>> {
    const subject = this.#subject!;
    const { applier } = subject;
    const table = () => {
      if (!request.table) throw new PgweaveError('control-without-table', `${request.action} needs a table`, { retry: 'never' });
      return request.table;
    };
    switch (request.action) {
      case 'hold': {
        this.#hold = request.id;
        return { appliedLsn: formatLsn(await applier.hold()) };
      }
      case 'run-to':
        if (request.lsn === undefined) throw new PgweaveError('control-without-lsn', 'run-to needs an LSN', { retry: 'never' });
        return { appliedLsn: formatLsn(await applier.runTo(request.lsn)) };
      case 'release':
        this.#hold = undefined;
        applier.release();
        return {};
      case 'pause':
        await subject.pause();
        return { appliedLsn: formatLsn(applier.report.appliedLsn()) };
      case 'resume':
        subject.resume();
        return {};
      case 'stop':
        subject.stop(request.arguments ?? {});
        return {};
      case 'retry': return { state: await retryTable(applier, table()) };
      case 'skip-transaction': return await skipTransaction(applier, table());
      case 'copy-again': return await this.#copyAgain(subject, table());
      case 'drop':
        await subject.dropTable(table());
        await dropTable(applier, table());
        return {};
      default:
        request.action satisfies never;
        throw new PgweaveError('control-unknown', `the follower does not know the request "${String(request.action)}"`, { hint: 'It is of another version.', retry: 'never' });
    }
  }

  /** Copies a table whose copy was broken off; how it ends its state tells. */
  copyAgain(table: TableRef): void {
    const work: Promise<void> = this.#copyAgain(this.#subject!, table).then(() => undefined, (error: unknown) => {
      this.#options.emit({ type: 'log', level: 'warn', message: errorMessage(error) });
    }).finally(() => this.#work.delete(work));
    this.#work.add(work);
  }

  readonly #copies = new Map<string, Promise<Readonly<Record<string, unknown>>>>();

  /** Whoever asks for a copy that is being made waits for that one: two at once would write over what was applied after the first. */
  #copyAgain(subject: DeskSubject, table: TableRef): Promise<Readonly<Record<string, unknown>>> {
    const key = tableKey(table);
    let copy = this.#copies.get(key);
    if (!copy) {
      copy = this.#copyOnce(subject, table).finally(() => this.#copies.delete(key));
      this.#copies.set(key, copy);
    }
    return copy;
  }

  async #copyOnce({ applier, copyTable }: DeskSubject, table: TableRef): Promise<Readonly<Record<string, unknown>>> {
    const { signal } = this.#abort;
    while (this.#copying >= copiesAtOnce) await new Promise<void>((resolve) => this.#waitingToCopy.push(resolve));
    this.#copying += 1;
    try {
      return await this.#untilItCanBe(async () => {
        throwIfAborted(signal);
        await beginCopy(applier, table);
        const lsn = await copyTable(table);
        await endCopy(applier, table);
        return { copiedLsn: formatLsn(lsn) };
      });
    } catch (error) {
      // Whoever was interrupted goes on with it when the follower is started again.
      if (!isInterrupted(error)) await failCopy(applier, table, error).catch(() => undefined);
      throw error;
    } finally {
      this.#copying -= 1;
      this.#waitingToCopy.shift()?.();
    }
  }

  #copying = 0;
  readonly #waitingToCopy: (() => void)[] = [];

  /**
   * Tries again while a side cannot be reached, and while the source's slots and walsenders are all taken, by copies for other targets above all: those end. A server that was away is no fault
   * of the table's: paused, it would wait for somebody when the server is back.
   */
  async #untilItCanBe<T>(work: () => Promise<T>): Promise<T> {
    const backoff = new Backoff({ firstMs: 200, maxMs: 10_000 });
    for (;;) {
      try {
        return await work();
      } catch (error) {
        const passes = isConnectionLoss(error) || (error instanceof PgweaveError && (error.retry === 'backoff' || error.code === 'no-slot-free' || error.code === 'too-many-connections'));
        if (!passes || this.#abort.signal.aborted) throw error;
        this.#options.emit({ type: 'log', level: 'info', message: `a copy waits: ${errorMessage(error)}` });
        await sleep(backoff.next(), this.#abort.signal);
      }
    }
  }
}

async function openLocked(options: DeskOptions, waitMs: number, signal: AbortSignal | undefined): Promise<Session> {
  const session = await Session.open(options.target, { role: 'follower', job: options.job, side: 'the target' });
  try {
    await session.query('set default_transaction_read_only = off');
    const end = Date.now() + waitMs;
    for (;;) {
      const { done } = await session.one<{ done: boolean }>(followerLockSql(options.job, 'pg_try_advisory_lock'));
      if (done) return session;
      if (Date.now() > end) break;
      await sleep(100, signal);
    }
    const other = await runningFollower(session, options.job);
    throw new PgweaveError('another-follower', `job "${options.job}" is followed already on this target${other ? `: process ${other.pid}${other.client === null ? '' : ` from ${other.client}`} ("${other.application}")` : ''}`, {
      hint: 'Two followers on one job would apply the same changes twice. Stop the other one, or choose another --job.', retry: 'manual', details: { pid: other?.pid },
    });
  } catch (error) {
    await session.close();
    throw error;
  }
}
