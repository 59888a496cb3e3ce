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

/** For people: `public.orders`, quoted only where PostgreSQL would need it. */
export function displayName(schema: string, name: string): string {
  const plain = (part: string) => (/^[a-z_][a-z0-9_$]*$/.test(part) ? part : quoteIdent(part));
  return `${plain(schema)}.${plain(name)}`;
}
