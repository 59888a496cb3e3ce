import type { Sql } from '../pg/session.ts';
import { notOfExtension, userSchema } from './user-objects.ts';

export interface RelationNameRow {
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
}

/** User relations of a database (tables, views, sequences, …), by name. */
export function relationNames(): Sql {
  return {
    text: `
      select n.nspname::text as schema, c.relname::text as name, case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'f' then 'foreign table' else 'table' end as kind
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and c.relpersistence <> 't' and ${userSchema()} and ${notOfExtension('c.oid', 'pg_class')}
       order by 1, 2`,
  };
}

/** Whether an earlier run of ours left its schema here. */
export function hasOwnSchema(): Sql {
  return { text: `select exists (select 1 from pg_catalog.pg_namespace where nspname = 'pgweave') as present` };
}
