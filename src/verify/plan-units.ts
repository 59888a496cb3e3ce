import type { VerifyTableRow } from '../catalog/verify-tables.ts';
import type { Selection, TableSelection } from '../core/selection/select.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import { bucketsFor, type Incomparable, type Relation, type Unit, type VerifyColumn } from './unit.ts';

export interface Side {
  readonly tables: readonly VerifyTableRow[];
  readonly serverVersion: number;
}

export interface PlanOptions {
  readonly selection: Selection;
  /** Which of the job's tables to compare; default all. */
  readonly accepts?: ((table: TableRef) => boolean) | undefined;
  /** Per cent. */
  readonly sample?: number | undefined;
}

export interface PlannedUnits {
  readonly units: readonly Unit[];
  readonly incomparable: readonly Incomparable[];
}

/** Finds for each table of the job its counterpart, the columns that both have, and a key. Pure. */
export function planUnits(source: Side, target: Side, options: PlanOptions): PlannedUnits {
  const planner = new Planner(source, target, options);
  for (const table of source.tables) planner.take(table);
  return { units: planner.units, incomparable: planner.incomparable };
}

class Planner {
  readonly units: Unit[] = [];
  readonly incomparable: Incomparable[] = [];
  readonly #source: Side;
  readonly #target: Side;
  readonly #options: PlanOptions;
  readonly #there: Map<string, VerifyTableRow>;

  constructor(source: Side, target: Side, options: PlanOptions) {
    this.#source = source;
    this.#target = target;
    this.#options = options;
    this.#there = new Map(target.tables.map((t) => [tableKey(t), t]));
  }

  take(table: VerifyTableRow): void {
    if (table.kind === 'f' || table.root !== null) return;
    if (table.kind === 'r') {
      this.#add(table, [table], this.#selected(table));
      return;
    }
    const leaves = this.#source.tables.filter((t) => t.root === table.oid && t.kind === 'r');
    const own = this.#selected(table);
    const same = leaves.every((leaf) => {
      const chosen = this.#selected(leaf);
      return chosen.mode === own.mode && chosen.where === own.where && chosen.excludeColumns.join('\0') === own.excludeColumns.join('\0');
    });
    // By root wherever the job takes the whole tree: the layouts may differ then.
    if (same && own.mode === 'copy' && this.#there.has(tableKey(own.mapTo))) this.#add(table, leaves, own);
    else for (const leaf of leaves) this.#add(leaf, [leaf], this.#selected(leaf));
  }

  #selected(table: VerifyTableRow): TableSelection {
    return this.#options.selection.get(tableKey(table)) ?? { table, mode: 'copy', excludeColumns: [], mapTo: { schema: table.schema, name: table.name } };
  }

  #add(table: VerifyTableRow, holders: readonly VerifyTableRow[], chosen: TableSelection): void {
    if (chosen.mode !== 'copy' || !(this.#options.accepts?.(table) ?? true)) return;
    const ref = { schema: table.schema, name: table.name };
    const there = this.#there.get(tableKey(chosen.mapTo));
    const refuse = (reason: string, different: boolean) => void this.incomparable.push({ table: ref, target: chosen.mapTo, reason, different });
    if (!there || there.kind === 'f') return refuse(there ? 'is a foreign table on the target' : `${displayName(chosen.mapTo.schema, chosen.mapTo.name)} is missing on the target`, true);
    const wanted = table.columns.filter((c) => !chosen.excludeColumns.includes(c.name));
    const missing = wanted.filter((c) => !there.columns.some((x) => x.name === c.name));
    if (missing.length > 0) return refuse(`${missing.length === 1 ? 'column' : 'columns'} ${missing.map((c) => c.name).join(', ')} ${missing.length === 1 ? 'is' : 'are'} missing on the target`, true);
    const notes: string[] = [];
    const columns = wanted.map((c): VerifyColumn => {
      const other = there.columns.find((x) => x.name === c.name)!;
      if (other.type !== c.type) notes.push(`column ${c.name} is ${c.type} here, ${other.type} there`);
      return { name: c.name, type: c.type, targetType: other.type, generated: other.generated !== '', alwaysIdentity: other.identity === 'a' };
    });
    const extra = there.columns.filter((c) => c.generated === '' && !table.columns.some((x) => x.name === c.name));
    if (extra.length > 0) notes.push(`the target has more columns: ${extra.map((c) => c.name).join(', ')}`);
    // Columns of a key that are left out of the job cannot tell rows apart on the target.
    const names = table.keys.find((key) => key.every((name) => columns.some((c) => c.name === name && !c.generated)));
    const key = names?.map((name) => columns.find((c) => c.name === name)!);
    const targets = there.kind === 'r' ? [there] : this.#target.tables.filter((t) => t.root === there.oid && t.kind === 'r');
    for (const [side, tables, root] of [['source', this.#source.tables, table], ['target', this.#target.tables, there]] as const) {
      const foreign = tables.filter((t) => t.root === root.oid && t.kind === 'f');
      if (foreign.length > 0) notes.push(`${foreign.length} foreign ${foreign.length === 1 ? 'partition' : 'partitions'} on the ${side} not read`);
    }
    const blocks = holders.reduce((sum, t) => sum + t.blocks, 0);
    this.units.push({
      table: ref, target: chosen.mapTo, columns, key, sourceRelations: holders.map((t) => relation(t, this.#source)), targetRelations: targets.map((t) => relation(t, this.#target)), where: chosen.where,
      unlogged: holders.some((t) => t.unlogged), buckets: bucketsFor(blocks), sample: this.#options.sample, targetHasMore: there.columns.some((c) => c.generated === '' && !wanted.some((x) => x.name === c.name)), notes,
    });
  }
}

function relation(table: VerifyTableRow, side: Side): Relation {
  return { schema: table.schema, name: table.name, blocks: table.blocks, ranges: table.heap && side.serverVersion >= 140_000 };
}
