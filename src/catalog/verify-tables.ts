import type { Sql } from '../pg/session.ts';
import { notOfExtension, userSchema } from './user-objects.ts';

export interface VerifyColumnRow {
  readonly name: string;
  /** As format_type prints it, with schema where it is not the server's own type. */
  readonly type: string;
  /** pg_attribute.attgenerated: '' plain, s stored, v virtual (18 and newer). */
  readonly generated: string;
  /** pg_attribute.attidentity: a always, d by default, '' none. */
  readonly identity: string;
}

export interface VerifyTableRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** r: holds rows (also a partition); p: partitioned; f: foreign. */
  readonly kind: 'r' | 'p' | 'f';
  readonly unlogged: boolean;
  /** Topmost partitioned table; null where it is no partition. */
  readonly root: number | null;
  readonly blocks: number;
  /** Rows can be read by ranges of ctid: access method heap. */
  readonly heap: boolean;
  readonly columns: readonly VerifyColumnRow[];
  /** Columns of unique indexes that tell rows apart: complete, without expressions, every column not null. The primary key first, then those of fewest columns. */
  readonly keys: readonly (readonly string[])[];
}

/** Every user table, partition and partitioned table, with what comparing its rows needs. */
export function verifyTables(): Sql {
  return {
    text: `
      select c.oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind, c.relpersistence = 'u' as unlogged,
             case when c.relispartition then pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid end as root,
             case when c.relkind = 'r' then (pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8)::int4 else 0 end as blocks,
             coalesce((select am.amname = 'heap' from pg_catalog.pg_am am where am.oid = c.relam), false) as heap,
             coalesce((select pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'generated', a.attgenerated, 'identity', a.attidentity) order by a.attnum)
                         from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]'::pg_catalog.json) as columns,
             coalesce((select pg_catalog.json_agg(k.names order by k.indisprimary desc, k.indnkeyatts, k.indexrelid)
                         from (select i.indisprimary, i.indnkeyatts, i.indexrelid,
                                      (select pg_catalog.json_agg(a.attname order by x.n) from pg_catalog.unnest(i.indkey::int2[]) with ordinality x(attnum, n) join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = x.attnum where x.n <= i.indnkeyatts) as names
                                 from pg_catalog.pg_index i
                                where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
                                  and not exists (select 1 from pg_catalog.unnest(i.indkey::int2[]) with ordinality x(attnum, n) join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = x.attnum where x.n <= i.indnkeyatts and not a.attnotnull)) k), '[]'::pg_catalog.json) as keys
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where c.relkind in ('r', 'p', 'f') and c.relpersistence in ('p', 'u') and ${userSchema()} and ${notOfExtension('c.oid', 'pg_class')}
       order by n.nspname collate "C", c.relname collate "C"`,
  };
}

export interface VerifySequenceRow {
  readonly schema: string;
  readonly name: string;
  readonly increment: bigint;
  readonly cycle: boolean;
  /** The table that it belongs to (serial, identity, owned by); null where it stands alone. */
  readonly owner_schema: string | null;
  readonly owner_table: string | null;
}

/** Sequences of users with their definition; their values are in the sequences themselves. */
export function verifySequences(): Sql {
  return {
    text: `
      select n.nspname::text as schema, c.relname::text as name, s.seqincrement as increment, s.seqcycle as cycle, tn.nspname::text as owner_schema, t.relname::text as owner_table
        from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0 and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i')
        left join pg_catalog.pg_class t on t.oid = d.refobjid left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
       where c.relpersistence <> 't' and ${userSchema()} and ${notOfExtension('c.oid', 'pg_class')}
       order by n.nspname collate "C", c.relname collate "C"`,
  };
}
