import { tableKey, type TableRef } from '../../core/tables.ts';
import { isWayBack } from '../../core/way-back.ts';
import type { Session } from '../../pg/session.ts';
import { publishedFilters } from '../publications.ts';
import type { TableRules } from './table-rules.ts';

/**
 * The row filters that the applier has to evaluate: of tables whose rows the publications send as a whole. On the way back there are none: the old source has the rows that the job left out,
 * and takes all that the new primary makes.
 */
export async function applierFilters(source: Session, job: string, publications: readonly string[], rules: Pick<TableRules, 'rowCondition' | 'filtered'>): Promise<(table: TableRef) => string | undefined> {
  if (!rules.filtered || isWayBack(job)) return () => undefined;
  const published = await publishedFilters(source, publications);
  return (table) => (published.get(tableKey(table)) ? undefined : rules.rowCondition(table));
}
