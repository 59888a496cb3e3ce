import { usageError } from '../errors.ts';
import { nearestNames } from '../nearest.ts';
import { tableKey, type TableRef } from '../tables.ts';
import { partMatches, patternText, writtenName, type NamePart, type TablePattern } from './names.ts';
import { describeRules, hasRules, type SelectionRules } from './rules.ts';

/** A table as the catalog has it. What is left out is not checked. */
export interface SelectableTable extends TableRef {
  readonly columns?: readonly { readonly name: string; /** As format_type gives it. */ readonly type?: string; readonly generated?: boolean }[];
  /** Columns of the primary key, and of the index that is the replica identity: they cannot be left out. */
  readonly keyColumns?: readonly string[];
  /** The partitioned table (or partition) that this one is a partition of. It shares its fate unless a rule names it. */
  readonly partitionOf?: TableRef;
}

/** `schema-only`: made on the target, without rows, without changes; `skip`: not there at all. */
export type SelectionMode = 'copy' | 'schema-only' | 'skip';

export interface TableSelection {
  readonly table: TableRef;
  readonly mode: SelectionMode;
  /** A boolean expression in parentheses on the table's columns: filters and time windows together. Absent: all rows. */
  readonly where?: string;
  /** Sorted. */
  readonly excludeColumns: readonly string[];
  /** Its name on the target. */
  readonly mapTo: TableRef;
}

/** Keyed by {@link tableKey} of the source's name; has every table that was given. */
export type Selection = ReadonlyMap<string, TableSelection>;

export interface SelectionScope {
  readonly database: string;
  /** All databases of the job: names that name another of them are no fault here. Default: this one alone. */
  readonly databases?: readonly string[];
}

/** A name in a rule that matched nothing. */
export interface Unmatched {
  readonly rule: string;
  readonly name: string;
  readonly near: readonly string[];
  /** The database that it names, where that is none of the job's; `near` are databases then. */
  readonly database?: string;
}

/**
 * Says of every table of one database what becomes of it. Pure. Throws a usage error where a name matches nothing (with the nearest ones), is ambiguous, or where
 * rules contradict one another. Time windows must have been fixed ({@link fixTimeWindows}).
 */
export function selectTables(rules: SelectionRules, scope: string | SelectionScope, tables: readonly SelectableTable[]): Selection {
  const { selection, unmatched } = matchTables(rules, scope, tables);
  if (unmatched.length > 0) throw unmatchedError(unmatched);
  return selection;
}

export function unmatchedError(unmatched: readonly Unmatched[]): Error {
  const text = unmatched.map((u) => `${u.rule} names ${u.name}, and ${u.database === undefined ? 'there is no such table' : `database "${u.database}" is not part of the job`}`);
  const hints = unmatched.flatMap((u) => (u.near.length > 0 ? [`Nearest to ${u.database === undefined ? u.name : `"${u.database}"`}: ${u.near.join(', ')}.`] : []));
  return usageError(text.join('\n'), hints.length > 0 ? hints.join('\n') : 'Names are case-sensitive; a name without a schema means "public".');
}

/** {@link selectTables} for one database of several, where a name may match in another: names that matched nothing here are handed back. */
export function matchTables(rules: SelectionRules, scopeOrName: string | SelectionScope, tables: readonly SelectableTable[]): { selection: Selection; unmatched: readonly Unmatched[] } {
  const scope: Required<SelectionScope> = typeof scopeOrName === 'string' ? { database: scopeOrName, databases: [scopeOrName] } : { databases: [scopeOrName.database], ...scopeOrName };
  const finder = new Finder(scope, tables);
  const include = rules.includeTables.filter((p) => finder.concernsHere(p));
  const included = finder.keysOf('--include-tables', rules.includeTables);
  const excluded = finder.keysOf('--exclude-tables', rules.excludeTables);
  const bare = finder.keysOf('--schema-only-tables', rules.schemaOnlyTables);
  const where = new Map<string, string[]>();
  const add = (key: string, text: string) => where.set(key, [...(where.get(key) ?? []), text]);
  for (const filter of rules.tableFilters) for (const key of finder.keysOf('--table-filter', [filter.table])) add(key, `(${filter.where.includes('--') ? `${filter.where}\n` : filter.where})`);
  for (const filter of rules.timeFilters) {
    if (filter.since === undefined) throw new RangeError('time windows must be fixed before tables are selected');
    for (const key of finder.keysOf('--time-filter', [filter.table])) {
      const column = finder.column('--time-filter', key, filter.column);
      if (column?.type !== undefined && !/^(date|timestamp)/.test(column.type)) throw usageError(`--time-filter: column ${filter.column} of ${patternText(filter.table)} is of type ${column.type}`, 'It must be date, timestamp or timestamp with time zone; for others use --table-filter.');
      add(key, `(${quoted(filter.column)} >= '${filter.since}')`);
    }
  }
  const columns = new Map<string, Set<string>>();
  for (const rule of rules.excludeColumns) {
    for (const key of finder.keysOf('--exclude-columns', [rule.table])) {
      finder.column('--exclude-columns', key, rule.column);
      if (finder.table(key)?.keyColumns?.includes(rule.column)) throw usageError(`--exclude-columns: ${rule.column} is part of the primary key or replica identity of ${patternText(rule.table)}`, 'Rows could not be told apart on the target. Leave the table out, or take the column along.');
      columns.set(key, (columns.get(key) ?? new Set()).add(rule.column));
    }
  }
  const maps = new Map<string, TableRef>();
  for (const map of rules.maps) for (const key of finder.keysOf('--map', [map.from])) maps.set(key, map.to);

  const everything = include.length === 0;
  const modes = new Map<string, SelectionMode>();
  // What is not there has no partitions.
  const isExcluded = (table: SelectableTable): boolean => {
    if (excluded.has(tableKey(table))) return true;
    const parent = table.partitionOf && finder.table(tableKey(table.partitionOf));
    return parent !== undefined && isExcluded(parent);
  };
  const modeOf = (table: SelectableTable): SelectionMode => {
    const key = tableKey(table);
    const known = modes.get(key);
    if (known) return known;
    const parent = table.partitionOf && finder.table(tableKey(table.partitionOf));
    const inherited = parent ? modeOf(parent) : undefined;
    const mode: SelectionMode = isExcluded(table) ? 'skip' : bare.has(key) ? 'schema-only' : included.has(key) ? 'copy' : (inherited ?? (everything ? 'copy' : 'skip'));
    modes.set(key, mode);
    return mode;
  };
  for (const table of tables) modeOf(table);
  // A chosen partition needs its parents, as empty frames.
  const frames = new Set<string>();
  for (const table of tables) {
    if (modes.get(tableKey(table)) === 'skip') continue;
    for (let up = table.partitionOf; up && modes.get(tableKey(up)) === 'skip'; up = finder.table(tableKey(up))?.partitionOf) {
      modes.set(tableKey(up), 'schema-only');
      frames.add(tableKey(up));
    }
  }

  const selection = new Map<string, TableSelection>();
  const targets = new Map<string, string>();
  for (const table of tables) {
    const key = tableKey(table);
    const mode = modes.get(key)!;
    if (where.has(key) && mode !== 'copy' && !frames.has(key)) throw usageError(`a row filter is given for ${table.schema}.${table.name}, ${mode === 'skip' ? 'which is left out' : 'which is made without rows'}`, 'Take one of the two rules back.');
    const mapTo = maps.get(key) ?? { schema: table.schema, name: table.name };
    if (mode !== 'skip') {
      const other = targets.get(tableKey(mapTo));
      if (other !== undefined) throw usageError(`${other} and ${table.schema}.${table.name} would both become ${mapTo.schema}.${mapTo.name} on the target`, 'Choose another name with --map.');
      targets.set(tableKey(mapTo), `${table.schema}.${table.name}`);
    }
    // What a rule says of a partitioned table's rows and columns holds for its partitions, where the rows are.
    const line = finder.lineage(table);
    const predicates = line.flatMap((k) => where.get(k) ?? []);
    const excludeColumns = [...new Set(line.flatMap((k) => [...(columns.get(k) ?? [])]))].sort();
    selection.set(key, { table: { schema: table.schema, name: table.name }, mode, ...(predicates.length > 0 ? { where: predicates.length === 1 ? predicates[0]! : `(${predicates.join(' and ')})` } : {}), excludeColumns, mapTo });
  }
  if (finder.unmatched.length === 0 && scope.databases.length === 1 && tables.length > 0 && hasRules(rules) && [...modes.values()].every((mode) => mode === 'skip')) {
    throw usageError(`the rules leave out every table of database "${scope.database}"`, describeRules(rules).join('; '));
  }
  return { selection, unmatched: finder.unmatched };
}

/**
 * The rules as they concern one database of several, in names that need no database any more: what the job of that database keeps. Names that mean nothing here are gone, but for those of
 * --include-tables: without them everything would be taken.
 */
export function rulesForDatabase(rules: SelectionRules, scope: Required<SelectionScope>, tables: readonly SelectableTable[]): SelectionRules {
  const finder = new Finder(scope, tables);
  const local = (pattern: TablePattern) => finder.local(pattern);
  const each = <T extends { readonly table: TablePattern }>(items: readonly T[]) => items.flatMap((item) => local(item.table).map((table) => ({ ...item, table })));
  return {
    allDatabases: false, includeDatabases: [], excludeDatabases: [],
    includeTables: rules.includeTables.filter((p) => finder.concernsHere(p)).flatMap((p) => { const here = local(p); return here.length > 0 ? here : [p]; }),
    excludeTables: rules.excludeTables.flatMap(local), schemaOnlyTables: rules.schemaOnlyTables.flatMap(local), tableFilters: each(rules.tableFilters), timeFilters: each(rules.timeFilters), excludeColumns: each(rules.excludeColumns),
    maps: rules.maps.flatMap((map) => local(map.from).map((from) => ({ ...map, from }))),
  };
}

/** Columns that stay on the source, by {@link tableKey}, of tables that are made on the target. */
export function excludedColumns(selection: Selection): ReadonlyMap<string, readonly string[]> {
  return new Map([...selection].filter(([, s]) => s.mode !== 'skip' && s.excludeColumns.length > 0).map(([key, s]) => [key, s.excludeColumns]));
}

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

class Finder {
  readonly unmatched: Unmatched[] = [];
  readonly #scope: Required<SelectionScope>;
  readonly #tables = new Map<string, SelectableTable>();

  constructor(scope: Required<SelectionScope>, tables: readonly SelectableTable[]) {
    this.#scope = scope;
    for (const table of tables) this.#tables.set(tableKey(table), table);
  }

  table(key: string): SelectableTable | undefined {
    return this.#tables.get(key);
  }

  /** Keys of a table's partitioned ancestors, topmost first, and its own. */
  lineage(table: SelectableTable): string[] {
    const parent = table.partitionOf && this.table(tableKey(table.partitionOf));
    return [...(parent ? this.lineage(parent) : []), tableKey(table)];
  }

  /** The pattern without its database, where it matches something here; nothing otherwise. */
  local(pattern: TablePattern): TablePattern[] {
    if (this.#match('', pattern).length === 0) return [];
    if (pattern.schema) return [{ schema: pattern.schema, name: pattern.name }];
    if (!pattern.qualifier) return [pattern];
    const schema = this.#find(pattern.qualifier, pattern.name).length > 0 ? pattern.qualifier : { text: 'public', quoted: true };
    return [{ schema, name: pattern.name }];
  }

  /** Whether the rule speaks of this database: by name, or of every database. */
  concernsHere(pattern: TablePattern): boolean {
    if (pattern.database) return partMatches(pattern.database, this.#scope.database);
    if (!pattern.qualifier || this.#find(pattern.qualifier, pattern.name).length > 0) return true;
    return partMatches(pattern.qualifier, this.#scope.database) || !this.#scope.databases.some((d) => partMatches(pattern.qualifier!, d));
  }

  keysOf(rule: string, patterns: readonly TablePattern[]): Set<string> {
    const out = new Set<string>();
    for (const pattern of patterns) {
      const found = this.#match(rule, pattern);
      for (const key of found) out.add(key);
      if (found.length === 0 && (this.concernsHere(pattern) || !this.#namesKnownDatabase(pattern))) this.unmatched.push({ rule, name: patternText(pattern), ...this.#meant(pattern) });
    }
    return out;
  }

  /** The column of a table; throws where it has none of that name. Undefined where the table's columns were not given. */
  column(rule: string, key: string, name: string): { name: string; type?: string } | undefined {
    const table = this.#tables.get(key)!;
    const found = table.columns?.find((c) => c.name === name);
    if (table.columns && !found) {
      const near = nearestNames(name, table.columns.map((c) => c.name));
      throw usageError(`${rule}: ${table.schema}.${table.name} has no column "${name}"`, near.length > 0 ? `Nearest: ${near.join(', ')}.` : `It has: ${table.columns.map((c) => c.name).join(', ')}.`);
    }
    return found;
  }

  #namesKnownDatabase(pattern: TablePattern): boolean {
    const part = pattern.database ?? pattern.qualifier;
    return part !== undefined && this.#scope.databases.some((d) => partMatches(part, d));
  }

  #match(rule: string, pattern: TablePattern): string[] {
    const inPublic: NamePart = { text: 'public', quoted: true };
    if (pattern.database && !partMatches(pattern.database, this.#scope.database)) return [];
    if (!pattern.qualifier) return this.#find(pattern.schema ?? inPublic, pattern.name);
    const bySchema = this.#find(pattern.qualifier, pattern.name);
    // With a star it can only be a schema: "*.*" would otherwise always mean two things.
    const starred = !pattern.qualifier.quoted && pattern.qualifier.text.includes('*');
    if (starred || !partMatches(pattern.qualifier, this.#scope.database)) return bySchema;
    const byDatabase = this.#find(inPublic, pattern.name);
    const same = bySchema.length === byDatabase.length && bySchema.every((key, i) => key === byDatabase[i]);
    if (bySchema.length > 0 && byDatabase.length > 0 && !same) {
      const { text } = pattern.qualifier;
      throw usageError(`${rule}: ${patternText(pattern)} can mean the schema "${text}" or the database "${text}"`, `Write ${text}.${text}.${pattern.name.text} or ${text}.public.${pattern.name.text}.`);
    }
    return bySchema.length > 0 ? bySchema : byDatabase;
  }

  #find(schema: NamePart, name: NamePart): string[] {
    // Most rules name one table: no walk through thousands for each.
    if ((schema.quoted || !schema.text.includes('*')) && (name.quoted || !name.text.includes('*'))) {
      const key = tableKey({ schema: schema.text, name: name.text });
      return this.#tables.has(key) ? [key] : [];
    }
    return [...this.#tables].flatMap(([key, t]) => (partMatches(schema, t.schema) && partMatches(name, t.name) ? [key] : []));
  }

  /** What may have been meant by a name that matches nothing. */
  #meant({ database, ...table }: TablePattern): Pick<Unmatched, 'near' | 'database'> {
    const { databases } = this.#scope;
    if (!database || databases.some((d) => partMatches(database, d))) return { near: this.#near(table) };
    const near = nearestNames(database.text, databases);
    return { database: database.text, near: near.length > 0 ? near : databases.slice(0, 3) };
  }

  #near(pattern: TablePattern): string[] {
    const all = [...this.#tables.values()];
    // `shop.ordres`, where shop is the database.
    const ofDatabase = pattern.qualifier && partMatches(pattern.qualifier, this.#scope.database) && !all.some((t) => t.schema === pattern.qualifier?.text);
    const schema = (ofDatabase ? undefined : (pattern.schema ?? pattern.qualifier)?.text) ?? 'public';
    const written = (t: TableRef) => writtenName(t.schema, t.name);
    const sameName = all.filter((t) => t.name === pattern.name.text && t.schema !== schema).map(written);
    const byFull = nearestNames(writtenName(schema, pattern.name.text), all.map(written));
    const byName = nearestNames(pattern.name.text, all.filter((t) => t.schema === schema).map((t) => t.name)).map((name) => writtenName(schema, name));
    return [...new Set([...sameName, ...byName, ...byFull])].slice(0, 3);
  }
}
