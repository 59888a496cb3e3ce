import type { Emit } from '../core/events.ts';
import type { TableRef } from '../core/tables.ts';
import type { TablePart } from './parts.ts';
import type { TablePlan } from './table-plan.ts';

/** At most four events a second and part: enough for a view, and nothing next to the copy's cost. */
const everyMs = 250;

/**
 * Turns what a part has passed on into `copy-progress` events that add up to the part's planned bytes, so that percentages mean something: COPY's own bytes have
 * little to do with a table's size on disk. Rows are the measure where their number is known from statistics, COPY's bytes otherwise.
 */
export class PartProgress {
  readonly #table: TableRef;
  readonly #part: TablePart;
  readonly #emit: Emit;
  readonly #bytesPerRow: number | undefined;
  #relayed = 0;
  #rows = 0;
  #shownBytes = 0;
  #shownRows = 0;
  #lastAt = Date.now();

  constructor(plan: TablePlan, part: TablePart, emit: Emit) {
    this.#table = { schema: plan.schema, name: plan.name };
    this.#part = part;
    this.#emit = emit;
    this.#bytesPerRow = plan.rows > 0 && plan.condition === undefined ? plan.bytes / plan.rows : undefined;
  }

  /** Adds what was passed on; negative where it was rolled back. */
  readonly add = (bytes: number, rows: number): void => {
    this.#relayed += bytes;
    this.#rows += rows;
    const now = Date.now();
    if (now - this.#lastAt < everyMs && bytes >= 0) return;
    this.#lastAt = now;
    const estimate = this.#bytesPerRow === undefined ? this.#relayed : this.#rows * this.#bytesPerRow;
    // The last hundredth is for the end.
    this.#show(Math.min(Math.round(estimate), Math.floor(this.#part.bytes * 0.99)));
  };

  /** The part is in. */
  finish(): void {
    this.#show(this.#part.bytes);
  }

  #show(bytes: number): void {
    const more = bytes - this.#shownBytes;
    const moreRows = this.#rows - this.#shownRows;
    if (more === 0 && moreRows === 0) return;
    this.#shownBytes = bytes;
    this.#shownRows = this.#rows;
    this.#emit({ type: 'copy-progress', table: this.#table, part: this.#part.number, bytes: more, rows: moreRows });
  }
}
