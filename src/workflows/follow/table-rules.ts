import { selectableTables } from '../../catalog/selection.ts';
import { keptSelection } from '../../copy/kept-selection.ts';
import type { JobFolder } from '../../core/job-folder.ts';
import { keptRules, matchTables } from '../../core/selection/index.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { isWayBack } from '../../core/way-back.ts';
import type { Session } from '../../pg/session.ts';

/** What the rules of a job mean for a table of its stream. */
export interface TableRules {
  /** Its name on the target. */
  readonly mapTable: (table: TableRef) => TableRef;
  /** Columns that stay on the source. */
  readonly excludedColumns: (table: TableRef) => readonly string[];
  /** SQL condition in parentheses of the rows that go; undefined for all. */
  readonly rowCondition: (table: TableRef) => string | undefined;
  /** Some table has such a condition. */
  readonly filtered: boolean;
}

export interface TableRulesOptions {
  readonly job: string;
  readonly folder?: JobFolder | undefined;
  readonly mapTable?: ((table: TableRef) => TableRef) | undefined;
  readonly excludedColumns?: ((table: TableRef) => readonly string[]) | undefined;
}

/**
 * From what the caller gives, else from the rules that the job's folder keeps, else (on another machine, say) from what the clone wrote down on the target. The folder's rules are those of the
 * way forward: those of the way back stand on the old source, which is its target.
 */
export async function tableRules(options: TableRulesOptions, source: Session, target: Session): Promise<TableRules> {
  const kept = options.folder && !isWayBack(options.job) ? keptRules(options.folder) : undefined;
  const noted = kept ? undefined : await keptSelection(target, options.job);
  const catalog = kept || noted?.tables.length ? await selectableTables(source) : [];
  const selection = kept && matchTables(kept, source.spec.database, catalog).selection;
  const ruleOf = (table: TableRef) => selection?.get(tableKey(table));
  // A partition that came after the clone has what was noted of its root.
  const parents = new Map(noted ? catalog.flatMap((t) => (t.partitionOf ? [[tableKey(t), t.partitionOf] as const] : [])) : []);
  const notedCondition = (table: TableRef): string | undefined => {
    const parent = parents.get(tableKey(table));
    return noted?.rowCondition(table) ?? (parent && notedCondition(parent));
  };
  return {
    mapTable: options.mapTable ?? ((table) => ruleOf(table)?.mapTo ?? noted?.mapTo(table) ?? table),
    excludedColumns: options.excludedColumns ?? ((table) => ruleOf(table)?.excludeColumns ?? noted?.excludedColumns(table) ?? []),
    rowCondition: (table) => ruleOf(table)?.where ?? notedCondition(table),
    filtered: [...(selection?.values() ?? noted?.tables ?? [])].some(({ where }) => where !== undefined),
  };
}
