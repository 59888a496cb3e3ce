import type { Session } from '../pg/session.ts';
import { type MeshTableRow, tableFunction } from './members.ts';

/** Rows are compared by bucket first; a bucket that differs is looked at key by key. */
const buckets = 1024;

export interface TableDigest {
  readonly rows: bigint;
  readonly hidden: bigint;
  /** Bucket → count and sum of hashes, as one text. */
  readonly buckets: ReadonlyMap<number, string>;
}

const rowHash = `pg_catalog.hashtextextended(pg_catalog.concat_ws(E'\\x01', s.kind::text, s.w::text, s.img::text, s.m::text), 0)`;

/** Settings on which the text of values depends, pinned for the comparison. */
export const digestSettings = `set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 1; set bytea_output = 'hex'; set lc_monetary = 'C'`;

/** Count and checksum of a table's rows, visible and hidden, with their metadata, by bucket. */
export async function tableDigest(session: Session, table: MeshTableRow): Promise<TableDigest> {
  const rows = await session.query<{ bucket: number; n: bigint; hidden: bigint; sum: string }>(`select (pg_catalog.hashtextextended(s.key, 7) & ${buckets - 1})::int4 as bucket, pg_catalog.count(*) as n, pg_catalog.count(*) filter (where s.kind = 'p') as hidden,
    pg_catalog.sum(${rowHash})::text as sum from ${tableFunction('state', table.base)}() s where s.kind <> 'd' group by 1`);
  return { rows: rows.reduce((a, r) => a + r.n, 0n), hidden: rows.reduce((a, r) => a + r.hidden, 0n), buckets: new Map(rows.map((r) => [r.bucket, `${r.n}:${r.sum}`])) };
}

/** Key → kind, stamp and hash of the rows in some buckets. */
export async function bucketKeys(session: Session, table: MeshTableRow, wanted: readonly number[]): Promise<Map<string, string>> {
  const rows = await session.query<{ key: string; kind: string; w: bigint; hash: bigint }>(`select s.key, s.kind::text as kind, s.w, ${rowHash} as hash from ${tableFunction('state', table.base)}() s
    where s.kind <> 'd' and (pg_catalog.hashtextextended(s.key, 7) & ${buckets - 1})::int4 = any ($1)`, [wanted]);
  return new Map(rows.map((r) => [r.key, `${r.kind}:${r.w}:${r.hash}`]));
}
