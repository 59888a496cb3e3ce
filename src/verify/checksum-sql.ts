import { qualifiedName, quoteIdent } from '../pg/identifiers.ts';
import type { Part, Relation, Unit, VerifyColumn } from './unit.ts';

/**
 * How rows become numbers. A row is the text of `row(columns)`, with the columns named one by one: text tells everything apart that the types' own equality takes for the same (-0 and 0, 1.0 and
 * 1.00, NULL and the empty string), and it is equal on 14 to 18 under the pinned output settings. Its 64-bit hashes (hashtextextended, two seeds) are summed, so that
 * neither order nor physical layout counts; a sum, not an exclusive or, which would lose pairs.
 *
 * Sums are kept by bucket: the low bits of the hash of the row's key (of the row itself where there is no key). Buckets need no order, so no collation and no index has to agree
 * between the servers, each side is read by whatever parts its own layout offers, and partitions on one side compare with one table on the other.
 */
export interface HashOptions {
  /** Encodings differ: hash the bytes of the client encoding (UTF8) instead of the server's own. */
  readonly transcode: boolean;
}

/** Settings of a session that computes checksums, on top of the pinned output settings of all sessions. `money` prints by lc_monetary. */
export const checksumSettings = `set lc_monetary = 'C'; set jit = off; set max_parallel_workers_per_gather = 0; set enable_hashjoin = off; set enable_mergejoin = off; set plan_cache_mode = 'force_custom_plan'`;

/** The text that stands for one value. "char" prints bytes above 127 in another way since 16, so its number is taken. */
function valueSql(column: VerifyColumn): string {
  const name = `t.${quoteIdent(column.name)}`;
  return column.type === '"char"' ? `${name}::pg_catalog.int4` : name;
}

function rowText(columns: readonly VerifyColumn[]): string {
  return `row(${columns.map(valueSql).join(', ')})::pg_catalog.text`;
}

/** The key as one text, for the bucket. One column needs no row around it. */
function keyText(unit: Unit): string {
  const { key } = unit;
  if (key === undefined) throw new RangeError('a table without a key has no key text');
  return key.length === 1 ? `${valueSql(key[0]!)}::pg_catalog.text` : rowText(key);
}

function hashSql(text: string, seed: number, options: HashOptions): string {
  if (!options.transcode) return `pg_catalog.hashtextextended(${text} collate "C", ${seed})`;
  const bytes = `pg_catalog.sha256(pg_catalog.textsend(${text}))`;
  return `('x' || pg_catalog.encode(pg_catalog.substring(${bytes}, ${seed * 8 + 1}, 8), 'hex'))::pg_catalog.bit(64)::pg_catalog.int8`;
}

/** An expression of a value as a client gets it: the type's own output, never a cast, which may change it. */
export function outputSql(column: VerifyColumn): string {
  const value = `t.${quoteIdent(column.name)}`;
  // `is null` is true for a composite of nulls too.
  return `case when pg_catalog.num_nulls(${value}) = 1 then null else pg_catalog.format('%s', ${value}) end`;
}

function conditions(unit: Unit, side: 'source' | 'target', part?: Part): string {
  const all: string[] = [];
  if (part?.fromBlock !== undefined && part.fromBlock > 0) all.push(`t.ctid >= '(${part.fromBlock},0)'::pg_catalog.tid`);
  if (part?.toBlock !== undefined) all.push(`t.ctid < '(${part.toBlock},0)'::pg_catalog.tid`);
  if (side === 'source' && unit.where !== undefined) all.push(unit.where);
  return all.length === 0 ? '' : `where ${all.join(' and ')}`;
}

/** One row of hashes for each row of a relation: `k` (of the key), `h1`, `h2` and the extra output expressions. OFFSET 0 keeps the row's text from being built twice. */
function hashedRows(unit: Unit, side: 'source' | 'target', relation: Relation, options: HashOptions, extra: readonly string[] = [], part?: Part): string {
  const inner = [`${rowText(unit.columns)} as r`, ...(unit.key ? [`${keyText(unit)} as kt`] : []), ...extra.map((sql, i) => `${sql} as x${i}`)];
  const outer = [`${unit.key ? hashSql('s.kt', 0, options) : hashSql('s.r', 1, options)} as k`, `${hashSql('s.r', 1, options)} as h1`, `${hashSql('s.r', 2, options)} as h2`, ...extra.map((_, i) => `s.x${i}`)];
  return `select ${outer.join(', ')} from (select ${inner.join(', ')} from only ${qualifiedName(relation.schema, relation.name)} as t ${conditions(unit, side, part)} offset 0) as s`;
}

/** Which rows a sample takes: by the upper bits of the key's hash, the same on both sides. */
function sampleSql(unit: Unit): string {
  return unit.sample === undefined ? '' : `where ((h.k >> 32) & 1048575) < ${Math.ceil(unit.sample * 10_485.76)}`;
}

export interface BucketRow {
  readonly bucket: number;
  readonly rows: bigint;
  /** Sums of 64-bit hashes, as numeric text. */
  readonly sum1: string;
  readonly sum2: string;
}

/** Count and sums by bucket over one part of a relation. */
export function bucketSumsSql(unit: Unit, side: 'source' | 'target', part: Part, options: HashOptions): string {
  return `select (h.k & ${unit.buckets - 1})::pg_catalog.int4 as bucket, pg_catalog.count(*) as rows, pg_catalog.sum(h.h1) as sum1, pg_catalog.sum(h.h2) as sum2 from (${hashedRows(unit, side, part.relation, options, [], part)}) as h ${sampleSql(unit)} group by 1`;
}

function inBuckets(unit: Unit, buckets: readonly number[] | undefined): string {
  const sample = sampleSql(unit);
  if (buckets === undefined) return sample;
  return `${sample === '' ? 'where' : `${sample} and`} (h.k & ${unit.buckets - 1})::pg_catalog.int4 = any ('{${buckets.join(',')}}'::pg_catalog.int4[])`;
}

export interface KeyedRow {
  /** Hash of the key: what both sides are ordered by. */
  readonly k: bigint;
  readonly h1: bigint;
  readonly h2: bigint;
}

/** Rows of some buckets with their keys (x0, x1, …), ordered by the key's hash, which needs no collation. */
export function keyedRowsSql(unit: Unit, side: 'source' | 'target', buckets: readonly number[] | undefined, options: HashOptions): string {
  const extra = unit.key!.map(outputSql);
  const each = relationsOf(unit, side).map((relation) => `select h.* from (${hashedRows(unit, side, relation, options, extra)}) as h ${inBuckets(unit, buckets)}`);
  return `${each.join(' union all ')} order by 1`;
}

export interface RowGroup {
  readonly h1: bigint;
  readonly h2: bigint;
  readonly rows: bigint;
}

/** A multiset: how often each row is there, by its hashes, in their order. For tables without a key. */
export function rowGroupsSql(unit: Unit, side: 'source' | 'target', buckets: readonly number[] | undefined, options: HashOptions): string {
  const each = relationsOf(unit, side).map((relation) => `select h.h1, h.h2 from (${hashedRows(unit, side, relation, options)}) as h ${inBuckets(unit, buckets)}`);
  return `select g.h1, g.h2, pg_catalog.count(*) as rows from (${each.join(' union all ')}) as g group by g.h1, g.h2 order by g.h1, g.h2`;
}

/** Rows with given hashes, column by column (x0, x1, …), with their place (`relation`, `ctid`). For tables without a key: reads the whole table. */
export function rowsByHashSql(unit: Unit, side: 'source' | 'target', hashes: readonly { readonly h1: bigint; readonly h2: bigint }[], columns: readonly VerifyColumn[], options: HashOptions, perHash: number | undefined): string {
  const extra = [...columns.map(outputSql), 't.tableoid::pg_catalog.int8', 't.ctid'];
  const list = hashes.map((h) => `(${h.h1}::pg_catalog.int8, ${h.h2}::pg_catalog.int8)`).join(', ');
  const each = relationsOf(unit, side).map((relation) => `select h.* from (${hashedRows(unit, side, relation, options, extra)}) as h where (h.h1, h.h2) in (values ${list})`);
  const all = each.join(' union all ');
  const place = `q.x${columns.length} as relation, q.x${columns.length + 1}::pg_catalog.text as ctid`;
  const values = columns.map((_, i) => `q.x${i}`).join(', ');
  const shown = `q.h1, q.h2, ${values}${values === '' ? '' : ', '}${place}`;
  if (perHash === undefined) return `select ${shown} from (${all}) as q`;
  return `select ${shown} from (select a.*, pg_catalog.row_number() over (partition by a.h1, a.h2) as nth from (${all}) as a) as q where q.nth <= ${perHash}`;
}

/** Rows by their keys, given as one text array a key column ($1, $2, …): hashes `h1`, `h2`, the ordinal `n` of the key, and values (x0, x1, …). */
export function rowsByKeySql(unit: Unit, side: 'source' | 'target', columns: readonly VerifyColumn[], options: HashOptions): string {
  const key = unit.key!;
  const each = relationsOf(unit, side).map((relation) => {
    const inner = [`${rowText(unit.columns)} as r`, 'u.n', ...columns.map((c, i) => `${outputSql(c)} as x${i}`)];
    // A filter's columns are not qualified: the keys stand behind names of their own.
    const from = `${keysFrom(key.length)} with ordinality as u(${key.map((_, i) => `pgweave_k${i}`).join(', ')}, n) cross join lateral (select t.* from only ${qualifiedName(relation.schema, relation.name)} as t where ${key.map((c, i) => `t.${quoteIdent(c.name)} = u.pgweave_k${i}::${typeOn(c, side)}`).join(' and ')}${side === 'source' && unit.where !== undefined ? ` and ${unit.where}` : ''} offset 0) as t`;
    return `select s.n::pg_catalog.int4 as n, ${hashSql('s.r', 1, options)} as h1, ${hashSql('s.r', 2, options)} as h2${columns.map((_, i) => `, s.x${i}`).join('')} from (select ${inner.join(', ')} from ${from} offset 0) as s`;
  });
  return each.join(' union all ');
}

/** Arrays side by side as rows. `unnest` of several is only known without its schema, so each stands in ROWS FROM. */
export function keysFrom(columns: number): string {
  return `rows from (${Array.from({ length: columns }, (_, i) => `pg_catalog.unnest($${i + 1}::pg_catalog.text[])`).join(', ')})`;
}

export function relationsOf(unit: Unit, side: 'source' | 'target'): readonly Relation[] {
  return side === 'source' ? unit.sourceRelations : unit.targetRelations;
}

export function typeOn(column: VerifyColumn, side: 'source' | 'target'): string {
  return side === 'source' ? column.type : column.targetType;
}
