import { tableKey, type TableRef } from '../../core/tables.ts';
import { quoteIdent } from '../../pg/identifiers.ts';
import type { AttributeValue } from './model.ts';

type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };
type JsonObject = { readonly [name: string]: Json };
/** What a relation of the FROM clause is called in a query, by the name that the text calls it. */
type Scope = ReadonlyMap<string, string>;

const part = '"(?:[^"]|"")+"|[a-z_][a-z0-9_]*';
/** `schema.name` as the server prints it: bare where quote_ident leaves it bare. */
const qualified = new RegExp(`(?<![\\w$".])(${part})\\.(${part})(?![\\w$"])`, 'g');

/**
 * Relations that bear another name on the other side (tables, the sequences that go with them), for what catalogs print: types, definitions, expressions. Names must be printed with their schemas,
 * as they are with an empty search_path.
 */
export class RenamedNames {
  readonly #relations: ReadonlyMap<string, TableRef>;
  readonly #words: readonly string[];

  /** `relations`: the other name by {@link tableKey}. */
  constructor(relations: ReadonlyMap<string, TableRef>) {
    this.#relations = relations;
    this.#words = [...new Set([...relations].flatMap(([key, to]) => [key.slice(key.indexOf('\0') + 1), to.name]))];
  }

  relation(ref: TableRef): TableRef {
    return this.#relations.get(tableKey(ref)) ?? ref;
  }

  /** Whether a text may speak of a relation that is renamed, by its old or its new name. */
  mayName(text: string): boolean {
    return this.#words.some((word) => text.includes(word) || text.includes(word.replaceAll('"', '""')));
  }

  /** The text with the other names, and every qualified name in quotes: to be compared with another such text, not to be shown. */
  inText(text: string): string {
    return text.replace(qualified, (_, schema: string, name: string) => {
      const to = this.relation({ schema: unquote(schema), name: unquote(name) });
      return `${quoteIdent(to.schema)}.${quoteIdent(to.name)}`;
    });
  }

  /** {@link inText} for an attribute's value. */
  inValue(value: AttributeValue): AttributeValue {
    if (typeof value === 'string') return this.inText(value);
    return Array.isArray(value) ? (value as readonly AttributeValue[]).map((item) => (typeof item === 'string' ? this.inText(item) : item)) as AttributeValue : value;
  }

  /**
   * A parse tree with the other names. Relations get aliases by their place in it: a server prints a column with its table's name, or with a number behind that where two have the same name.
   * `outer`: the name of the table that an expression belongs to, by which a subquery speaks of it.
   */
  inTree(tree: Json, outer?: string): Json {
    return new TreeNames((ref) => this.relation(ref), (text) => this.inText(text)).walk(tree, new Map(outer === undefined ? [] : [[outer, `${mark}outer`]]));
  }
}

/** Nothing is renamed; texts and trees come out in the same form. */
export const unchangedNames = new RenamedNames(new Map());

/** `schema.table.column` or `schema.table` as the catalog prints it, without its quotes; undefined where it is something else. */
export function splitQualified(text: string): string[] | undefined {
  if (!new RegExp(`^(?:${part})(?:\\.(?:${part}))*$`).test(text)) return undefined;
  return [...text.matchAll(new RegExp(part, 'g'))].map(([one]) => unquote(one));
}

function unquote(name: string): string {
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name;
}

/** No identifier that a person chose begins so. */
const mark = '\u0001';

class TreeNames {
  readonly #relation: (ref: TableRef) => TableRef;
  readonly #text: (text: string) => string;
  readonly #aliases = new Map<Json, string>();
  #relations = 0;

  constructor(relation: (ref: TableRef) => TableRef, text: (text: string) => string) {
    this.#relation = relation;
    this.#text = text;
  }

  walk(value: Json, scope: Scope): Json {
    if (value === null || typeof value !== 'object') return value;
    if (Array.isArray(value)) return (value as readonly Json[]).map((item) => this.walk(item, scope));
    const object = value as JsonObject;
    if ('TypeCast' in object) return { TypeCast: this.#cast(object['TypeCast'] as JsonObject, scope) };
    if ('ColumnRef' in object) return { ColumnRef: this.#column(object['ColumnRef'] as JsonObject, scope) };
    if (typeof object['relname'] === 'string') return this.#range(object);
    const inner = this.#scopeOf(object, scope);
    const out = Object.fromEntries(Object.entries(object).map(([name, item]) => [name, this.walk(item, inner)]));
    return 'typemod' in object && Array.isArray(object['names']) ? { ...out, names: this.#typeNames(object['names'] as readonly Json[]) } : out;
  }

  /** Queries and commands open a scope: their relations, over those of what they stand in. */
  #scopeOf(object: JsonObject, scope: Scope): Scope {
    const items = [object['relation'], object['sourceRelation'], ...[object['fromClause'], object['usingClause']].flatMap((list) => (Array.isArray(list) ? (list as readonly Json[]) : []))];
    const found = items.flatMap((item) => ranges(item ?? null));
    if (found.length === 0) return scope;
    const inner = new Map(scope);
    for (const { node, name } of found) {
      if (node === undefined) inner.delete(name);
      else {
        const alias = this.#aliases.get(node) ?? `${mark}${(this.#relations += 1)}`;
        this.#aliases.set(node, alias);
        inner.set(name, alias);
      }
    }
    return inner;
  }

  #range(node: JsonObject): Json {
    if (typeof node['schemaname'] !== 'string') return node;
    const to = this.#relation({ schema: node['schemaname'], name: node['relname'] as string });
    const { alias, ...rest } = node;
    const aliasname = this.#aliases.get(node);
    return { ...rest, schemaname: to.schema, relname: to.name, ...(aliasname === undefined ? (alias === undefined ? {} : { alias }) : { alias: { ...(alias as JsonObject | undefined), aliasname } }) };
  }

  #column(column: JsonObject, scope: Scope): JsonObject {
    const [first, ...rest] = column['fields'] as readonly Json[];
    const alias = rest.length > 0 && first !== undefined ? scope.get(stringOf(first) ?? '') : undefined;
    return alias === undefined ? column : { ...column, fields: [{ String: { sval: alias } }, ...rest] };
  }

  /** `'app.orders_id_seq'::regclass`: the name is inside the constant. */
  #cast(cast: JsonObject, scope: Scope): JsonObject {
    const names = ((cast['typeName'] as JsonObject | undefined)?.['names'] ?? []) as readonly Json[];
    const type = stringOf(names.at(-1) ?? null);
    const text = (((cast['arg'] as JsonObject | undefined)?.['A_Const'] as JsonObject | undefined)?.['sval'] as JsonObject | undefined)?.['sval'];
    if ((type === 'regclass' || type === 'regtype') && typeof text === 'string') return { ...cast, arg: { A_Const: { sval: { sval: this.#text(text) } } } };
    return Object.fromEntries(Object.entries(cast).map(([name, item]) => [name, this.walk(item, scope)]));
  }

  /** The row type of a table has its name. */
  #typeNames(names: readonly Json[]): readonly Json[] {
    const [schema, name] = names.map(stringOf);
    if (names.length !== 2 || schema === undefined || name === undefined) return names;
    const to = this.#relation({ schema, name });
    return [{ String: { sval: to.schema } }, { String: { sval: to.name } }];
  }
}

/** Relations of a FROM clause's item; `node` undefined: something else that takes the name, such as a subquery. */
function ranges(item: Json): { readonly node: JsonObject | undefined; readonly name: string }[] {
  if (item === null || typeof item !== 'object' || Array.isArray(item)) return [];
  const object = item as JsonObject;
  const node = (object['RangeVar'] ?? object) as JsonObject;
  const alias = (of: JsonObject) => (of['alias'] as JsonObject | undefined)?.['aliasname'] as string | undefined;
  if (typeof node['relname'] === 'string') return [{ node: typeof node['schemaname'] === 'string' ? node : undefined, name: alias(node) ?? node['relname'] }];
  const join = object['JoinExpr'] as JsonObject | undefined;
  if (join) return [...ranges(join['larg'] ?? null), ...ranges(join['rarg'] ?? null)];
  const other = (object['RangeSubselect'] ?? object['RangeFunction']) as JsonObject | undefined;
  const name = other && alias(other);
  return name === undefined ? [] : [{ node: undefined, name }];
}

function stringOf(node: Json): string | undefined {
  const text = ((node as JsonObject | null)?.['String'] as JsonObject | undefined)?.['sval'];
  return typeof text === 'string' ? text : undefined;
}
