import { ensurePgweaveTables, installedVersion } from '../catalog/pgweave-schema.ts';
import type { Session } from '../pg/session.ts';

const moduleName = 'changes';
const moduleVersion = 1;

/**
 * Tables of the change stream in schema `pgweave` on the target. Each holds rows of several jobs.
 *
 * - `table_state`: the life of each table (table-states.ts).
 * - `parked_changes`: changes of tables that cannot take them now, in order, as bytes (apply/parked.ts).
 * - `progress`: end LSN of the last source transaction that is applied, where replication origins are not available; else the origin holds it.
 * - `marker`: sentinels (transactional logical messages of prefix `pgweave`) that were met, written in the target transaction that applied everything before them.
 * - `applier`: what the running follower last said about itself, once a second; for people and other processes, not a truth to decide on.
 * - `spool`: the folder where changes lie that the source has let go of and the target does not have yet (spool/registration.ts).
 * - `control`: requests to the running follower and its answers (control.ts).
 */
const statements: readonly string[] = [
  `create table if not exists pgweave.table_state (
     job text not null, schema_name text not null, table_name text not null,
     state text not null check (state in ('pending', 'copying', 'copied', 'streaming', 'paused')),
     copied_lsn pg_catalog.pg_lsn, paused_lsn pg_catalog.pg_lsn, reason text, row_key text, sqlstate text,
     since pg_catalog.timestamptz not null default pg_catalog.clock_timestamp(),
     primary key (job, schema_name, table_name))`,
  `create table if not exists pgweave.parked_changes (
     id bigint generated always as identity primary key,
     job text not null, schema_name text not null, table_name text not null,
     commit_lsn pg_catalog.pg_lsn not null, commit_time pg_catalog.int8 not null, change_count integer not null, changes bytea not null)`,
  `create index if not exists parked_changes_by_table on pgweave.parked_changes (job, schema_name, table_name, id)`,
  `create table if not exists pgweave.progress (job text primary key, lsn pg_catalog.pg_lsn not null)`,
  `create table if not exists pgweave.marker (
     job text not null, content text not null, lsn pg_catalog.pg_lsn not null, commit_lsn pg_catalog.pg_lsn not null,
     applied_at pg_catalog.timestamptz not null default pg_catalog.clock_timestamp())`,
  `create index if not exists marker_by_content on pgweave.marker (job, content)`,
  `create table if not exists pgweave.applier (
     job text primary key, pid integer not null, host text not null, started_at pg_catalog.timestamptz not null, seen_at pg_catalog.timestamptz not null,
     applied_lsn pg_catalog.pg_lsn, received_lsn pg_catalog.pg_lsn, source_lsn pg_catalog.pg_lsn, held boolean not null default false)`,
  `create table if not exists pgweave.spool (job text primary key, spool_id text not null, folder text not null, host text not null, start_lsn pg_catalog.pg_lsn not null)`,
  `create table if not exists pgweave.control (
     id bigint generated always as identity primary key,
     job text not null, action text not null, schema_name text, table_name text, lsn pg_catalog.pg_lsn, arguments pg_catalog.jsonb not null default '{}',
     requested_at pg_catalog.timestamptz not null default pg_catalog.clock_timestamp(), expires_at pg_catalog.timestamptz,
     status text not null default 'waiting' check (status in ('waiting', 'running', 'done', 'failed')), answer pg_catalog.jsonb, answered_at pg_catalog.timestamptz)`,
  `create index if not exists control_open on pgweave.control (job, id) where status in ('waiting', 'running')`,
];

/** Makes the tables where they are missing. Idempotent. */
export function ensureChangesSchema(session: Session): Promise<void> {
  return ensurePgweaveTables(session, moduleName, moduleVersion, statements);
}

/** Whether the tables are there. */
export async function hasChangesSchema(session: Session): Promise<boolean> {
  return (await installedVersion(session, moduleName)) !== undefined;
}

/** Forgets a job: rows of all the tables above. Returns how many there were. */
export async function forgetJob(session: Session, job: string): Promise<number> {
  let rows = 0;
  for (const table of ['table_state', 'parked_changes', 'progress', 'marker', 'applier', 'spool', 'control']) rows += await session.execute(`delete from pgweave.${table} where job = $1`, [job]);
  return rows;
}
