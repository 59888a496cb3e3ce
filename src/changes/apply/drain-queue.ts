import { drainParked, type DrainContext } from './parked-drain.ts';
import type { Gate } from './table-gates.ts';

/** How long one table's parked changes are applied before the others get their turn, ms. */
const sliceMs = 500;

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Tables whose parked changes are to be applied, and who waits for it. */
export class DrainQueue {
  readonly #tables = new Map<Gate, Waiter[]>();
  #ended: Error | undefined;

  /** Nothing is to be drained. */
  get empty(): boolean {
    return this.#tables.size === 0;
  }

  /** Resolves when the table's changes are through or failed: its state tells. */
  add(gate: Gate): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      if (this.#ended) return reject(this.#ended);
      const known = this.#tables.get(gate);
      if (known) known.push({ resolve, reject });
      else this.#tables.set(gate, [{ resolve, reject }]);
    });
  }

  /** Applies a slice of the first table's changes; what is left of them goes behind the other tables'. Throws what drainParked throws; the table stays in the queue then. */
  async slice(context: DrainContext): Promise<void> {
    const [first] = this.#tables;
    if (!first) return;
    const [gate, waiters] = first;
    const since = Date.now();
    const outcome = await drainParked(context, gate, () => Date.now() - since > sliceMs);
    this.#tables.delete(gate);
    if (outcome === 'more') this.#tables.set(gate, waiters);
    else for (const waiter of waiters) waiter.resolve();
  }

  /** Nothing is drained any more; whoever waits is told `reason`. */
  end(reason: Error): void {
    this.#ended = reason;
    for (const waiters of this.#tables.values()) for (const waiter of waiters) waiter.reject(reason);
    this.#tables.clear();
  }
}
