import { isInterrupted, PgweaveError, errorMessage } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { failpoint } from '../core/failpoints.ts';
import type { TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import { isConnectionLoss, sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { PartCopier, SnapshotLost, TableRewritten, type PartCopierOptions } from './part-copier.ts';
import type { TablePart } from './parts.ts';
import { PartProgress } from './part-progress.ts';
import { tableChanged } from './table-changed.ts';
import type { TablePlan } from './table-plan.ts';

export interface CopyTablesOptions extends PartCopierOptions {
  readonly tables: readonly TablePlan[];
  readonly jobs: number;
  readonly emit: Emit;
  /** The table's rows are all in and committed. */
  readonly onCopied: (table: TablePlan) => void;
}

export interface CopyTablesOutcome {
  readonly copied: number;
  readonly rows: number;
  readonly bytes: number;
  /** To be copied in a new snapshot: this one was lost, or they were rewritten meanwhile. */
  readonly left: readonly TablePlan[];
  /** Why some are left. */
  readonly reason: PgweaveError | undefined;
  /** Tables whose rows the target would not take, or the source would not give. */
  readonly failed: readonly { readonly table: TablePlan; readonly error: unknown }[];
}

interface TableWork {
  readonly plan: TablePlan;
  readonly partsLeft: Set<number>;
  /** Parts come into a table that was emptied before. */
  emptied: Promise<void> | undefined;
  gaveUp: boolean;
}

/**
 * Copies tables with a pool of workers over one queue of parts, largest table first, all in one snapshot. A table that fails waits alone and the others go on; what
 * concerns the whole server (disk full, connection gone for good, shutdown) ends the run. Parts that the ledger knows of are not copied again.
 */
export async function copyTables(options: CopyTablesOptions): Promise<CopyTablesOutcome> {
  const { tables, ledger, snapshot, emit, signal } = options;
  const queue: { work: TableWork; part: TablePart }[] = [];
  const works: TableWork[] = [];
  const complete: TableWork[] = [];
  for (const plan of [...tables].sort((a, b) => b.bytes - a.bytes)) {
    const done = ledger.doneParts(plan, snapshot.fingerprint);
    const left = plan.parts.filter((part) => !done.has(part.number));
    const work: TableWork = { plan, partsLeft: new Set(left.map((p) => p.number)), emptied: done.size > 0 ? Promise.resolve() : undefined, gaveUp: false };
    works.push(work);
    for (const part of left) queue.push({ work, part });
    if (left.length === 0) complete.push(work);
  }
  let rows = 0;
  let bytes = 0;
  let copied = 0;
  let reason: PgweaveError | undefined;
  const failed: { table: TablePlan; error: unknown }[] = [];
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  let fatal: unknown;

  const tableDone = async (work: TableWork) => {
    await failpoint('copy.table-done');
    copied += 1;
    options.onCopied(work.plan);
  };

  const runPart = async (copier: PartCopier, work: TableWork, part: TablePart) => {
    const { plan } = work;
    emit({ type: 'copy-part', table: refOf(plan), part: part.number, status: 'started' });
    const progress = new PartProgress(plan, part, emit);
    if (plan.parts.length > 1) await (work.emptied ??= copier.empty(plan));
    const outcome = await copier.copy(plan, part, progress.add);
    progress.finish();
    rows += outcome.rows;
    bytes += outcome.bytes;
    work.partsLeft.delete(part.number);
    emit({ type: 'copy-part', table: refOf(plan), part: part.number, status: 'done' });
    if (work.partsLeft.size > 0) return;
    // With one part the state went in with the rows; with several, whoever ends last writes it: no part can know before its commit that it is the last.
    if (plan.parts.length > 1) await copier.runOnTarget(options.copiedSql(plan));
    await tableDone(work);
  };

  const worker = async () => {
    const onRetry = (table: TableRef, error: unknown) => emit({ type: 'log', level: 'warn', message: `${displayName(table.schema, table.name)}: ${errorMessage(error)}; trying again` });
    await using copier = new PartCopier({ ...options, signal: stopped, onRetry });
    for (const work of complete.splice(0)) {
      await copier.runOnTarget(options.copiedSql(work.plan));
      await tableDone(work);
    }
    for (let next = queue.shift(); next && !stopped.aborted; next = queue.shift()) {
      const { work, part } = next;
      if (work.gaveUp) continue;
      try {
        await runPart(copier, work, part);
      } catch (error) {
        if (stopped.aborted) throw error;
        work.gaveUp = true;
        if (error instanceof SnapshotLost) {
          reason ??= error;
          // Other workers may still be inside the snapshot and go on with what is left.
          return;
        }
        if (error instanceof TableRewritten) reason ??= error;
        else if (concernsServer(error)) throw error;
        else failed.push({ table: work.plan, error: explain(work.plan, error) });
      }
    }
  };

  const workers = Array.from({ length: Math.max(1, Math.min(options.jobs, queue.length || 1)) }, () =>
    worker().catch((error: unknown) => {
      fatal ??= error;
      stop.abort();
    }),
  );
  await Promise.all(workers);
  if (signal.aborted) throw isInterrupted(fatal) ? fatal : signal.reason;
  if (fatal) throw explainServer(fatal);
  const failedTables = new Set(failed.map((f) => f.table));
  return { copied, rows, bytes, left: works.filter((w) => w.partsLeft.size > 0 && !failedTables.has(w.plan)).map((w) => w.plan), reason, failed };
}

function refOf(plan: TablePlan): TableRef {
  return { schema: plan.schema, name: plan.name };
}

/** Not this table's affair: no connection, no room, going down, out of memory. */
function concernsServer(error: unknown): boolean {
  if (isConnectionLoss(error)) return true;
  const state = sqlstateOf(error);
  if (state === undefined) return error instanceof PgweaveError ? error.code !== 'table-changed' : true;
  return ['53', '57', '58'].includes(state.slice(0, 2));
}

function explain(plan: TablePlan, error: unknown): unknown {
  const state = sqlstateOf(error);
  if (state === sqlstate.undefinedColumn) return tableChanged(plan, 'lost a column', error);
  if (state === undefined) return error;
  const { detail, where } = error as { detail?: string; where?: string };
  const said = [errorMessage(error), detail, where].filter((part) => part !== undefined && part !== '').join('; ');
  return new PgweaveError('table-copy-failed', `${displayName(plan.schema, plan.name)} cannot be copied: ${said}`, { hint: hintFor(state), cause: error, details: { table: displayName(plan.schema, plan.name), sqlstate: state } });
}

function hintFor(state: string): string {
  switch (state.slice(0, 2)) {
    case '22': return 'A value does not fit the target: encodings or types differ. Correct the rows on the source, or leave the table out with --exclude-tables; then run the same command again.';
    case '23': return 'The rows break a constraint of the target. Correct them on the source, or the constraint; then run the same command again.';
    case '42': return 'Check the privileges of both roles: pgweave validate lists what is missing. Then run the same command again.';
    default: return 'Run the same command again once the cause is settled; tables that are in are not copied again.';
  }
}

function explainServer(error: unknown): unknown {
  const state = sqlstateOf(error);
  if (state === sqlstate.diskFull) return new PgweaveError('disk-full', `the server has no room left: ${errorMessage(error)}`, { hint: 'Make room on the target, then run the same command again: it goes on from what is in.', cause: error });
  if (state?.startsWith('53')) return new PgweaveError('server-out-of-resources', errorMessage(error), { hint: 'Use fewer --jobs and --index-jobs or raise the server\'s limits, then run the same command again.', cause: error });
  if (isConnectionLoss(error) && !(error instanceof PgweaveError)) return new PgweaveError('connection-lost', `a connection was lost: ${errorMessage(error)}`, { hint: 'Check the network and the servers. The same command goes on from where it stopped.', retry: 'backoff', cause: error });
  return error;
}
