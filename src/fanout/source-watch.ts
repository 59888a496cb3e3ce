import { parseLsn, zeroLsn, type Lsn } from '../pg/lsn.ts';
import type { Session } from '../pg/session.ts';

/** How far a target's slot is behind, as the source tells. */
export interface SlotLag {
  readonly slot: string;
  readonly active: boolean;
  /** Bytes of WAL between what the target has confirmed and now. */
  readonly lagBytes: number;
  /** Milliseconds by the walsender's own measure; null where nothing is connected. */
  readonly lagMs: number | null;
  /** Bytes of WAL that the slot keeps on the source's disk. */
  readonly retainedBytes: number;
  readonly walStatus: string;
  readonly confirmedLsn: Lsn;
}

/** Reads the slots of a service in one query. */
export async function readSlotLags(source: Session, slots: readonly string[]): Promise<Map<string, SlotLag>> {
  const rows = await source.query<{ slot: string; active: boolean; lag: bigint | null; ms: number | null; retained: bigint | null; status: string | null; confirmed: string | null }>(
    `select s.slot_name as slot, s.active, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.confirmed_flush_lsn)::int8 as lag,
            (pg_catalog.date_part('epoch', r.replay_lag) * 1000)::int4 as ms, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::int8 as retained, s.wal_status as status, s.confirmed_flush_lsn::text as confirmed
       from pg_catalog.pg_replication_slots s left join pg_catalog.pg_stat_replication r on r.pid = s.active_pid where s.slot_name = any($1::pg_catalog.text[])`, [slots],
  );
  return new Map(rows.map((row) => [row.slot, { slot: row.slot, active: row.active, lagBytes: Number(row.lag ?? 0n), lagMs: row.ms, retainedBytes: Number(row.retained ?? 0n), walStatus: row.status ?? 'unknown', confirmedLsn: row.confirmed === null ? zeroLsn : parseLsn(row.confirmed) }]));
}

/** Slots of the whole server: each native target needs one, and one more for each table in its first copy. */
export async function readSlotUse(source: Session): Promise<{ readonly slotsUsed: number; readonly slotsMax: number }> {
  const row = await source.one<{ used: number; max: number }>(`select (select pg_catalog.count(*)::int4 from pg_catalog.pg_replication_slots) as used, pg_catalog.current_setting('max_replication_slots')::int4 as max`);
  return { slotsUsed: row.used, slotsMax: row.max };
}

export type BudgetVerdict = 'within' | 'warn' | 'spent';

/** At 80 % of the budget a warning, at 100 % it is spent. */
export function judgeBudget(retainedBytes: number, budgetBytes: number | undefined): BudgetVerdict {
  if (budgetBytes === undefined) return 'within';
  if (retainedBytes >= budgetBytes) return 'spent';
  return retainedBytes >= budgetBytes * 0.8 ? 'warn' : 'within';
}
