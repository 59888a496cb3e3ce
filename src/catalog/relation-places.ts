import type { Sql } from '../pg/session.ts';
import { userSchema } from './user-objects.ts';

/** Something that takes a name among the relations of its schema. */
export interface RelationPlaceRow {
  readonly schema: string;
  readonly name: string;
  readonly kind: 'relation' | 'index' | 'sequence';
  /** The table that it goes along with when that is moved to another schema: of indexes and owned sequences; a table's own name; null for what belongs to none. */
  readonly table_schema: string | null;
  readonly table_name: string | null;
}

/** Every name that is taken in users' schemas: tables, views, indexes, sequences, composite types share one name space (documentation, CREATE INDEX and CREATE SEQUENCE). */
export function relationPlaces(): Sql {
  return {
    text: `
      select n.nspname::text as schema, c.relname::text as name, case c.relkind when 'i' then 'index' when 'I' then 'index' when 'S' then 'sequence' else 'relation' end as kind, tn.nspname::text as table_schema, t.relname::text as table_name
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        left join pg_catalog.pg_index i on i.indexrelid = c.oid
        left join pg_catalog.pg_depend d on c.relkind = 'S' and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0 and d.deptype in ('a', 'i') and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        left join pg_catalog.pg_class t on t.oid = case when c.relkind in ('r', 'p') then c.oid else coalesce(i.indrelid, d.refobjid) end left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
       where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'i', 'I', 'c') and c.relpersistence <> 't' and ${userSchema()}`,
  };
}

export interface MentioningRoutineRow {
  readonly schema: string;
  readonly name: string;
}

/** Routines of users whose text holds one of these words. The server knows nothing of what a body in quotes speaks of, so that this is all there is to find. */
export function routinesMentioning(words: readonly string[]): Sql {
  return {
    text: `
      select n.nspname::text as schema, p.proname::text as name
        from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang
       where l.lanname not in ('internal', 'c') and ${userSchema()} and exists (select from pg_catalog.unnest($1::text[]) w where pg_catalog.strpos(p.prosrc, w) > 0) order by 1, 2`,
    values: [words],
  };
}
