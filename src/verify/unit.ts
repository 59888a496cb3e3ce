import type { TableRef } from '../core/tables.ts';

export interface VerifyColumn {
  readonly name: string;
  /** On the source, as format_type prints it. */
  readonly type: string;
  readonly targetType: string;
  /** Its value arises on the target by itself. */
  readonly generated: boolean;
  /** GENERATED ALWAYS AS IDENTITY on the target. */
  readonly alwaysIdentity: boolean;
}

/** A table that holds rows itself: a plain table or one partition. */
export interface Relation extends TableRef {
  readonly blocks: number;
  /** Parts can be cut by ctid: heap, and a server that scans ctid ranges (14 and newer). */
  readonly ranges: boolean;
}

/** What is compared as one: a table, or a partitioned table with all its partitions, whatever their layout on either side. */
export interface Unit {
  readonly table: TableRef;
  /** Its name on the target. */
  readonly target: TableRef;
  readonly columns: readonly VerifyColumn[];
  /** Columns that tell rows apart on the source; undefined: compared as a multiset. */
  readonly key: readonly VerifyColumn[] | undefined;
  readonly sourceRelations: readonly Relation[];
  readonly targetRelations: readonly Relation[];
  /** Row filter of the job: a boolean expression on the source's columns. */
  readonly where: string | undefined;
  readonly unlogged: boolean;
  /** A power of two. */
  readonly buckets: number;
  /** Per cent of the rows, chosen by their key's hash; undefined: all. */
  readonly sample: number | undefined;
  /** The target has columns of its own, whose values a repair must leave alone. */
  readonly targetHasMore: boolean;
  /** What was noticed about the table and does not make it different. */
  readonly notes: readonly string[];
}

/** A table that cannot be compared, and why. */
export interface Incomparable {
  readonly table: TableRef;
  readonly target: TableRef;
  readonly reason: string;
  /** The difference is in the schema itself: counts as different; else as not compared. */
  readonly different: boolean;
}

/** A range of blocks of one relation. */
export interface Part {
  readonly relation: Relation;
  readonly fromBlock: number | undefined;
  /** Undefined: to the end, wherever it is by now. */
  readonly toBlock: number | undefined;
}

/** 64 MB: many parts for many workers, few enough that a part's fixed costs do not count. */
export const blocksPerPart = 8192;

/** Cuts relations into parts. */
export function partsOf(relations: readonly Relation[]): Part[] {
  return relations.flatMap((relation): Part[] => {
    if (!relation.ranges || relation.blocks <= blocksPerPart * 1.5) return [{ relation, fromBlock: undefined, toBlock: undefined }];
    const count = Math.ceil(relation.blocks / blocksPerPart);
    const size = Math.ceil(relation.blocks / count);
    return Array.from({ length: count }, (_, i) => ({ relation, fromBlock: i * size, toBlock: i === count - 1 ? undefined : (i + 1) * size }));
  });
}

/** Some thousand rows a bucket, so that a difference is narrowed to few rows; at most 65,536 buckets, 1.5 MB of sums. */
export function bucketsFor(blocks: number): number {
  const rows = blocks * 80;
  let buckets = 64;
  while (buckets < 65_536 && buckets * 1000 < rows) buckets *= 2;
  return buckets;
}
