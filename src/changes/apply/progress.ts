import { jobObjectName } from '../../core/job-folder.ts';
import { quoteLiteral } from '../../pg/identifiers.ts';
import { formatLsn, parseLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';
import { sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';

/**
 * Where the target stands in the source's log: end LSN of the last source transaction that is applied, moved in the very transaction that applies it [hard case 41].
 * `origin`: a replication origin `pgweave_<job>` (its name also marks our changes, so that a stream with `origin = none` leaves them out).
 * `row`: a row of `pgweave.progress`, where the role may not use origins.
 */
export type ProgressKind = 'origin' | 'row';

/** Reads progress without an applier; undefined where nothing was applied yet. The origin counts where both are there. */
export async function readProgress(session: Session, job: string): Promise<Lsn | undefined> {
  const [origin] = await session.query<{ lsn: string | null }>(
    `select s.remote_lsn::text as lsn from pg_catalog.pg_replication_origin_status s where s.external_id = $1`, [jobObjectName(job)],
  ).catch((error: unknown) => {
    // The view is for superusers and pg_monitor's members; who may not see it has no origin either.
    if (sqlstateOf(error) === sqlstate.insufficientPrivilege) return [];
    throw error;
  });
  const fromOrigin = origin?.lsn && origin.lsn !== '0/0' ? parseLsn(origin.lsn) : undefined;
  const [row] = await session.query<{ lsn: string }>('select lsn::text from pgweave.progress where job = $1', [job]);
  const fromRow = row && row.lsn !== '0/0' ? parseLsn(row.lsn) : undefined;
  return fromOrigin === undefined ? fromRow : fromRow === undefined || fromOrigin > fromRow ? fromOrigin : fromRow;
}

/** Sets a session up to record progress, by origin where it may. Throws the server's error 55006 where another session uses the origin. */
export async function setUpProgress(session: Session, job: string): Promise<{ readonly kind: ProgressKind; readonly lsn: Lsn | undefined }> {
  const origin = jobObjectName(job);
  try {
    await session.query(`select pg_catalog.pg_replication_origin_create($1) where not exists (select 1 from pg_catalog.pg_replication_origin where roname = $1)`, [origin]);
    await session.query('select pg_catalog.pg_replication_origin_session_setup($1)', [origin]);
    const { lsn } = await session.one<{ lsn: string | null }>('select pg_catalog.pg_replication_origin_session_progress(true)::text as lsn');
    // A role that was given the privilege later goes on from the row that it used before.
    const [row] = await session.query<{ lsn: string }>('select lsn::text from pgweave.progress where job = $1', [job]);
    const before = row ? parseLsn(row.lsn) : undefined;
    let at = lsn === null || lsn === '0/0' ? undefined : parseLsn(lsn);
    if (before !== undefined && before > (at ?? 0n)) {
      await session.transaction(async () => {
        await session.query('select pg_catalog.pg_replication_origin_xact_setup($1, pg_catalog.now())', [formatLsn(before)]);
        await session.query('delete from pgweave.progress where job = $1', [job]);
      });
      at = before;
    }
    return { kind: 'origin', lsn: at };
  } catch (error) {
    if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) throw error;
  }
  await session.query(`insert into pgweave.progress (job, lsn) values ($1, '0/0') on conflict do nothing`, [job]);
  const { lsn } = await session.one<{ lsn: string }>('select lsn::text from pgweave.progress where job = $1', [job]);
  return { kind: 'row', lsn: lsn === '0/0' ? undefined : parseLsn(lsn) };
}

/**
 * Statements that begin a target transaction. The first fails (division by zero) unless the transaction before has committed: several transactions are sent ahead of
 * their answers, and none may be applied where the one before it was not. A second follower on the same job is met the same way.
 */
export function beginSql(kind: ProgressKind, job: string, before: Lsn | undefined): string {
  const expected = before === undefined ? null : quoteLiteral(formatLsn(before));
  if (kind === 'origin') {
    return `begin; select 1 / (case when pg_catalog.pg_replication_origin_session_progress(false) is not distinct from ${expected === null ? 'null' : `${expected}::pg_catalog.pg_lsn`} then 1 else 0 end)`;
  }
  return `begin; select 1 / pg_catalog.count(*) from (select 1 from pgweave.progress where job = ${quoteLiteral(job)} and lsn = ${expected ?? "'0/0'"} for update) as p`;
}

/** Statements that record progress; part of the transaction. The id makes the server write a commit record, without which an origin does not move. */
export function progressSql(kind: ProgressKind, job: string, end: Lsn, commitTime: bigint): string {
  if (kind === 'origin') return `select pg_catalog.pg_replication_origin_xact_setup(${quoteLiteral(formatLsn(end))}, ${quoteLiteral(timestampText(commitTime))}), pg_catalog.pg_current_xact_id()`;
  return `update pgweave.progress set lsn = ${quoteLiteral(formatLsn(end))} where job = ${quoteLiteral(job)}`;
}

/**
 * Begins a transaction of ours that stands for no source transaction. An origin's position is set outside transactions: what a failed transaction left there must
 * not be recorded by the next one that commits.
 */
export function beginNeutralSql(kind: ProgressKind): string {
  return `begin${kind === 'origin' ? '; select pg_catalog.pg_replication_origin_xact_reset()' : ''}`;
}

/** Microseconds since 2000-01-01 UTC as a timestamptz literal. */
export function timestampText(micros: bigint): string {
  const ms = Number(micros / 1000n) + Date.UTC(2000, 0, 1);
  const rest = String(micros % 1000n).padStart(3, '0');
  return `${new Date(ms).toISOString().slice(0, -1)}${rest}+00`;
}

/** Milliseconds since 1970 of a commit time. */
export function commitTimeMs(micros: bigint): number {
  return Number(micros) / 1000 + Date.UTC(2000, 0, 1);
}
