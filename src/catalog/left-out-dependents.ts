import { tableFromKey } from '../core/tables.ts';
import type { Session } from '../pg/session.ts';

export interface LeftOutDependentRow {
  readonly kind: 'relation' | 'function' | 'constraint' | 'policy' | 'trigger' | 'rule';
  readonly schema: string;
  /** Parts of a table carry its name: `orders.orders_check`. A function carries its argument types: `add(integer, integer)`. */
  readonly name: string;
}

/**
 * These relations (by table key) and all that cannot be without them, as the server keeps account of it (documentation, "pg_depend"): partitions and children, views, and views of views, rules,
 * policies, foreign keys, functions with parsed bodies or their row types, triggers that call such functions. Not what belongs to a relation itself.
 */
export async function leftOutDependents(session: Session, relations: ReadonlySet<string>): Promise<LeftOutDependentRow[]> {
  if (relations.size === 0) return [];
  const list = [...relations].map(tableFromKey);
  const reg = (catalog: string) => `'pg_catalog.${catalog}'::pg_catalog.regclass`;
  const part = (of: string, catalog: string, table: string, name: string, prefix: string) => `
      select '${of}', n.nspname, c.relname || '.' || k.${name} from gone g join pg_catalog.${catalog} k on k.oid = g.objid join pg_catalog.pg_class c on c.oid = k.${table} join pg_catalog.pg_namespace n on n.oid = c.relnamespace where g.classid = ${reg(catalog)}${prefix}`;
  return await session.query<LeftOutDependentRow>({
    text: `
      with recursive gone (classid, objid) as (
        select ${reg('pg_class')}::pg_catalog.oid, c.oid from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as w(schema, name)
          join pg_catalog.pg_namespace n on n.nspname = w.schema join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
        union
        select x.classid, x.objid from gone g join pg_catalog.pg_depend d on d.refclassid = g.classid and d.refobjid = g.objid
          cross join lateral (
            select d.classid, d.objid where d.classid in (${reg('pg_proc')}, ${reg('pg_policy')}, ${reg('pg_trigger')}, ${reg('pg_type')})
            union all select d.classid, d.objid from pg_catalog.pg_constraint k where d.classid = ${reg('pg_constraint')} and k.oid = d.objid and k.contype = 'f'
            union all select d.classid, d.objid from pg_catalog.pg_class c where d.classid = ${reg('pg_class')} and d.objsubid = 0 and c.oid = d.objid and c.relkind in ('r', 'p', 'f')
            union all select case when r.rulename = '_RETURN' then ${reg('pg_class')} else d.classid end, case when r.rulename = '_RETURN' then r.ev_class else d.objid end from pg_catalog.pg_rewrite r where d.classid = ${reg('pg_rewrite')} and r.oid = d.objid
          ) as x(classid, objid)
      )
      select 'relation' as kind, n.nspname::text as schema, c.relname::text as name from gone g join pg_catalog.pg_class c on c.oid = g.objid join pg_catalog.pg_namespace n on n.oid = c.relnamespace where g.classid = ${reg('pg_class')}
      union all select 'function', n.nspname, p.proname || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')' from gone g join pg_catalog.pg_proc p on p.oid = g.objid join pg_catalog.pg_namespace n on n.oid = p.pronamespace where g.classid = ${reg('pg_proc')}
      union all ${part('constraint', 'pg_constraint', 'conrelid', 'conname', '')}
      union all ${part('policy', 'pg_policy', 'polrelid', 'polname', '')}
      union all ${part('trigger', 'pg_trigger', 'tgrelid', 'tgname', ' and not k.tgisinternal')}
      union all ${part('rule', 'pg_rewrite', 'ev_class', 'rulename', '')}`,
    values: [list.map((t) => t.schema), list.map((t) => t.name)],
  });
}
