import { sleep } from '../../core/abort.ts';
import { formatLsn, parseLsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';

const blockBytes = 8192n;
/** A long page header of the WAL: an insert position just behind one is the end of the record before it. */
const pageHeaderBytes = 40n;

/**
 * Waits until a native subscription has applied all that the source has committed by now: its worker confirms to the slot what the target has committed and flushed. False after `timeoutMs`,
 * or where the slot is gone.
 */
export async function subscriptionCaughtUp(source: Session, slot: string, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
  const { lsn } = await source.one<{ lsn: string }>('select (case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_insert_lsn() end)::text as lsn');
  const at = parseLsn(lsn);
  const into = at % blockBytes;
  const goal = into <= pageHeaderBytes ? at - into : at;
  for (const end = Date.now() + timeoutMs; ; await sleep(20, signal)) {
    const [row] = await source.query<{ there: boolean }>('select confirmed_flush_lsn >= $2::pg_catalog.pg_lsn as there from pg_catalog.pg_replication_slots where slot_name = $1', [slot, formatLsn(goal as typeof at)]);
    if (!row) return false;
    if (row.there) return true;
    if (Date.now() > end) return false;
  }
}
