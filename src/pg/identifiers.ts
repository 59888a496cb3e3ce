export { displayName } from '../core/tables.ts';

/** Quotes an identifier, always: `a"b` becomes `"a""b"`. Throws for a NUL byte, which no identifier can hold. */
export function quoteIdent(name: string): string {
  if (name.includes('\0')) throw new RangeError('an identifier cannot hold a NUL byte');
  return `"${name.replaceAll('"', '""')}"`;
}

/** `"schema"."name"`. */
export function qualifiedName(schema: string, name: string): string {
  return `${quoteIdent(schema)}.${quoteIdent(name)}`;
}

/** Quotes a literal, safe whatever `standard_conforming_strings` says. */
export function quoteLiteral(value: string): string {
  if (value.includes('\0')) throw new RangeError('a text value cannot hold a NUL byte');
  const escaped = value.replaceAll("'", "''");
  return value.includes('\\') ? ` E'${escaped.replaceAll('\\', '\\\\')}'` : `'${escaped}'`;
}

/** Quotes a value for a conninfo string (libpq, section 34.1.1.1): `it's` becomes `'it\'s'`. */
export function quoteConninfo(value: string): string {
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
