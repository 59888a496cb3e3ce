import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BucketSums } from './bucket-sums.ts';
import { blocksPerPart, bucketsFor, partsOf, type Relation } from './unit.ts';

const row = fc.record({ bucket: fc.integer({ min: 0, max: 7 }), h1: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), h2: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }) });
/** What the server would answer for some rows, cut into parts. */
const sumsOf = (rows: readonly { bucket: number; h1: bigint; h2: bigint }[], parts: number): BucketSums => {
  const sums = new BucketSums(8);
  for (let p = 0; p < parts; p += 1) {
    const part = rows.filter((_, i) => i % parts === p);
    sums.add([...new Set(part.map((r) => r.bucket))].map((bucket) => {
      const own = part.filter((r) => r.bucket === bucket);
      return { bucket, rows: BigInt(own.length), sum1: String(own.reduce((s, r) => s + r.h1, 0n)), sum2: String(own.reduce((s, r) => s + r.h2, 0n)) };
    }));
  }
  return sums;
};

describe('BucketSums', () => {
  it('does not depend on order or on how the rows were cut into parts', () => {
    fc.assert(fc.property(fc.array(row), fc.integer({ min: 1, max: 5 }), (rows, parts) => sumsOf(rows, 1).differing(sumsOf([...rows].reverse(), parts)).length === 0));
  });

  it('notices one row more, less or other, in its bucket alone', () => {
    fc.assert(fc.property(fc.array(row, { minLength: 1 }), row, (rows, other) => {
      const sums = sumsOf(rows, 2);
      const more = sums.differing(sumsOf([...rows, other], 3));
      const changed = sums.differing(sumsOf([{ ...rows[0]!, h1: rows[0]!.h1 ^ 1n }, ...rows.slice(1)], 1));
      return more.length === 1 && more[0] === other.bucket && changed.length === 1 && changed[0] === rows[0]!.bucket;
    }));
  });
});

describe('parts', () => {
  const relation = (blocks: number, ranges = true): Relation => ({ schema: 's', name: 't', blocks, ranges });

  it('cover every block once, the last one without an end', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: blocksPerPart * 40 }), (blocks) => {
      const parts = partsOf([relation(blocks)]);
      return parts[0]!.fromBlock === undefined || (parts[0]!.fromBlock === 0 && parts.every((p, i) => (i === parts.length - 1 ? p.toBlock === undefined && p.fromBlock! < blocks : p.toBlock === parts[i + 1]!.fromBlock)));
    }));
    expect(partsOf([relation(blocksPerPart * 10, false)])).toHaveLength(1);
    expect(partsOf([relation(blocksPerPart * 10), relation(1)])).toHaveLength(11);
  });

  it('buckets are powers of two within bounds', () => {
    expect([0, 10_000, 1_000_000_000].map(bucketsFor)).toEqual([64, 1024, 65_536]);
  });
});
