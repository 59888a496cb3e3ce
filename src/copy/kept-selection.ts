import { installedVersion } from '../catalog/pgweave-schema.ts';
import { exactly } from '../core/selection/names.ts';
import { noRules, type SelectionRules } from '../core/selection/rules.ts';
import type { Selection } from '../core/selection/select.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import type { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { CopyLedger } from './copy-ledger.ts';

const step = 'selection';

/** What is special about a table of a job: kept on the target with the data, so that a command on another machine knows it too. */
export interface KeptTable extends TableRef {
  /** Its name on the target, where it is another. */
  readonly mapTo?: TableRef;
  readonly excludeColumns?: readonly string[];
  /** Columns that only the target has, on the way back of a job that left them out: their values there are its own. */
  readonly ownColumns?: readonly string[];
  readonly where?: string;
}

/** What a job made of its tables; of those not named everything, under the same name. */
export interface KeptSelection {
  readonly tables: readonly KeptTable[];
  readonly mapTo: (table: TableRef) => TableRef;
  /** Columns that are not replicated: left out, or the target's own. */
  readonly excludedColumns: (table: TableRef) => readonly string[];
  readonly rowCondition: (table: TableRef) => string | undefined;
}

/** Writes down what is special about the tables of a job that begins. */
export async function keepSelection(target: Session, ledger: CopyLedger, selection: Selection): Promise<void> {
  const tables = [...selection.values()].filter((s) => s.mode !== 'skip').flatMap((s): KeptTable[] => {
    const renamed = tableKey(s.mapTo) !== tableKey(s.table);
    if (!renamed && s.excludeColumns.length === 0 && s.where === undefined) return [];
    return [{ ...s.table, ...(renamed ? { mapTo: s.mapTo } : {}), ...(s.excludeColumns.length > 0 ? { excludeColumns: s.excludeColumns } : {}), ...(s.where === undefined ? {} : { where: s.where }) }];
  });
  if (tables.length > 0) await ledger.markStep(target, step, JSON.stringify(tables));
}

/** Writes down what is special about the tables of a job that begins without a copy, in the place of what an earlier one of its name wrote. */
export async function noteSelection(target: Session, job: string, tables: readonly KeptTable[]): Promise<void> {
  if (tables.length === 0 && (await installedVersion(target, 'copy')) === undefined) return;
  const ledger = await CopyLedger.open(target, job);
  await ledger.markStep(target, step, JSON.stringify(tables));
}

/** The same tables for a stream the other way. */
export function invertedTables(tables: readonly KeptTable[]): KeptTable[] {
  return tables.map(({ schema, name, mapTo, excludeColumns, ownColumns, where }) => ({
    ...(mapTo ? { ...mapTo, mapTo: { schema, name } } : { schema, name }), ...(excludeColumns ? { ownColumns: excludeColumns } : {}), ...(ownColumns ? { excludeColumns: ownColumns } : {}), ...(where === undefined ? {} : { where }),
  }));
}

async function keptTables(target: Session, job: string): Promise<KeptTable[]> {
  const there = (await installedVersion(target, 'copy')) !== undefined;
  const [row] = there ? await target.query<{ note: string | null }>('select note from pgweave.copy_step where job = $1 and step = $2', [job, step]) : [];
  return row?.note ? (JSON.parse(row.note) as KeptTable[]) : [];
}

/** What is kept, as the rules that a person would give for it; undefined where the target knows nothing of the job, or may not be asked. Tables that the job leaves out are not kept. */
export async function notedRules(target: Session, job: string): Promise<SelectionRules | undefined> {
  let tables: readonly KeptTable[];
  try {
    tables = await keptTables(target, job);
  } catch (error) {
    if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) throw error;
    return undefined;
  }
  if (tables.length === 0) return undefined;
  const pattern = (table: TableRef) => ({ schema: exactly(table.schema), name: exactly(table.name) });
  return {
    ...noRules,
    maps: tables.flatMap((t) => (t.mapTo ? [{ from: pattern(t), to: t.mapTo }] : [])), excludeColumns: tables.flatMap((t) => (t.excludeColumns ?? []).map((column) => ({ table: pattern(t), column }))),
    tableFilters: tables.flatMap((t) => (t.where === undefined ? [] : [{ table: pattern(t), where: t.where }])),
  };
}

/** Reads it back; nothing is special where the target knows nothing of the job. */
export async function keptSelection(target: Session, job: string): Promise<KeptSelection> {
  const all = await keptTables(target, job);
  const tables = new Map(all.map((t) => [tableKey(t), t]));
  return {
    tables: all,
    mapTo: (table) => tables.get(tableKey(table))?.mapTo ?? { schema: table.schema, name: table.name },
    excludedColumns: (table) => {
      const { excludeColumns = [], ownColumns = [] } = tables.get(tableKey(table)) ?? {};
      return [...excludeColumns, ...ownColumns];
    },
    rowCondition: (table) => tables.get(tableKey(table))?.where,
  };
}
