import { createHash } from 'node:crypto';
import { quoteIdent } from '../pg/identifiers.ts';

/** PostgreSQL cuts names after 63 bytes (NAMEDATALEN - 1); a name that would be cut is refused or shortened with a digest. */
export const maxNameBytes = 63;

export function byteLength(name: string): number {
  return Buffer.byteLength(name, 'utf8');
}

export function shortDigest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}

/** `pub_<node>`: the publication of a node's journal. */
export function publicationName(node: string): string {
  return `pub_${node}`;
}

/** `sub_<subscriber>_from_<publisher>`, in lower case: slot names allow nothing else. Names the subscription and its slot. */
export function subscriptionName(subscriber: string, publisher: string): string {
  return `sub_${subscriber}_from_${publisher}`.toLowerCase();
}

/** Node names are at most this long, so that `sub_a_from_b` fits into a name. */
export const maxNodeNameLength = 26;

/** The role that owns the subscriptions, so that its settings hold for apply workers and for nobody else. */
export const applyRole = 'pgweave_mesh_apply';

/**
 * What the generated objects of a table are called after: the table's own name where that is plain and in `public`, else a readable form of it with
 * a digest, so that `a.b_c` and `a_b.c` never meet.
 */
export function objectBase(schema: string, table: string): string {
  if (schema === 'public' && /^[a-z_][a-z0-9_]{0,39}$/.test(table) && !/_[0-9a-f]{8}$/.test(table)) return table;
  const plain = `${schema}_${table}`.toLowerCase().replace(/[^a-z0-9_]+/g, '_').slice(0, 36);
  return `${plain}_${shortDigest(JSON.stringify([schema, table]))}`;
}

/** A generated object of a table in schema `_mesh`, quoted: `_mesh."ghost_orders"`. */
export function meshObject(kind: string, base: string): string {
  const name = `${kind}_${base}`;
  return `_mesh.${/^[a-z_][a-z0-9_]*$/.test(name) ? name : quoteIdent(name)}`;
}

/** A positive 31-bit number of a table, the class of its advisory locks. */
export function lockClass(schema: string, table: string): number {
  return createHash('sha256').update(JSON.stringify([schema, table])).digest().readUInt32BE(0) & 0x7fffffff;
}
