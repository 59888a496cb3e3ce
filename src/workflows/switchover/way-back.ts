import { ensureChangesSchema } from '../../changes/target-schema.ts';
import { invertedTables, noteSelection, type KeptSelection } from '../../copy/kept-selection.ts';
import { PgweaveError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoints.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { isWayBack, oppositeJob } from '../../core/way-back.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { formatLsn, type Lsn } from '../../pg/lsn.ts';
import { ReplicationSession } from '../../pg/replication-session.ts';
import { Session } from '../../pg/session.ts';
import { sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';
import { returningTables } from '../clone/filtered-stream.ts';
import { ensurePublications } from '../publications.ts';

export interface WayBack {
  readonly job: string;
  readonly slot: string;
  /** Changes of the target from here on go back. */
  readonly lsn: Lsn;
  /** Tables of which only inserts go back: they have no replica identity. */
  readonly insertsOnly: readonly TableRef[];
}

/**
 * Opens the way back before anybody writes to the target: a publication and a slot there, and the state of a follower on the old source. What the forward stream writes on the target bears its
 * origin and is left out of the way back. `target` and `source` are named as in the forward direction, `tables` as on the target; `kept` is what the forward job made of its tables. Can be run
 * again: a slot of an earlier attempt is replaced.
 */
export async function openWayBack(source: ConnectionSpec, target: ConnectionSpec, forwardJob: string, tables: readonly TableRef[], kept: KeptSelection, signal: AbortSignal): Promise<WayBack> {
  const job = oppositeJob(forwardJob);
  const slot = jobObjectName(job);
  await using onTarget = await Session.open(target, { role: 'way back', job: forwardJob, side: 'the target', signal });
  const inverted = invertedTables(kept.tables);
  const conditions = new Map(inverted.map((t) => [tableKey(t), t.where]));
  const { insertsOnly } = await ensurePublications(onTarget, { job, tables: isWayBack(forwardJob) ? await returningTables(onTarget, job, tables, (table) => conditions.get(tableKey(table))) : tables });
  await failpoint('switchover.reverse-publication');
  await dropSlotOfEarlierAttempt(onTarget, slot);
  await using sender = await ReplicationSession.open(target, { role: 'way back', job: forwardJob, side: 'the target', signal });
  const { consistentPoint } = await sender.createLogicalSlot({ name: slot, failover: onTarget.serverVersion >= 170_000 });
  await failpoint('switchover.reverse-slot');
  await using onSource = await Session.open(source, { role: 'way back', job: forwardJob, side: 'the source', signal });
  await ensureChangesSchema(onSource);
  // On a return the clone's own note stands there already; an older way back may have none to replace it with.
  if (!isWayBack(forwardJob) || kept.tables.length > 0) await noteSelection(onSource, job, inverted);
  await onSource.transaction(async () => {
    await onSource.query('delete from pgweave.table_state where job = $1', [job]);
    await onSource.query(
      `insert into pgweave.table_state (job, schema_name, table_name, state, copied_lsn) select $1, u.s, u.t, 'copied', $4 from rows from (pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) as u(s, t)`,
      [job, tables.map((t) => t.schema), tables.map((t) => t.name), formatLsn(consistentPoint)],
    );
  });
  return { job, slot, lsn: consistentPoint, insertsOnly };
}

/**
 * On a return, the stream of the forward job begins where the way back has been drained, not where its slot was made while the way back still wrote to the old source: these changes came from the
 * other side, and a follower that takes what was replicated (--origin any) would bring them there again. `source` and `target` are those of the way back, `job` the one that begins anew.
 */
export async function beginAfterDrain(source: Session, target: Session, job: string): Promise<void> {
  const { lsn } = await target.one<{ lsn: string }>('select pg_catalog.pg_current_wal_insert_lsn()::text as lsn');
  await source.query('update pgweave.table_state set copied_lsn = $2 where job = $1', [job, lsn]);
}

async function dropSlotOfEarlierAttempt(target: Session, slot: string): Promise<void> {
  const [found] = await target.query<{ pid: number | null; ours: boolean }>('select active_pid as pid, database = pg_catalog.current_database() as ours from pg_catalog.pg_replication_slots where slot_name = $1', [slot]);
  if (!found) return;
  if (!found.ours || found.pid !== null) {
    throw new PgweaveError('slot-in-use', `slot ${slot} on the target ${found.ours ? `is in use by process ${found.pid}` : 'belongs to another database'}`, { hint: 'Something follows the way back of an earlier run. Stop it, or choose another --job.' });
  }
  await target.query('select pg_catalog.pg_drop_replication_slot($1)', [slot]);
}

/** Takes the way back away again, after a switchover that was undone. Never throws: what stays is listed by cleanup. */
export async function closeWayBack(target: Session, forwardJob: string): Promise<void> {
  try {
    await target.query('select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where slot_name = $1 and active_pid is null', [jobObjectName(oppositeJob(forwardJob))]);
  } catch (error) {
    if (sqlstateOf(error) !== sqlstate.undefinedObject) return;
  }
}
