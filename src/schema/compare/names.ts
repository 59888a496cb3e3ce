import { displayName, quoteIdent } from '../../pg/identifiers.ts';
import type { CatalogObject } from './model.ts';

const plain = (part: string) => (/^[a-z_][a-z0-9_$]*$/.test(part) ? part : quoteIdent(part));
const withArguments = new Set(['function', 'procedure', 'aggregate', 'operator', 'operator class', 'operator family', 'cast', 'transform', 'default privileges', 'user mapping']);

/** For people, without the kind: `public.orders`, `public.orders.amount`, `public.add(integer, integer)`, `public.orders_idx on public.orders`. */
export function objectName(object: CatalogObject): string {
  const { kind, schema, name, table } = object;
  // These names hold types and words besides the name: quoting the whole would garble them.
  const own = withArguments.has(kind) ? name : plain(name);
  if (kind === 'database') return '';
  if (table && (kind === 'column' || kind === 'attribute')) return `${displayName(table.schema, table.name)}.${own}`;
  const qualified = schema === undefined ? own : `${plain(schema)}.${own}`;
  return table ? `${qualified} ${kind === 'domain constraint' ? 'of' : 'on'} ${displayName(table.schema, table.name)}` : qualified;
}

/** `table public.orders`. */
export function describeCatalogObject(object: CatalogObject): string {
  return `${object.kind} ${objectName(object)}`.trimEnd();
}
