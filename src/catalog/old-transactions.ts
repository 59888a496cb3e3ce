import type { Sql } from '../pg/session.ts';

export interface OldTransactionRow {
  readonly pid: number;
  readonly role: string | null;
  readonly database: string | null;
  readonly application: string;
  readonly state: string | null;
  readonly age_seconds: number;
}

/** Transactions with an id that have run for at least `seconds`: creating a slot waits for each (documentation, "Logical Decoding Concepts"). */
export function oldTransactions(seconds: number): Sql {
  return {
    text: `
      select pid, usename::text as role, datname::text as database, application_name as application, state,
             pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - xact_start)::int as age_seconds
        from pg_catalog.pg_stat_activity
       where backend_xid is not null and xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1) and pid <> pg_catalog.pg_backend_pid()
       order by xact_start`,
    values: [seconds],
  };
}

export interface PreparedTransactionRow {
  readonly gid: string;
  readonly owner: string;
  readonly database: string;
  readonly age_seconds: number;
}

export function preparedTransactions(): Sql {
  return {
    text: `select gid, owner::text as owner, database::text as database, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - prepared)::int as age_seconds from pg_catalog.pg_prepared_xacts order by prepared`,
  };
}

/** Whether the role sees other roles' transactions in pg_stat_activity. */
export function seesActivity(): Sql {
  return { text: `select pg_catalog.pg_has_role('pg_read_all_stats', 'usage') as sees` };
}
