import type { SlotStateRow } from '../catalog/slot-state.ts';
import { PgweaveError } from '../core/errors.ts';
import { formatBytes } from '../core/units.ts';
import { parseLsn, type Lsn } from '../pg/lsn.ts';

/** How near a slot is to being lost. `at-risk` leaves time to act, `urgent` says that the next checkpoint may take the WAL away. */
export type SlotRisk = 'none' | 'at-risk' | 'urgent' | 'lost';

/** Below this share of max_slot_wal_keep_size the slot is at risk. */
const riskShare = 0.25;

/** Source: documentation, view pg_replication_slots, columns wal_status and safe_wal_size. */
export function slotRisk(row: Pick<SlotStateRow, 'wal_status' | 'safe_wal_size' | 'keep_bytes' | 'invalidation'>): SlotRisk {
  if (row.wal_status === 'lost' || row.invalidation !== null) return 'lost';
  if (row.wal_status === 'unreserved') return 'urgent';
  if (row.safe_wal_size === null || row.keep_bytes < 0n) return 'none';
  if (row.safe_wal_size <= 0n) return 'urgent';
  return Number(row.safe_wal_size) < Number(row.keep_bytes) * riskShare ? 'at-risk' : 'none';
}

export function riskWarning(slot: string, risk: 'at-risk' | 'urgent', row: Pick<SlotStateRow, 'safe_wal_size' | 'retained_bytes' | 'keep_bytes'>): { code: string; message: string; hint: string } {
  const kept = formatBytes(Number(row.retained_bytes ?? 0n));
  return {
    code: `slot-${risk}`,
    message: risk === 'urgent' ? `slot ${slot} is about to be lost: it keeps ${kept} of WAL and the next checkpoint may remove it` : `slot ${slot} keeps ${kept} of WAL; after ${formatBytes(Number(row.safe_wal_size ?? 0n))} more it is in danger of being lost`,
    hint: `Raise max_slot_wal_keep_size on the source (now ${row.keep_bytes < 0n ? 'unlimited' : formatBytes(Number(row.keep_bytes))}) and reload it, or start with --spool so that WAL is taken off the source while the target is behind.`,
  };
}

const resync = 'Its changes are gone for good. Begin again with a new copy: pgweave cleanup, then pgweave clone --follow.';

/**
 * Whether streaming from a slot can go on; throws what a person must decide [hard cases 20, 22]. `acknowledgedLsn`: the newest position that this process has
 * acknowledged; a slot beyond it was moved by somebody else. Never creates or moves a slot.
 */
export function checkSlot(slot: string, row: SlotStateRow | undefined, expected: { readonly database: string; readonly acknowledgedLsn: Lsn | undefined }): void {
  if (!row) {
    throw new PgweaveError('slot-missing', `there is no replication slot ${slot} on the source`, {
      retry: 'never', hint: `It was dropped, or the source is another server now (slots do not move with a failover before PostgreSQL 17). ${resync}`, details: { slot },
    });
  }
  if (row.slot_type !== 'logical' || row.plugin !== 'pgoutput') {
    throw new PgweaveError('slot-of-another-plugin', `slot ${slot} is ${row.slot_type === 'logical' ? `of the plugin ${row.plugin}` : 'a physical slot'}, not of pgoutput`, {
      retry: 'never', hint: 'It belongs to another program. Choose another job name with --job.', details: { slot },
    });
  }
  if (row.database !== expected.database) {
    throw new PgweaveError('slot-of-another-database', `slot ${slot} belongs to the database ${row.database}, not to ${expected.database}`, { retry: 'never', hint: 'Choose another job name with --job, or correct --source.', details: { slot } });
  }
  if (slotRisk(row) === 'lost') throw slotLost(slot, row.invalidation);
  if (row.confirmed_flush_lsn !== null && expected.acknowledgedLsn !== undefined && parseLsn(row.confirmed_flush_lsn) > expected.acknowledgedLsn) {
    throw new PgweaveError('slot-advanced', `slot ${slot} was moved to ${row.confirmed_flush_lsn} by somebody else: changes before it will not come any more`, { retry: 'never', hint: resync, details: { slot } });
  }
}

export function slotLost(slot: string, reason: string | null | undefined): PgweaveError {
  return new PgweaveError('slot-lost', `the source has invalidated slot ${slot}${reason ? ` (${reason})` : ''}: WAL that it needed was removed`, { retry: 'never', hint: resync, details: { slot } });
}
