import type { Sql } from '../pg/session.ts';

export interface PublishableRow {
  readonly schema: string;
  readonly name: string;
  readonly partitioned: boolean;
  readonly unlogged: boolean;
  /** UPDATE and DELETE can be published: every leaf has a primary key, a replica identity index, or FULL. */
  readonly identified: boolean;
}

/**
 * Ordinary and partitioned tables by name, with whether publishing their updates would harm them: on a published table without replica identity UPDATE and
 * DELETE fail [hard case 1]. Source: PostgreSQL documentation, "Publication"; CheckCmdReplicaIdentity looks at the leaf that is written.
 */
export function publishable(schemas: readonly string[], names: readonly string[]): Sql {
  return {
    text: `
      with wanted as (
        select c.oid, n.nspname, c.relname, c.relkind, c.relpersistence
          from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) as w(s, t)
          join pg_catalog.pg_namespace n on n.nspname = w.s join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t
         where c.relkind in ('r', 'p')),
      leaves as (
        select w.oid as root, l.oid, l.relreplident
          from wanted w cross join lateral (select w.oid as leaf union select t.relid from pg_catalog.pg_partition_tree(w.oid) t where t.isleaf) x
          join pg_catalog.pg_class l on l.oid = x.leaf
         where l.relkind = 'r')
      select w.nspname as schema, w.relname as name, w.relkind = 'p' as partitioned, w.relpersistence = 'u' as unlogged,
             not exists (
               select from leaves l where l.root = w.oid and not (
                 l.relreplident = 'f'
                 or exists (select from pg_catalog.pg_index i where i.indrelid = l.oid and i.indisvalid and case l.relreplident when 'd' then i.indisprimary and i.indimmediate when 'i' then i.indisreplident else false end))) as identified
        from wanted w order by 1, 2`,
    values: [schemas, names],
  };
}

/** Name, owner's mark and options of a publication; no row where there is none. */
export function publicationFacts(name: string): Sql {
  return {
    text: `select p.pubname as name, pg_catalog.obj_description(p.oid, 'pg_publication') as comment, p.puballtables as all_tables, p.pubviaroot as via_root from pg_catalog.pg_publication p where p.pubname = $1`,
    values: [name],
  };
}

export interface PublicationTableRow {
  readonly schema: string;
  readonly name: string;
  /** The row filter as the server prints it; null without. */
  readonly filter: string | null;
  /** The column list; null for all columns. */
  readonly columns: (string | null)[] | null;
}

/** Tables that a publication names (partitioned ones as themselves, not their leaves). Filters and column lists are of version 15. */
export function publicationTables(name: string, serverVersion: number): Sql {
  const facts = serverVersion >= 150_000
    ? `pg_catalog.pg_get_expr(r.prqual, r.prrelid) as filter, (select pg_catalog.array_agg(a.attname::text) from pg_catalog.pg_attribute a where a.attrelid = r.prrelid and a.attnum = any (r.prattrs::int2[])) as columns`
    : 'null::text as filter, null::text[] as columns';
  return {
    text: `select n.nspname::text as schema, c.relname::text as name, ${facts} from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid join pg_catalog.pg_class c on c.oid = r.prrelid
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace where p.pubname = $1 order by 1, 2`,
    values: [name],
  };
}

/** Of the tables whose changes these publications send under their own name, whether each that names one has a row filter for it. Version 15 and newer. */
export function filteredTables(names: readonly string[]): Sql {
  return {
    text: `select schemaname::text as schema, tablename::text as name, pg_catalog.bool_and(rowfilter is not null) as filtered from pg_catalog.pg_publication_tables where pubname = any($1::pg_catalog.text[]) group by 1, 2`,
    values: [names],
  };
}

/** Tables whose own changes are published: leaves of partition trees, not their roots. */
export function publicationLeaves(names: readonly string[]): Sql {
  return {
    text: `select distinct n.nspname as schema, c.relname as name from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
             cross join lateral (select r.prrelid as relid union select t.relid from pg_catalog.pg_partition_tree(r.prrelid) t where t.isleaf) x
             join pg_catalog.pg_class c on c.oid = x.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where p.pubname = any($1::pg_catalog.text[]) and c.relkind = 'r' order by 1, 2`,
    values: [names],
  };
}
