import type { BucketRow } from './checksum-sql.ts';

/** Count and two sums for each bucket of one side of a table. Sums are taken modulo 2^64, so parts can be added in any order. */
export class BucketSums {
  readonly #rows: Float64Array;
  readonly #sum1: BigUint64Array;
  readonly #sum2: BigUint64Array;

  constructor(buckets: number) {
    this.#rows = new Float64Array(buckets);
    this.#sum1 = new BigUint64Array(buckets);
    this.#sum2 = new BigUint64Array(buckets);
  }

  add(rows: readonly BucketRow[]): void {
    for (const row of rows) {
      this.#rows[row.bucket]! += Number(row.rows);
      // The arrays wrap around by themselves.
      this.#sum1[row.bucket]! += BigInt.asUintN(64, BigInt(row.sum1));
      this.#sum2[row.bucket]! += BigInt.asUintN(64, BigInt(row.sum2));
    }
  }

  get rows(): number {
    return this.#rows.reduce((sum, n) => sum + n, 0);
  }

  /** Buckets in which the two sides differ. */
  differing(other: BucketSums): number[] {
    const out: number[] = [];
    for (let i = 0; i < this.#rows.length; i += 1) if (!this.sameIn(other, i)) out.push(i);
    return out;
  }

  sameIn(other: BucketSums, bucket: number): boolean {
    return this.#rows[bucket] === other.#rows[bucket] && this.#sum1[bucket] === other.#sum1[bucket] && this.#sum2[bucket] === other.#sum2[bucket];
  }
}
