import type { TablePlan } from './plan.ts';

/** A table that conflicted goes in source order for so many batches, doubled each time. */
const firstBatches = 8;
const mostBatches = 512;

/** Remembers which tables' changes must be applied one by one, in source order, and for how long. */
export class SourceOrder {
  readonly #tables = new Map<string, { left: number; next: number }>();

  /** Whether the table's changes go in source order now: for a while after a conflict, always where neither a key nor set statements can be used, or rows are filtered here. */
  has(plan: TablePlan): boolean {
    if (!plan.setWise || (plan.keyColumns.length === 0 && plan.relation.replicaIdentity === 'full')) return true;
    const known = this.#tables.get(plan.key);
    return known !== undefined && known.left > 0;
  }

  /** The table conflicted. */
  add(plan: TablePlan): void {
    const left = this.#tables.get(plan.key)?.next ?? firstBatches;
    this.#tables.set(plan.key, { left, next: Math.min(mostBatches, left * 2) });
  }

  /** From now on and for ever; by table key. */
  addForGood(keys: Iterable<string>): void {
    for (const key of keys) this.#tables.set(key, { left: Number.POSITIVE_INFINITY, next: Number.POSITIVE_INFINITY });
  }

  /** A batch with changes of these tables was sent. */
  batchSent(changed: ReadonlyMap<string, unknown>): void {
    for (const [key, known] of this.#tables) if (known.left > 0 && changed.has(key)) known.left -= 1;
  }
}
