import type { TableRef } from '../core/tables.ts';
import type { Sql } from '../pg/session.ts';

export interface PublishedColumnRow extends TableRef {
  readonly column: string;
  readonly type_oid: number;
  /** As format_type writes it, without the modifier. */
  readonly type: string;
}

/** Columns of all tables that publications carry, under the names that they are published by. */
export function publishedColumns(publications: readonly string[]): Sql {
  return {
    text: `
      select distinct p.schemaname::text as schema, p.tablename::text as name, a.attname::text as column, a.atttypid as type_oid, pg_catalog.format_type(a.atttypid, null) as type
        from pg_catalog.pg_publication_tables p
        join pg_catalog.pg_namespace n on n.nspname = p.schemaname join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
        join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
       where p.pubname = any($1::text[])`,
    values: [publications],
  };
}

export interface TargetTypeRow extends TableRef {
  readonly column: string;
  readonly type: string;
}

/** Types of the columns of tables, by the tables' names. */
export function targetColumnTypes(tables: readonly TableRef[]): Sql {
  return {
    text: `
      select n.nspname::text as schema, c.relname::text as name, a.attname::text as column, pg_catalog.format_type(a.atttypid, null) as type
        from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as w(schema, name)
        join pg_catalog.pg_namespace n on n.nspname = w.schema join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
        join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
       where c.relkind in ('r', 'p', 'f', 'v')`,
    values: [tables.map((t) => t.schema), tables.map((t) => t.name)],
  };
}

export interface SourceColumnRow {
  readonly name: string;
  readonly type: string;
  readonly not_null: boolean;
  readonly default_sql: string | null;
}

/** Columns of one table, for the DDL that adds them elsewhere. Defaults that are volatile or use objects of the source are printed as they stand there. */
export function sourceColumns(table: TableRef): Sql {
  return {
    text: `
      select a.attname::text as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null,
             case when a.attgenerated = '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end as default_sql
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
       where n.nspname = $1 and c.relname = $2 order by a.attnum`,
    values: [table.schema, table.name],
  };
}
