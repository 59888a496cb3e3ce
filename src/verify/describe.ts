import { rowsByHashSql, rowsByKeySql } from './checksum-sql.ts';
import type { HashOptions } from './checksum-sql.ts';
import type { RowDifference } from './narrow.ts';
import { cutValue, type ColumnDifference, type ShownRow } from './report.ts';
import type { SnapshotPool } from './snapshot-pool.ts';
import type { Unit } from './unit.ts';

type Row = Record<string, unknown>;

/** Reads the values behind some differences and says which columns differ. */
export async function describeRows(unit: Unit, rows: readonly RowDifference[], pools: { readonly source: SnapshotPool; readonly target: SnapshotPool; readonly hash: HashOptions }, withValues: boolean): Promise<ShownRow[]> {
  if (rows.length === 0) return [];
  return unit.key ? describeKeyed(unit, rows, pools, withValues) : describeKeyless(unit, rows, pools, withValues);
}

async function describeKeyed(unit: Unit, rows: readonly RowDifference[], pools: Parameters<typeof describeRows>[2], withValues: boolean): Promise<ShownRow[]> {
  const changed = rows.filter((row) => row.kind === 'changed');
  const keys = keyArrays(unit, changed);
  const read = (side: 'source' | 'target') => (changed.length === 0 ? [] : pools[side].use((session) => session.query<Row>(rowsByKeySql(unit, side, unit.columns, pools.hash), keys)));
  const [source, target] = await Promise.all([read('source'), read('target')]);
  return rows.map((row) => {
    const n = changed.indexOf(row) + 1;
    const a = source.find((r) => r['n'] === n && r['h1'] === row.hash.h1) ?? source.find((r) => r['n'] === n);
    const b = target.find((r) => r['n'] === n);
    const columns: ColumnDifference[] = [];
    if (a && b) for (const [i, column] of unit.columns.entries()) if (a[`x${i}`] !== b[`x${i}`]) columns.push(shown(column.name, a[`x${i}`], b[`x${i}`], withValues));
    return { kind: row.kind, key: Object.fromEntries(unit.key!.map((c, i) => [c.name, row.key![i]!])), count: row.count, columns };
  });
}

async function describeKeyless(unit: Unit, rows: readonly RowDifference[], pools: Parameters<typeof describeRows>[2], withValues: boolean): Promise<ShownRow[]> {
  if (!withValues) return rows.map((row) => ({ kind: row.kind, key: null, count: row.count, columns: [] }));
  const values = async (side: 'source' | 'target', kind: RowDifference['kind']) => {
    const hashes = rows.filter((row) => row.kind === kind).map((row) => row.hash);
    return hashes.length === 0 ? [] : pools[side].use((session) => session.query<Row>(rowsByHashSql(unit, side, hashes, unit.columns, pools.hash, 1)));
  };
  const [source, target] = await Promise.all([values('source', 'missing'), values('target', 'extra')]);
  return rows.map((row) => {
    const here = row.kind === 'missing';
    const found = (here ? source : target).find((r) => r['h1'] === row.hash.h1 && r['h2'] === row.hash.h2);
    const columns = found ? unit.columns.map((c, i) => ({ name: c.name, source: here ? cutValue(found[`x${i}`] as string | null) : null, target: here ? null : cutValue(found[`x${i}`] as string | null) })) : [];
    return { kind: row.kind, key: null, count: row.count, columns };
  });
}

function shown(name: string, source: unknown, target: unknown, withValues: boolean): ColumnDifference {
  return withValues ? { name, source: cutAround(source as string | null, target as string | null), target: cutAround(target as string | null, source as string | null) } : { name, source: null, target: null };
}

/** Cuts a long value so that the first difference to the other one can be seen. */
function cutAround(value: string | null, other: string | null): string | null {
  if (value === null || other === null || value.length <= 80) return cutValue(value);
  let at = 0;
  while (at < value.length && value[at] === other[at]) at += 1;
  const from = Math.max(0, Math.min(at - 20, value.length - 78));
  return from === 0 ? cutValue(value) : cutValue(`…${value.slice(from)}`);
}

/** The keys as one array a column, as rowsByKeySql takes them. */
export function keyArrays(unit: Unit, rows: readonly { readonly key: readonly string[] | undefined }[]): string[][] {
  return unit.key!.map((_, i) => rows.map((row) => row.key![i]!));
}
