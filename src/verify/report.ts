import type { TableRef } from '../core/tables.ts';

/** A column in which a row differs; null is SQL's NULL. */
export interface ColumnDifference {
  readonly name: string;
  readonly source: string | null;
  readonly target: string | null;
}

/** A row that differs, as people see it. Values are cut at 80 characters. */
export interface ShownRow {
  readonly kind: 'missing' | 'extra' | 'changed';
  /** Null where the table has no key. */
  readonly key: Readonly<Record<string, string>> | null;
  /** How many equal rows; more than one only without a key. */
  readonly count: number;
  /** Without a key and for one side's rows: that side's values. Empty without values. */
  readonly columns: readonly ColumnDifference[];
}

export interface RepairCounts {
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
}

export interface TableReport {
  readonly table: TableRef;
  readonly target: TableRef;
  /** `left-out`: it need not be equal now (unlogged, not part of the job); `not-compared`: it should be and nobody knows. */
  readonly status: 'equal' | 'different' | 'not-compared' | 'left-out';
  /** Why it was not compared, or what differs apart from rows. */
  readonly reason: string | null;
  readonly rows: { readonly source: number; readonly target: number };
  readonly missing: number;
  readonly extra: number;
  readonly changed: number;
  readonly shown: readonly ShownRow[];
  readonly notes: readonly string[];
  /** What a repair did; null where there was none. `status` tells how the table stands after it. */
  readonly repaired: RepairCounts | null;
  /** LSN of both sides, where they were compared at one; else null. */
  readonly lsn: string | null;
}

export interface SequenceReport {
  readonly schema: string;
  readonly name: string;
  readonly status: 'equal' | 'ahead' | 'behind' | 'missing' | 'different';
  /** The next value that each side would give; null where it is missing. */
  readonly source: string;
  readonly target: string | null;
}

export interface LargeObjectReport {
  readonly compared: number;
  readonly missing: number;
  readonly extra: number;
  readonly changed: number;
  /** Object ids of the first ones that differ. */
  readonly shown: readonly { readonly oid: number; readonly kind: 'missing' | 'extra' | 'changed' }[];
}

export const longestValue = 80;

export function cutValue(value: string | null): string | null {
  return value === null || value.length <= longestValue ? value : `${value.slice(0, longestValue - 1)}…`;
}
