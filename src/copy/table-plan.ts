import { copyColumns, copyTables, copyTypes, targetColumns, type CopyColumnRow, type CopyTableRow, type CopyTypeRow, type TargetColumnRow } from '../catalog/copy-tables.ts';
import { PgweaveError } from '../core/errors.ts';
import type { Selection } from '../core/selection/select.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { binarySafeTypes } from './binary-safe.ts';
import { planParts, type TablePart } from './parts.ts';
import { tableChanged } from './table-changed.ts';

/** What to do with a table's rows. */
export type TableChoice = 'copy' | 'schema-only' | 'skip';

/** Which tables to copy, which rows and columns of them, and where to. */
export interface TableSelection {
  choose(table: TableRef): TableChoice;
  /** An SQL condition over the table's columns; undefined for all rows. */
  rowCondition?(table: TableRef): string | undefined;
  excludedColumns?(table: TableRef): readonly string[];
  /** The table's name on the target; default the same. */
  mapTo?(table: TableRef): TableRef;
}

/** Reads what the rules made of each table; tables that they do not know (an extension's) are copied whole. */
export function tableSelection(selection: Selection): TableSelection {
  return {
    choose: (table) => selection.get(tableKey(table))?.mode ?? 'copy',
    rowCondition: (table) => selection.get(tableKey(table))?.where,
    excludedColumns: (table) => selection.get(tableKey(table))?.excludeColumns ?? [],
    mapTo: (table) => selection.get(tableKey(table))?.mapTo ?? table,
  };
}

export type CopyFormat = 'auto' | 'text' | 'binary';

/** A table to copy, as the snapshot showed it. Columns are pinned here: each COPY names them. */
export interface TablePlan extends TableRef {
  /** The table that gets the rows. */
  readonly target: TableRef;
  /** Top of the partition tree that it is a leaf of. */
  readonly root: TableRef | undefined;
  readonly oid: number;
  readonly filenode: number;
  readonly bytes: number;
  readonly blocks: number;
  /** Estimate, -1 where unknown. */
  readonly rows: number;
  readonly indexes: number;
  readonly unlogged: boolean;
  /** Columns that travel: generated ones arise on the target. */
  readonly columns: readonly string[];
  readonly types: readonly string[];
  readonly binary: boolean;
  /** Rows that go: the user's condition, or an extension's. */
  readonly condition: string | undefined;
  /** Its rows stand beside those that the extension itself made on the target. */
  readonly extensionConfig: boolean;
  readonly parts: readonly TablePart[];
}

export interface PlanTablesOptions {
  readonly selection?: TableSelection | undefined;
  /** Tables with more bytes are split; 0 for never. */
  readonly splitBytes: number;
  readonly format: CopyFormat;
  /** Both databases have the same encoding, so that binary text needs no conversion. */
  readonly sameEncoding: boolean;
}

/** Reads the tables to copy, in the snapshot that `source` is in. */
export async function planCopy(source: Session, options: PlanTablesOptions): Promise<TablePlan[]> {
  const rows = (await source.query<CopyTableRow>(copyTables())).filter((row) => (options.selection?.choose(row) ?? 'copy') === 'copy');
  if (rows.length === 0) return [];
  const columns = new Map<number, CopyColumnRow[]>();
  for (const column of await source.query<CopyColumnRow>(copyColumns(rows.map((r) => r.oid)))) {
    const list = columns.get(column.table_oid);
    if (list) list.push(column);
    else columns.set(column.table_oid, [column]);
  }
  const typeOids = new Set([...columns.values()].flat().map((c) => c.type_oid));
  const safe = binarySafeTypes(await source.query<CopyTypeRow>(copyTypes([...typeOids])));
  return rows.map((row) => {
    const excluded = new Set(options.selection?.excludedColumns?.(row));
    const travelling = (columns.get(row.oid) ?? []).filter((c) => !c.generated && !excluded.has(c.name));
    const extensionConfig = row.extension_condition !== null;
    const chosen = options.selection?.rowCondition?.(row);
    // An extension's condition comes with its WHERE.
    const condition = extensionConfig ? (row.extension_condition ?? '').replace(/^\s*where\b/i, '').trim() || undefined : chosen;
    const bytes = Number(row.bytes);
    const blocks = Number(row.blocks);
    const splittable = !extensionConfig && row.heap && source.serverVersion >= 140_000;
    return {
      schema: row.schema, name: row.name, target: options.selection?.mapTo?.(row) ?? { schema: row.schema, name: row.name }, root: row.root_schema === null || row.root_name === null ? undefined : { schema: row.root_schema, name: row.root_name }, oid: row.oid, filenode: row.filenode, bytes, blocks, rows: Math.round(Number(row.rows)), indexes: row.indexes, unlogged: row.unlogged,
      columns: travelling.map((c) => c.name), types: travelling.map((c) => c.type),
      // Without columns there is nothing to gain; text is the form that is known to work.
      binary: options.format !== 'text' && travelling.length > 0 && options.sameEncoding && travelling.every((c) => safe.has(c.type_oid)),
      condition, extensionConfig, parts: planParts({ bytes, blocks }, splittable ? options.splitBytes : 0),
    };
  });
}

/**
 * Compares the plan with the tables on the target: throws `target-table-missing` or `target-column-missing`; where a column's type is another one there, the table goes
 * as text. `exact`: the target's tables were made from the source's schema, so that a column more there means that the source lost it meanwhile (`table-changed`).
 */
export async function fitToTarget(plans: readonly TablePlan[], target: Session, options: { readonly exact?: boolean } = {}): Promise<TablePlan[]> {
  const found = new Map<string, Map<string, string>>();
  for (const row of await target.query<TargetColumnRow>(targetColumns(plans.map((p) => p.target.schema), plans.map((p) => p.target.name)))) {
    const key = tableKey({ schema: row.schema, name: row.table });
    const columns = found.get(key) ?? new Map<string, string>();
    found.set(key, columns.set(row.name, row.type));
  }
  // A table without columns returns no row above: ask for those by name.
  const missing = plans.filter((p) => p.columns.length > 0 && !found.has(tableKey(p.target)));
  const [first] = missing;
  if (first) throw new PgweaveError('target-table-missing', `the target has no table ${displayName(first.target.schema, first.target.name)}${missing.length > 1 ? ` (and ${missing.length - 1} more are missing)` : ''}`, { hint: 'It was dropped since its schema was restored. Begin anew with --no-resume --drop-existing.' });
  return plans.map((plan) => {
    const columns = found.get(tableKey(plan.target));
    if (!columns) return plan;
    const absent = plan.columns.find((name) => !columns.has(name));
    if (absent !== undefined) throw new PgweaveError('target-column-missing', `${displayName(plan.target.schema, plan.target.name)} has no column "${absent}" on the target`, { hint: 'Add the column there, or begin anew with --no-resume --drop-existing.' });
    const extra = options.exact ? [...columns.keys()].find((name) => !plan.columns.includes(name)) : undefined;
    if (extra !== undefined) throw tableChanged(plan, `has no column "${extra}" any more`);
    const same = plan.columns.every((name, i) => columns.get(name) === plan.types[i]);
    return same ? plan : { ...plan, binary: false };
  });
}
