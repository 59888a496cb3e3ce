import type { CopyLedger } from '../../copy/copy-ledger.ts';
import { copyTables } from '../../copy/copy-tables.ts';
import type { IndexQueue } from '../../copy/index-queue.ts';
import { copyLargeObjects } from '../../copy/large-objects.ts';
import { SnapshotLost } from '../../copy/part-copier.ts';
import type { SourceSnapshot } from '../../copy/snapshot.ts';
import { fitToTarget, type TablePlan } from '../../copy/table-plan.ts';
import { copiedSql } from '../../changes/table-states.ts';
import { Backoff, sleep } from '../../core/abort.ts';
import { errorMessage, PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { failpoint } from '../../core/failpoints.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { displayName } from '../../pg/identifiers.ts';
import { formatLsn } from '../../pg/lsn.ts';
import { Session } from '../../pg/session.ts';
import { mayWorkAgain } from '../../pg/sqlstate.ts';
import { restoreLargeObjectAttributes } from '../../schema/large-objects.ts';
import type { End } from './ends.ts';

export interface CopyDataOptions {
  readonly source: End;
  readonly target: End;
  readonly job: string;
  readonly jobs: number;
  readonly ledger: CopyLedger;
  /** The tables as a snapshot shows them, without those whose rows are in. */
  readonly plan: (snapshot: SourceSnapshot) => Promise<TablePlan[]>;
  /** The snapshot to begin in. */
  readonly first: SourceSnapshot;
  /** Another one, once the first is lost or a table was rewritten after it. */
  readonly nextSnapshot: () => Promise<SourceSnapshot>;
  /** Whether rows in different snapshots fit together later: a stream follows that knows each table's LSN. */
  readonly streamFollows: boolean;
  readonly onCopied: (table: TableRef) => void;
  readonly indexes: IndexQueue;
  readonly owners: boolean;
  readonly privileges: boolean;
  readonly emit: Emit;
  readonly signal: AbortSignal;
}

export interface CopyDataResult {
  readonly rows: number;
  readonly bytes: number;
  readonly largeObjects: number;
}

/** Rounds that may end without one table more: a source whose tables are rewritten all the time is not waited for. */
const mostIdleRounds = 3;
/** Attempts at a connection; with backoff about a minute. */
const mostAttempts = 8;

/**
 * Copies the rows, in one snapshot where all goes well. Where the snapshot is lost, only what is not finished is copied, in a new one. Throws `tables-failed` with all the
 * tables that could not be copied, after all the others are in.
 */
export async function copyData(options: CopyDataOptions): Promise<CopyDataResult> {
  const { ledger, emit, job } = options;
  let rows = 0;
  let bytes = 0;
  let largeObjects = 0;
  let largeObjectsDone = ledger.hasStep('large-objects-done');
  const failed = new Map<string, { table: TableRef; error: unknown }>();
  let snapshot = options.first;
  for (let idle = 0; ; ) {
    let left: readonly TableRef[] = [];
    let reason: PgweaveError | undefined;
    {
      await using held = snapshot;
      const plans = (await fitToTarget(await options.plan(held), options.target.session, { exact: true })).filter((plan) => !failed.has(tableKey(plan)));
      const stop = new AbortController();
      const both = { ...options, signal: AbortSignal.any([options.signal, stop.signal]) };
      const tables = copyTables({
        source: options.source.spec, target: options.target.spec, job, jobs: options.jobs, snapshot: held, ledger, encoding: options.source.identity.encoding, targetEncoding: options.target.identity.encoding, tables: plans, emit, signal: both.signal,
        copiedSql: (table) => copiedSql(job, table, held.lsn),
        onCopied: (plan) => {
          emit({ type: 'table-state', table: { schema: plan.schema, name: plan.name }, state: { name: 'copied', lsn: held.lsn === undefined ? null : formatLsn(held.lsn) } });
          options.onCopied(plan);
        },
      });
      const objects = largeObjectsDone ? Promise.resolve(undefined) : copyObjects(both, held);
      const [outcome, copiedObjects] = await bothOr(stop, tables, objects);
      rows += outcome.rows;
      bytes += outcome.bytes;
      if (copiedObjects instanceof PgweaveError) reason = copiedObjects;
      else if (copiedObjects) {
        largeObjects += copiedObjects.objects;
        largeObjectsDone = true;
      }
      for (const failure of outcome.failed) failed.set(tableKey(failure.table), failure);
      left = outcome.left;
      reason = outcome.reason ?? reason;
      if (left.length === 0 && largeObjectsDone) break;
      idle = outcome.copied > 0 ? 0 : idle + 1;
    }
    if (options.indexes.error) throw options.indexes.error;
    if (idle >= mostIdleRounds) throw reason ?? new PgweaveError('snapshot-lost', 'the snapshot on the source is lost again and again', { hint: 'Check what ends our sessions there: timeouts of a pooler or proxy, or a failing server. Then run the same command again.' });
    emit({ type: 'warning', code: 'new-snapshot', message: `${errorMessage(reason)}: ${left.length} ${left.length === 1 ? 'table is' : 'tables are'} copied in a new snapshot`, ...(options.streamFollows ? {} : { hint: 'Without --follow, tables of different snapshots may not fit together if the source was written to in between.' }) });
    await failpoint('clone.new-snapshot');
    snapshot = await options.nextSnapshot();
  }
  if (failed.size > 0) throw tablesFailed([...failed.values()]);
  return { rows, bytes, largeObjects };
}

/** On a connection of its own, which is made again when it is lost: a batch is one transaction. */
async function copyObjects(options: CopyDataOptions, snapshot: SourceSnapshot): Promise<{ objects: number; bytes: number } | SnapshotLost> {
  const { ledger, emit, owners, privileges, signal } = options;
  const backoff = new Backoff();
  let objects = 0;
  let bytes = 0;
  for (;;) {
    try {
      await using target = await Session.open(options.target.spec, { role: 'large objects', job: options.job, side: 'the target', signal });
      const done = await copyLargeObjects(snapshot.session, target, { ledger, snapshot: snapshot.fingerprint, removeOthers: false, signal });
      objects += done.objects;
      bytes += done.bytes;
      if (objects > 0 || ledger.hasStep('large-objects')) await restoreLargeObjectAttributes(snapshot.session, target, { emit, owners, privileges, signal });
      await ledger.markStep(target, 'large-objects-done');
      return { objects, bytes };
    } catch (error) {
      if (signal.aborted || !mayWorkAgain(error)) throw error;
      if (!(await snapshot.alive())) return new SnapshotLost(error);
      if (backoff.attempt >= mostAttempts) throw error;
      await sleep(backoff.next(), signal);
    }
  }
}

/** Both results; where one fails, the other is stopped, and what failed first is thrown. */
async function bothOr<A, B>(stop: AbortController, a: Promise<A>, b: Promise<B>): Promise<[A, B]> {
  let first: unknown;
  const watch = (work: Promise<unknown>) => work.catch((error: unknown) => {
    first ??= error;
    stop.abort();
  });
  await Promise.all([watch(a), watch(b)]);
  if (stop.signal.aborted) throw first;
  return [await a, await b];
}

function tablesFailed(failed: readonly { table: TableRef; error: unknown }[]): unknown {
  const [only] = failed;
  if (failed.length === 1 && only) return only.error;
  const lines = failed.slice(0, 10).map(({ table, error }) => `${displayName(table.schema, table.name)}: ${errorMessage(error)}`);
  return new PgweaveError('tables-failed', `${failed.length} tables could not be copied\n${lines.join('\n')}${failed.length > 10 ? `\nand ${failed.length - 10} more` : ''}`, { hint: 'All other tables are in. Settle the causes, or leave tables out with --exclude-tables; then run the same command again.', cause: only?.error });
}
