/** A table by name. Names are as the catalog holds them, unquoted. */
export interface TableRef {
  readonly schema: string;
  readonly name: string;
}

/** A key for maps: schema and name can hold any character but NUL, so NUL separates them. */
export function tableKey(table: TableRef): string {
  return `${table.schema}\0${table.name}`;
}

export function tableFromKey(key: string): TableRef {
  const at = key.indexOf('\0');
  return { schema: key.slice(0, at), name: key.slice(at + 1) };
}

/** For people: `public.orders`, quoted only where PostgreSQL would need it. */
export function displayName(schema: string, name: string): string {
  const plain = (part: string) => (/^[a-z_][a-z0-9_$]*$/.test(part) ? part : `"${part.replaceAll('"', '""')}"`);
  return `${plain(schema)}.${plain(name)}`;
}
