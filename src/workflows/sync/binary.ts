import { copyColumns, copyTypes, targetColumns, type CopyColumnRow, type CopyTypeRow, type TargetColumnRow } from '../../catalog/copy-tables.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { binarySafeTypes } from '../../copy/binary-safe.ts';
import { qualifiedName } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';

/** Whether values may travel in binary: every column's type has the same name on both sides and a binary form that means the same there. */
export async function binaryFits(source: Session, target: Session, tables: readonly TableRef[]): Promise<boolean> {
  if (tables.length === 0) return false;
  const oids = await source.query<{ oid: number; schema: string; name: string }>(
    `select c.oid, n.nspname::text as schema, c.relname::text as name from pg_catalog.unnest($1::pg_catalog.text[]) as w(name) join pg_catalog.pg_class c on c.oid = w.name::pg_catalog.regclass join pg_catalog.pg_namespace n on n.oid = c.relnamespace`,
    [tables.map((t) => qualifiedName(t.schema, t.name))],
  );
  const byOid = new Map(oids.map((t) => [t.oid, t]));
  const columns = (await source.query<CopyColumnRow>(copyColumns(oids.map((t) => t.oid)))).filter((c) => !c.generated);
  const safe = binarySafeTypes(await source.query<CopyTypeRow>(copyTypes([...new Set(columns.map((c) => c.type_oid))])));
  if (columns.some((c) => !safe.has(c.type_oid))) return false;
  const there = new Map((await target.query<TargetColumnRow>(targetColumns(tables.map((t) => t.schema), tables.map((t) => t.name)))).map((c) => [`${tableKey({ schema: c.schema, name: c.table })}\0${c.name}`, c.type]));
  return columns.every((c) => there.get(`${tableKey(byOid.get(c.table_oid)!)}\0${c.name}`) === c.type);
}
