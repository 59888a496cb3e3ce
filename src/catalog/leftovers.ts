import type { Sql } from '../pg/session.ts';

/** Queries for what pgweave made on a server. `pattern` is a regular expression over whole names; see workflows/cleanup.ts. */

export function slotsLike(pattern: string): Sql {
  return {
    text: `select slot_name as name, active_pid as pid, database, temporary, wal_status,
                  pg_catalog.pg_wal_lsn_diff(case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_lsn() end, restart_lsn)::int8 as retained
             from pg_catalog.pg_replication_slots where slot_name ~ $1 and database = pg_catalog.current_database() order by 1`,
    values: [pattern],
  };
}

export function publicationsLike(pattern: string): Sql {
  return { text: `select pubname as name from pg_catalog.pg_publication where pubname ~ $1 order by 1`, values: [pattern] };
}

/** Subscriptions of the current database. `subconninfo` is left out on purpose: it may hold a password. */
export function subscriptionsLike(pattern: string): Sql {
  return {
    text: `select s.subname as name, s.subenabled as enabled, s.subslotname as slot from pg_catalog.pg_subscription s
             join pg_catalog.pg_database d on d.oid = s.subdbid where d.datname = pg_catalog.current_database() and s.subname ~ $1 order by 1`,
    values: [pattern],
  };
}

/** Replication origins belong to the whole server, not to a database. */
export function originsLike(pattern: string): Sql {
  return { text: `select roname as name from pg_catalog.pg_replication_origin where roname ~ $1 order by 1`, values: [pattern] };
}

/** Tables of schema pgweave, with whether they tell jobs apart by a column `job`. */
export function pgweaveTables(): Sql {
  return {
    text: `select c.relname as name, exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = 'job' and not a.attisdropped) as by_job
             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'pgweave' and c.relkind in ('r', 'p') order by 1`,
  };
}

/** Settings of the current database that a switchover may have left. */
export function databaseReadOnly(): Sql {
  return {
    text: `select exists (select from pg_catalog.pg_db_role_setting s join pg_catalog.pg_database d on d.oid = s.setdatabase
             where d.datname = pg_catalog.current_database() and s.setrole = 0 and 'default_transaction_read_only=on' = any(s.setconfig)) as read_only`,
  };
}
