import { emptyParameters, type Parameters, type Pipeline } from '../../pg/pipeline.ts';
import { columnArrays, readColumns } from '../../pgoutput/tuple.ts';
import { columnKind, type Tuple } from '../../pgoutput/messages.ts';
import { filteredInsertSql, filteredUpdateSql, sentPositions } from './filtered-rows.ts';
import { fillUnchanged } from './merge.ts';
import { deleteSql, insertSql, keyCondition, updateSql, wholeRowCondition, type RowFilter, type TablePlan } from './plan.ts';

/** Prepared statements kept open in one session; the oldest go first. Each costs the server some 10 kB. */
const maxStatements = 2000;

const newColumns = columnArrays();
const oldColumns = columnArrays();

/** Rows one by one, by prepared statements whose parameters are the received bytes. Nothing is awaited; the caller ends a run with `sync`. */
export class RowWriter {
  readonly #pipeline: Pipeline;
  readonly #statements = new Map<string, true>();
  readonly #parameters: Parameters = emptyParameters();

  constructor(pipeline: Pipeline) {
    this.#pipeline = pipeline;
  }

  /** Each method writes exactly one statement, or none (returns false) where nothing is to be set. */
  insert(plan: TablePlan, tuple: Tuple): boolean {
    readColumns(tuple, newColumns);
    const parameters = this.#begin();
    const { filter } = plan;
    if (filter) {
      for (const i of sentPositions(plan)) addParameter(parameters, tuple.bytes, newColumns, i);
      return this.#run(`i${plan.id}`, () => filteredInsertSql(plan, filter), parameters);
    }
    for (const i of plan.written) addParameter(parameters, tuple.bytes, newColumns, i);
    return this.#run(`i${plan.id}`, () => insertSql(plan), parameters);
  }

  /** `oldTuple`: the old key or old row, where the source sent one; else the key is that of the new row. */
  update(plan: TablePlan, oldTuple: Tuple | undefined, tuple: Tuple): boolean {
    if (plan.filter) return this.#filteredUpdate(plan, plan.filter, oldTuple, tuple);
    readColumns(tuple, newColumns);
    const keyed = plan.keyColumns.length > 0;
    const where = oldTuple ?? tuple;
    readColumns(where, oldColumns);
    const parameters = this.#begin();
    const sets: number[] = [];
    let mask = '';
    for (let i = 0; i < plan.columns.length; i += 1) {
      const set = plan.columns[i]!.settable && newColumns.kinds[i] !== columnKind.unchanged && !(keyed && plan.keyColumns.includes(i) && sameValue(where, tuple, i));
      if (set) {
        sets.push(i);
        addParameter(parameters, tuple.bytes, newColumns, i);
      }
      mask += set ? '1' : '0';
    }
    // Only the key was sent, or only what cannot be set: an empty SET is no statement [3].
    if (sets.length === 0) return false;
    if (keyed) {
      for (const i of plan.keyColumns) addParameter(parameters, where.bytes, oldColumns, i);
      return this.#run(`u${plan.id}.${shorten(mask)}`, () => updateSql(plan, sets, keyCondition(plan, sets.length + 1)), parameters);
    }
    const nulls = this.#wholeRow(plan, where, parameters);
    return this.#run(`u${plan.id}.${shorten(mask)}.${shorten(bits(nulls))}`, () => updateSql(plan, sets, wholeRowCondition(plan, nulls, sets.length + 1)), parameters);
  }

  delete(plan: TablePlan, oldTuple: Tuple): boolean {
    readColumns(oldTuple, oldColumns);
    const parameters = this.#begin();
    if (plan.keyColumns.length > 0) {
      for (const i of plan.keyColumns) addParameter(parameters, oldTuple.bytes, oldColumns, i);
      return this.#run(`d${plan.id}`, () => deleteSql(plan, keyCondition(plan, 1)), parameters);
    }
    const nulls = this.#wholeRow(plan, oldTuple, parameters);
    return this.#run(`d${plan.id}.${shorten(bits(nulls))}`, () => deleteSql(plan, wholeRowCondition(plan, nulls, 1)), parameters);
  }

  #filteredUpdate(plan: TablePlan, filter: RowFilter, oldTuple: Tuple | undefined, sent: Tuple): boolean {
    const tuple = oldTuple && sent.hasUnchanged && plan.relation.replicaIdentity === 'full' ? fillUnchanged(sent, oldTuple) : sent;
    const where = oldTuple ?? tuple;
    readColumns(tuple, newColumns);
    readColumns(where, oldColumns);
    const parameters = this.#begin();
    const unchanged = new Set<number>();
    const staying = new Set<number>();
    let mask = '';
    for (const i of sentPositions(plan)) {
      const notSent = newColumns.kinds[i] === columnKind.unchanged;
      const key = plan.keyColumns.includes(i);
      const stays = key && (notSent || sameValue(where, tuple, i));
      if (stays) staying.add(i);
      // A large value of the key is that of the old key.
      if (notSent && !key) unchanged.add(i);
      else if (notSent) addParameter(parameters, where.bytes, oldColumns, i);
      else addParameter(parameters, tuple.bytes, newColumns, i);
      mask += `${stays ? '1' : '0'}${unchanged.has(i) ? '1' : '0'}`;
    }
    for (const i of plan.keyColumns) addParameter(parameters, where.bytes, oldColumns, i);
    return this.#run(`u${plan.id}.${shorten(mask)}`, () => filteredUpdateSql(plan, filter, { unchanged, staying }), parameters);
  }

  /** After an error the server may or may not have made the statements of that run: they are forgotten there and here. */
  forgetStatements(): string {
    this.#statements.clear();
    return 'deallocate all';
  }

  #begin(): Parameters {
    this.#parameters.count = 0;
    return this.#parameters;
  }

  /** Adds the values of an old row that are not NULL; tells which are. */
  #wholeRow(plan: TablePlan, tuple: Tuple, parameters: Parameters): boolean[] {
    return plan.columns.map((column, i) => {
      const isNull = oldColumns.kinds[i] === columnKind.null;
      if (!isNull && column.written) addParameter(parameters, tuple.bytes, oldColumns, i);
      return isNull;
    });
  }

  #run(name: string, sql: () => string, parameters: Parameters): boolean {
    if (!this.#statements.has(name)) {
      if (this.#statements.size >= maxStatements) {
        const [oldest] = this.#statements.keys();
        this.#statements.delete(oldest!);
        this.#pipeline.closeStatement(oldest!);
      }
      this.#pipeline.parse(name, sql());
      this.#statements.set(name, true);
    }
    this.#pipeline.execute(name, parameters);
    return true;
  }
}

function addParameter(parameters: Parameters, bytes: Buffer, columns: typeof newColumns, i: number): void {
  const n = parameters.count;
  const kind = columns.kinds[i]!;
  const present = kind === columnKind.text || kind === columnKind.binary;
  parameters.sources[n] = present ? bytes : null;
  parameters.offsets[n] = columns.offsets[i]!;
  parameters.lengths[n] = columns.lengths[i]!;
  parameters.formats[n] = kind === columnKind.binary ? 1 : 0;
  parameters.count = n + 1;
}

/** A key column whose value stays need not be set: that would make the server look at every index. */
function sameValue(old: Tuple, now: Tuple, i: number): boolean {
  if (old === now) return true;
  if (oldColumns.kinds[i] !== newColumns.kinds[i] || oldColumns.lengths[i] !== newColumns.lengths[i]) return false;
  const from = oldColumns.offsets[i]!;
  const other = newColumns.offsets[i]!;
  return old.bytes.compare(now.bytes, other, other + newColumns.lengths[i]!, from, from + oldColumns.lengths[i]!) === 0;
}

function bits(values: readonly boolean[]): string {
  return values.map((value) => (value ? '1' : '0')).join('');
}

/** Statement names are cut at 63 bytes nowhere in the protocol, but a table of 1,600 columns should not make names of 1,600 letters. */
function shorten(mask: string): string {
  return mask.length <= 8 ? mask : `${mask.length}x${BigInt(`0b${mask}`).toString(36)}`;
}
