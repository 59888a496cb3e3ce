import { selectDatabases, type SelectableDatabase } from '../core/selection/databases.ts';
import { refuseDanglingForeignKeys, type DanglingForeignKey, type ForeignKey } from '../core/selection/foreign-keys.ts';
import { parsePredicate } from '../core/selection/predicate.ts';
import { fixTimeWindows, hasRules, type SelectionRules } from '../core/selection/rules.ts';
import { matchTables, rulesForDatabase, unmatchedError, type SelectableTable, type Selection, type SelectionScope, type Unmatched } from '../core/selection/select.ts';
import { usageError } from '../core/errors.ts';
import { tableFromKey, tableKey } from '../core/tables.ts';
import { patternText } from '../core/selection/names.ts';
import { withDatabase, type ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { checkPredicate } from './predicates.ts';

/** Schemas of the server and of ours. */
export const notSystemSchema = `n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgweave')`;
const notOfExtension = (relation: string) => `not exists (select 1 from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = ${relation} and d.deptype = 'e')`;

/** All tables and partitioned tables of users, with what selection needs to know of them. */
export async function selectableTables(session: Session): Promise<SelectableTable[]> {
  const rows = await session.query<{ schema: string; name: string; columns: { name: string; type: string; generated: boolean }[]; key: (string | null)[]; parent_schema: string | null; parent_name: string | null }>(`
    select n.nspname as schema, c.relname as name, pn.nspname as parent_schema, p.relname as parent_name,
      coalesce((select pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname, 'type', pg_catalog.format_type(a.atttypid, null), 'generated', a.attgenerated <> '') order by a.attnum)
        from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]'::pg_catalog.json) as columns,
      array(select a.attname from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey::pg_catalog.int2[]) where i.indrelid = c.oid and (i.indisprimary or i.indisreplident)) as key
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      left join pg_catalog.pg_inherits h on h.inhrelid = c.oid and c.relispartition
      left join pg_catalog.pg_class p on p.oid = h.inhparent left join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
    where c.relkind in ('r', 'p') and c.relpersistence <> 't' and ${notSystemSchema} and ${notOfExtension('c.oid')}
    order by 1, 2`);
  return rows.map((r) => ({
    schema: r.schema, name: r.name, columns: r.columns, keyColumns: r.key.map(String), ...(r.parent_schema === null || r.parent_name === null ? {} : { partitionOf: { schema: r.parent_schema, name: r.parent_name } }),
  }));
}

/** Foreign keys of users' tables; those that a partition inherits from its root are the root's. */
export async function foreignKeys(session: Session): Promise<ForeignKey[]> {
  const rows = await session.query<{ name: string; schema: string; table: string; to_schema: string; to_table: string }>(`
    select k.conname as name, n.nspname as schema, c.relname as table, fn.nspname as to_schema, f.relname as to_table
    from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      join pg_catalog.pg_class f on f.oid = k.confrelid join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and ${notSystemSchema} order by 2, 3, 1`);
  return rows.map((r) => ({ name: r.name, table: { schema: r.schema, name: r.table }, references: { schema: r.to_schema, name: r.to_table } }));
}

/** The server's databases. */
export function serverDatabases(session: Session): Promise<SelectableDatabase[]> {
  return session.query<{ name: string; isTemplate: boolean; allowsConnections: boolean }>(`select datname as name, datistemplate as "isTemplate", datallowconn as "allowsConnections" from pg_catalog.pg_database order by 1`);
}

/** The databases of a job on the server that `session` is connected to. See {@link selectDatabases}. */
export async function resolveDatabases(session: Session, rules: SelectionRules): Promise<string[]> {
  return selectDatabases(rules, await serverDatabases(session), session.spec.database);
}

export interface ResolvedSelection {
  readonly selection: Selection;
  /** Foreign keys into tables that have a row filter: whether they hold only the rows can tell. */
  readonly doubtfulForeignKeys: readonly DanglingForeignKey[];
  /** Names that matched nothing here; always empty for a job of one database, which is refused instead. */
  readonly unmatched: readonly Unmatched[];
}

/**
 * Everything that the rules mean in the source database that `session` is connected to, checked there: names, columns, predicates, foreign keys. Reads only.
 * Throws a usage error that names the fault and the nearest names. Windows that are not fixed yet (`keepRules` does that) count from now.
 */
export async function resolveSelection(session: Session, given: SelectionRules, scope: SelectionScope = { database: session.spec.database }): Promise<ResolvedSelection> {
  const rules = fixTimeWindows(given, new Date());
  const tables = await selectableTables(session);
  const { selection, unmatched } = matchTables(rules, scope, tables);
  if (unmatched.length > 0 && (scope.databases ?? [scope.database]).length === 1) throw unmatchedError(unmatched);
  if (!hasRules(rules)) return { selection, doubtfulForeignKeys: [], unmatched };
  const columns = new Map(tables.map((t) => [tableKey(t), new Set(t.columns?.map((c) => c.name))]));
  for (const filter of rules.tableFilters) {
    const predicate = await parsePredicate(filter.where, `--table-filter for ${patternText(filter.table)}`);
    // Matched anew for this one rule: the selection holds the texts joined.
    const { selection: own } = matchTables({ ...rules, tableFilters: [filter], timeFilters: [] }, scope, [...selection.values()].map((s) => s.table));
    for (const [key, chosen] of own) {
      if (chosen.where === undefined) continue;
      await checkPredicate(session, tableFromKey(key), predicate);
      // The source has taken it: what is no column is the row as a whole.
      const row = predicate.columns.find((name) => !columns.get(key)?.has(name));
      if (row !== undefined) throw usageError(`--table-filter for ${patternText(filter.table)} reads the whole row (${row}): ${filter.where}`, 'A row filter names the columns that it reads, so that they can be looked for in the replica identity.');
    }
  }
  return { selection, doubtfulForeignKeys: refuseDanglingForeignKeys(selection, await foreignKeys(session)), unmatched };
}

/**
 * The rules of a job over several databases as each of them has them. Throws a usage error for a name that matches nothing in any. A database that cannot be looked at is left out of the
 * answer: its own job will say why.
 */
export async function rulesByDatabase(source: ConnectionSpec, rules: SelectionRules, databases: readonly string[], options: { readonly job: string; readonly signal?: AbortSignal | undefined }): Promise<Map<string, SelectionRules>> {
  const out = new Map<string, SelectionRules>();
  const missing = new Map<string, { unmatched: Unmatched; times: number; near: Set<string> }>();
  for (const database of databases) {
    let tables: SelectableTable[];
    try {
      await using session = await Session.open(withDatabase(source, database), { role: 'choose', job: options.job, side: 'the source', signal: options.signal });
      tables = await selectableTables(session);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      continue;
    }
    const scope = { database, databases };
    for (const unmatched of matchTables(fixTimeWindows(rules, new Date()), scope, tables).unmatched) {
      const known = missing.get(`${unmatched.rule} ${unmatched.name}`) ?? { unmatched, times: 0, near: new Set<string>() };
      known.times += 1;
      for (const name of unmatched.near) known.near.add(unmatched.database === undefined ? `${database}.${name}` : name);
      missing.set(`${unmatched.rule} ${unmatched.name}`, known);
    }
    out.set(database, rulesForDatabase(rules, scope, tables));
  }
  // A name that names one database is only looked for there.
  const nowhere = [...missing.values()].filter(({ unmatched, times }) => times === out.size || databases.some((d) => unmatched.name.startsWith(`${d}.`) || unmatched.name.startsWith(`"${d}".`)));
  if (nowhere.length > 0) throw unmatchedError(nowhere.map(({ unmatched, near }) => ({ ...unmatched, near: [...near].slice(0, 3) })));
  return out;
}
