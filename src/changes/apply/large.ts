import { PgweaveError } from '../../core/errors.ts';
import type { TableRef } from '../../core/tables.ts';
import type { Lsn } from '../../pg/lsn.ts';
import { ServerError } from '../../pg/server-error.ts';
import type { LargeTransaction } from '../change-log.ts';
import type { ApplySession } from './apply-session.ts';
import type { WrittenUnit } from './batch-writer.ts';
import { writeRest } from './careful.ts';
import type { ChangeSource, Content, TableCounts } from './content.ts';
import { failureReason, isSchemaError, mayRetry, rowKey, settleUnits, type Failure } from './failures.ts';
import type { TablePlan } from './plan.ts';
import type { TableGates } from './table-gates.ts';

export interface LargeContext {
  readonly job: string;
  readonly session: ApplySession;
  readonly gates: TableGates;
  readonly signal: AbortSignal | undefined;
  readonly build: (sources: readonly ChangeSource[]) => Promise<Content>;
  /** From now on this table's changes go in source order. */
  readonly keepInOrder: (plan: TablePlan) => void;
  readonly onMissed: (rows: number, table: TableRef) => void;
  /** What was tried with this transaction before; kept by the caller, since a log that goes back gives a new object. */
  readonly tried: { replanned: boolean; readonly inOrder: Set<string> };
}

export type LargeOutcome =
  | { readonly kind: 'applied'; readonly endLsn: Lsn; readonly counts: ReadonlyMap<string, TableCounts> }
  /** Nothing was applied; read it again, after `rewind` where the log has not gone back by itself. */
  | { readonly kind: 'again'; readonly failure: Failure | undefined; readonly rewind: boolean };

/**
 * Applies a transaction that does not fit into memory: each part merged and written as it comes, all in one target transaction [hard case 23]. Where a part is refused,
 * all is rolled back; the table at fault goes in source order the next time, and where it was in order it is paused from this transaction on.
 */
export async function applyLarge(context: LargeContext, transaction: LargeTransaction): Promise<LargeOutcome> {
  const { session, job } = context;
  // Its commit record lies below what is applied: it was applied before a restart, only its end is not known yet.
  if (transaction.commitLsn < session.committedLsn) {
    for await (const part of transaction.parts(context.signal)) void part;
    return { kind: 'applied', endLsn: transaction.endLsn, counts: new Map() };
  }
  const counts = new Map<string, TableCounts>();
  session.begin();
  if (!session.replica) session.writer.statement('set constraints all deferred');
  const send = (): readonly WrittenUnit[] => {
    const units = session.writer.takeUnits();
    session.pipeline.flush();
    return units;
  };
  const settle = (units: readonly WrittenUnit[]) => settleUnits(units, (rows, plan) => context.onMissed(rows, plan.relation));
  // One part is written while the server works on the one before.
  let before = settle(send());
  let failure: Failure | undefined;
  try {
    for await (const part of transaction.parts(context.signal)) {
      const content = await context.build([{ commitLsn: transaction.commitLsn, commitTime: transaction.commitTime, changes: () => part.changes() }]);
      const prepared = session.writer.prepare(content.segments, (statement) => statement);
      for (const segment of content.segments) session.writer.segment(segment);
      writeRest(session, job, content.parked, content.markers);
      addCounts(counts, content.counts);
      const sent = settle(send());
      failure = await before;
      before = sent;
      for (const result of await Promise.allSettled(prepared)) if (result.status === 'fulfilled' && result.value.error) session.writer.scratchRefused = true;
      if (failure) break;
    }
    failure ??= await before;
    if (!failure) {
      session.writer.statement('set constraints all immediate');
      session.commit(transaction.endLsn, transaction.commitTime);
      failure = await settle(send());
    }
  } catch (error) {
    await before;
    if (!session.pipeline.failure) await session.reset();
    if (error instanceof PgweaveError && error.code === 'transaction-interrupted') return { kind: 'again', failure: undefined, rewind: false };
    throw error;
  }
  if (!failure) return { kind: 'applied', endLsn: transaction.endLsn, counts };
  await before;
  if (failure.lost) return { kind: 'again', failure, rewind: true };
  await session.reset();
  if (failure.outOfTurn) throw new PgweaveError('progress-moved', `somebody else has moved the progress of job "${job}" on the target`, { hint: 'Is another follower running on this job?', retry: 'manual' });
  if (mayRetry(failure.error)) return { kind: 'again', failure, rewind: true };
  await assign(context, transaction, failure);
  return { kind: 'again', failure: undefined, rewind: true };
}

/** Decides what is done differently the next time. Throws the failure where no table is at fault. */
async function assign(context: LargeContext, transaction: LargeTransaction, failure: Failure): Promise<void> {
  const { gates } = context;
  const { plan, change, error } = failure;
  if (plan && isSchemaError(error) && !context.tried.replanned) {
    context.tried.replanned = true;
    gates.forgetPlan(plan.relation);
    context.keepInOrder(plan);
    return;
  }
  if (plan && !change && !context.tried.inOrder.has(plan.key)) {
    context.tried.inOrder.add(plan.key);
    context.keepInOrder(plan);
    return;
  }
  const named = error instanceof ServerError && error.schema !== undefined && error.table !== undefined ? { schema: error.schema, name: error.table } : undefined;
  const gate = (plan && gates.route(plan.relation)?.gate) ?? (plan ? gates.get(plan.relation) : undefined) ?? (named && gates.get(named));
  if (!gate) throw error;
  const state = (error as { code?: unknown }).code;
  await gates.record(gate, { type: 'failed', reason: failureReason(error), lsn: transaction.commitLsn, rowKey: plan && change ? rowKey(plan, change) : undefined, sqlstate: typeof state === 'string' ? state : undefined });
}

function addCounts(to: Map<string, TableCounts>, from: ReadonlyMap<string, TableCounts>): void {
  for (const [key, add] of from) {
    const known = to.get(key);
    if (known) {
      known.inserts += add.inserts;
      known.updates += add.updates;
      known.deletes += add.deletes;
    } else to.set(key, { ...add });
  }
}
