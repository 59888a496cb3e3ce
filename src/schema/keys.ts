import type { Constraint, Node } from 'libpg-query';
import type { TableRef } from '../core/tables.ts';
import { qualifiedName, quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import { stringsOf } from './references.ts';

/**
 * A primary key or unique constraint in two statements: the index, which several builds of one table can run beside, and the constraint, made of it in a
 * moment. Undefined where PostgreSQL does not allow that: WITHOUT OVERLAPS (18), and keys whose form is not known here.
 * Source: PostgreSQL documentation, ALTER TABLE, ADD table_constraint_using_index.
 */
export function keyAsIndex(table: TableRef, constraint: Constraint): { readonly index: string; readonly constraint: string } | undefined {
  const { contype, conname, keys, including, options, without_overlaps: temporal, nulls_not_distinct: nullsNotDistinct } = constraint;
  if ((contype !== 'CONSTR_PRIMARY' && contype !== 'CONSTR_UNIQUE') || temporal || conname === undefined || constraint.indexspace !== undefined) return undefined;
  const columns = stringsOf(keys);
  const storage = storageOptions(options ?? []);
  if (columns.length === 0 || storage === undefined) return undefined;
  const list = (names: readonly string[]) => names.map(quoteIdent).join(', ');
  const included = stringsOf(including);
  const target = qualifiedName(table.schema, table.name);
  const index = [
    `create unique index ${quoteIdent(conname)} on ${target} (${list(columns)})`, ...(included.length > 0 ? [`include (${list(included)})`] : []), ...(nullsNotDistinct ? ['nulls not distinct'] : []), ...(storage === '' ? [] : [`with (${storage})`]),
  ].join(' ');
  const timing = constraint.deferrable ? ` deferrable${constraint.initdeferred ? ' initially deferred' : ''}` : '';
  return { index, constraint: `alter table only ${target} add constraint ${quoteIdent(conname)} ${contype === 'CONSTR_PRIMARY' ? 'primary key' : 'unique'} using index ${quoteIdent(conname)}${timing}` };
}

/** `fillfactor = '91'`; undefined where an option has a form that is not known here. */
function storageOptions(options: readonly Node[]): string | undefined {
  const out: string[] = [];
  for (const option of options) {
    if (!('DefElem' in option) || option.DefElem.defname === undefined) return undefined;
    const { defname, arg } = option.DefElem;
    const value = arg === undefined ? undefined : 'Integer' in arg ? String(arg.Integer.ival ?? 0) : 'String' in arg ? (arg.String.sval ?? '') : 'Float' in arg ? (arg.Float.fval ?? '') : undefined;
    if (value === undefined) return undefined;
    out.push(`${quoteIdent(defname)} = ${quoteLiteral(value).trim()}`);
  }
  return out.join(', ');
}
