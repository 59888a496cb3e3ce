import { loadModule, parseSync } from 'libpg-query';
import type { SqlForm } from './model.ts';
import { unchangedNames, type RenamedNames } from './renamed-names.ts';

type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };
type JsonObject = { readonly [name: string]: Json };

/** Makes a statement of a fragment, so that the parser takes it. */
const wrap: Readonly<Record<SqlForm, (text: string) => string>> = {
  query: (text) => text,
  statement: (text) => text,
  expression: (text) => `select ${text}`,
  constraint: (text) => `alter table t add ${text}`,
  bound: (text) => `alter table t attach partition p ${text}`,
  arguments: (text) => `create function f(${text}) returns int language sql as ''`,
  body: (text) => `create function f() returns int language sql ${text}`,
};

/** Call once before {@link sameSql}. */
export async function loadParser(): Promise<void> {
  await loadModule();
}

/** Relations of the first text that bear other names in the second. */
export interface Renaming {
  readonly names: RenamedNames;
  /** The table that the text belongs to, by its name alone; undefined where it belongs to none. */
  readonly source: string | undefined;
  readonly target: string | undefined;
}

/**
 * Whether two texts of SQL, as servers of different versions print them from their catalogs, say the same: equal parse trees after layout, superfluous parentheses and the
 * qualification that versions do differently are taken away. Texts that do not parse are the same where they are equal.
 */
export function sameSql(a: string, b: string, form: SqlForm, renaming?: Renaming): boolean {
  const renamed = renaming !== undefined && (renaming.names.mayName(a) || renaming.names.mayName(b));
  if (a === b && !renamed) return true;
  try {
    if (!renamed) return canonical(wrap[form](a)) === canonical(wrap[form](b));
    return canonical(wrap[form](a), renaming.names, renaming.source) === canonical(wrap[form](b), unchangedNames, renaming.target);
  } catch {
    return renamed && renaming.names.inText(a) === unchangedNames.inText(b);
  }
}

function canonical(sql: string, names?: RenamedNames, outer?: string): string {
  const { stmts } = parseSync(sql);
  const bare = (stmts ?? []).map(({ stmt }) => unqualify(stmt as unknown as Json));
  return JSON.stringify(bare.map((stmt) => strip(names ? names.inTree(stmt, outer) : stmt)));
}

const positions = new Set(['location', 'stmt_location', 'stmt_len', 'list_start', 'list_end', 'rexpr_list_start', 'rexpr_list_end', 'name_location']);

/** Without places in the text, and with keys in one order. */
function strip(value: Json): Json {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return (value as readonly Json[]).map(strip);
  return Object.fromEntries(Object.entries(value as JsonObject).filter(([name]) => !positions.has(name)).toSorted(([x], [y]) => (x < y ? -1 : 1)).map(([name, item]) => [name, strip(item)]));
}

/**
 * Since 16 a query over one relation prints its columns bare, earlier ones with the relation's name (pg_get_viewdef had OLD and NEW in its range table until then). Applies to
 * the outermost query alone: subqueries are printed qualified by all.
 */
function unqualify(statement: Json): Json {
  const { SelectStmt: query } = (statement ?? {}) as { SelectStmt?: JsonObject };
  const from = query?.['fromClause'];
  if (!query || !Array.isArray(from) || from.length !== 1) return statement;
  const name = relationAlias(from[0] as JsonObject);
  if (name === undefined) return statement;
  const bare = (value: Json): Json => {
    if (value === null || typeof value !== 'object') return value;
    if (Array.isArray(value)) return (value as readonly Json[]).map(bare);
    const object = value as JsonObject;
    if ('SelectStmt' in object || 'RangeSubselect' in object) return object;
    const fields = object['fields'];
    if (Array.isArray(fields) && fields.length === 2 && stringOf(fields[0] as JsonObject) === name) return { ...object, fields: [fields[1] as Json] };
    return Object.fromEntries(Object.entries(object).map(([key, item]) => [key, bare(item)]));
  };
  return { SelectStmt: bare(query) };
}

function relationAlias(item: JsonObject): string | undefined {
  const range = item['RangeVar'] as JsonObject | undefined;
  const other = (item['RangeFunction'] ?? item['RangeSubselect']) as JsonObject | undefined;
  const alias = ((range ?? other)?.['alias'] as JsonObject | undefined)?.['aliasname'];
  if (typeof alias === 'string') return alias;
  return typeof range?.['relname'] === 'string' ? range['relname'] : undefined;
}

function stringOf(node: JsonObject): string | undefined {
  const text = (node['String'] as JsonObject | undefined)?.['sval'];
  return typeof text === 'string' ? text : undefined;
}
