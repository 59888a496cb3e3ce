import { viewDependencies, type MatviewRow } from '../catalog/matviews.ts';
import type { TableRef } from '../core/tables.ts';
import type { Session } from '../pg/session.ts';

/**
 * The populated materialized views of a database in an order in which each is refreshed after those it reads, directly or through views; for `PlanOptions.refresh`.
 * Read it in the dump's snapshot. One that is not populated is not in the list, and stays so [hard case 12].
 */
export async function refreshOrder(source: Session): Promise<TableRef[]> {
  return orderByReads(await source.query<MatviewRow>(viewDependencies()));
}

/** Depth first; the catalog allows no cycles. */
export function orderByReads(rows: readonly MatviewRow[]): TableRef[] {
  const byOid = new Map(rows.map((row) => [row.oid, row]));
  const seen = new Set<number>();
  const order: TableRef[] = [];
  const visit = (row: MatviewRow): void => {
    if (seen.has(row.oid)) return;
    seen.add(row.oid);
    for (const oid of row.reads) {
      const read = byOid.get(oid);
      if (read) visit(read);
    }
    if (row.kind === 'm' && row.populated) order.push({ schema: row.schema, name: row.name });
  };
  for (const row of rows) visit(row);
  return order;
}
