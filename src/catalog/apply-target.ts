import type { TableRef } from '../core/tables.ts';
import type { Session } from '../pg/session.ts';

export interface ApplyColumn {
  readonly name: string;
  /** As SQL writes it, qualified, with its modifier: `pg_catalog.numeric(10,2)` is written `numeric(10,2)` by the server for its own types. */
  readonly type: string;
  readonly typeOid: number;
  /** The type below all domains, as SQL writes it: a scratch table must not check a domain's constraints. */
  readonly baseType: string;
  readonly baseTypeOid: number;
  /** As `type`, without its modifier: a cast to `varchar(3)` would cut a value that an INSERT refuses. */
  readonly bareType: string;
  /** Qualified and quoted, where the column has another collation than its type; else undefined. */
  readonly collation: string | undefined;
  /** Values are elements of an array or of a composite: `unnest` would take them apart. */
  readonly isArray: boolean;
  readonly generated: boolean;
  readonly identityAlways: boolean;
  readonly notNull: boolean;
  readonly hasDefault: boolean;
  /** Has a default B-tree operator class, so `=` finds it by an index and means the same as comparing. */
  readonly comparable: boolean;
}

/** A unique index that holds whatever happens: valid, immediate, without expressions and without a predicate. */
export interface ApplyKey {
  readonly columns: readonly string[];
  readonly primary: boolean;
}

/** A target table as the applier needs to know it. */
export interface ApplyTarget extends TableRef {
  readonly oid: number;
  /** pg_class.relkind: r table, p partitioned, f foreign, v view. */
  readonly kind: string;
  readonly columns: readonly ApplyColumn[];
  readonly keys: readonly ApplyKey[];
  /** Columns in which some index begins: a search by one of them needs no scan. */
  readonly indexedFirst: readonly string[];
  /** Row security applies to our role: COPY FROM is refused then. */
  readonly rowSecurity: boolean;
  /** Enabled triggers of users that fire although the session is a replica (ENABLE ALWAYS or REPLICA). */
  readonly firingTriggers: readonly string[];
  /** Enabled triggers of users that fire unless the session is a replica. */
  readonly originTriggers: readonly string[];
}

/** Reads a table of the target; undefined where there is none of that name. PostgreSQL 14 and newer. */
export async function readApplyTarget(session: Session, table: TableRef): Promise<ApplyTarget | undefined> {
  const [head] = await session.query<{ oid: number; kind: string; row_security: boolean; firing: string[]; origin: string[] }>(
    `select c.oid, c.relkind::text as kind,
       c.relrowsecurity and not r.rolsuper and not r.rolbypassrls and (c.relforcerowsecurity or not pg_catalog.pg_has_role(c.relowner, 'USAGE')) as row_security,
       array(select t.tgname::text from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('A', 'R') order by 1) as firing,
       array(select t.tgname::text from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled = 'O' order by 1) as origin
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace, pg_catalog.pg_roles r
     where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'f', 'v') and r.rolname = current_user`,
    [table.schema, table.name],
  );
  if (!head) return undefined;
  const columns = await session.query<{ name: string; type: string; type_oid: number; base_type: string; base_type_oid: number; bare_type: string; collation: string | null; is_array: boolean; generated: boolean; identity_always: boolean; not_null: boolean; has_default: boolean; comparable: boolean }>(
    `select a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.atttypid as type_oid, pg_catalog.format_type(base.oid, base.typmod) as base_type, base.oid as base_type_oid, pg_catalog.format_type(a.atttypid, -1) as bare_type,
       (select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(k.collname) from pg_catalog.pg_collation k join pg_catalog.pg_namespace n on n.oid = k.collnamespace where k.oid = a.attcollation and a.attcollation <> t.typcollation) as collation, base.typcategory = 'A' as is_array,
       a.attgenerated <> '' as generated, a.attidentity = 'a' as identity_always, a.attnotnull as not_null, a.atthasdef or a.attidentity <> '' as has_default,
       exists (select 1 from pg_catalog.pg_opclass o join pg_catalog.pg_am m on m.oid = o.opcmethod
               where m.amname = 'btree' and o.opcdefault and o.opcintype in (base.oid, case when base.oid = 'pg_catalog.varchar'::pg_catalog.regtype then 'pg_catalog.text'::pg_catalog.regtype::pg_catalog.oid end)) as comparable
     from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
       join lateral (with recursive d(oid, typtype, typbasetype, typcategory, typmod, below) as (
         select t.oid, t.typtype, t.typbasetype, t.typcategory, a.atttypmod, t.typtypmod
         union all select b.oid, b.typtype, b.typbasetype, b.typcategory, d.below, b.typtypmod from d join pg_catalog.pg_type b on b.oid = d.typbasetype where d.typtype = 'd')
         select oid, typcategory, typmod from d where typtype <> 'd') base on true
     where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum`,
    [head.oid],
  );
  const indexes = await session.query<{ columns: (string | null)[]; usable_key: boolean; is_primary: boolean; not_null: boolean }>(
    `select array(select a.attname::text from pg_catalog.generate_series(0, i.indnkeyatts - 1) as k(n)
                  left join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k.n] and i.indkey[k.n] > 0 order by k.n) as columns,
       i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null and i.indexprs is null as usable_key, i.indisprimary as is_primary,
       not exists (select 1 from pg_catalog.generate_series(0, i.indnkeyatts - 1) as k(n) join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k.n] where not a.attnotnull) as not_null
     from pg_catalog.pg_index i where i.indrelid = $1 and i.indisvalid and i.indpred is null order by i.indisprimary desc, i.indexrelid`,
    [head.oid],
  );
  return {
    schema: table.schema, name: table.name, oid: head.oid, kind: head.kind, rowSecurity: head.row_security, firingTriggers: head.firing, originTriggers: head.origin,
    columns: columns.map((c) => ({ name: c.name, type: c.type, typeOid: c.type_oid, baseType: c.base_type, baseTypeOid: c.base_type_oid, bareType: c.bare_type, collation: c.collation ?? undefined, isArray: c.is_array, generated: c.generated, identityAlways: c.identity_always, notNull: c.not_null, hasDefault: c.has_default, comparable: c.comparable })),
    keys: indexes.filter((i) => i.usable_key && i.not_null && !i.columns.includes(null)).map((i) => ({ columns: i.columns as string[], primary: i.is_primary })),
    indexedFirst: [...new Set(indexes.flatMap((i) => (i.columns[0] === null || i.columns[0] === undefined ? [] : [i.columns[0]])))],
  };
}
