import type { Sql } from '../pg/session.ts';

export interface LockRightsRow {
  /** ALTER DATABASE … SET needs ownership. */
  readonly owns_database: boolean;
  readonly superuser: boolean;
  /** May end sessions of other roles that are no superusers. */
  readonly signal_backend: boolean;
  /** Tables that the role may not lock in SHARE mode, first five, and how many. */
  readonly unlockable: readonly string[];
  readonly unlockable_count: number;
}

/** What refusing writes takes. LOCK TABLE in SHARE mode needs UPDATE, DELETE or TRUNCATE (PostgreSQL documentation, "LOCK"). */
export function lockRights(schemas: readonly string[], names: readonly string[]): Sql {
  return {
    text: `
      with wanted as (
        select n.nspname || '.' || c.relname as name from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) as w(s, t)
          join pg_catalog.pg_namespace n on n.nspname = w.s join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t
         where not pg_catalog.has_table_privilege(c.oid, 'update, delete, truncate') order by 1)
      select pg_catalog.pg_has_role(d.datdba, 'usage') as owns_database, r.rolsuper as superuser, r.rolsuper or pg_catalog.pg_has_role('pg_signal_backend', 'usage') as signal_backend,
             array(select name::text from wanted limit 5) as unlockable, (select count(*)::int from wanted) as unlockable_count
        from pg_catalog.pg_roles r, pg_catalog.pg_database d where r.rolname = current_user and d.datname = pg_catalog.current_database()`,
    values: [schemas, names],
  };
}

export interface WriterSessionsRow {
  readonly sessions: number;
  /** Transactions that have been open for longer than ten seconds. */
  readonly long: number;
  readonly oldest_seconds: number | null;
  readonly oldest_pid: number | null;
}

/** Client sessions of the database but those of the job: what a switchover ends. */
export function writerSessions(job: string): Sql {
  return {
    text: `
      select count(*)::int as sessions, count(*) filter (where xact_start < pg_catalog.clock_timestamp() - interval '10 s')::int as long,
             pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - pg_catalog.min(xact_start))::float8 as oldest_seconds, (pg_catalog.array_agg(pid order by xact_start))[1] as oldest_pid
        from pg_catalog.pg_stat_activity
       where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid() and usename is not null and coalesce(backend_type, 'client backend') = 'client backend'
         and pid not in (select r.pid from pg_catalog.pg_stat_replication r) and application_name not like $1`,
    values: [`pgweave ${job.replaceAll('_', '\\_')} %`],
  };
}

/** Prepared transactions of this database: they hold their locks until somebody commits them, and no session can be ended to be rid of them. */
export function preparedHere(): Sql {
  return { text: 'select gid from pg_catalog.pg_prepared_xacts where database = pg_catalog.current_database() order by prepared' };
}

export interface UnreplicatedRow {
  readonly large_objects: number;
  /** Size of pg_largeobject with its index; 0 where no large object is there. */
  readonly large_object_bytes: number;
  readonly unlogged: number;
  readonly unlogged_bytes: number;
}

/** What replication does not carry and is copied again while writes are refused. Counts up to 100,000 large objects. */
export function unreplicated(): Sql {
  return {
    text: `
      select (select count(*)::int from (select from pg_catalog.pg_largeobject_metadata limit 100000) l) as large_objects,
             case when exists (select from pg_catalog.pg_largeobject_metadata) then pg_catalog.pg_total_relation_size('pg_catalog.pg_largeobject')::float8 else 0 end as large_object_bytes,
             count(c.oid)::int as unlogged, coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::float8 as unlogged_bytes
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where c.relkind = 'r' and c.relpersistence = 'u' and n.nspname not in ('pg_catalog', 'information_schema', 'pgweave')`,
  };
}

export interface WayBackRoomRow {
  readonly wal_level: string;
  readonly slots_used: number;
  readonly slots_max: number;
  readonly senders_used: number;
  readonly senders_max: number;
  /** May create slots. */
  readonly replication: boolean;
}

/** Whether this server could be a source: what the way back needs of the target. */
export function wayBackRoom(): Sql {
  return {
    text: `
      select pg_catalog.current_setting('wal_level') as wal_level, (select count(*)::int from pg_catalog.pg_replication_slots) as slots_used, pg_catalog.current_setting('max_replication_slots')::int as slots_max,
             (select count(*)::int from pg_catalog.pg_stat_activity where backend_type = 'walsender') as senders_used, pg_catalog.current_setting('max_wal_senders')::int as senders_max,
             (select rolreplication or rolsuper or exists (select from pg_catalog.pg_roles m where m.rolname = 'rds_replication' and pg_catalog.pg_has_role(r.oid, m.oid, 'usage')) from pg_catalog.pg_roles r where r.rolname = current_user) as replication`,
  };
}
