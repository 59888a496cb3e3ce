import { usageError } from '../core/errors.ts';
import { tableFromKey, tableKey, type TableRef } from '../core/tables.ts';
import { displayName, quoteIdent } from '../pg/identifiers.ts';
import type { Session, Sql } from '../pg/session.ts';

export interface ColumnDependentRow {
  readonly table_schema: string;
  readonly table_name: string;
  readonly column: string;
  readonly kind: 'index' | 'constraint' | 'policy' | 'trigger' | 'rule' | 'statistics' | 'view' | 'sequence' | 'generated column' | 'partition key' | 'function' | 'child table' | 'parent table' | 'type of table';
  readonly schema: string;
  /** Parts of a table carry its name: `orders.orders_check`. A function carries its argument types. */
  readonly name: string;
}

/**
 * What rests on these columns of tables, as the server itself keeps account of it (pg_depend; documentation, "pg_depend"): what DROP COLUMN would refuse or take along. Also tables that share
 * the column by inheritance, and types that it comes from. Not what the text of a function's body says: the server does not know it.
 */
function columnDependents(columns: readonly (TableRef & { readonly column: string })[]): Sql {
  const part = (of: string, table: string, name: string) => `select '${of}', pn.nspname, p.relname || '.' || ${name} from pg_catalog.pg_class p join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace where p.oid = ${table}`;
  const relation = (of: string, oid: string) => `select '${of}', pn.nspname, p.relname::text from pg_catalog.pg_class p join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace where p.oid = ${oid}`;
  const of = (catalog: string) => `d.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass`;
  return {
    text: `
      with wanted as (
        select n.nspname, c.relname, a.attname, c.oid, a.attnum, c.reloftype, c.relispartition, a.attinhcount
          from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) as w(schema, name, "column")
          join pg_catalog.pg_namespace n on n.nspname = w.schema join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
          join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = w."column" and not a.attisdropped
      )
      select distinct w.nspname::text as table_schema, w.relname::text as table_name, w.attname::text as "column", f.kind, f.schema::text as schema, f.name::text as name
        from wanted w join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = w.oid and d.refobjsubid = w.attnum
        cross join lateral (
          select case p.relkind when 'S' then 'sequence' else 'index' end, pn.nspname, p.relname::text
            from pg_catalog.pg_class p join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace where ${of('pg_class')} and p.oid = d.objid and d.objsubid = 0 and p.relkind in ('S', 'i', 'I')
          union all select x.* from pg_catalog.pg_constraint k cross join lateral (${part('constraint', 'k.conrelid', 'k.conname')}) x where ${of('pg_constraint')} and k.oid = d.objid and k.contype <> 'n' and k.conrelid <> 0
          union all select x.* from pg_catalog.pg_constraint k cross join lateral (${relation('index', 'k.conindid')}) x where ${of('pg_constraint')} and k.oid = d.objid and k.contype in ('p', 'u', 'x')
          union all select x.* from pg_catalog.pg_policy k cross join lateral (${part('policy', 'k.polrelid', 'k.polname')}) x where ${of('pg_policy')} and k.oid = d.objid
          union all select x.* from pg_catalog.pg_trigger k cross join lateral (${part('trigger', 'k.tgrelid', 'k.tgname')}) x where ${of('pg_trigger')} and k.oid = d.objid and not k.tgisinternal and k.tgparentid = 0
          union all select x.* from pg_catalog.pg_rewrite k cross join lateral (${relation('view', 'k.ev_class')}) x where ${of('pg_rewrite')} and k.oid = d.objid and k.rulename = '_RETURN'
          union all select x.* from pg_catalog.pg_rewrite k cross join lateral (${part('rule', 'k.ev_class', 'k.rulename')}) x where ${of('pg_rewrite')} and k.oid = d.objid and k.rulename <> '_RETURN'
          union all select 'statistics', sn.nspname, k.stxname::text from pg_catalog.pg_statistic_ext k join pg_catalog.pg_namespace sn on sn.oid = k.stxnamespace where ${of('pg_statistic_ext')} and k.oid = d.objid
          union all select x.* from pg_catalog.pg_attrdef k join pg_catalog.pg_attribute g on g.attrelid = k.adrelid and g.attnum = k.adnum cross join lateral (${part('generated column', 'k.adrelid', 'g.attname')}) x
            where ${of('pg_attrdef')} and k.oid = d.objid and k.adnum <> w.attnum
          union all select 'function', fn.nspname, p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')' from pg_catalog.pg_proc p join pg_catalog.pg_namespace fn on fn.oid = p.pronamespace where ${of('pg_proc')} and p.oid = d.objid
        ) as f(kind, schema, name)
      union
      select w.nspname, w.relname, w.attname, 'child table', n.nspname, c.relname from wanted w join pg_catalog.pg_inherits h on h.inhparent = w.oid join pg_catalog.pg_class c on c.oid = h.inhrelid and not c.relispartition join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      union
      select w.nspname, w.relname, w.attname, 'parent table', n.nspname, c.relname from wanted w join pg_catalog.pg_inherits h on h.inhrelid = w.oid join pg_catalog.pg_class c on c.oid = h.inhparent join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where w.attinhcount > 0 and exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = w.attname and not a.attisdropped)
      union
      -- Columns of a partition key depend on their table, not the other way round.
      select w.nspname, w.relname, w.attname, 'partition key', w.nspname, w.relname from wanted w join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = w.oid and d.objsubid = w.attnum
          and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = w.oid and d.refobjsubid = 0 and d.deptype = 'i'
      union
      select w.nspname, w.relname, w.attname, 'type of table', '', w.reloftype::pg_catalog.regtype::text from wanted w where w.reloftype <> 0
      order by 1, 2, 3, 4, 5, 6`,
    values: [columns.map((c) => c.schema), columns.map((c) => c.name), columns.map((c) => c.column)],
  };
}

/** What rests on these columns (by table key), refusing nothing. */
export async function readColumnDependents(source: Session, excluded: ReadonlyMap<string, readonly string[]>): Promise<ColumnDependentRow[]> {
  const list = [...excluded].flatMap(([key, columns]) => columns.map((column) => ({ ...tableFromKey(key), column })));
  return list.length === 0 ? [] : await source.query<ColumnDependentRow>(columnDependents(list));
}

/**
 * What rests on columns that a job leaves out (by table key): indexes, constraints, policies, triggers, rules, statistics objects, views and sequences, which are left out with them. Throws a usage
 * error where the table itself could not be without one: a generated column, the partition key, a function with a parsed body, another table that shares the column.
 */
export async function columnDependentsOf(source: Session, excluded: ReadonlyMap<string, readonly string[]>): Promise<ColumnDependentRow[]> {
  const dependents = await readColumnDependents(source, excluded);
  const isOut = (schema: string, table: string, column: string) => excluded.get(tableKey({ schema, name: table }))?.includes(column) === true;
  const faults = dependents.flatMap((d) => {
    const column = `${displayName(d.table_schema, d.table_name)}.${quoteIdent(d.column)}`;
    const other = displayName(d.schema, d.name);
    switch (d.kind) {
      case 'generated column': {
        const name = d.name.slice(d.table_name.length + 1);
        return isOut(d.table_schema, d.table_name, name) ? [] : [`${column}: the generated column "${name}" is computed from it; leave that out too`];
      }
      case 'partition key': return [`${column}: the table is partitioned by it`];
      case 'function': return [`${column}: the function ${d.schema}.${d.name} uses it in its body`];
      case 'type of table': return [`${column}: the table is made OF ${d.name}`];
      case 'parent table': return isOut(d.schema, d.name, d.column) ? [] : [`${column}: it comes from ${other}; leave it out there`];
      case 'child table': return isOut(d.schema, d.name, d.column) ? [] : [`${column}: ${other} inherits it; leave it out there too`];
      default: return [];
    }
  });
  if (faults.length > 0) throw usageError(`--exclude-columns: the target could not be without ${faults.length === 1 ? 'a column' : 'some columns'}\n${faults.join('\n')}`, 'Take these columns along, or leave the table out with --exclude-tables.');
  return dependents;
}
