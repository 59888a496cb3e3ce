import { installedVersion } from '../catalog/pgweave-schema.ts';
import type { Selection } from '../core/selection/select.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import type { Session } from '../pg/session.ts';
import type { CopyLedger } from './copy-ledger.ts';

const step = 'selection';

/** What is special about a table of a job: kept on the target with the data, so that a command on another machine knows it too. */
export interface KeptTable extends TableRef {
  /** Its name on the target, where it is another. */
  readonly mapTo?: TableRef;
  readonly excludeColumns?: readonly string[];
  readonly where?: string;
}

/** What a job made of its tables; of those not named everything, under the same name. */
export interface KeptSelection {
  readonly renamed: readonly KeptTable[];
  readonly mapTo: (table: TableRef) => TableRef;
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

/** Reads it back; nothing is special where the target knows nothing of the job. */
export async function keptSelection(target: Session, job: string): Promise<KeptSelection> {
  const there = (await installedVersion(target, 'copy')) !== undefined;
  const [row] = there ? await target.query<{ note: string | null }>('select note from pgweave.copy_step where job = $1 and step = $2', [job, step]) : [];
  const tables = new Map((row?.note ? (JSON.parse(row.note) as KeptTable[]) : []).map((t) => [tableKey(t), t]));
  return {
    renamed: [...tables.values()].filter((t) => t.mapTo),
    mapTo: (table) => tables.get(tableKey(table))?.mapTo ?? { schema: table.schema, name: table.name },
    excludedColumns: (table) => tables.get(tableKey(table))?.excludeColumns ?? [],
    rowCondition: (table) => tables.get(tableKey(table))?.where,
  };
}
