import { subscribedTables, syncStateWords, type SubscribedTableRow } from '../../catalog/subscriptions.ts';
import type { TableRecord } from '../../changes/table-states.ts';
import { tableKey } from '../../core/tables.ts';
import { formatLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';
import type { Unit } from '../../verify/unit.ts';

/** Whether a table can be compared now; if not, why, and whether that is as it should be. */
export type Verdict = { readonly compare: true } | { readonly compare: false; readonly status: 'not-compared' | 'left-out'; readonly reason: string };

const yes: Verdict = { compare: true };
const no = (status: 'not-compared' | 'left-out', reason: string): Verdict => ({ compare: false, status, reason });
const outside = no('left-out', 'not part of the job');
const unlogged = no('left-out', 'unlogged: changes are not in the WAL; it is copied again at switchover');

/** Of a job that our follower keeps: tables that stream, as of `lsn`. */
export function followedGate(states: ReadonlyMap<string, TableRecord>, lsn: Lsn): (unit: Unit) => Verdict {
  return (unit) => {
    const records = recordsOf(unit, states);
    if (records.length === 0) return outside;
    if (unit.unlogged) return unlogged;
    for (const { state, copiedLsn } of records) {
      if (state.name === 'paused') return no('not-compared', `paused${state.lsn === null ? '' : ` at ${state.lsn}`}: ${state.reason}`);
      if (state.name !== 'streaming' && state.name !== 'copied') return no('not-compared', 'its copy is not complete');
      if (copiedLsn !== undefined && copiedLsn > lsn) return no('not-compared', `copied as of ${formatLsn(copiedLsn)}, which the stream has not reached`);
    }
    return yes;
  };
}

/** Of a job whose stream stands still: every table in it. */
export function memberGate(states: ReadonlyMap<string, TableRecord>): (unit: Unit) => Verdict {
  return (unit) => (recordsOf(unit, states).length === 0 ? outside : yes);
}

function recordsOf(unit: Unit, states: ReadonlyMap<string, TableRecord>): TableRecord[] {
  return [unit.table, ...unit.sourceRelations].flatMap((t) => states.get(tableKey(t)) ?? []);
}

/** Of a native subscription: tables whose copy has met the stream. */
export async function subscribedGate(target: Session, subscription: string): Promise<(unit: Unit) => Verdict> {
  const tables = new Map((await target.query<SubscribedTableRow>(subscribedTables(subscription))).map((row) => [tableKey(row), row]));
  return (unit) => {
    const rows = [unit.target, ...unit.targetRelations].flatMap((t) => tables.get(tableKey(t)) ?? []);
    if (rows.length === 0) return unit.unlogged ? unlogged : no('left-out', 'not part of the subscription');
    const waiting = rows.find((row) => row.state !== 'r');
    return waiting ? no('not-compared', syncStateWords[waiting.state]) : yes;
  };
}
