import type { TableRef } from '../core/tables.ts';
import type { Sql } from '../pg/session.ts';
import { notOfExtension, userSchema } from './user-objects.ts';

export interface SequenceRow {
  readonly schema: string;
  readonly name: string;
  /** The table whose column owns it (serial or identity); null for a standalone one. */
  readonly table_schema: string | null;
  readonly table_name: string | null;
  readonly increment: bigint;
  readonly minimum: bigint;
  readonly maximum: bigint;
  readonly cycle: boolean;
}

/** User sequences with what owns them; also those that an extension marked as configuration. */
export function userSequences(): Sql {
  return {
    text: `
      select n.nspname::text as schema, c.relname::text as name, tn.nspname::text as table_schema, t.relname::text as table_name,
             s.seqincrement as increment, s.seqmin as minimum, s.seqmax as maximum, s.seqcycle as cycle
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_sequence s on s.seqrelid = c.oid
        left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0 and d.deptype in ('a', 'i') and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        left join pg_catalog.pg_class t on t.oid = d.refobjid left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
       where c.relkind = 'S' and c.relpersistence in ('p', 'u') and ${userSchema()}
         and (${notOfExtension('c.oid', 'pg_class')} or exists (select 1 from pg_catalog.pg_extension e where c.oid = any(e.extconfig)))
       order by n.nspname collate "C", c.relname collate "C"`,
  };
}

/** Where a sequence is on the target: an owned one goes along with its table to another schema and keeps its own name (documentation, ALTER TABLE, SET SCHEMA). */
export function sequenceOnTarget(sequence: TableRef, ownedBy: TableRef | null, mapTable: (table: TableRef) => TableRef): TableRef {
  const to = ownedBy ? mapTable(ownedBy).schema : undefined;
  return { schema: to === undefined || to === ownedBy?.schema ? sequence.schema : to, name: sequence.name };
}
