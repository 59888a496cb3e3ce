import type { Emit } from '../../core/events.ts';
import { tableFromKey, type TableRef } from '../../core/tables.ts';
import { displayName } from '../../pg/identifiers.ts';
import { formatLsn, lsnDistance, maxLsn, zeroLsn, type Lsn } from '../../pg/lsn.ts';
import type { ChangeLogPosition } from '../change-log.ts';
import type { TableCounts } from './content.ts';
import { commitTimeMs } from './progress.ts';

const reportEveryMs = 500;
const levelAfterMs = 1000;

/** Gathers what was applied and reports it twice a second. */
export class ProgressReport {
  readonly #position: () => ChangeLogPosition | undefined;
  readonly #emit: Emit;
  readonly #timer: NodeJS.Timeout;
  readonly #tables = new Map<string, TableCounts>();
  readonly #missedTables = new Map<string, { rows: number; told: number }>();
  #appliedLsn: Lsn = zeroLsn;
  #lagMs: number | null = null;
  #appliedAt = 0;
  #transactions = 0;
  #rows = 0;
  #batches = 0;
  #last = '';
  #closed = false;

  constructor(position: () => ChangeLogPosition | undefined, emit: Emit) {
    this.#position = position;
    this.#emit = emit;
    this.#timer = setInterval(() => this.send(), reportEveryMs);
    this.#timer.unref();
  }

  get transactions(): number {
    return this.#transactions;
  }

  get rows(): number {
    return this.#rows;
  }

  startAt(lsn: Lsn): void {
    this.#appliedLsn = maxLsn(this.#appliedLsn, lsn);
  }

  /** Everything that the source wrote before it is applied, or did not concern this job. */
  appliedLsn(): Lsn {
    return maxLsn(this.#appliedLsn, this.#position()?.confirmedLsn ?? zeroLsn);
  }

  applied(endLsn: Lsn, commitTime: bigint, transactions: number, counts: ReadonlyMap<string, TableCounts>): void {
    this.#appliedLsn = maxLsn(this.#appliedLsn, endLsn);
    this.#lagMs = Math.max(0, Math.round(Date.now() - commitTimeMs(commitTime)));
    this.#appliedAt = performance.now();
    this.#transactions += transactions;
    this.#batches += 1;
    for (const [key, add] of counts) {
      this.#rows += add.inserts + add.updates + add.deletes;
      const known = this.#tables.get(key);
      if (known) {
        known.inserts += add.inserts;
        known.updates += add.updates;
        known.deletes += add.deletes;
      } else this.#tables.set(key, { ...add });
    }
  }

  /** Rows that an update or delete did not find. */
  missed(rows: number, table: TableRef): void {
    const name = displayName(table.schema, table.name);
    const known = this.#missedTables.get(name) ?? { rows: 0, told: 0 };
    known.rows += rows;
    this.#missedTables.set(name, known);
  }

  send(): void {
    const position = this.#position();
    if (!position) return;
    const { receivedLsn, sourceLsn, waitingBytes, spoolBytes } = position;
    const applied = this.appliedLsn();
    // Nothing waits and nothing is under way: what lies between is of no concern to us.
    const behind = waitingBytes > 0 || applied < receivedLsn;
    const lagBytes = behind ? lsnDistance(applied, maxLsn(sourceLsn, receivedLsn)) : lsnDistance(receivedLsn, sourceLsn);
    // How long the newest transaction took says nothing any more once the target has been level with the source for a while.
    if (lagBytes === 0 && this.#lagMs !== null && performance.now() - this.#appliedAt > levelAfterMs) this.#lagMs = 0;
    for (const [key, counts] of this.#tables) this.#emit({ type: 'table-changes', table: tableFromKey(key), ...counts });
    this.#tables.clear();
    if (this.#batches > 0) this.#emit({ type: 'counter', name: 'batches', by: this.#batches });
    this.#batches = 0;
    for (const [name, missed] of this.#missedTables) {
      // Each tenfold number is worth a word.
      if (missed.rows < missed.told * 10) continue;
      missed.told = Math.max(1, missed.rows);
      this.#emit({
        type: 'warning', code: 'row-missing', message: `${name}: ${missed.rows} updated or deleted ${missed.rows === 1 ? 'row was' : 'rows were'} not found on the target`,
        hint: `Somebody changed the target, or the copy was not complete. See what differs: pgweave verify --include-tables ${name}   Bring it in line: pgweave table ${name} --copy-again`,
      });
    }
    const event = {
      type: 'stream-progress' as const, receivedLsn: formatLsn(receivedLsn), appliedLsn: formatLsn(applied), sourceLsn: formatLsn(maxLsn(sourceLsn, receivedLsn)), lagBytes, lagMs: this.#lagMs, transactions: this.#transactions, rows: this.#rows,
      ...(spoolBytes === undefined ? {} : { spoolBytes }),
    };
    const text = JSON.stringify(event);
    if (text !== this.#last) this.#emit(event);
    this.#last = text;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    this.send();
  }
}
