import { readTableStates, type TableRecord } from '../../changes/table-states.ts';
import { emitMarker, waitForMarker } from '../../changes/sentinel.ts';
import { PgweaveError } from '../../core/errors.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import { formatBytes, formatDuration } from '../../core/units.ts';
import { displayName } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';

/** Every table of the job is copied and none is paused, or this throws what is in the way. */
export async function settledTables(target: Session, job: string): Promise<TableRecord[]> {
  const { there } = await target.one<{ there: boolean }>(`select pg_catalog.to_regclass('pgweave.table_state') is not null as there`);
  const tables = there ? await readTableStates(target, job) : [];
  if (tables.length === 0) throw new PgweaveError('no-such-job', `the target knows no job "${job}"`, { hint: 'Was it cloned with --follow, is --target right, and is the job called so? pgweave status shows what is there.' });
  const unfinished = tables.filter((t) => t.state.name === 'pending' || t.state.name === 'copying');
  if (unfinished.length > 0) throw new PgweaveError('not-copied', `${unfinished.length} of ${tables.length} tables are not copied yet, such as ${displayName(unfinished[0]!.schema, unfinished[0]!.name)}`, { hint: 'Let clone finish first.' });
  const paused = tables.filter((t) => t.state.name === 'paused');
  if (paused.length > 0) {
    const shown = paused.slice(0, 5).map((t) => displayName(t.schema, t.name)).join(', ');
    throw new PgweaveError('tables-paused', `${paused.length} of ${tables.length} tables are paused: ${shown}`, { hint: `Settle each with: pgweave table NAME --job ${job} --retry | --skip-transaction | --copy-again. pgweave status says why they are paused.` });
  }
  return tables;
}

/** The slot is there and in use; returns how far behind the target is, bytes. Writes nothing. */
export async function followedSlot(source: Session, job: string): Promise<{ readonly lagBytes: number }> {
  const slot = jobObjectName(job);
  const [found] = await source.query<{ pid: number | null; lag: bigint }>(
    'select active_pid as pid, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), confirmed_flush_lsn)::int8 as lag from pg_catalog.pg_replication_slots where slot_name = $1 and database = pg_catalog.current_database()', [slot],
  );
  if (!found) throw new PgweaveError('no-slot', `the source has no slot ${slot}`, { hint: 'The job has no stream: it was cloned without --follow, or its slot was dropped.' });
  if (found.pid === null) throw new PgweaveError('no-follower', `nothing follows: slot ${slot} is not in use`, { hint: `Start the follower first, in another terminal or on another machine: pgweave follow --job ${job}` });
  return { lagBytes: Number(found.lag) };
}

/** The follower runs and is close behind: a first marker, before anything is locked, must come through in time. */
export async function probeFollower(source: Session, target: Session, job: string, content: string, timeoutMs: number, signal: AbortSignal): Promise<{ readonly lagBytes: number; readonly roundTripMs: number }> {
  const { lagBytes } = await followedSlot(source, job);
  const since = performance.now();
  const probe = await emitMarker(source, content);
  if (!(await waitForMarker(target, job, probe, timeoutMs, signal))) {
    throw new PgweaveError('too-far-behind', `the target is too far behind: a marker did not come through within ${formatDuration(timeoutMs)} (lag ${formatBytes(lagBytes)})`, { hint: 'Try again when the lag is small; nothing was locked. A longer --timeout waits longer.' });
  }
  return { lagBytes, roundTripMs: performance.now() - since };
}
