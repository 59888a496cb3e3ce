/** What a statement's parse tree names. Relations and functions by key: see {@link relationKey}. */
export interface References {
  readonly relations: readonly string[];
  readonly functions: readonly string[];
}

/** NUL stands in no name. Row types have the name of their table, so one key serves both. */
export function relationKey(schema: string, name: string): string {
  return `${schema}\0${name}`;
}

type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

/**
 * Every relation, type and function that a parse tree names with its schema (a dump names all so; names without one are aliases of WITH). Also names
 * inside of `'…'::regclass`, as defaults from sequences have them.
 */
export function referencesOf(node: unknown): References {
  const relations = new Set<string>();
  const functions = new Set<string>();
  const visit = (value: Json): void => {
    if (value === null || typeof value !== 'object') return;
    if (Array.isArray(value)) {
      for (const item of value as readonly Json[]) visit(item);
      return;
    }
    const object = value as { readonly [name: string]: Json };
    const { relname, schemaname, names, funcname, typeName, arg } = object;
    if (typeof relname === 'string' && typeof schemaname === 'string') relations.add(relationKey(schemaname, relname));
    if (Array.isArray(names) && 'typemod' in object) addName(relations, names);
    if (Array.isArray(funcname)) addName(functions, funcname);
    if (typeName !== undefined && arg !== undefined) {
      const text = regclassText(typeName, arg);
      const [schema, name] = text === undefined ? [] : splitQualified(text);
      if (schema !== undefined && name !== undefined) relations.add(relationKey(schema, name));
    }
    for (const item of Object.values(object)) visit(item);
  };
  visit(node as Json);
  return { relations: [...relations], functions: [...functions] };
}

/** The strings of a list of String nodes: `["shop", "orders"]`. */
export function stringsOf(list: unknown): string[] {
  if (!Array.isArray(list)) return [];
  return list.flatMap((item: { readonly String?: { readonly sval?: string } }) => (item.String ? [item.String.sval ?? ''] : []));
}

function addName(to: Set<string>, list: unknown): void {
  const parts = stringsOf(list);
  if (parts.length === 2) to.add(relationKey(parts[0]!, parts[1]!));
}

function regclassText(typeName: unknown, arg: unknown): string | undefined {
  const type = stringsOf((typeName as { readonly names?: unknown }).names).at(-1);
  const text = (arg as { readonly A_Const?: { readonly sval?: { readonly sval?: string } } }).A_Const?.sval?.sval;
  return type === 'regclass' ? text : undefined;
}

/** `"a.b".c` is [`a.b`, `c`]. */
export function splitQualified(text: string): string[] {
  const parts: string[] = [];
  let at = 0;
  while (at < text.length) {
    let part = '';
    if (text[at] === '"') {
      for (at += 1; at < text.length && !(text[at] === '"' && text[at + 1] !== '"'); at += 1) {
        if (text[at] === '"') at += 1;
        part += text[at];
      }
      at += 1;
    } else {
      for (; at < text.length && text[at] !== '.'; at += 1) part += text[at];
    }
    parts.push(part);
    at += 1;
  }
  return parts;
}
