import { sleep } from '../../core/abort.ts';
import { columnKind, type Relation } from '../../pgoutput/messages.ts';
import type { ApplySession } from './apply-session.ts';
import { failureReason, isSchemaError, mayRetry, rowKey, settleUnits } from './failures.ts';
import type { Session } from '../../pg/session.ts';
import { deleteParkedSql, dropParkedBelow, parkedWhere, readParked, type ParkedChange, type ParkedRow } from './parked.ts';
import { PlanError, type TablePlan } from './plan.ts';
import type { Gate, TableGates } from './table-gates.ts';

/** Bytes of parked changes applied in one target transaction. */
const drainBytes = 4_000_000;
const deadlockRetries = 5;

export interface DrainContext {
  readonly job: string;
  readonly session: ApplySession;
  readonly gates: TableGates;
  readonly control: () => Session;
  readonly signal: AbortSignal | undefined;
}

/**
 * Applies the changes that wait for a table, in source order, each piece in the transaction that deletes it, and lets the table stream again once none is left.
 * Call it while nothing is in flight. `failed`: it failed again, its state says why; `more`: `until` said to stop for now.
 */
export async function drainParked(context: DrainContext, gate: Gate, until: () => boolean): Promise<'streaming' | 'failed' | 'more'> {
  const { job, gates } = context;
  const table = { schema: gate.record.schema, name: gate.record.name };
  if (gate.record.copiedLsn !== undefined) await dropParkedBelow(context.control(), job, table, gate.record.copiedLsn);
  const intern = new Map<string, Relation>();
  const plans = new Map<Relation, TablePlan>();
  gates.forgetPlan(table);
  for (;;) {
    const rows = await readParked(context.control(), job, table, drainBytes, intern);
    if (rows.length === 0) {
      gate.parked = false;
      await gates.record(gate, gate.record.state.name === 'copied' ? { type: 'caught-up' } : { type: 'resumed' });
      return 'streaming';
    }
    gate.parked = true;
    const failed = await applyRows(context, gate, rows, plans);
    if (failed) {
      await gates.record(gate, failed);
      return 'failed';
    }
    if (until()) return 'more';
  }
}

type Failed = { readonly type: 'failed'; readonly reason: string; readonly lsn: ParkedRow['commitLsn']; readonly rowKey?: string | undefined; readonly sqlstate?: string | undefined };

async function applyRows(context: DrainContext, gate: Gate, rows: readonly ParkedRow[], plans: Map<Relation, TablePlan>): Promise<Failed | undefined> {
  const { session, gates, job } = context;
  for (let attempt = 0; ; attempt += 1) {
    const written = new Map<object, ParkedRow>();
    try {
      for (const row of rows) {
        for (const change of row.changes) if (!plans.has(change.relation)) plans.set(change.relation, await gates.plan(change.relation, cameInBinary(change)));
      }
    } catch (error) {
      if (!(error instanceof PlanError)) throw error;
      return { type: 'failed', reason: error.message, lsn: rows[0]!.commitLsn };
    }
    session.beginNeutral();
    for (const row of rows) {
      for (const change of row.changes) {
        const plan = plans.get(change.relation)!;
        written.set(change, row);
        if (change.type === 'truncate') session.writer.truncate({ plans: [plan], restartIdentity: change.restartIdentity });
        else session.writer.change(plan, change);
      }
    }
    session.writer.statement(deleteParkedSql(rows.map((row) => row.id)));
    session.writer.statement(`update pgweave.table_state set paused_lsn = coalesce((select commit_lsn from pgweave.parked_changes where ${parkedWhere(job, gate.record)} order by id limit 1), paused_lsn) where ${parkedWhere(job, gate.record)}`);
    session.writer.statement('commit');
    const units = session.writer.takeUnits();
    session.pipeline.flush();
    const failure = await settleUnits(units, () => undefined);
    if (!failure) return undefined;
    if (failure.lost) throw failure.error;
    await session.reset();
    if (attempt < deadlockRetries && mayRetry(failure.error)) {
      await sleep(50 * 2 ** attempt, context.signal);
      continue;
    }
    if (attempt === 0 && isSchemaError(failure.error)) {
      plans.clear();
      continue;
    }
    // All or nothing: where a piece of several transactions failed, the ones before the bad one are applied first.
    const bad = failure.change ? written.get(failure.change) : undefined;
    const before = bad ? rows.slice(0, rows.indexOf(bad)) : rows.length > 1 ? rows.slice(0, 1) : [];
    if (before.length > 0 && before.length < rows.length) {
      const earlier = await applyRows(context, gate, before, plans);
      if (earlier) return earlier;
      if (!bad) return applyRows(context, gate, rows.slice(before.length), plans);
    }
    const at = bad ?? rows[0]!;
    const state = (failure.error as { code?: unknown }).code;
    return {
      type: 'failed', reason: failureReason(failure.error), lsn: at.commitLsn, rowKey: failure.change && failure.plan ? rowKey(failure.plan, failure.change) : undefined, sqlstate: typeof state === 'string' ? state : undefined,
    };
  }
}

/** Changes may have been parked by a stream of the other form than the present one. */
function cameInBinary(change: ParkedChange): boolean {
  if (change.type === 'truncate') return false;
  const tuple = change.type === 'delete' ? change.oldTuple : change.newTuple;
  return tuple.kinds.includes(columnKind.binary);
}

/** Statement that lets a copied table stream, for a transaction of the applier's. */
export function caughtUpSql(job: string, gate: Gate): string {
  return `update pgweave.table_state set state = 'streaming', since = pg_catalog.clock_timestamp() where ${parkedWhere(job, gate.record)} and state = 'copied'`;
}
