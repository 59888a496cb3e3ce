import type { TableRef } from '../core/tables.ts';
import type { Sql } from '../pg/session.ts';

export interface LeafRow extends TableRef {
  readonly oid: number;
}

/** The tables that hold a table's rows: itself, or the leaves of its partition tree. */
export function leavesOf(table: TableRef): Sql {
  return {
    text: `
      select l.oid, ln.nspname::text as schema, l.relname::text as name
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        cross join lateral (select c.oid as leaf where c.relkind = 'r' union select t.relid from pg_catalog.pg_partition_tree(c.oid) t where t.isleaf) x
        join pg_catalog.pg_class l on l.oid = x.leaf join pg_catalog.pg_namespace ln on ln.oid = l.relnamespace
       where n.nspname = $1 and c.relname = $2 and l.relkind = 'r' order by ln.nspname collate "C", l.relname collate "C"`,
    values: [table.schema, table.name],
  };
}

/** Whether a table is in one of these publications, whether the first of them exists, and whether its updates can be published. */
export function publicationsOf(table: TableRef, publications: readonly string[]): Sql {
  return {
    text: `
      select exists (select 1 from pg_catalog.pg_publication_tables p where p.schemaname = $1 and p.tablename = $2 and p.pubname = any($3::text[])) as published,
             exists (select 1 from pg_catalog.pg_publication p where p.pubname = ($3::text[])[1]) as exists,
             not exists (
               select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                 cross join lateral (select c.oid as leaf where c.relkind = 'r' union select t.relid from pg_catalog.pg_partition_tree(c.oid) t where t.isleaf) x
                 join pg_catalog.pg_class l on l.oid = x.leaf
                where n.nspname = $1 and c.relname = $2 and l.relkind = 'r' and l.relreplident <> 'f'
                  and not exists (select 1 from pg_catalog.pg_index i where i.indrelid = l.oid and i.indisvalid and case l.relreplident when 'd' then i.indisprimary and i.indimmediate when 'i' then i.indisreplident else false end)) as identified`,
    values: [table.schema, table.name, publications],
  };
}
