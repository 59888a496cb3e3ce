import { parsePredicate } from '../core/selection/predicate.ts';
import { displayName } from '../pg/identifiers.ts';
import type { PreflightTableRow } from './preflight-tables.ts';

/** Who tells the rows of a row filter apart in pgweave's own stream. */
export type FilterPlace =
  /** The publication, unless its own rules for expressions forbid it: functions, operators and types of users, functions that are not immutable. */
  | { readonly by: 'source' }
  /** The source sends all rows of the table, and pgweave leaves out those that are not in the filter. */
  | { readonly by: 'pgweave'; readonly because: string }
  /** Neither can. */
  | { readonly by: 'nobody'; readonly text: string; readonly fix: string };

/** Row filters of publications are of version 15. */
const filtersFrom = 150_000;

/** Where a filter is applied, as far as the catalog tells. `row` is a table that holds rows, not a partitioned one. */
export async function filterPlace(row: PreflightTableRow, where: string, source: { readonly serverVersion: number; readonly serverVersionText: string }, excluded: readonly string[]): Promise<FilterPlace> {
  const { columns } = await parsePredicate(where);
  // Without an identity inserts alone are published, and those may be filtered by any column.
  const outside = row.replica_identity === 'f' || row.has_identity_index ? columns.filter((column) => !row.identity_columns.includes(column)) : [];
  if (source.serverVersion >= filtersFrom && outside.length === 0) return { by: 'source' };
  const because = source.serverVersion < filtersFrom ? `the source is ${source.serverVersionText.split(' ')[0]}, and publications have row filters from PostgreSQL 15 on` : `${outside.join(', ')} ${outside.length === 1 ? 'is' : 'are'} outside the replica identity`;
  return filteredHere(row, columns, because, excluded);
}

/** The place of a filter that the source cannot apply. */
export function filteredHere(row: PreflightTableRow, columns: readonly string[], because: string, excluded: readonly string[]): Exclude<FilterPlace, { by: 'source' }> {
  const name = displayName(row.schema, row.name);
  const nobody = (text: string, fix: string) => ({ by: 'nobody' as const, text: `the row filter of ${name}: ${because}, so pgweave would filter it, but ${text}`, fix });
  const left = columns.filter((column) => excluded.includes(column));
  if (left.length > 0) return nobody(`${left.join(', ')} is left out of the stream`, `Take ${left.join(', ')} along, or filter by other columns.`);
  const generated = columns.filter((column) => row.generated_columns.includes(column));
  if (generated.length > 0) return nobody(`${generated.join(', ')} is generated and not sent`, `Write what ${generated.join(', ')} is generated from instead of it.`);
  if (row.replica_identity === 'f' && row.identity_candidates.length === 0) return nobody('the table has no key by which the rows that leave the filter could be found', `On the source: give ${name} a primary key, or leave the filter out.`);
  return { by: 'pgweave', because };
}
