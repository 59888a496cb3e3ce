import { PgweaveError } from '../../core/errors.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { maxLsn, zeroLsn, type Lsn } from '../../pg/lsn.ts';
import { Pipeline, type UnitResult } from '../../pg/pipeline.ts';
import { Session } from '../../pg/session.ts';
import { sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';
import { BatchWriter } from './batch-writer.ts';
import { beginNeutralSql, beginSql, progressSql, setUpProgress, type ProgressKind } from './progress.ts';

export interface ApplySessionOptions {
  readonly target: ConnectionSpec;
  readonly job: string;
  /** Values come in binary form. */
  readonly binary: boolean;
  /** From how many rows on a table's changes in one batch go by COPY and set statements. */
  readonly setWiseFrom?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The connection that writes changes: set up once after each connect, then a pipeline. */
export class ApplySession {
  readonly pid: number;
  readonly pipeline: Pipeline;
  readonly writer: BatchWriter;
  readonly progressKind: ProgressKind;
  /** Triggers and foreign keys are silent. Where false, they act: changes must go in source order. */
  readonly replica: boolean;
  readonly #job: string;
  #sent: Lsn | undefined;
  #committed: Lsn | undefined;

  private constructor(session: Session, options: ApplySessionOptions, progress: { kind: ProgressKind; lsn: Lsn | undefined }, replica: boolean) {
    this.#job = options.job;
    this.pid = session.pid;
    this.replica = replica;
    this.progressKind = progress.kind;
    this.#sent = progress.lsn;
    this.#committed = progress.lsn;
    this.pipeline = new Pipeline(session);
    this.writer = new BatchWriter(this.pipeline, options.binary, options.setWiseFrom);
  }

  /** Throws `another-follower` where another session holds this job's origin. */
  static async open(options: ApplySessionOptions): Promise<ApplySession> {
    const session = await Session.open(options.target, { role: 'apply', job: options.job, side: 'the target', signal: options.signal });
    try {
      const replica = await becomeReplica(session);
      // Rows found by nested loops over the key's index: left to the planner, which knows nothing of a scratch table, a set statement took 2.3 times as long.
      await session.query('set enable_hashjoin = off; set enable_mergejoin = off; set default_transaction_read_only = off');
      // What is confirmed to the source must survive a crash of the target.
      await session.query(`select pg_catalog.set_config('synchronous_commit', 'on', false) where pg_catalog.current_setting('synchronous_commit') = 'off'`);
      const progress = await setUpProgress(session, options.job);
      return new ApplySession(session, options, progress, replica);
    } catch (error) {
      await session.close();
      if (sqlstateOf(error) !== sqlstate.objectInUse) throw error;
      throw new PgweaveError('another-follower', `another process applies changes of job "${options.job}" to this target: ${(error as Error).message}`, { hint: 'Stop that one first, or choose another --job.', retry: 'backoff', cause: error });
    }
  }

  /** End of the last source transaction known to be committed here. */
  get committedLsn(): Lsn {
    return this.#committed ?? zeroLsn;
  }

  /** End of the last source transaction that was sent. */
  get sentLsn(): Lsn {
    return this.#sent ?? zeroLsn;
  }

  /** Begins a target transaction that must follow the one sent before. */
  begin(): void {
    this.writer.begin();
    this.writer.statement(beginSql(this.progressKind, this.#job, this.#sent));
  }

  /** Records progress and commits what was begun; `end` and `commitTime` are the last source transaction's. */
  commit(end: Lsn, commitTime: bigint): void {
    this.writer.statement(progressSql(this.progressKind, this.#job, end, commitTime));
    // Deferred constraints are checked here, where an error still names its table.
    this.writer.statement('commit');
    this.#sent = end;
  }

  /** The transaction that ended at `end` is known to be committed. */
  committed(end: Lsn): void {
    this.#committed = maxLsn(this.#committed ?? zeroLsn, end);
  }

  /** Statements in a transaction of their own that stands for no source transaction. */
  neutral(statement: string): string {
    return `${beginNeutralSql(this.progressKind)}; ${statement}; commit`;
  }

  /** Begins such a transaction; the caller commits it by a statement. */
  beginNeutral(): void {
    this.writer.begin();
    this.writer.statement(beginNeutralSql(this.progressKind));
  }

  /** Back to what is committed, after a failure: ends the transaction, forgets statements and scratch tables. */
  async reset(): Promise<void> {
    this.writer.takeUnits();
    const results: Promise<UnitResult>[] = [this.pipeline.query('rollback'), this.pipeline.query(this.writer.rows.forgetStatements())];
    for (const drop of this.writer.forgetScratch()) results.push(this.pipeline.query(this.neutral(drop)));
    this.pipeline.flush();
    await Promise.all(results);
    this.#sent = this.#committed;
  }

  close(): void {
    this.pipeline.close();
  }

  destroy(): void {
    this.pipeline.destroy();
  }
}

/** Silences triggers and foreign keys for this session; false where the role may not [hard case 8]. */
async function becomeReplica(session: Session): Promise<boolean> {
  try {
    await session.query('set session_replication_role = replica');
    return true;
  } catch (error) {
    if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) throw error;
    return false;
  }
}
