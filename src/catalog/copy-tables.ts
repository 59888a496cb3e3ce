import type { Sql } from '../pg/session.ts';
import { userSchema } from './user-objects.ts';

export interface CopyTableRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** Bytes of the table with its TOAST, without indexes. */
  readonly bytes: bigint;
  /** Blocks of the main fork now: ctid ranges are cut from it. */
  readonly blocks: bigint;
  /** Estimate; -1 where never analysed. */
  readonly rows: number;
  readonly indexes: number;
  readonly unlogged: boolean;
  /** The table access method is heap, so that ctid ranges mean blocks. */
  readonly heap: boolean;
  /** pg_class.relfilenode as the snapshot sees it. */
  readonly filenode: number;
  /** Condition of an extension's configuration table (pg_extension.extcondition, empty for all rows); null where the table is no extension's. */
  readonly extension_condition: string | null;
  /** Top of the partition tree; null for a table that is no partition. */
  readonly root_schema: string | null;
  readonly root_name: string | null;
}

/**
 * Every table that holds rows of its own: ordinary tables, leaves of partition trees, children by inheritance, unlogged tables, configuration tables of extensions. Not
 * temporary ones, foreign ones, or roots of partition trees. Run it in the snapshot of the copy.
 */
export function copyTables(): Sql {
  return {
    text: `
      select c.oid, n.nspname::text as schema, c.relname::text as name, pg_catalog.pg_table_size(c.oid)::int8 as bytes, pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8 as blocks,
             c.reltuples::text as rows, (select count(*)::int from pg_catalog.pg_index i where i.indrelid = c.oid) as indexes, c.relpersistence = 'u' as unlogged,
             coalesce((select am.amname = 'heap' from pg_catalog.pg_am am where am.oid = c.relam), true) as heap, c.relfilenode as filenode, x.condition as extension_condition, rn.nspname::text as root_schema, r.relname::text as root_name
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0 and d.deptype = 'e'
        left join lateral (select u.condition from pg_catalog.pg_extension e, rows from (pg_catalog.unnest(e.extconfig), pg_catalog.unnest(e.extcondition)) as u(config, condition) where e.oid = d.refobjid and u.config = c.oid) x on true
        left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
        left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
       where c.relkind = 'r' and c.relpersistence in ('p', 'u') and n.nspname <> 'pgweave'
         and case when d.objid is null then ${userSchema()} else x.condition is not null end
       order by n.nspname collate "C", c.relname collate "C"`,
  };
}

export interface CopyColumnRow {
  readonly table_oid: number;
  readonly name: string;
  /** As format_type prints it. */
  readonly type: string;
  readonly type_oid: number;
  readonly generated: boolean;
}

/** Columns of tables, in their order, dropped ones left out. */
export function copyColumns(oids: readonly number[]): Sql {
  return {
    text: `
      select a.attrelid as table_oid, a.attname::text as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.atttypid as type_oid, a.attgenerated <> '' as generated
        from pg_catalog.pg_attribute a where a.attrelid = any($1::oid[]) and a.attnum > 0 and not a.attisdropped order by a.attrelid, a.attnum`,
    values: [oids],
  };
}

export interface CopyTypeRow {
  readonly oid: number;
  readonly name: string;
  /** pg_type.typtype: b base, c composite, d domain, e enum, p pseudo, r range, m multirange. */
  readonly kind: 'b' | 'c' | 'd' | 'e' | 'p' | 'r' | 'm';
  /** Of an array; 0 otherwise. */
  readonly element: number;
  /** Of a domain; 0 otherwise. */
  readonly base: number;
  /** Of a range or multirange; 0 otherwise. */
  readonly subtype: number;
  /** It has functions for binary output and input. */
  readonly binary: boolean;
}

/** The types of these columns with all that they consist of. */
export function copyTypes(typeOids: readonly number[]): Sql {
  return {
    text: `
      with recursive parts(oid) as (
        select pg_catalog.unnest($1::oid[])
        union
        select x.oid from parts p join pg_catalog.pg_type t on t.oid = p.oid
          cross join lateral (select t.typbasetype union all select case when t.typlen = -1 then t.typelem else 0 end
                              union all select r.rngsubtype from pg_catalog.pg_range r where r.rngtypid = t.oid
                              union all select r.rngsubtype from pg_catalog.pg_range r where r.rngmultitypid = t.oid) as x(oid)
         where x.oid <> 0
      )
      select t.oid, t.typname::text as name, t.typtype::text as kind, case when t.typlen = -1 then t.typelem else 0 end as element, t.typbasetype as base,
             coalesce((select r.rngsubtype from pg_catalog.pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)), 0) as subtype, t.typsend <> 0 and t.typreceive <> 0 as binary
        from parts p join pg_catalog.pg_type t on t.oid = p.oid`,
    values: [typeOids],
  };
}

export interface TargetColumnRow {
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  readonly type: string;
}

/** Columns of tables on the target, by the names of the tables. */
export function targetColumns(schemas: readonly string[], tables: readonly string[]): Sql {
  return {
    text: `
      select n.nspname::text as schema, c.relname::text as table, a.attname::text as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type
        from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as w(schema, name)
        join pg_catalog.pg_namespace n on n.nspname = w.schema join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
        join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
       where c.relkind in ('r', 'p')`,
    values: [schemas, tables],
  };
}
