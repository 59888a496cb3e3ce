import { targetColumns, type TargetColumnRow } from '../catalog/copy-tables.ts';
import { selectableTables } from '../catalog/selection.ts';
import { existingTables, type TargetTableRow } from '../catalog/subscriptions.ts';
import { PgweaveError } from '../core/errors.ts';
import { parseTablePattern } from '../core/selection/names.ts';
import { parsePredicate } from '../core/selection/predicate.ts';
import { noRules, parseTarget, type SelectionRules } from '../core/selection/rules.ts';
import { matchTables, unmatchedError, type SelectableTable, type Selection, type TableSelection } from '../core/selection/select.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import type { PublishedTable } from '../workflows/publications.ts';
import { publishedTables } from '../workflows/sync/published-tables.ts';
import type { TableRules } from './config.ts';

/** What a target gets, as the source's catalog has it now. */
export interface TargetTables {
  readonly selection: Selection;
  readonly catalog: readonly SelectableTable[];
  /** The chosen ones, partitions aside whose root is chosen. */
  readonly chosen: readonly TableSelection[];
}

/** The configuration's table rules in the form that every other command uses. */
export function selectionRulesOf(rules: TableRules): SelectionRules {
  return {
    ...noRules, includeTables: rules.tables.map(parseTablePattern), tableFilters: Object.entries(rules.filters).map(([table, where]) => ({ table: parseTablePattern(table), where })),
    excludeColumns: Object.entries(rules.excludeColumns).flatMap(([table, columns]) => columns.map((column) => ({ table: parseTablePattern(table), column }))),
    maps: Object.entries(rules.renames).map(([from, to]) => ({ from: parseTablePattern(from), to: parseTarget(to) })),
  };
}

/**
 * Resolves a target's tables on the source. Throws a usage error for names that match nothing and predicates that are none. Foreign keys into tables that are not listed are no fault
 * here: the target's schema is its own.
 */
export async function resolveTables(source: Session, rules: TableRules): Promise<TargetTables> {
  const catalog = await selectableTables(source);
  const selectionRules = selectionRulesOf(rules);
  const { selection, unmatched } = matchTables(selectionRules, { database: source.spec.database }, catalog);
  if (unmatched.length > 0) throw unmatchedError(unmatched);
  for (const [table, where] of Object.entries(rules.filters)) await parsePredicate(where, `the filter of ${table}`);
  const copied = new Set([...selection.values()].filter((s) => s.mode === 'copy').map((s) => tableKey(s.table)));
  const roots = new Map(catalog.flatMap((t) => (t.partitionOf ? [[tableKey(t), tableKey(t.partitionOf)] as const] : [])));
  const chosen = [...selection.values()].filter((s) => s.mode === 'copy' && !copied.has(roots.get(tableKey(s.table)) ?? ''));
  return { selection, catalog, chosen };
}

/** The tables that a stream publishes for a target. Names on the target and left-out columns are the applier's affair; row filters are the publication's. */
export async function streamedTables(source: Session, tables: TargetTables): Promise<readonly PublishedTable[]> {
  const plain = new Map([...tables.selection].map(([key, s]) => [key, { ...s, mapTo: s.table, excludeColumns: [] }]));
  return (await publishedTables(source, { selection: plain, catalog: tables.catalog, insertOnly: () => true })).tables;
}

/** The same for several sets of rules, each table once. Equal rules, as most targets have, are resolved together. */
export async function unionOfTables(source: Session, rules: readonly TableRules[]): Promise<PublishedTable[]> {
  const different = new Map(rules.map((r) => [JSON.stringify([r.tables, r.excludeColumns, r.renames]), r]));
  const union = new Map<string, PublishedTable>();
  for (const one of different.values()) for (const table of await streamedTables(source, await resolveTables(source, one))) union.set(tableKey(table), table);
  return [...union.values()];
}

export interface SchemaFault {
  readonly table: TableRef;
  /** Undefined: the table itself is missing. */
  readonly column: string | undefined;
}

/** Tables and columns that the target lacks. */
export async function schemaFaults(target: Session, tables: TargetTables): Promise<SchemaFault[]> {
  const refs = tables.chosen.map((s) => s.mapTo);
  const there = new Set((await target.query<TargetTableRow>(existingTables(refs.map((t) => t.schema), refs.map((t) => t.name)))).filter((r) => r.exists).map(tableKey));
  const columns = new Set((await target.query<TargetColumnRow>(targetColumns(refs.map((t) => t.schema), refs.map((t) => t.name)))).map((r) => `${r.schema}\0${r.table}\0${r.name}`));
  const known = new Map(tables.catalog.map((t) => [tableKey(t), t]));
  const faults: SchemaFault[] = [];
  for (const chosen of tables.chosen) {
    if (!there.has(tableKey(chosen.mapTo))) {
      faults.push({ table: chosen.mapTo, column: undefined });
      continue;
    }
    for (const column of known.get(tableKey(chosen.table))?.columns ?? []) {
      if (column.generated || chosen.excludeColumns.includes(column.name)) continue;
      if (!columns.has(`${tableKey(chosen.mapTo)}\0${column.name}`)) faults.push({ table: chosen.mapTo, column: column.name });
    }
  }
  return faults;
}

/** One error that names what is missing, with what to do. */
export function schemaError(target: string, faults: readonly SchemaFault[]): PgweaveError {
  const shown = faults.slice(0, 8).map((f) => (f.column === undefined ? `table ${displayName(f.table.schema, f.table.name)}` : `column ${displayName(f.table.schema, f.table.name)}.${f.column}`));
  return new PgweaveError('target-schema-differs', `target ${target} lacks ${shown.join(', ')}${faults.length > shown.length ? `, and ${faults.length - shown.length} more` : ''}`, {
    hint: 'Make them there; or let pgweave do it: create_schema: true in settings, or pgweave fanout setup-schema. Missing columns of tables that are there are yours to add.', retry: 'backoff',
  });
}
