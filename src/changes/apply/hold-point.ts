import type { Lsn } from '../../pg/lsn.ts';

/** Where applying is to stop, and whether it has: held for as long as somebody wishes, or until an LSN is reached. */
export class HoldPoint {
  #held = false;
  #limit: { readonly lsn: Lsn; readonly reached: () => void } | undefined;
  #passed = false;

  get held(): boolean {
    return this.#held;
  }

  /** Transactions whose commit record begins at or behind it wait; undefined for none. */
  get limit(): Lsn | undefined {
    return this.#limit?.lsn;
  }

  /** The source has nothing more below the limit. */
  get passed(): boolean {
    return this.#limit !== undefined && this.#passed;
  }

  hold(): void {
    this.#held = true;
  }

  release(): void {
    this.#held = false;
    this.#limit = undefined;
  }

  /** Goes on to `lsn` and holds there; `reached` is called then. */
  runTo(lsn: Lsn, reached: () => void): void {
    this.#limit = { lsn, reached };
    this.#passed = false;
    this.#held = false;
  }

  /** No transaction below `lsn` will come any more. False where that is not the limit by now. */
  pass(lsn: Lsn): boolean {
    if (this.#limit?.lsn !== lsn) return false;
    this.#passed = true;
    return true;
  }

  /** Holds where the limit is reached, `next` being where the commit record of the next transaction begins; returns then what tells whoever waits. */
  holdAt(next: Lsn | undefined): (() => void) | undefined {
    const limit = this.#limit;
    if (!limit || (next === undefined ? !this.#passed : next < limit.lsn)) return undefined;
    this.#limit = undefined;
    this.#held = true;
    return limit.reached;
  }
}
