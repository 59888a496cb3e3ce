import { z } from 'zod';
import { checkConfig, pathText, readConfig, type ConfigDocument, type ConfigPath } from '../config.ts';
import { PgweaveError, usageError } from '../errors.ts';
import { exactly, parseTablePattern, type TablePattern } from './names.ts';
import { inDatabase, mergeRules, noRules, parseColumns, parseDatabases, parseMap, parseTarget, type SelectionRules, type TableMap } from './rules.ts';
import { parseTimeSpan } from './windows.ts';

/** What `--config FILE` may say for one job; flags go before it for connections, and are added to it for the selection. */
export interface JobConfig {
  readonly source?: string;
  readonly target?: string;
  readonly rules: SelectionRules;
}

const text = z.string().min(1);
const names = z.union([z.array(text), text.transform((one) => [one])]).default([]);
const tableObject = z.strictObject({ table: text, schema: text.optional() });
const tableNames = z.array(z.union([text, tableObject])).default([]);
const filter = z.strictObject({ table: text, schema: text.optional(), where: text });
const window = z.strictObject({ table: text, schema: text.optional(), column: text, last: text });
const tableRules = {
  include_tables: tableNames, exclude_tables: tableNames, schema_only: tableNames, exclude_columns: names, map: z.record(z.string(), text).default({}), table_filters: z.array(filter).default([]), time_filters: z.array(window).default([]),
};
const schema = z.strictObject({
  source: text.optional(), target: text.optional(),
  all_databases: z.boolean().default(false), include_databases: names, exclude_databases: names,
  ...tableRules,
  databases: z.record(z.string(), z.strictObject(tableRules).or(z.null().transform(() => z.strictObject(tableRules).parse({})))).default({}),
});
type Section = z.output<z.ZodObject<typeof tableRules>>;

/** Reads and checks a job's configuration file. Throws a usage error that names file, line and the nearest known key. */
export function readJobConfig(path: string): JobConfig {
  return jobConfigOf(readConfig(path));
}

export function jobConfigOf(document: ConfigDocument): JobConfig {
  const file = checkConfig(document, schema);
  try {
    const lineOf = (path: ConfigPath) => document.lineOf(path);
    let rules = mergeRules(
      { ...noRules, allDatabases: file.all_databases, includeDatabases: file.include_databases.flatMap(parseDatabases), excludeDatabases: file.exclude_databases.flatMap(parseDatabases) },
      sectionRules(file, undefined, lineOf),
    );
    for (const [database, section] of Object.entries(file.databases)) rules = mergeRules(rules, sectionRules(section, database, lineOf));
    const { source, target } = file;
    return { rules, ...(source === undefined ? {} : { source }), ...(target === undefined ? {} : { target }) };
  } catch (error) {
    if (error instanceof PgweaveError && error.code === 'usage') throw usageError(`${document.path}: ${error.message}`, error.hint);
    throw error;
  }
}

/** `database` undefined: the file's top level, where names are read as those of flags are. */
function sectionRules(section: Section, database: string | undefined, lineOf: ConfigDocument['lineOf']): SelectionRules {
  const within = database === undefined ? [] : ['databases', database];
  const place = (pattern: TablePattern) => (database === undefined ? pattern : inDatabase(pattern, database));
  const pattern = (entry: string | { table: string; schema?: string | undefined }): TablePattern => {
    if (typeof entry === 'string') return place(parseTablePattern(entry));
    // With a field of its own a schema needs no reading of dots: both fields are names as they are, but a star still stands for any run of characters.
    if (entry.schema === undefined) return place(parseTablePattern(entry.table));
    const part = (name: string) => (name.includes('*') ? { text: name, quoted: false } : exactly(name));
    const schemaAndName = { schema: part(entry.schema), name: part(entry.table) };
    return database === undefined ? schemaAndName : { database: exactly(database), ...schemaAndName };
  };
  return {
    ...noRules,
    includeTables: section.include_tables.map(pattern),
    excludeTables: section.exclude_tables.map(pattern),
    schemaOnlyTables: section.schema_only.map(pattern),
    tableFilters: section.table_filters.map((f) => ({ table: pattern(f), where: f.where })),
    timeFilters: section.time_filters.map((f, i) => ({ table: pattern(f), column: f.column, last: located([...within, 'time_filters', i, 'last'], lineOf, () => parseTimeSpan(f.last)) })),
    excludeColumns: section.exclude_columns.flatMap(parseColumns).map((rule) => ({ ...rule, table: place(rule.table) })),
    maps: Object.entries(section.map).map(([from, to]): TableMap => (database === undefined ? parseMap(`${from}=${to}`) : { from: place(parseTablePattern(from)), to: parseTarget(to) })),
  };
}

/** A usage error of `read` with the place in the file before it. */
function located<T>(path: ConfigPath, lineOf: ConfigDocument['lineOf'], read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof PgweaveError)) throw error;
    const line = lineOf(path);
    throw usageError(`${line === undefined ? '' : `line ${line}: `}${pathText(path)}: ${error.message}`, error.hint);
  }
}
