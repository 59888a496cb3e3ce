import { copyTypes, type CopyTypeRow } from '../../catalog/copy-tables.ts';
import { publishedColumns, targetColumnTypes, type PublishedColumnRow, type TargetTypeRow } from '../../catalog/stream-columns.ts';
import { binarySafeTypes } from '../../copy/binary-safe.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import type { Session } from '../../pg/session.ts';

/**
 * Whether a stream may carry values in binary form: one answer for the whole stream. Each published column's type must have a binary form that means the same on
 * another server, and the target's column must be of the same type. Both servers must have the same encoding, since binary text is not converted twice.
 */
export async function streamMayBeBinary(source: Session, target: Session, publications: readonly string[], mapTable: (table: TableRef) => TableRef): Promise<boolean> {
  if (source.serverVersion < 140_000) return false;
  const columns = await source.query<PublishedColumnRow>(publishedColumns(publications));
  if (columns.length === 0) return false;
  const safe = binarySafeTypes(await source.query<CopyTypeRow>(copyTypes([...new Set(columns.map((c) => c.type_oid))])));
  if (!columns.every((c) => safe.has(c.type_oid))) return false;
  const tables = new Map(columns.map((c) => [tableKey(c), mapTable({ schema: c.schema, name: c.name })]));
  const there = new Map((await target.query<TargetTypeRow>(targetColumnTypes([...tables.values()]))).map((row) => [`${tableKey(row)}\0${row.column}`, row.type]));
  return columns.every((c) => {
    const type = there.get(`${tableKey(tables.get(tableKey(c))!)}\0${c.column}`);
    // A column that the target lacks or generates itself is met when the first change comes.
    return type === undefined || type === c.type;
  });
}
