import type { Sql } from '../pg/session.ts';

export interface MatviewRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** `v` or `m`. */
  readonly kind: string;
  /** Always true for views. */
  readonly populated: boolean;
  /** Oids of views and materialized views in its query. */
  readonly reads: readonly number[];
}

/** Views and materialized views with what they read: a matview may read another through a plain view. */
export function viewDependencies(): Sql {
  return {
    text: `
      select c.oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind, c.relispopulated as populated,
             array(select distinct d.refobjid
                     from pg_catalog.pg_rewrite r
                     join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                     join pg_catalog.pg_class x on x.oid = d.refobjid and x.relkind in ('v', 'm')
                    where r.ev_class = c.oid and d.refobjid <> c.oid) as reads
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where c.relkind in ('v', 'm') and n.nspname not in ('pg_catalog', 'information_schema')
       order by n.nspname collate "C", c.relname collate "C"`,
  };
}
