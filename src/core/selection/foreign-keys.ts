import { usageError } from '../errors.ts';
import { tableKey, type TableRef } from '../tables.ts';
import type { Selection } from './select.ts';

export interface ForeignKey {
  readonly name: string;
  readonly table: TableRef;
  readonly references: TableRef;
}

export interface DanglingForeignKey extends ForeignKey {
  /** `missing`: the other table is left out; `empty`: it is made without rows; `filtered`: some of its rows are left out. */
  readonly reason: 'missing' | 'empty' | 'filtered';
}

/** Foreign keys of copied tables whose other end will not have all rows. `missing` and `empty` always break; `filtered` only where a row's partner is left out. */
export function danglingForeignKeys(selection: Selection, foreignKeys: readonly ForeignKey[]): DanglingForeignKey[] {
  return foreignKeys.flatMap((key): DanglingForeignKey[] => {
    const from = selection.get(tableKey(key.table));
    const to = selection.get(tableKey(key.references));
    if (!from || !to || from.mode === 'skip') return [];
    if (to.mode === 'skip') return [{ ...key, reason: 'missing' }];
    if (from.mode === 'schema-only' || tableKey(key.table) === tableKey(key.references)) return [];
    if (to.mode === 'schema-only') return [{ ...key, reason: 'empty' }];
    // With the same filter on both the partners may well be there: PostgreSQL decides when the key is made.
    return to.where !== undefined && to.where !== from.where ? [{ ...key, reason: 'filtered' }] : [];
  });
}

/** Throws a usage error that names every foreign key into a table that is left out or empty, with the choices there are. */
export function refuseDanglingForeignKeys(selection: Selection, foreignKeys: readonly ForeignKey[]): DanglingForeignKey[] {
  const all = danglingForeignKeys(selection, foreignKeys);
  const broken = all.filter((key) => key.reason !== 'filtered');
  if (broken.length === 0) return all;
  const name = (t: TableRef) => `${t.schema}.${t.name}`;
  const lines = broken.map((key) => `${name(key.table)} refers to ${name(key.references)} (${key.name}), which is ${key.reason === 'missing' ? 'left out' : 'made without rows'}`);
  const wanted = [...new Set(broken.map((key) => name(key.references)))].join(',');
  const leaving = [...new Set(broken.map((key) => name(key.table)))].join(',');
  throw usageError(`foreign keys would have nothing to refer to:\n${lines.join('\n')}`, `Either take the other tables along (${wanted}), or leave these out too: --exclude-tables ${leaving}; or make these without rows: --schema-only-tables ${leaving}${broken.some((k) => k.reason === 'missing') ? `,${wanted}` : ''}.`);
}
