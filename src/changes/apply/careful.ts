import { quoteLiteral } from '../../pg/identifiers.ts';
import { formatLsn } from '../../pg/lsn.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import type { SourceTransaction } from '../change-log.ts';
import { afterEvent, next, tableRecordSql, type TableEvent } from '../table-states.ts';
import type { ApplySession } from './apply-session.ts';
import type { Content, MetMarker, TableCounts } from './content.ts';
import { failureReason, isSchemaError, rowKey, settleUnits, type Failure } from './failures.ts';
import type { RowChange } from './merge.ts';
import { copyParked, copyParkedSql, ParkedBuffer } from './parked.ts';
import { verdict, type Gate, type TableGates } from './table-gates.ts';

export interface CarefulContext {
  readonly job: string;
  readonly session: ApplySession;
  readonly gates: TableGates;
  readonly onMissed: (rows: number, table: TableRef) => void;
}

export type CarefulResult =
  | { readonly done: true; readonly counts: ReadonlyMap<string, TableCounts>; readonly paused: readonly Gate[] }
  /** Not a table's fault, or may go away: nothing was applied. */
  | { readonly done: false; readonly failure: Failure };

/**
 * Applies source transactions in one target transaction, change by change in source order. A table whose change fails is paused from that transaction on: everything
 * is rolled back and done again with that table's changes parked, in the same transaction that records why. Ends, since each round pauses one table more.
 */
export async function applyCarefully(context: CarefulContext, transactions: readonly SourceTransaction[], retriable: (error: unknown) => boolean): Promise<CarefulResult> {
  const { session, gates } = context;
  const paused = new Map<Gate, Gate['record']>();
  const replanned = new Set<string>();
  const undo = () => {
    for (const [gate, before] of paused) gate.record = before;
  };
  for (;;) {
    const counts = new Map<string, TableCounts>();
    const origin = new Map<RowChange, SourceTransaction>();
    await resolveAll(context, transactions);
    writeAll(context, transactions, counts, origin, [...paused.keys()]);
    const units = session.writer.takeUnits();
    session.pipeline.flush();
    const failure = await settleUnits(units, (rows, plan) => context.onMissed(rows, plan.relation));
    if (!failure) {
      for (const gate of paused.keys()) gate.parked = true;
      return { done: true, counts, paused: [...paused.keys()] };
    }
    if (failure.lost || failure.outOfTurn || retriable(failure.error)) {
      undo();
      if (!failure.lost) await session.reset();
      return { done: false, failure };
    }
    await session.reset();
    const transaction = (failure.change && origin.get(failure.change)) ?? firstWith(transactions, failure);
    const route = failure.plan && gates.route(failure.plan.relation);
    if (!transaction || !route) {
      undo();
      return { done: false, failure };
    }
    const key = tableKey(route.gate.record);
    if (isSchemaError(failure.error) && !replanned.has(key)) {
      replanned.add(key);
      gates.forgetPlan(route.gate.record);
      continue;
    }
    if (paused.has(route.gate)) {
      // It was paused and still fails: what fails is not its changes.
      undo();
      return { done: false, failure };
    }
    const state = (failure.error as { code?: unknown }).code;
    const event: TableEvent = {
      type: 'failed', reason: failureReason(failure.error), lsn: transaction.commitLsn, rowKey: failure.change && failure.plan ? rowKey(failure.plan, failure.change) : undefined, sqlstate: typeof state === 'string' ? state : undefined,
    };
    paused.set(route.gate, route.gate.record);
    route.gate.record = afterEvent(route.gate.record, next(route.gate.record.state, event), event);
  }
}

/** Which transaction a failure belongs to where no single change is known: the only one, or the first that touches the table. */
function firstWith(transactions: readonly SourceTransaction[], failure: Failure): SourceTransaction | undefined {
  if (transactions.length === 1) return transactions[0];
  for (const transaction of transactions) {
    for (const change of transaction.changes()) {
      if (change.type === 'message') continue;
      const relations = change.type === 'truncate' ? change.relations : [change.relation];
      if (failure.plan && relations.some((r) => tableKey(r) === failure.plan!.key)) return transaction;
    }
  }
  return undefined;
}

async function resolveAll(context: CarefulContext, transactions: readonly SourceTransaction[]): Promise<void> {
  for (const transaction of transactions) {
    for (const change of transaction.changes()) {
      if (change.type === 'message') continue;
      for (const relation of change.type === 'truncate' ? change.relations : [change.relation]) {
        const route = context.gates.route(relation);
        if (!route || (!route.plan && verdict(route.gate, transaction.commitLsn) === 'apply')) await context.gates.resolve(relation, transaction.commitLsn);
      }
    }
  }
}

function writeAll(context: CarefulContext, transactions: readonly SourceTransaction[], counts: Map<string, TableCounts>, origin: Map<RowChange, SourceTransaction>, paused: readonly Gate[]): void {
  const { session, gates, job } = context;
  const { writer } = session;
  const parked: ParkedBuffer[] = [];
  const markers: MetMarker[] = [];
  session.begin();
  // Foreign keys act where the role could not become a replica; the source checked them at its own commit.
  if (!session.replica) writer.statement('set constraints all deferred');
  for (const transaction of transactions) {
    const { commitLsn } = transaction;
    const waiting = new Map<string, ParkedBuffer>();
    const park = (gate: Gate): ParkedBuffer => {
      const key = tableKey(gate.record);
      let buffer = waiting.get(key);
      if (!buffer) {
        buffer = new ParkedBuffer(gate.record, commitLsn, transaction.commitTime);
        waiting.set(key, buffer);
        parked.push(buffer);
      }
      return buffer;
    };
    for (const change of transaction.changes()) {
      if (change.type === 'message') {
        markers.push({ content: change.content.toString('utf8'), lsn: change.lsn, commitLsn });
        continue;
      }
      if (change.type === 'truncate') {
        const plans = change.relations.flatMap((relation) => {
          const route = gates.route(relation)!;
          const decision = verdict(route.gate, commitLsn);
          if (decision === 'park') park(route.gate).add({ type: 'truncate', relation, restartIdentity: change.restartIdentity });
          return decision === 'apply' && route.plan ? [route.plan] : [];
        });
        if (plans.length > 0) writer.truncate({ plans, restartIdentity: change.restartIdentity });
        continue;
      }
      const route = gates.route(change.relation)!;
      const decision = verdict(route.gate, commitLsn);
      if (decision === 'park') park(route.gate).add(change);
      else if (decision === 'apply') {
        origin.set(change, transaction);
        writer.change(route.plan!, change);
        count(counts, route.plan!.key, change.type);
      }
    }
  }
  writeRest(session, job, parked, markers);
  for (const gate of paused) writer.statement(tableRecordSql(job, gate.record));
  const last = transactions.at(-1)!;
  // Deferred constraints are checked here, where the error still names the table.
  writer.statement('set constraints all immediate');
  session.commit(last.endLsn, last.commitTime);
}

/** Parked changes and markers of a batch. */
export function writeRest(session: ApplySession, job: string, parked: Content['parked'], markers: Content['markers']): void {
  if (parked.length > 0) session.writer.copy(copyParkedSql, () => copyParked(session.pipeline, job, parked));
  for (const marker of markers) {
    session.writer.statement(
      `insert into pgweave.marker (job, content, lsn, commit_lsn) values (${quoteLiteral(job)}, ${quoteLiteral(marker.content)}, ${quoteLiteral(formatLsn(marker.lsn))}, ${quoteLiteral(formatLsn(marker.commitLsn))})`,
    );
  }
}

function count(counts: Map<string, TableCounts>, key: string, type: RowChange['type']): void {
  let known = counts.get(key);
  if (!known) {
    known = { inserts: 0, updates: 0, deletes: 0 };
    counts.set(key, known);
  }
  known[`${type}s`] += 1;
}
