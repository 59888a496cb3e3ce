import { loadModule, parseSync } from 'libpg-query';
import { usageError } from '../errors.ts';

/** What PostgreSQL's own parser sees in a row filter. */
export interface Predicate {
  readonly text: string;
  /** Columns it reads, unquoted, sorted. */
  readonly columns: readonly string[];
  /** Functions it calls, as `schema.name` or `name`, sorted. */
  readonly functions: readonly string[];
  /** `now`, `today` and their like as string constants: a server turns them into a moment where a date is meant. */
  readonly movingWords: readonly string[];
}

type Node = Readonly<Record<string, unknown>>;

const oneExpression = 'A row filter is one boolean expression on the columns of its table, such as: status <> \'draft\' and amount > 0';
/** SQL words that stand for the current moment or user. */
const changingValues = new Set(['SVFOP_CURRENT_DATE', 'SVFOP_CURRENT_TIME', 'SVFOP_CURRENT_TIME_N', 'SVFOP_CURRENT_TIMESTAMP', 'SVFOP_CURRENT_TIMESTAMP_N', 'SVFOP_LOCALTIME', 'SVFOP_LOCALTIME_N', 'SVFOP_LOCALTIMESTAMP', 'SVFOP_LOCALTIMESTAMP_N']);
/** Functions of pg_catalog whose answer depends on when, where or by whom they are asked. The source is asked about all others (catalog/predicates.ts). */
const movingFunctions = new Set(['now', 'transaction_timestamp', 'statement_timestamp', 'clock_timestamp', 'timeofday']);
/** Source: documentation, "System Columns"; no column of a user may be called so. */
const systemColumns = new Set(['tableoid', 'xmin', 'cmin', 'xmax', 'cmax', 'ctid']);
const momentHint = 'The copy, the stream and verify would each mean another moment. Use --time-filter "table:column:6 months", which is fixed once when the job begins, or write the date itself.';
const parts: Readonly<Record<string, string>> = {
  SubLink: 'a subquery', ParamRef: 'a parameter ($1)', GroupingFunc: 'a grouping', SetToDefault: 'the word DEFAULT', CurrentOfExpr: 'a cursor', A_Indirection: '', MultiAssignRef: 'an assignment', MergeSupportFunc: 'a merge function',
};

/**
 * Reads a row filter with PostgreSQL's parser. Throws a usage error for anything but one expression: several statements, further clauses, subqueries, aggregates, window functions, system
 * columns, and functions whose answer depends on the moment. Whether names and types exist only the source knows.
 */
export async function parsePredicate(text: string, where = 'the row filter'): Promise<Predicate> {
  await loadModule();
  const refuse = (what: string, hint: string) => usageError(`${where} ${what}: ${text}`, hint);
  if (text.trim() === '' || text.includes('\0')) throw refuse('is empty', oneExpression);
  // Once bare, so that no parenthesis of the filter can close ours; once in parentheses, as it will be used.
  const bare = only(text, refuse);
  only(`(${text}\n)`, refuse);
  const columns = new Set<string>();
  const functions = new Set<string>();
  const movingWords = new Set<string>();
  walk(bare, (kind, node) => {
    const forbidden = parts[kind];
    if (forbidden) throw refuse(`holds ${forbidden}`, `${oneExpression}. It cannot look into other rows or tables.`);
    if (kind === 'SQLValueFunction') {
      const op = String(node['op']);
      if (changingValues.has(op)) throw refuse(`depends on the current moment (${op.slice(6).replace(/_N$/, '').toLowerCase()})`, momentHint);
      throw refuse(`depends on who asks (${op.slice(6).toLowerCase()})`, 'Write the value itself.');
    }
    if (kind === 'ColumnRef') {
      const fields = (node['fields'] as Node[]).map((f) => stringOf(f));
      if (fields.some((f) => f === undefined)) throw refuse('holds a star', oneExpression);
      if (fields.length > 1) throw refuse(`names a column with its table (${fields.join('.')})`, `Write the column alone: ${fields.at(-1)}. For a field of a composite column: (column).field.`);
      if (systemColumns.has(fields[0]!)) throw refuse(`reads the system column ${fields[0]}`, `${oneExpression}. Where a row lies differs from server to server.`);
      columns.add(fields[0]!);
    }
    if (kind === 'FuncCall') {
      const names = (node['funcname'] as Node[]).map((f) => stringOf(f) ?? '');
      const name = names.at(-1)!;
      if (node['over'] !== undefined) throw refuse('holds a window function', oneExpression);
      if (node['agg_star'] === true || node['agg_distinct'] === true || node['agg_filter'] !== undefined || node['agg_order'] !== undefined) throw refuse('holds an aggregate', oneExpression);
      if (movingFunctions.has(name)) throw refuse(`depends on the current moment (${name})`, momentHint);
      functions.add(names.join('.'));
    }
    if (kind === 'A_Const') {
      const value = (node['sval'] as { sval?: string } | undefined)?.sval?.trim().toLowerCase();
      if (value !== undefined && ['now', 'today', 'yesterday', 'tomorrow'].includes(value)) movingWords.add(value);
    }
  });
  return { text, columns: [...columns].sort(), functions: [...functions].sort(), movingWords: [...movingWords].sort() };
}

/** The only expression of `select <text>`, or an error. */
function only(text: string, refuse: (what: string, hint: string) => Error): unknown {
  let stmts: { stmt?: Node }[];
  try {
    stmts = (parseSync(`select ${text}\n`).stmts ?? []) as { stmt?: Node }[];
  } catch (error) {
    throw refuse(`is not valid SQL (${(error as Error).message})`, oneExpression);
  }
  if (stmts.length !== 1) throw refuse('holds more than one statement', oneExpression);
  const select = stmts[0]!.stmt?.['SelectStmt'] as Node | undefined;
  const targets = (select?.['targetList'] ?? []) as { ResTarget?: Node }[];
  const clauses = Object.keys(select ?? {}).filter((key) => !['targetList', 'limitOption', 'op'].includes(key));
  if (!select || clauses.length > 0 || select['op'] !== 'SETOP_NONE') throw refuse('holds more than an expression', oneExpression);
  const [target] = targets;
  if (targets.length !== 1 || !target?.ResTarget || target.ResTarget['name'] !== undefined || target.ResTarget['indirection'] !== undefined) throw refuse('is not one expression', oneExpression);
  return target.ResTarget['val'];
}

function stringOf(node: Node): string | undefined {
  return (node['String'] as { sval?: string } | undefined)?.sval;
}

function walk(value: unknown, visit: (kind: string, node: Node) => void): void {
  if (Array.isArray(value)) for (const item of value) walk(item, visit);
  else if (typeof value === 'object' && value !== null) {
    for (const [kind, inner] of Object.entries(value)) {
      if (/^[A-Z]/.test(kind) && typeof inner === 'object' && inner !== null) visit(kind, inner as Node);
      walk(inner, visit);
    }
  }
}
