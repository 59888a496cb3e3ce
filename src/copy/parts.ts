/** A range of heap blocks: from `fromBlock` up to and without `toBlock`; undefined for no bound on that side. */
export interface TablePart {
  /** From 1. */
  readonly number: number;
  readonly fromBlock: number | undefined;
  readonly toBlock: number | undefined;
  /** Share of the table's bytes, for the order of work and for progress. */
  readonly bytes: number;
}

/**
 * Cuts a table into ranges of blocks of about `splitBytes` each; one part without bounds where it is not larger, or `splitBytes` is 0. The last part has no upper bound, so
 * that no row can lie behind it, and the first none below. Sizes are read from the file, not from statistics: a bloated or never analysed table is cut by what a scan reads.
 */
export function planParts(table: { readonly bytes: number; readonly blocks: number }, splitBytes: number): TablePart[] {
  const wanted = splitBytes > 0 ? Math.ceil(table.bytes / splitBytes) : 1;
  const count = Math.max(1, Math.min(wanted, table.blocks));
  if (count === 1) return [{ number: 1, fromBlock: undefined, toBlock: undefined, bytes: table.bytes }];
  const parts: TablePart[] = [];
  for (let i = 0; i < count; i += 1) {
    const from = Math.floor((table.blocks * i) / count);
    const to = Math.floor((table.blocks * (i + 1)) / count);
    const share = Math.floor((table.bytes * (i + 1)) / count) - Math.floor((table.bytes * i) / count);
    parts.push({ number: i + 1, fromBlock: i === 0 ? undefined : from, toBlock: i === count - 1 ? undefined : to, bytes: share });
  }
  return parts;
}

/** The condition on ctid that a part stands for; undefined for all rows. TID range scans exist since PostgreSQL 14. */
export function partCondition(part: TablePart): string | undefined {
  const conditions: string[] = [];
  if (part.fromBlock !== undefined) conditions.push(`ctid >= '(${part.fromBlock},0)'::pg_catalog.tid`);
  if (part.toBlock !== undefined) conditions.push(`ctid < '(${part.toBlock},0)'::pg_catalog.tid`);
  return conditions.length === 0 ? undefined : conditions.join(' and ');
}
