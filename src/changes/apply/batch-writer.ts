import { PgweaveError } from '../../core/errors.ts';
import type { Pipeline, UnitResult } from '../../pg/pipeline.ts';
import { columnArrays, readColumns } from '../../pgoutput/tuple.ts';
import { columnKind, type Tuple } from '../../pgoutput/messages.ts';
import { copyHeader, copyRow, copyTrailer } from './copy-rows.ts';
import type { Entry, RowChange, Segment, TableWork, TruncateWork } from './merge.ts';
import { copySql, type TablePlan } from './plan.ts';
import { RowWriter } from './row-writer.ts';

/** Below this many rows a statement for each costs less than a COPY and a set statement. */
export const defaultSetWiseFrom = 24;
/** Rows between two Syncs: bounds what has to be looked through to find a failed one. */
const rowsPerUnit = 2000;
/** Scratch tables kept in a session: ON COMMIT DELETE ROWS visits all of them at each commit that used one. */
const maxScratchTables = 16;

/** A piece of a batch whose answer is awaited. `changes`: where it is rows one by one, which change each statement came from. */
export interface WrittenUnit {
  readonly result: Promise<UnitResult>;
  readonly plan: TablePlan | undefined;
  readonly rows: readonly { readonly plan: TablePlan; readonly change: RowChange | undefined; readonly expected: number }[];
}

/**
 * Writes merged changes into a pipeline, inside the transaction that the caller has begun. Whole tables' inserts go by COPY straight into the table; many updates and
 * deletes by COPY into a scratch table and one UPDATE or DELETE; few of them, and tables kept in source order, by prepared statements.
 */
export class BatchWriter {
  readonly rows: RowWriter;
  readonly #pipeline: Pipeline;
  readonly #binary: boolean;
  readonly #setWiseFrom: number;
  readonly #scratch = new Map<TablePlan, string>();
  readonly #usedScratch = new Set<string>();
  #units: WrittenUnit[] = [];
  #open: { plan: TablePlan; change: RowChange | undefined; expected: number }[] = [];

  constructor(pipeline: Pipeline, binary: boolean, setWiseFrom = defaultSetWiseFrom) {
    this.#pipeline = pipeline;
    this.#binary = binary;
    this.#setWiseFrom = setWiseFrom;
    this.rows = new RowWriter(pipeline);
  }

  /** Call when a transaction begins. */
  begin(): void {
    this.#usedScratch.clear();
  }

  /**
   * Makes the scratch tables that segments need, each in a transaction of its own: call it before the segments' transaction begins. `around` wraps the statement
   * in such a transaction. Tables for which there is no room are written row by row.
   */
  prepare(segments: readonly Segment[], around: (statement: string) => string): Promise<UnitResult>[] {
    const results: Promise<UnitResult>[] = [];
    const needed = new Set<TablePlan>();
    for (const segment of segments) {
      for (const work of segment.tables.values()) {
        if (work.ordered || needed.size >= maxScratchTables) continue;
        if (this.#needsScratch(work)) needed.add(work.plan);
      }
    }
    if (!this.scratchRefused) for (const plan of needed) this.#makeScratch(plan, needed, (statement) => results.push(this.#pipeline.query(around(statement))));
    return results;
  }

  #needsScratch(work: TableWork): boolean {
    // Before the net effect: an upper bound, and free of charge.
    if (!work.entries || work.updates + work.deletes < this.#setWiseFrom) return false;
    let updates = 0;
    let deletes = 0;
    for (const { kind } of work.entries.values()) {
      if (kind === 'update') updates += 1;
      else if (kind === 'delete' || kind === 'replace') deletes += 1;
      if (updates >= this.#setWiseFrom || deletes >= this.#setWiseFrom) return true;
    }
    return false;
  }

  /** Set once the target refused to make temporary tables: many updates then go row by row. */
  scratchRefused = false;

  /** After a failure nobody knows which scratch tables were made. */
  forgetScratch(): string[] {
    const drops = [...this.#scratch.values()].map((name) => `drop table if exists ${name}`);
    this.#scratch.clear();
    this.#usedScratch.clear();
    return drops;
  }

  /** Adds statements of one's own in their place. */
  statement(sql: string, plan?: TablePlan): void {
    this.endRows();
    this.#units.push({ result: this.#pipeline.query(sql), plan, rows: [] });
  }

  /** A COPY whose rows `write` puts into the pipeline. */
  copy(sql: string, write: () => void, plan?: TablePlan): void {
    this.endRows();
    this.#pipeline.beginCopy(sql);
    write();
    this.#units.push({ result: this.#pipeline.endCopy(), plan, rows: [] });
  }

  segment(segment: Segment): void {
    for (const truncate of segment.truncates) this.truncate(truncate);
    for (const work of segment.tables.values()) {
      if (work.ordered) for (const change of work.ordered) this.change(work.plan, change);
      else this.#merged(work);
    }
  }

  truncate(truncate: TruncateWork): void {
    this.statement(`truncate ${truncate.plans.map((plan) => plan.nameOnly).join(', ')}${truncate.restartIdentity ? ' restart identity' : ''}`, truncate.plans.length === 1 ? truncate.plans[0] : undefined);
  }

  /** One change as it is. */
  change(plan: TablePlan, change: RowChange): void {
    const written = change.type === 'insert' ? this.rows.insert(plan, change.newTuple) : change.type === 'update' ? this.rows.update(plan, change.oldTuple, change.newTuple) : this.rows.delete(plan, change.oldTuple);
    if (!written) return;
    // What a filter leaves out is not there to be changed.
    this.#open.push({ plan, change, expected: plan.filter ? 0 : 1 });
    if (this.#open.length >= rowsPerUnit) this.endRows();
  }

  /** Ends a run of single rows. */
  endRows(): void {
    if (this.#open.length === 0) return;
    this.#units.push({ result: this.#pipeline.sync(), plan: undefined, rows: this.#open });
    this.#open = [];
  }

  /** Hands over what was written since the last call. */
  takeUnits(): WrittenUnit[] {
    this.endRows();
    const units = this.#units;
    this.#units = [];
    return units;
  }

  #merged(work: TableWork): void {
    const { plan } = work;
    if (!work.entries) {
      this.#insertRows(plan, work.appended);
      return;
    }
    const deletes: Entry[] = [];
    const updates: Entry[] = [];
    const inserts: Tuple[] = [];
    for (const entry of work.entries.values()) {
      if (entry.kind === 'insert') inserts.push(entry.tuple!);
      else if (entry.kind === 'update') updates.push(entry);
      else if (entry.kind === 'delete') deletes.push(entry);
      else if (entry.kind === 'replace') {
        deletes.push(entry);
        inserts.push(entry.tuple!);
      }
    }
    const scratch = this.#scratch.has(plan);
    if (scratch && deletes.length >= this.#setWiseFrom) this.#deleteSet(plan, deletes);
    else for (const entry of deletes) this.#row(plan, this.rows.delete(plan, entry.keyTuple));
    if (scratch && updates.length >= this.#setWiseFrom) this.#updateSets(plan, updates);
    else for (const entry of updates) this.#row(plan, this.rows.update(plan, undefined, entry.tuple!));
    this.#insertRows(plan, inserts);
  }

  #insertRows(plan: TablePlan, rows: readonly Tuple[]): void {
    if (rows.length >= this.#setWiseFrom) this.#copyInserts(plan, rows);
    else for (const row of rows) this.#row(plan, this.rows.insert(plan, row));
  }

  #row(plan: TablePlan, written: boolean): void {
    if (written) this.#open.push({ plan, change: undefined, expected: 1 });
  }

  #copyInserts(plan: TablePlan, rows: readonly Tuple[]): void {
    const positions = plan.written.length === plan.columns.length ? undefined : plan.written;
    this.copy(copySql(plan, this.#binary), () => {
      copyHeader(this.#pipeline, this.#binary);
      for (const row of rows) copyRow(this.#pipeline, row, positions, this.#binary);
      copyTrailer(this.#pipeline, this.#binary);
    }, plan);
  }

  #updateSets(plan: TablePlan, entries: readonly Entry[]): void {
    const groups = new Map<string, { sets: number[]; rows: Tuple[] }>();
    const whole = plan.columns.flatMap((column, i) => (column.settable && !plan.keyColumns.includes(i) ? [i] : []));
    for (const entry of sorted(entries)) {
      const tuple = entry.tuple!;
      const sets = tuple.hasUnchanged ? present(tuple, whole) : whole;
      const name = tuple.hasUnchanged ? sets.join(',') : '';
      const group = groups.get(name);
      if (group) group.rows.push(tuple);
      else groups.set(name, { sets, rows: [tuple] });
    }
    for (const { sets, rows } of groups.values()) {
      if (sets.length === 0) continue;
      const positions = [...plan.keyColumns, ...sets].sort((x, y) => x - y);
      const scratch = this.#fill(plan, positions, rows);
      const assignments = sets.map((i) => `${plan.columns[i]!.quoted} = s.${plan.columns[i]!.quoted}`).join(', ');
      this.#setStatement(plan, `update ${plan.nameOnly} as t set ${assignments} from ${scratch} as s where ${this.#join(plan)}`, rows.length);
    }
  }

  #deleteSet(plan: TablePlan, entries: readonly Entry[]): void {
    const scratch = this.#fill(plan, plan.keyColumns, sorted(entries).map((entry) => entry.keyTuple));
    this.#setStatement(plan, `delete from ${plan.nameOnly} as t using ${scratch} as s where ${this.#join(plan)}`, entries.length);
  }

  #join(plan: TablePlan): string {
    return plan.keyColumns.map((i) => `t.${plan.columns[i]!.quoted} = s.${plan.columns[i]!.quoted}`).join(' and ');
  }

  #setStatement(plan: TablePlan, sql: string, expected: number): void {
    this.endRows();
    // Without an index to find rows by, a nested loop would read the whole table once a row.
    const text = plan.keyIndexed ? sql : `set local enable_hashjoin = on; ${sql}; set local enable_hashjoin = off`;
    this.#units.push({ result: this.#pipeline.query(text), plan, rows: [{ plan, change: undefined, expected }] });
  }

  #fill(plan: TablePlan, positions: readonly number[], rows: readonly Tuple[]): string {
    const scratch = this.#scratch.get(plan);
    if (scratch === undefined) throw new PgweaveError('scratch-missing', `no scratch table was made for ${plan.name}`, { retry: 'never' });
    if (this.#usedScratch.has(scratch)) this.statement(`truncate ${scratch}`, plan);
    this.#usedScratch.add(scratch);
    const all = positions.length === plan.columns.length ? undefined : positions;
    this.copy(`copy ${scratch} (${positions.map((i) => plan.columns[i]!.quoted).join(', ')}) from stdin${this.#binary ? ' (format binary)' : ''}`, () => {
      copyHeader(this.#pipeline, this.#binary);
      for (const row of rows) copyRow(this.#pipeline, row, all, this.#binary);
      copyTrailer(this.#pipeline, this.#binary);
    }, plan);
    return scratch;
  }

  #makeScratch(plan: TablePlan, needed: ReadonlySet<TablePlan>, run: (statement: string) => void): void {
    const known = this.#scratch.get(plan);
    if (known !== undefined) {
      // The one used longest ago is the first to go.
      this.#scratch.delete(plan);
      this.#scratch.set(plan, known);
      return;
    }
    if (this.#scratch.size >= maxScratchTables) {
      for (const [oldest, name] of this.#scratch) {
        if (needed.has(oldest)) continue;
        this.#scratch.delete(oldest);
        run(`drop table ${name}`);
        break;
      }
    }
    // Types below domains: a value that was not sent is NULL here, which a domain may forbid.
    const columns = plan.columns.map((column) => `${column.quoted} ${column.target.baseType}`).join(', ');
    run(`create temporary table pgweave_${plan.id} (${columns}) on commit delete rows`);
    this.#scratch.set(plan, `pg_temp.pgweave_${plan.id}`);
  }
}

/** By key, where it is a number: rows are then met in the order in which the index and mostly the table hold them. */
function sorted(entries: readonly Entry[]): readonly Entry[] {
  let ascending = true;
  let before = Number.NEGATIVE_INFINITY;
  for (const { key } of entries) {
    if (typeof key !== 'number') return entries;
    if (key < before) ascending = false;
    before = key;
  }
  return ascending ? entries : entries.toSorted((x, y) => (x.key as number) - (y.key as number));
}

const columns = columnArrays();

function present(tuple: Tuple, positions: readonly number[]): number[] {
  readColumns(tuple, columns);
  return positions.filter((i) => columns.kinds[i] !== columnKind.unchanged);
}
