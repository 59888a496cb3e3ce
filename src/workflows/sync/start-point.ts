import { hasChangesSchema } from '../../changes/target-schema.ts';
import { readTableStates, type TableRecord } from '../../changes/table-states.ts';
import { readProgress } from '../../changes/apply/progress.ts';
import { slotState, type SlotStateRow } from '../../catalog/slot-state.ts';
import { PgweaveError } from '../../core/errors.ts';
import { displayName } from '../../pg/identifiers.ts';
import { formatLsn, maxLsn, parseLsn, zeroLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';

export async function readSlot(source: Session, slot: string): Promise<SlotStateRow | undefined> {
  return (await source.query<SlotStateRow>(slotState(slot, source.serverVersion)))[0];
}

/** Throws where a slot cannot serve a subscription: of another kind or database, lost, or used by somebody. */
export function checkSlot(slot: SlotStateRow, name: string, database: string): void {
  if (slot.slot_type !== 'logical' || slot.plugin !== 'pgoutput' || slot.database !== database) {
    throw new PgweaveError('slot-not-ours', `slot ${name} is there already on the source, and it is ${slot.slot_type}${slot.plugin === null ? '' : ` with plugin ${slot.plugin}`}${slot.database === null ? '' : ` of database "${slot.database}"`}`, { hint: 'Choose another --job.', exitCode: 2 });
  }
  if (slot.wal_status === 'lost' || slot.invalidation !== null) {
    throw new PgweaveError('slot-lost', `slot ${name} is lost: the source has removed WAL that it needs${slot.invalidation === null ? '' : ` (${slot.invalidation})`}`, { hint: 'What was changed since cannot be followed. Remove what is left with pgweave cleanup and begin anew; a larger max_slot_wal_keep_size keeps more.' });
  }
  if (slot.active_pid !== null) {
    throw new PgweaveError('slot-in-use', `slot ${name} is in use by process ${slot.active_pid} of the source`, { hint: 'A follower of this job still runs. Stop it (Ctrl-C where it runs), then again.', retry: 'backoff' });
  }
}

/** What of a job's copy is on the target, where it was copied for a stream of changes. */
export async function copiedTables(target: Session, job: string): Promise<TableRecord[]> {
  return (await hasChangesSchema(target)) ? readTableStates(target, job) : [];
}

export type StartPoint = { readonly kind: 'at'; readonly lsn: Lsn } | { readonly kind: 'bridge'; readonly upTo: Lsn };

/**
 * Where a native subscription must begin so that nothing is lost and nothing comes twice. A transaction whose commit record begins at or after the slot's position is sent; each
 * table holds what was committed before its own `copiedLsn`, and what pgweave's own stream has applied (`progress`, an end LSN). With tables copied at several
 * moments (a copy that was broken off and went on in another snapshot) no position fits all: then pgweave's own stream must first bring all of them to one (`bridge`).
 */
export function startPoint(tables: readonly TableRecord[], progress: Lsn | undefined, confirmed: Lsn): StartPoint {
  for (const t of tables) {
    const name = displayName(t.schema, t.name);
    if (t.state.name === 'paused') throw new PgweaveError('table-paused', `${name} is paused: ${t.state.reason}`, { hint: `Settle it first: pgweave table ${name} --retry | --skip-transaction | --copy-again` });
    if (t.state.name === 'pending' || t.state.name === 'copying') throw new PgweaveError('copy-not-finished', `${name} is not copied yet`, { hint: 'Let pgweave clone finish first: the same command goes on where it stopped.' });
    if (t.copiedLsn === undefined) throw new PgweaveError('copied-without-stream', `${name} was copied without a slot: what was changed since is not known`, { hint: 'Begin anew with pgweave clone --sync; or follow from now on only: pgweave sync --no-copy' });
  }
  const copied = tables.map((t) => t.copiedLsn!);
  const last = copied.reduce(maxLsn, zeroLsn);
  // The slot is confirmed by our own stream alone, and only for what is on the target: an idle source leaves no progress but a later position.
  const reached = maxLsn(progress ?? zeroLsn, confirmed);
  if (reached >= last) return { kind: 'at', lsn: reached };
  // Nothing was streamed: then one moment for all is enough. After streaming, tables copied before it have changes that the others must not get again.
  if (progress === undefined && copied.every((lsn) => lsn === last)) return { kind: 'at', lsn: last };
  return { kind: 'bridge', upTo: last };
}

/** Moves an unused slot forward to a position; transactions that commit before it will not be sent. */
export async function advanceSlot(source: Session, slot: string, lsn: Lsn): Promise<void> {
  const before = await readSlot(source, slot);
  const confirmed = before?.confirmed_flush_lsn ? parseLsn(before.confirmed_flush_lsn) : zeroLsn;
  if (confirmed < lsn) await source.query('select pg_catalog.pg_replication_slot_advance($1, $2::pg_catalog.pg_lsn)', [slot, formatLsn(lsn)]);
}

export { readProgress };
