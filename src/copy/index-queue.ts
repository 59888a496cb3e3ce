import { indexBuildProgress, type IndexProgressRow } from '../catalog/index-progress.ts';
import { Backoff, sleep } from '../core/abort.ts';
import type { Emit } from '../core/events.ts';
import { failpoint } from '../core/failpoints.ts';
import type { TableRef } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { isConnectionLoss, mayWorkAgain, sqlstate, sqlstateOf } from '../pg/sqlstate.ts';

/** One index to build. `build` runs on a session of the queue's and records what it did in the same transaction; `again`: after a lost connection, which may have been lost during its COMMIT. */
export interface IndexBuild {
  readonly name: string;
  /** `share`: several at once on one table; `exclusive`: alone, after the table's others. */
  readonly lock: 'share' | 'exclusive';
  build(session: Session, again: boolean): Promise<void>;
}

/** All index work of one table. */
export interface TableIndexes {
  readonly table: TableRef;
  /** Bytes of the table: the largest goes first. */
  readonly bytes: number;
  readonly builds: readonly IndexBuild[];
  /** Keys made of built indexes: in order, on one session, when all builds are done. */
  readonly attach: readonly ((session: Session, again: boolean) => Promise<void>)[];
}

export interface IndexQueueOptions {
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly jobs: number;
  readonly emit: Emit;
  readonly signal: AbortSignal;
}

interface TableWork {
  readonly indexes: TableIndexes;
  readonly waiting: IndexBuild[];
  running: number;
  exclusiveRunning: boolean;
}

/** Sort memory for builds: at least this, more where the target's own setting is higher. Two builds of 256 MB fit the smallest servers that hold a database worth splitting. */
const sortMemory = '256MB';
const progressEveryMs = 500;
const mostAttempts = 8;

/**
 * Builds indexes on the target while other tables are still being copied: tables come in as their rows are complete, several indexes are built at once, on one table too.
 * The first error ends it: what is built stays, and the ledger knows it.
 */
export class IndexQueue implements AsyncDisposable {
  readonly #options: IndexQueueOptions;
  readonly #tables: TableWork[] = [];
  readonly #workers = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #building = new Map<number, { table: TableRef; index: string }>();
  readonly #sessions: Session[] = [];
  readonly #onIdle: (() => void)[] = [];
  #monitor: Promise<void> | undefined;
  #error: unknown;
  #built = 0;

  constructor(options: IndexQueueOptions) {
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#stop.signal]);
  }

  /** Indexes built so far. */
  get built(): number {
    return this.#built;
  }

  /** Why the queue stopped, if it did. */
  get error(): unknown {
    return this.#error;
  }

  /** Takes a table's indexes in and begins with them as soon as a worker is free. */
  add(indexes: TableIndexes): void {
    if (this.#error || (indexes.builds.length === 0 && indexes.attach.length === 0)) return;
    const order = { share: 0, exclusive: 1 };
    this.#tables.push({ indexes, waiting: [...indexes.builds].sort((a, b) => order[a.lock] - order[b.lock]), running: 0, exclusiveRunning: false });
    this.#tables.sort((a, b) => b.indexes.bytes - a.indexes.bytes);
    const useful = Math.min(this.#options.jobs, this.#workers.size + Math.max(1, indexes.builds.length));
    while (this.#workers.size < useful) this.#startWorker();
  }

  /** Resolves when everything that was added is done; throws what went wrong. */
  async drain(): Promise<void> {
    while (this.#workers.size > 0) await Promise.all(this.#workers);
    this.#options.signal.throwIfAborted();
    if (this.#error) throw this.#error;
  }

  /** Cancels what is being built and closes the connections. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#workers);
    await this.#monitor;
    await Promise.all(this.#sessions.splice(0).map((s) => s.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #startWorker(): void {
    const work = this.#run().catch((error: unknown) => {
      this.#error ??= error;
      this.#stop.abort();
    });
    const tracked = work.finally(() => this.#workers.delete(tracked));
    this.#workers.add(tracked);
    this.#monitor ??= this.#watch();
  }

  /** Runs while there is something to do for any worker, and then ends: the next table that comes in starts workers again. */
  async #run(): Promise<void> {
    let session: Session | undefined = this.#sessions.pop();
    try {
      for (let next = this.#next(); next; next = this.#next()) {
        if (next === 'wait') {
          await this.#changed();
          continue;
        }
        const { work, build } = next;
        if (build) {
          this.#options.emit({ type: 'index', table: work.indexes.table, index: build.name, status: 'started' });
          session = await this.#retrying(session, async (s, again) => {
            this.#building.set(s.pid, { table: work.indexes.table, index: build.name });
            try {
              await build.build(s, again);
            } finally {
              this.#building.delete(s.pid);
            }
          });
          await failpoint('index.built');
          this.#built += 1;
          this.#options.emit({ type: 'index', table: work.indexes.table, index: build.name, status: 'done' });
        }
        work.running -= 1;
        if (build?.lock === 'exclusive') work.exclusiveRunning = false;
        if (work.waiting.length === 0 && work.running === 0) {
          this.#tables.splice(this.#tables.indexOf(work), 1);
          for (const attach of work.indexes.attach) session = await this.#retrying(session, attach);
          await failpoint('index.attached');
        }
        this.#wake();
      }
    } finally {
      this.#wake();
      if (session && !session.lost && !this.#signal.aborted) this.#sessions.push(session);
      else await session?.close();
    }
  }

  #next(): { work: TableWork; build: IndexBuild | undefined } | 'wait' | undefined {
    if (this.#signal.aborted) return undefined;
    let blocked = false;
    for (const work of this.#tables) {
      const [build] = work.waiting;
      if (!build) {
        // Only keys to attach, or the last build is under way.
        if (work.running > 0) continue;
        work.running += 1;
        return { work, build: undefined };
      }
      if (work.exclusiveRunning || (build.lock === 'exclusive' && work.running > 0)) {
        blocked = true;
        continue;
      }
      work.waiting.shift();
      work.running += 1;
      work.exclusiveRunning = build.lock === 'exclusive';
      return { work, build };
    }
    return blocked ? 'wait' : undefined;
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#onIdle.push(resolve);
    });
  }

  #wake(): void {
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  async #retrying(given: Session | undefined, work: (session: Session, again: boolean) => Promise<void>): Promise<Session> {
    const backoff = new Backoff();
    let session = given;
    for (;;) {
      try {
        if (!session || session.lost) {
          await session?.close();
          session = await this.#open();
        }
        await work(session, backoff.attempt > 0);
        return session;
      } catch (error) {
        if (this.#signal.aborted) {
          await session?.close();
          throw error;
        }
        if (!(mayWorkAgain(error) || sqlstateOf((error as { cause?: unknown }).cause) === sqlstate.deadlockDetected) || backoff.attempt >= mostAttempts) {
          await session?.close();
          throw error;
        }
        if (isConnectionLoss(error)) {
          await session?.close();
          session = undefined;
        }
        await sleep(backoff.next(), this.#signal);
      }
    }
  }

  async #open(): Promise<Session> {
    const { target, job } = this.#options;
    const session = await Session.open(target, { role: 'index', job, side: 'the target', signal: this.#signal });
    await session.query(`select pg_catalog.set_config('maintenance_work_mem', '${sortMemory}', false) where pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) < pg_catalog.pg_size_bytes('${sortMemory}')`);
    await session.query('set synchronous_commit = off');
    return session;
  }

  /** Reports what pg_stat_progress_create_index says of our builds. Never fails the copy: a server that hides it just shows less. */
  async #watch(): Promise<void> {
    const last = new Map<number, string>();
    try {
      await sleep(progressEveryMs, this.#signal);
      await using session = await Session.open(this.#options.target, { role: 'progress', job: this.#options.job, side: 'the target', signal: this.#signal });
      for (;;) {
        if (this.#building.size > 0) {
          for (const row of await session.query<IndexProgressRow>(indexBuildProgress([...this.#building.keys()]))) {
            const building = this.#building.get(row.pid);
            const shown = `${row.phase} ${row.percent}`;
            if (!building || last.get(row.pid) === shown) continue;
            last.set(row.pid, shown);
            this.#options.emit({ type: 'index', table: building.table, index: building.index, status: 'progress', phase: row.phase, ...(row.percent === null ? {} : { percent: row.percent }) });
          }
        }
        await sleep(progressEveryMs, this.#signal);
      }
    } catch {
      // Stopped, or the view cannot be read.
    }
  }
}
