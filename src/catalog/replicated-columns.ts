import type { Sql } from '../pg/session.ts';

export interface ReplicatedColumnRow {
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  /** A row could not be inserted without a value for it: NOT NULL, by itself or by its domain, and nothing that gives one. */
  readonly required: boolean;
  /** Its value follows from others. */
  readonly generated: boolean;
  readonly unlogged: boolean;
  /** The table has REPLICA IDENTITY FULL. */
  readonly full: boolean;
}

/** Columns of tables, with what matters for rows that come without some of them. */
export function replicatedColumns(schemas: readonly string[], names: readonly string[]): Sql {
  return {
    text: `
      select n.nspname::text as schema, c.relname::text as "table", a.attname::text as name, a.attgenerated <> '' as generated, c.relpersistence = 'u' as unlogged, c.relreplident = 'f' as "full",
             (a.attnotnull or t.typnotnull) and not (a.atthasdef or a.attidentity <> '' or t.typdefault is not null) as required
        from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) as w(s, t)
        join pg_catalog.pg_namespace n on n.nspname = w.s join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t
        join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped join pg_catalog.pg_type t on t.oid = a.atttypid
       where c.relkind in ('r', 'p') order by 1, 2, a.attnum`,
    values: [schemas, names],
  };
}
