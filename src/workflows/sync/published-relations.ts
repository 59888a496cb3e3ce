import { PgweaveError } from '../../core/errors.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { displayName } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';
import { publicationNamesOf, type PublishedTable } from '../publications.ts';

export interface PublishedRelation extends TableRef {
  readonly publication: string;
}

/** The tables that a subscriber sees in a job's publications: roots where they are published via root, else leaves. */
export function publishedRelations(source: Session, job: string): Promise<PublishedRelation[]> {
  const names = publicationNamesOf(job);
  return source.query<PublishedRelation & object>(`select pubname::text as publication, schemaname::text as schema, tablename::text as name from pg_catalog.pg_publication_tables where pubname = any ($1) order by 2, 3`, [[names.all, names.inserts]]);
}

/** Refuses where the job's publications do not carry what the selection wants, leaf by leaf, with its row filters. */
export async function checkPublished(source: Session, job: string, tables: readonly PublishedTable[]): Promise<void> {
  const names = publicationNamesOf(job);
  const filter = source.serverVersion >= 150_000 ? 'r.prqual is not null' : 'false';
  const rows = await source.query<{ schema: string; name: string; filtered: boolean }>(
    `select distinct n.nspname::text as schema, l.relname::text as name, ${filter} as filtered from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
       cross join lateral (select r.prrelid as leaf where (select c.relkind from pg_catalog.pg_class c where c.oid = r.prrelid) <> 'p' union select t.relid from pg_catalog.pg_partition_tree(r.prrelid) t where t.isleaf) x
       join pg_catalog.pg_class l on l.oid = x.leaf join pg_catalog.pg_namespace n on n.oid = l.relnamespace where p.pubname = any ($1)`, [[names.all, names.inserts]],
  );
  const published = new Map(rows.map((r) => [tableKey(r), r.filtered]));
  const leaves = await source.query<{ root: string; schema: string; name: string; i: number }>(
    `select w.i::int4 as i, n.nspname::text as schema, l.relname::text as name from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) with ordinality as w(s, t, i)
       join pg_catalog.pg_namespace wn on wn.nspname = w.s join pg_catalog.pg_class c on c.relnamespace = wn.oid and c.relname = w.t
       cross join lateral (select c.oid as leaf where c.relkind <> 'p' union select t.relid from pg_catalog.pg_partition_tree(c.oid) t where t.isleaf) x
       join pg_catalog.pg_class l on l.oid = x.leaf join pg_catalog.pg_namespace n on n.oid = l.relnamespace`, [tables.map((t) => t.schema), tables.map((t) => t.name)],
  );
  const wrong = leaves.filter((leaf) => published.get(tableKey(leaf)) !== (tables[leaf.i - 1]!.where !== undefined));
  if (wrong.length === 0) return;
  throw new PgweaveError('publication-differs', `the job's publication does not carry ${wrong.length} tables as they were selected: ${wrong.slice(0, 5).map((t) => displayName(t.schema, t.name)).join(', ')}${wrong.length > 5 ? ', …' : ''}`, {
    hint: `What was changed since the copy was published otherwise. Begin anew: pgweave clone --sync --no-resume --job ${job}`,
  });
}
