import type { Sql } from '../pg/session.ts';
import { notOfExtension, userSchema } from './user-objects.ts';

export function largeObjectCount(): Sql {
  return { text: `select count(*)::int as count from pg_catalog.pg_largeobject_metadata` };
}

export interface AlwaysTriggerRow {
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  /** `trigger` or `rule`. */
  readonly kind: string;
  /** A: fires always; R: fires for replicated rows only. */
  readonly enabled: 'A' | 'R';
}

/** Triggers and rules that fire for replicated rows too (session_replication_role = replica). */
export function alwaysTriggers(): Sql {
  return {
    text: `
      select n.nspname::text as schema, c.relname::text as table, t.tgname::text as name, 'trigger' as kind, t.tgenabled::text as enabled
        from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where not t.tgisinternal and t.tgenabled in ('A', 'R') and t.tgparentid = 0 and ${userSchema()}
      union all
      select n.nspname::text, c.relname::text, w.rulename::text, 'rule', w.ev_enabled::text
        from pg_catalog.pg_rewrite w join pg_catalog.pg_class c on c.oid = w.ev_class join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where w.ev_enabled in ('A', 'R') and c.relkind in ('r', 'p') and ${userSchema()}
       order by 1, 2, 3`,
  };
}

export interface EventTriggerRow {
  readonly name: string;
  readonly event: string;
  readonly enabled: string;
}

/** Event triggers that are not disabled; those of extensions are left out. */
export function eventTriggers(): Sql {
  return { text: `select e.evtname::text as name, e.evtevent::text as event, e.evtenabled::text as enabled from pg_catalog.pg_event_trigger e where e.evtenabled <> 'D' and ${notOfExtension('e.oid', 'pg_event_trigger')} order by 1` };
}

/** Tablespaces other than the two built-in ones that user relations lie in. */
export function usedTablespaces(): Sql {
  return {
    text: `
      select s.spcname::text as name, count(*)::int as relations
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_tablespace s on s.oid = c.reltablespace
       where s.spcname <> 'pg_global' and ${userSchema()} group by 1 order by 1`,
  };
}

/** Tablespaces in which the session's role may make tables. */
export function usableTablespaces(): Sql {
  return { text: `select spcname::text as name from pg_catalog.pg_tablespace where spcname <> 'pg_global' and pg_catalog.has_tablespace_privilege(oid, 'create')` };
}
