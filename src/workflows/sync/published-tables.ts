import { preflightTables, type PreflightTableRow } from '../../catalog/preflight-tables.ts';
import { PgweaveError } from '../../core/errors.ts';
import { parsePredicate } from '../../core/selection/predicate.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import type { SelectableTable, Selection, TableSelection } from '../../core/selection/select.ts';
import { displayName, quoteIdent } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';
import type { PublishedTable } from '../publications.ts';

export interface PublishedTables {
  readonly tables: readonly PublishedTable[];
  /** Without a replica identity: published for inserts alone, with the user's word. */
  readonly insertsOnly: readonly TableRef[];
  /** Unlogged: nothing of them is in the WAL. */
  readonly unlogged: readonly TableRef[];
}

export interface PublishedTablesOptions {
  readonly selection: Selection;
  /** As {@link selectableTables} gave them: for partitions and columns. */
  readonly catalog: readonly SelectableTable[];
  /** Tables without a replica identity that may be published for inserts alone. */
  readonly insertOnly?: (table: TableRef) => boolean;
}

/**
 * What a native publication lists for a selection, with row filters and column lists. Whole partition trees are listed by their root (the publication must then publish via root), parts of a
 * tree by their leaves. Refuses whatever would make the source's own UPDATE and DELETE fail [hard cases 1, 50], and what native replication cannot do: filters and column
 * lists before version 15, other names on the target. Each fault comes with its fix; nothing is changed.
 */
export async function publishedTables(session: Session, options: PublishedTablesOptions): Promise<PublishedTables> {
  const rows = new Map((await session.query<PreflightTableRow>(preflightTables())).map((row) => [tableKey(row), row]));
  const whole = wholeTrees(options);
  const chosen = options.catalog.filter((t) => {
    const selected = options.selection.get(tableKey(t));
    if (selected?.mode !== 'copy') return false;
    if (t.partitionOf && whole.has(tableKey(t.partitionOf))) return false;
    return rows.get(tableKey(t))?.kind === 'r' || whole.has(tableKey(t));
  });
  const faults: Fault[] = [];
  const tables: PublishedTable[] = [];
  const insertsOnly: TableRef[] = [];
  const unlogged: TableRef[] = [];
  for (const table of chosen) {
    const selected = options.selection.get(tableKey(table))!;
    const row = rows.get(tableKey(table));
    if (!row) continue;
    const ref = { schema: table.schema, name: table.name };
    if (row.persistence === 'u') {
      unlogged.push(ref);
      continue;
    }
    // WAL is written by the leaves, so each must have an identity.
    const leaves = row.kind === 'p' ? options.catalog.filter((t) => rows.get(tableKey(t))?.kind === 'r' && under(t, ref, options.catalog)).map((t) => rows.get(tableKey(t))!) : [row];
    const bare = leaves.filter((leaf) => leaf.replica_identity !== 'f' && !leaf.has_identity_index);
    const inserts = bare.length > 0 && options.insertOnly?.(ref) === true;
    if (inserts) insertsOnly.push(ref);
    else faults.push(...bare.map(identityFault));
    faults.push(...(await definitionFaults(session, selected, leaves, inserts)));
    const columns = selected.excludeColumns.length === 0 ? undefined : (table.columns ?? []).filter((c) => c.generated !== true && !selected.excludeColumns.includes(c.name)).map((c) => c.name);
    tables.push({ ...ref, ...(selected.where === undefined ? {} : { where: selected.where }), ...(columns === undefined ? {} : { columns }) });
  }
  if (faults.length > 0) {
    throw new PgweaveError('cannot-publish', `publishing would harm the source or is not possible:\n${faults.map((f) => f.text).join('\n')}`, { hint: [...new Set(faults.map((f) => f.fix))].join('\n'), exitCode: 3, details: { tables: faults.map((f) => f.text) } });
  }
  return { tables, insertsOnly, unlogged };
}

interface Fault {
  readonly text: string;
  readonly fix: string;
}

/** Partitioned tables of which every partition, at every level, is copied. */
function wholeTrees({ selection, catalog }: PublishedTablesOptions): Set<string> {
  const parents = new Set(catalog.flatMap((t) => (t.partitionOf ? [tableKey(t.partitionOf)] : [])));
  const copied = (t: TableRef): boolean => selection.get(tableKey(t))?.mode === 'copy' && catalog.filter((p) => p.partitionOf && tableKey(p.partitionOf) === tableKey(t)).every(copied);
  // The root's filter and columns speak for the tree: a leaf with another of its own is listed on its own.
  const uniform = (t: TableRef, root: TableSelection): boolean =>
    catalog.filter((p) => p.partitionOf && tableKey(p.partitionOf) === tableKey(t)).every((p) => {
      const s = selection.get(tableKey(p));
      return s?.where === root.where && s?.excludeColumns.join('\0') === root.excludeColumns.join('\0') && uniform(p, root);
    });
  return new Set(catalog.filter((t) => parents.has(tableKey(t)) && copied(t) && uniform(t, selection.get(tableKey(t))!)).map(tableKey));
}

function under(table: SelectableTable, root: TableRef, catalog: readonly SelectableTable[]): boolean {
  for (let up = table.partitionOf; up; up = catalog.find((t) => up && t.schema === up.schema && t.name === up.name)?.partitionOf) if (up.schema === root.schema && up.name === root.name) return true;
  return false;
}

function identityFault(row: PreflightTableRow): Fault {
  const name = displayName(row.schema, row.name);
  const index = row.identity_candidates[0];
  return {
    text: `${name} has no replica identity: published, its own UPDATE and DELETE would fail on the source`,
    fix: index === undefined ? `On the source: ALTER TABLE ${name} REPLICA IDENTITY FULL; or inserts alone: --insert-only ${name}; or --exclude-tables ${name}` : `On the source: ALTER TABLE ${name} REPLICA IDENTITY USING INDEX ${quoteIdent(index)};`,
  };
}

async function definitionFaults(session: Session, selected: TableSelection, leaves: readonly PreflightTableRow[], inserts: boolean): Promise<Fault[]> {
  const { table, where, excludeColumns, mapTo } = selected;
  const name = displayName(table.schema, table.name);
  const faults: Fault[] = [];
  if (mapTo.schema !== table.schema || mapTo.name !== table.name) {
    faults.push({ text: `${name} would be called ${displayName(mapTo.schema, mapTo.name)} on the target, which a native subscription cannot do`, fix: 'Leave --map out, or follow with pgweave itself: pgweave clone --follow' });
  }
  if ((where !== undefined || excludeColumns.length > 0) && session.serverVersion < 150_000) {
    faults.push({ text: `${name}: native publications have row filters and column lists from PostgreSQL 15 on; the source is ${session.serverVersionText.split(' ')[0]}`, fix: 'Follow with pgweave itself, which filters rows and leaves columns out on every version: pgweave clone --follow' });
  }
  if (inserts) return faults;
  for (const leaf of leaves) {
    const identity = new Set(leaf.identity_columns);
    const outside = where === undefined ? [] : (await parsePredicate(where)).columns.filter((column) => !identity.has(column));
    if (outside.length > 0) {
      faults.push({
        text: `the row filter of ${name} reads ${outside.join(', ')}, which ${outside.length === 1 ? 'is' : 'are'} not in its replica identity: UPDATE and DELETE would fail on the source`,
        fix: `On the source: ALTER TABLE ${displayName(leaf.schema, leaf.name)} REPLICA IDENTITY FULL;`,
      });
    }
    const missing = leaf.replica_identity === 'f' ? excludeColumns : excludeColumns.filter((column) => identity.has(column));
    if (missing.length > 0) faults.push({ text: `${name}: ${missing.join(', ')} cannot be left out, since ${missing.length === 1 ? 'it is' : 'they are'} part of its replica identity: UPDATE and DELETE would fail on the source`, fix: `Take ${missing.length === 1 ? 'it' : 'them'} along, or give ${name} a replica identity without ${missing.length === 1 ? 'it' : 'them'}.` });
  }
  return faults.slice(0, 4);
}
