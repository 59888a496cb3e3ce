import { filterPlace, filteredHere } from '../../catalog/filter-place.ts';
import { preflightTables, type PreflightTableRow } from '../../catalog/preflight-tables.ts';
import { resolveSelection, selectableTables } from '../../catalog/selection.ts';
import { PgweaveError } from '../../core/errors.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import { parsePredicate } from '../../core/selection/predicate.ts';
import { noRules, type SelectionRules } from '../../core/selection/rules.ts';
import type { SelectableTable, Selection, SelectionScope } from '../../core/selection/select.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { displayName } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';
import { ensurePublications, publicationNamesOf, publishedFilters, type PublishedTable } from '../publications.ts';
import type { ClonePlan } from './options.ts';

/** A table that holds rows, with the filter of its rules. */
export interface FilteredTable extends TableRef {
  readonly where: string;
  readonly excludeColumns: readonly string[];
}

/**
 * The tables of pgweave's own stream, with those row filters of their rules that the source can apply as it decodes: a row that moves in comes as an insert, one that moves out as a delete. A
 * partitioned table is then listed by its leaves, since the stream tells of leaves. The other filters are the follower's: their tables are published as a whole. Refuses, with the fix, filters
 * that neither can apply.
 */
export async function streamedTables(source: Session, options: { readonly job: string; readonly rules?: SelectionRules | undefined; readonly scope?: SelectionScope | undefined }, tables: readonly TableRef[]): Promise<readonly PublishedTable[]> {
  const { rules = noRules, scope } = options;
  if (rules.tableFilters.length + rules.timeFilters.length === 0) return tables;
  const { selection } = await resolveSelection(source, rules, scope);
  const catalog = await selectableTables(source);
  const rows = await rowsOf(source);
  const leavesOf = new Map(tables.map((table) => [table, rows.get(tableKey(table))?.kind === 'p' ? leavesBelow(table, catalog, rows) : [table]]));
  const filtered = [...leavesOf.values()].flat().flatMap((leaf): FilteredTable[] => {
    const { where, excludeColumns = [] } = selection.get(tableKey(leaf)) ?? {};
    return where === undefined ? [] : [{ schema: leaf.schema, name: leaf.name, where, excludeColumns }];
  });
  const published = new Map((await publishableFilters(source, options.job, filtered, rows)).map((table) => [tableKey(table), table]));
  return tables.flatMap((table): readonly PublishedTable[] => {
    const leaves = leavesOf.get(table)!.map((leaf): PublishedTable => published.get(tableKey(leaf)) ?? leaf);
    return leaves.every((leaf) => leaf.where === undefined) ? [table] : leaves;
  });
}

/** Those of the tables that the source itself can filter, with their filters. Throws `cannot-publish` for those that pgweave cannot filter either. */
export async function publishableFilters(source: Session, job: string, tables: readonly FilteredTable[], known?: ReadonlyMap<string, PreflightTableRow>): Promise<PublishedTable[]> {
  if (tables.length === 0) return [];
  const rows = known ?? (await rowsOf(source));
  const faults: { readonly text: string; readonly fix: string }[] = [];
  // Changes of a table that was published as a whole may wait in the slot: they must not be taken for filtered ones.
  const whole = await publishedFilters(source, Object.values(publicationNamesOf(job)));
  const out: PublishedTable[] = [];
  for (const { schema, name, where, excludeColumns } of tables) {
    const row = rows.get(tableKey({ schema, name }));
    // Of a partitioned table the stream tells by its leaves: its own filter would not hold for them.
    if (!row || row.kind !== 'r' || row.persistence === 'u') continue;
    let place = await filterPlace(row, where, source, excludeColumns);
    if (place.by === 'source') {
      const refused = whole.get(tableKey(row)) === false ? 'it was published without the filter when the job began' : await refusedFilter(source, job, { schema, name, where });
      if (refused !== undefined) place = filteredHere(row, (await parsePredicate(where)).columns, refused, excludeColumns);
    }
    if (place.by === 'source') out.push({ schema, name, where });
    else if (place.by === 'nobody') faults.push(place);
  }
  if (faults.length > 0) throw new PgweaveError('cannot-publish', `the stream cannot be filtered as the copy is:\n${faults.map((f) => f.text).join('\n')}`, { hint: [...new Set(faults.map((f) => f.fix))].join('\n'), exitCode: 3, details: { tables: faults.map((f) => f.text) } });
  return out;
}

/**
 * The tables of a job whose stream begins anew on a return. The follower filters them: the target may have rows outside of a filter, made while it was the primary, and an INSERT of one that moves
 * in would find it there. Only those whose rows it could not find by a key are published with their filters.
 */
export async function returningTables(source: Session, job: string, tables: readonly TableRef[], rowCondition: (table: TableRef) => string | undefined): Promise<PublishedTable[]> {
  const rows = await rowsOf(source);
  const keyless = tables.flatMap((table): FilteredTable[] => {
    const row = rows.get(tableKey(table));
    const where = rowCondition(table);
    return where === undefined || row?.replica_identity !== 'f' || row.identity_candidates.length > 0 ? [] : [{ ...table, where, excludeColumns: [] }];
  });
  const published = new Map((await publishableFilters(source, job, keyless, rows)).map((table) => [tableKey(table), table]));
  return tables.map((table) => published.get(tableKey(table)) ?? table);
}

/** Where each filter of a selection is applied, for whoever only asks; the source is not asked whether a publication takes the expressions. */
export async function placedFilters(source: Session, selection: Selection): Promise<ClonePlan['rowFilters']> {
  const tables = [...selection.values()].flatMap(({ table, mode, where, excludeColumns }): FilteredTable[] => (where === undefined || mode !== 'copy' ? [] : [{ ...table, where, excludeColumns }]));
  const rows = tables.length === 0 ? new Map<string, PreflightTableRow>() : await rowsOf(source);
  const out: ClonePlan['rowFilters'][number][] = [];
  for (const table of tables) {
    const row = rows.get(tableKey(table));
    if (!row || row.kind !== 'r' || row.persistence === 'u') continue;
    const place = await filterPlace(row, table.where, source, table.excludeColumns);
    if (place.by === 'nobody') throw new PgweaveError('cannot-publish', `the stream cannot be filtered as the copy is:\n${place.text}`, { hint: place.fix, exitCode: 3 });
    out.push({ table: displayName(row.schema, row.name), by: place.by, because: place.by === 'source' ? null : place.because });
  }
  return out;
}

/** Throws what publishing the stream's tables would throw; leaves nothing on the source. */
export async function checkStreamed(source: Session, options: Parameters<typeof streamedTables>[1], tables: readonly TableRef[]): Promise<void> {
  const published = await streamedTables(source, options, tables);
  if (published !== tables) await ensurePublications(source, { job: options.job, tables: published, both: true, takeBack: true });
}

/** Why a publication does not take the filter: what PostgreSQL says of it. Tried and taken back; a standby, which makes none, is believed. */
async function refusedFilter(source: Session, job: string, table: PublishedTable & { readonly where: string }): Promise<string | undefined> {
  if ((await source.one<{ standby: boolean }>('select pg_catalog.pg_is_in_recovery() as standby')).standby) return undefined;
  const name = `${jobObjectName(job)}_try`;
  try {
    await ensurePublications(source, { job, tables: [table], names: { all: name, inserts: `${name}_in` }, takeBack: true });
    return undefined;
  } catch (error) {
    if (!(error instanceof PgweaveError) || error.code !== 'cannot-publish') throw error;
    return `a publication does not take it (${(error.cause as Error | undefined)?.message ?? displayName(table.schema, table.name)})`;
  }
}

async function rowsOf(source: Session): Promise<Map<string, PreflightTableRow>> {
  return new Map((await source.query<PreflightTableRow>(preflightTables())).map((row) => [tableKey(row), row]));
}

function leavesBelow(root: TableRef, catalog: readonly SelectableTable[], rows: ReadonlyMap<string, PreflightTableRow>): TableRef[] {
  return catalog.filter((t) => t.partitionOf && tableKey(t.partitionOf) === tableKey(root)).flatMap((t) => (rows.get(tableKey(t))?.kind === 'p' ? leavesBelow(t, catalog, rows) : [{ schema: t.schema, name: t.name }]));
}
