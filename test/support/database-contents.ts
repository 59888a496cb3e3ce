import { qualifiedName } from '../../src/pg/identifiers.ts';
import { Session } from '../../src/pg/session.ts';
import { dumpSchema } from '../../src/schema/dump.ts';
import type { TestDatabase } from './servers.ts';

/** Rows of every user table, sequence and large object of a database, as digests that do not depend on the order of rows; a few texts that a test can compare. */
export async function rowDigests(database: TestDatabase, options: { readonly sequences?: boolean } = {}): Promise<Record<string, string>> {
  await using session = await Session.open(database.spec, { role: 'test' });
  const relations = await session.query<{ schema: string; name: string; kind: string }>(`
    select n.nspname as schema, c.relname as name, c.relkind::text as kind from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'm', 'S') and c.relpersistence in ('p', 'u') and n.nspname not in ('pg_catalog', 'information_schema', 'pgweave') and (c.relkind <> 'm' or c.relispopulated)
     order by n.nspname collate "C", c.relname collate "C"`);
  const out: Record<string, string> = {};
  for (const { schema, name, kind } of relations) {
    const relation = qualifiedName(schema, name);
    if (kind === 'S') {
      if (options.sequences === false) continue;
      const { value } = await session.one<{ value: string }>(`select last_value || ' ' || is_called as value from ${relation}`);
      out[`${schema}.${name}`] = value;
      continue;
    }
    // Columns in the order of their names: tables may have them in another order on the other side. A row without columns is a row too.
    const columns = await session.query<{ name: string }>(`select pg_catalog.quote_ident(attname) as name from pg_catalog.pg_attribute where attrelid = $1::pg_catalog.regclass and attnum > 0 and not attisdropped order by attname collate "C"`, [relation]);
    const row = columns.length === 0 ? `''` : `row(${columns.map((c) => c.name).join(', ')})::text`;
    const { digest } = await session.one<{ digest: string }>(`select count(*) || ' ' || coalesce(sum(pg_catalog.hashtextextended(t, 7)), 0) || ' ' || coalesce(sum(pg_catalog.length(t)), 0) as digest from (select ${row} as t from only ${relation} offset 0) as x`);
    out[`${schema}.${name}`] = digest;
  }
  const objects = await session.query<{ oid: number; digest: string }>(`select oid, pg_catalog.md5(pg_catalog.lo_get(oid)) as digest from pg_catalog.pg_largeobject_metadata order by oid`);
  for (const { oid, digest } of objects) out[`large object ${oid}`] = digest;
  return out;
}

/** What `pg_dump --schema-only` prints, without comments, session settings and lines that hold a fresh token. */
export async function schemaText(database: TestDatabase): Promise<string> {
  await using session = await Session.open(database.spec, { role: 'test' });
  const { text } = await dumpSchema({ source: session, dumper: 'bundled' });
  return text.split('\n').filter((line) => !/^(--|\\restrict|\\unrestrict|\s*$)/.test(line)).join('\n');
}
