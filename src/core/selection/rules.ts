import { usageError } from '../errors.ts';
import type { TableRef } from '../tables.ts';
import { exactly, parseTablePattern, partText, patternText, readParts, splitList, tablePattern, type NamePart, type TablePattern } from './names.ts';
import { momentBefore, parseTimeSpan, spanText, type TimeSpan } from './windows.ts';

export interface TableFilter {
  readonly table: TablePattern;
  /** A boolean SQL expression on the table's columns. */
  readonly where: string;
}

export interface TimeFilter {
  readonly table: TablePattern;
  readonly column: string;
  readonly last: TimeSpan;
  /** Set once, when the job begins: `2026-05-28 20:00:00+00`. Rows at or after it are taken. */
  readonly since?: string;
}

export interface ColumnRule {
  readonly table: TablePattern;
  readonly column: string;
}

export interface TableMap {
  readonly from: TablePattern;
  readonly to: TableRef;
}

/** What a job moves. Plain data: it is kept as JSON with the job. Empty rules mean: everything in the one database that the source's URI names. */
export interface SelectionRules {
  readonly allDatabases: boolean;
  readonly includeDatabases: readonly NamePart[];
  readonly excludeDatabases: readonly NamePart[];
  readonly includeTables: readonly TablePattern[];
  readonly excludeTables: readonly TablePattern[];
  readonly schemaOnlyTables: readonly TablePattern[];
  readonly tableFilters: readonly TableFilter[];
  readonly timeFilters: readonly TimeFilter[];
  readonly excludeColumns: readonly ColumnRule[];
  readonly maps: readonly TableMap[];
}

export const noRules: SelectionRules = {
  allDatabases: false, includeDatabases: [], excludeDatabases: [], includeTables: [], excludeTables: [], schemaOnlyTables: [], tableFilters: [], timeFilters: [], excludeColumns: [], maps: [],
};

export function hasRules(rules: SelectionRules): boolean {
  return rules.allDatabases || Object.values(rules).some((value) => Array.isArray(value) && value.length > 0);
}

/** Both sets of rules together: flags on top of a file. */
export function mergeRules(a: SelectionRules, b: SelectionRules): SelectionRules {
  return {
    allDatabases: a.allDatabases || b.allDatabases, includeDatabases: [...a.includeDatabases, ...b.includeDatabases], excludeDatabases: [...a.excludeDatabases, ...b.excludeDatabases],
    includeTables: [...a.includeTables, ...b.includeTables], excludeTables: [...a.excludeTables, ...b.excludeTables], schemaOnlyTables: [...a.schemaOnlyTables, ...b.schemaOnlyTables],
    tableFilters: [...a.tableFilters, ...b.tableFilters], timeFilters: [...a.timeFilters, ...b.timeFilters], excludeColumns: [...a.excludeColumns, ...b.excludeColumns], maps: [...a.maps, ...b.maps],
  };
}

/** `a,b` and `"odd, name"` as database names. */
export function parseDatabases(text: string): NamePart[] {
  return splitList(text).map((item) => {
    // A database's dot belongs to its name: nothing is above a database.
    const parts = item.startsWith('"') ? readParts(item, 0, '').parts : [{ text: item, quoted: false }];
    return parts[0]!;
  });
}

export function parseTables(text: string): TablePattern[] {
  return splitList(text).map(parseTablePattern);
}

/** `[db.][schema.]table:predicate`. */
export function parseTableFilter(text: string): TableFilter {
  const { parts, end } = readParts(text, 0, ':');
  const where = text.slice(end + 1).trim();
  if (text[end] !== ':' || where === '') throw usageError(`not a table filter: ${text}`, 'Write [db.][schema.]table:predicate, such as --table-filter "orders:status <> \'draft\'".');
  return { table: tablePattern(parts, text.slice(0, end)), where };
}

/** `[db.][schema.]table:column:6 months`. */
export function parseTimeFilter(text: string): TimeFilter {
  const table = readParts(text, 0, ':');
  const column = text[table.end] === ':' ? readParts(text, table.end + 1, ':') : undefined;
  if (!column || column.parts.length !== 1 || text[column.end] !== ':') throw usageError(`not a time filter: ${text}`, 'Write [db.][schema.]table:column:span, such as --time-filter "events:created_at:6 months".');
  return { table: tablePattern(table.parts, text.slice(0, table.end)), column: column.parts[0]!.text, last: parseTimeSpan(text.slice(column.end + 1)) };
}

/** `t.c`, `q.t.c` or `db.s.t.c`, separated by commas. */
export function parseColumns(text: string): ColumnRule[] {
  return splitList(text).map((item) => {
    const { parts } = readParts(item, 0, '');
    if (parts.length < 2) throw usageError(`not a column of a table: ${item}`, 'Write [db.][schema.]table.column.');
    return { table: tablePattern(parts.slice(0, -1), item), column: parts.at(-1)!.text };
  });
}

/** `[db.][schema.]table=[schema.]table`. */
export function parseMap(text: string): TableMap {
  const from = readParts(text, 0, '=');
  if (text[from.end] !== '=') throw usageError(`not a table map: ${text}`, 'Write [db.][schema.]table=[schema.]table, such as --map app.orders=shop.orders.');
  return { from: tablePattern(from.parts, text.slice(0, from.end)), to: parseTarget(text.slice(from.end + 1)) };
}

/** `[schema.]table` on the target. */
export function parseTarget(text: string): TableRef {
  const { parts } = readParts(text, 0, '');
  if (parts.length > 2 || parts.some((part) => !part.quoted && part.text.includes('*'))) throw usageError(`not a table of the target: ${text}`, 'Write [schema.]table.');
  return parts.length === 1 ? { schema: 'public', name: parts[0]!.text } : { schema: parts[0]!.text, name: parts[1]!.text };
}

/** The rule's table in one database alone: for entries that stand in a file's `[databases.NAME]`, where a dot can only follow a schema. */
export function inDatabase(pattern: TablePattern, database: string): TablePattern {
  const schema = pattern.schema ?? pattern.qualifier;
  if (pattern.database && pattern.database.text !== database) throw usageError(`${patternText(pattern)} stands under the database "${database}"`, 'Leave the database out there: schema.table.');
  return { database: exactly(database), schema: schema ?? exactly('public'), name: pattern.name };
}

/** Fixes every time window to one moment, so that copy, stream, publication and verify agree. Windows that are fixed already stay. */
export function fixTimeWindows(rules: SelectionRules, now: Date): SelectionRules {
  return { ...rules, timeFilters: rules.timeFilters.map((filter) => (filter.since === undefined ? { ...filter, since: momentBefore(filter.last, now) } : filter)) };
}

/** One line a rule, for people and for telling two sets of rules apart; `since` is told where it is fixed and asked for. */
export function describeRules(rules: SelectionRules, options: { readonly moments?: boolean } = {}): string[] {
  const lines: string[] = [];
  if (rules.allDatabases) lines.push('all databases');
  const each = <T>(items: readonly T[], text: (item: T) => string) => lines.push(...items.map(text));
  each(rules.includeDatabases, (d) => `database ${partText(d)}`);
  each(rules.excludeDatabases, (d) => `without database ${partText(d)}`);
  each(rules.includeTables, (t) => `table ${patternText(t)}`);
  each(rules.excludeTables, (t) => `without table ${patternText(t)}`);
  each(rules.schemaOnlyTables, (t) => `table ${patternText(t)} without its rows`);
  each(rules.tableFilters, (f) => `rows of ${patternText(f.table)} where ${f.where}`);
  each(rules.timeFilters, (f) => `rows of ${patternText(f.table)} of the last ${spanText(f.last)} by ${f.column}${options.moments && f.since !== undefined ? ` (since ${f.since})` : ''}`);
  each(rules.excludeColumns, (c) => `without column ${patternText(c.table)}.${c.column}`);
  each(rules.maps, (m) => `${patternText(m.from)} becomes ${m.to.schema}.${m.to.name}`);
  return lines;
}
