export { databasesOfJob, selectDatabases, selectsDatabases, type SelectableDatabase } from './databases.ts';
export { danglingForeignKeys, refuseDanglingForeignKeys, type DanglingForeignKey, type ForeignKey } from './foreign-keys.ts';
export { keepRules, keptRules } from './kept.ts';
export { parsePredicate, type Predicate } from './predicate.ts';
export { describeRules, fixTimeWindows, hasRules, mergeRules, noRules, type SelectionRules } from './rules.ts';
export { excludedColumns, matchTables, rulesForDatabase, selectTables, unmatchedError, type SelectableTable, type Selection, type SelectionMode, type SelectionScope, type TableSelection, type Unmatched } from './select.ts';
