import type { Command } from 'commander';
import { usageError } from '../core/errors.ts';
import type { JobConfig } from '../core/selection/job-config.ts';
import { mergeRules, noRules, parseColumns, parseDatabases, parseMap, parseTableFilter, parseTables, parseTimeFilter, type SelectionRules } from '../core/selection/rules.ts';

/** The selection flags as commander parses them: each may be given several times. */
export interface SelectionOptions {
  readonly config?: string;
  readonly includeDatabases?: readonly string[];
  readonly excludeDatabases?: readonly string[];
  readonly allDatabases?: boolean;
  readonly includeTables?: readonly string[];
  readonly excludeTables?: readonly string[];
  readonly schemaOnlyTables?: readonly string[];
  readonly tableFilter?: readonly string[];
  readonly timeFilter?: readonly string[];
  readonly excludeColumns?: readonly string[];
  readonly map?: readonly string[];
}

const collect = (value: string, before: readonly string[] | undefined): string[] => [...(before ?? []), value];

/** Adds the selection flags, the same for validate, clone, sync, status and verify. `databases: false` leaves out those about whole instances. */
export function addSelectionOptions(command: Command, options: { readonly databases?: boolean } = {}): Command {
  if (options.databases !== false) {
    command
      .option('--all-databases', 'every database of the source, but templates and maintenance databases')
      .option('--include-databases <names>', 'these databases only, separated by commas; * stands for any characters', collect)
      .option('--exclude-databases <names>', 'all databases but these', collect);
  }
  return command
    .option('--include-tables <names>', 'these tables only: [database.][schema.]table, separated by commas; without a schema "public" is meant', collect)
    .option('--exclude-tables <names>', 'leave these tables out', collect)
    .option('--schema-only-tables <names>', 'make these tables without their rows', collect)
    .option('--table-filter <table:predicate>', 'only rows for which the SQL predicate is true', collect)
    .option('--time-filter <table:column:span>', 'only rows of the last span, such as "events:created_at:6 months"; fixed when the job begins', collect)
    .option('--exclude-columns <names>', 'leave these columns out: [database.][schema.]table.column', collect)
    .option('--map <table=table>', 'give a table another schema or name on the target: schema.table=other.table', collect);
}

/** Refuses a list without a name, such as an empty variable of a shell leaves: taken for no flag it would mean everything. */
function lists<T>(flag: string, texts: readonly string[] | undefined, parse: (text: string) => readonly T[]): T[] {
  return (texts ?? []).flatMap((text) => {
    const items = parse(text);
    if (items.length === 0) throw usageError(`${flag} names nothing`, 'Give one name or more, separated by commas, or leave the flag out.');
    return items;
  });
}

/** The rules that the flags and the `--config` file give together. Throws usage errors; looks at no server. */
export function selectionRules(options: SelectionOptions, config: JobConfig | undefined): SelectionRules {
  return mergeRules(config?.rules ?? noRules, {
    ...noRules,
    allDatabases: options.allDatabases === true,
    includeDatabases: lists('--include-databases', options.includeDatabases, parseDatabases),
    excludeDatabases: lists('--exclude-databases', options.excludeDatabases, parseDatabases),
    includeTables: lists('--include-tables', options.includeTables, parseTables),
    excludeTables: lists('--exclude-tables', options.excludeTables, parseTables),
    schemaOnlyTables: lists('--schema-only-tables', options.schemaOnlyTables, parseTables),
    tableFilters: (options.tableFilter ?? []).map(parseTableFilter),
    timeFilters: (options.timeFilter ?? []).map(parseTimeFilter),
    excludeColumns: lists('--exclude-columns', options.excludeColumns, parseColumns),
    maps: (options.map ?? []).map(parseMap),
  });
}
