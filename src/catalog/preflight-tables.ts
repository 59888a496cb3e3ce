import type { Sql } from '../pg/session.ts';
import { notOfExtension, userSchema } from './user-objects.ts';

export interface PreflightTableRow {
  readonly schema: string;
  readonly name: string;
  /** pg_class.relkind: r table (also a partition), p partitioned, f foreign. */
  readonly kind: 'r' | 'p' | 'f';
  /** pg_class.relpersistence: p permanent, u unlogged. */
  readonly persistence: 'p' | 'u';
  readonly owner: string;
  /** The connected role owns the table or is a member of its owner. */
  readonly owned: boolean;
  readonly schema_usage: boolean;
  readonly can_select: boolean;
  /** Row security hides rows from the role (it is neither exempt nor the owner of a table that does not force it). */
  readonly row_security: boolean;
  readonly bytes: bigint;
  readonly partition: boolean;
  /** pg_class.relreplident: d primary key, i index, f full, n nothing. */
  readonly replica_identity: 'd' | 'i' | 'f' | 'n';
  /** An index really serves as identity: the primary key (not deferrable) or the index that was named. */
  readonly has_identity_index: boolean;
  readonly has_primary_key: boolean;
  /** Columns that an UPDATE or DELETE logs of the old row: of the identity index; all with FULL. */
  readonly identity_columns: readonly string[];
  /** Their values follow from other columns', and are not sent. */
  readonly generated_columns: readonly string[];
  /** Unique indexes that could be named as identity: complete, immediate, valid, every column not null. */
  readonly identity_candidates: readonly string[];
  /** Unique indexes that could if these columns were not null: `index (column, …)`. */
  readonly nullable_candidates: readonly string[];
  /** Columns whose type has no default btree or hash equality, such as json, xml, point: `column type`. */
  readonly columns_without_equality: readonly string[];
}

/** Every user table with what preflight needs to know of it. Rules for an identity index: documentation, ALTER TABLE … REPLICA IDENTITY. */
export function preflightTables(): Sql {
  return {
    text: `
      with keys as (
        select i.indrelid, ic.relname::text as index_name, i.indisprimary, i.indisreplident,
               i.indimmediate and i.indisvalid and i.indpred is null and i.indexprs is null as usable,
               (select pg_catalog.array_agg(a.attname::text order by k.n) from pg_catalog.unnest(i.indkey::int2[]) with ordinality k(attnum, n)
                  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum where k.n <= i.indnkeyatts and not a.attnotnull) as nullable
          from pg_catalog.pg_index i join pg_catalog.pg_class ic on ic.oid = i.indexrelid
         where i.indisunique
      )
      select n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind, c.relpersistence::text as persistence, pg_catalog.pg_get_userbyid(c.relowner)::text as owner,
             pg_catalog.pg_has_role(c.relowner, 'usage') as owned, pg_catalog.has_schema_privilege(n.oid, 'usage') as schema_usage, pg_catalog.has_table_privilege(c.oid, 'select') as can_select,
             (c.relrowsecurity and not me.rolsuper and not me.rolbypassrls and (c.relforcerowsecurity or not pg_catalog.pg_has_role(c.relowner, 'usage'))) as row_security,
             case when c.relkind = 'r' then pg_catalog.pg_table_size(c.oid) else 0 end as bytes, c.relispartition as partition, c.relreplident::text as replica_identity,
             exists (select 1 from keys k where k.indrelid = c.oid and k.usable and ((c.relreplident = 'd' and k.indisprimary) or (c.relreplident = 'i' and k.indisreplident))) as has_identity_index,
             exists (select 1 from keys k where k.indrelid = c.oid and k.indisprimary) as has_primary_key,
             array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                     and (c.relreplident = 'f' or exists (select 1 from pg_catalog.pg_index i where i.indrelid = c.oid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1]) and i.indimmediate
                                                            and ((c.relreplident = 'd' and i.indisprimary) or (c.relreplident = 'i' and i.indisreplident))))) as identity_columns,
             array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated <> '') as generated_columns,
             coalesce((select pg_catalog.array_agg(k.index_name order by k.indisprimary desc, k.index_name) from keys k where k.indrelid = c.oid and k.usable and k.nullable is null), '{}') as identity_candidates,
             coalesce((select pg_catalog.array_agg(k.index_name || ' (' || pg_catalog.array_to_string(k.nullable, ', ') || ')' order by k.index_name) from keys k where k.indrelid = c.oid and k.usable and k.nullable is not null), '{}') as nullable_candidates,
             coalesce((select pg_catalog.array_agg(a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod) order by a.attnum)
                         from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid left join pg_catalog.pg_type b on t.typtype = 'd' and b.oid = t.typbasetype
                        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and coalesce(b.typtype, t.typtype) = 'b' and coalesce(b.typcategory, t.typcategory) <> 'A'
                          and not exists (select 1 from pg_catalog.pg_opclass o join pg_catalog.pg_am am on am.oid = o.opcmethod
                                           where am.amname in ('btree', 'hash') and o.opcdefault
                                             and (o.opcintype = coalesce(b.oid, t.oid) or exists (select 1 from pg_catalog.pg_cast k where k.castsource = coalesce(b.oid, t.oid) and k.casttarget = o.opcintype and k.castmethod = 'b' and k.castcontext = 'i')))), '{}') as columns_without_equality
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace, pg_catalog.pg_roles me
       where me.rolname = current_user and c.relkind in ('r', 'p', 'f') and c.relpersistence in ('p', 'u') and ${userSchema()} and ${notOfExtension('c.oid', 'pg_class')}
       order by n.nspname collate "C", c.relname collate "C"`,
  };
}
