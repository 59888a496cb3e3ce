import { usageError } from '../core/errors.ts';
import type { Predicate } from '../core/selection/predicate.ts';
import type { TableRef } from '../core/tables.ts';
import { displayName, qualifiedName, quoteIdent } from '../pg/identifiers.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import type { Session } from '../pg/session.ts';

/** Volatility of every function of a name: `i`, `s`, `v`. */
const volatilities = `select distinct p.provolatile::text as volatility from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where p.proname = $1 and (n.nspname = $2 or $2 is null)`;

/**
 * Asks the source whether it takes a row filter for a table: names, types, boolean result; no volatile function, and none that is merely stable in all its forms. Only plans a query, runs none
 * and writes nothing. `where` is the rule's name for messages. Throws a usage error with the server's own words.
 */
export async function checkPredicate(session: Session, table: TableRef, predicate: Predicate, where = '--table-filter'): Promise<void> {
  const name = displayName(table.schema, table.name);
  for (const written of predicate.functions) {
    const parts = written.split('.');
    const rows = await session.query<{ volatility: string }>(volatilities, [parts.at(-1), parts.length > 1 ? parts[0] : null]);
    const kinds = rows.map((r) => r.volatility);
    if (kinds.length > 0 && kinds.every((kind) => kind !== 'i')) {
      throw usageError(`${where} for ${name} calls ${written}(), which ${kinds.includes('v') ? 'is volatile' : 'depends on settings or the moment'}: ${predicate.text}`, 'A filter must give the same answer for the same row at any time: use immutable functions only.');
    }
  }
  const sql = `explain (verbose, costs off) select 1 from ${qualifiedName(table.schema, table.name)} where (${predicate.text}\n)`;
  let plan: string;
  try {
    plan = (await session.query<{ 'QUERY PLAN': string }>(sql)).map((row) => row['QUERY PLAN']).join('\n');
  } catch (error) {
    const state = sqlstateOf(error);
    if (state === undefined || (!state.startsWith('42') && !state.startsWith('22') && state !== sqlstate.featureNotSupported)) throw error;
    throw usageError(`the source refuses ${where} for ${name}: ${(error as Error).message}: ${predicate.text}`, await columnHint(session, table, state));
  }
  for (const word of predicate.movingWords) {
    // A constant that stayed a text keeps its word in the plan; one that became a date lost it.
    if (!new RegExp(`'\\s*${word}\\s*'`, 'i').test(plan)) throw usageError(`${where} for ${name} depends on the current moment ('${word}'): ${predicate.text}`, 'Write the date itself, or use --time-filter, which is fixed once when the job begins.');
  }
}

async function columnHint(session: Session, table: TableRef, state: string): Promise<string | undefined> {
  if (state !== sqlstate.undefinedColumn) return 'Functions and types outside pg_catalog need their schema: public.my_function(x).';
  const rows = await session.query<{ name: string }>(
    `select a.attname as name from pg_catalog.pg_attribute a where a.attrelid = pg_catalog.to_regclass($1) and a.attnum > 0 and not a.attisdropped order by a.attnum`, [qualifiedName(table.schema, table.name)],
  );
  return rows.length > 0 ? `Its columns: ${rows.map((r) => (/^[a-z_][a-z0-9_]*$/.test(r.name) ? r.name : quoteIdent(r.name))).join(', ')}.` : undefined;
}
