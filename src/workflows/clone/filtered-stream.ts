import { preflightTables, type PreflightTableRow } from '../../catalog/preflight-tables.ts';
import { resolveSelection, selectableTables } from '../../catalog/selection.ts';
import { PgweaveError } from '../../core/errors.ts';
import { parsePredicate } from '../../core/selection/predicate.ts';
import { noRules, type SelectionRules } from '../../core/selection/rules.ts';
import type { SelectableTable, SelectionScope } from '../../core/selection/select.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { displayName } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';
import { ensurePublications, type PublishedTable } from '../publications.ts';

/**
 * The tables of pgweave's own stream with the row filters of their rules. The source applies them as it decodes: a row that moves in comes as an insert, one that moves out as a delete. A partitioned
 * table with filters is listed by its leaves, since the stream tells of leaves. Refuses, with the fix, filters that the source cannot apply: the stream would bring rows that the copy leaves out.
 */
export async function streamedTables(source: Session, options: { readonly job: string; readonly rules?: SelectionRules | undefined; readonly scope?: SelectionScope | undefined }, tables: readonly TableRef[]): Promise<readonly PublishedTable[]> {
  const { rules = noRules, scope } = options;
  if (rules.tableFilters.length + rules.timeFilters.length === 0) return tables;
  const { selection } = await resolveSelection(source, rules, scope);
  const catalog = await selectableTables(source);
  const rows = new Map((await source.query<PreflightTableRow>(preflightTables())).map((row) => [tableKey(row), row]));
  const out: PublishedTable[] = [];
  const faults: { readonly text: string; readonly fix: string }[] = [];
  for (const table of tables) {
    const leaves = rows.get(tableKey(table))?.kind === 'p' ? leavesOf(table, catalog, rows) : [table];
    const filtered = leaves.map((leaf): PublishedTable => {
      const where = selection.get(tableKey(leaf))?.where;
      return { schema: leaf.schema, name: leaf.name, ...(where === undefined ? {} : { where }) };
    });
    if (filtered.every((leaf) => leaf.where === undefined)) {
      out.push(table);
      continue;
    }
    out.push(...filtered);
    for (const leaf of filtered) {
      const row = rows.get(tableKey(leaf));
      if (leaf.where === undefined || !row || row.persistence === 'u') continue;
      const name = displayName(leaf.schema, leaf.name);
      if (source.serverVersion < 150_000) faults.push({ text: `${name}: the source is ${source.serverVersionText.split(' ')[0]}, and publications have row filters from PostgreSQL 15 on`, fix: 'Leave the filter out, or copy without a stream (pgweave clone without --follow).' });
      // Without an identity inserts alone are published, and those may be filtered by any column.
      else if (row.replica_identity === 'f' || row.has_identity_index) {
        const outside = (await parsePredicate(leaf.where)).columns.filter((column) => !row.identity_columns.includes(column));
        if (outside.length > 0) faults.push({ text: `the row filter of ${name} reads ${outside.join(', ')}, which ${outside.length === 1 ? 'is' : 'are'} not in its replica identity: UPDATE and DELETE would fail on the source`, fix: `On the source: ALTER TABLE ${name} REPLICA IDENTITY FULL;` });
      }
    }
  }
  if (faults.length > 0) throw new PgweaveError('cannot-publish', `the stream cannot be filtered as the copy is:\n${faults.map((f) => f.text).join('\n')}`, { hint: [...new Set(faults.map((f) => f.fix))].join('\n'), exitCode: 3, details: { tables: faults.map((f) => f.text) } });
  return out;
}

/** Throws what publishing the stream's tables would throw; leaves nothing on the source. */
export async function checkStreamed(source: Session, options: Parameters<typeof streamedTables>[1], tables: readonly TableRef[]): Promise<void> {
  const published = await streamedTables(source, options, tables);
  if (published !== tables) await ensurePublications(source, { job: options.job, tables: published, both: true, takeBack: true });
}

function leavesOf(root: TableRef, catalog: readonly SelectableTable[], rows: ReadonlyMap<string, PreflightTableRow>): TableRef[] {
  return catalog.filter((t) => t.partitionOf && tableKey(t.partitionOf) === tableKey(root)).flatMap((t) => (rows.get(tableKey(t))?.kind === 'p' ? leavesOf(t, catalog, rows) : [t]));
}
