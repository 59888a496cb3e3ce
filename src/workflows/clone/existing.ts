import type { RelationNameRow } from '../../catalog/target-contents.ts';
import { PgweaveError } from '../../core/errors.ts';
import { displayName } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';
import type { Ledger } from '../../schema/ledger.ts';
import type { SchemaPlan } from '../../schema/plan.ts';

/** Throws `target-not-empty` with some of the names. */
export function refuseExisting(existing: readonly RelationNameRow[]): void {
  if (existing.length === 0) return;
  const names = existing.slice(0, 5).map((row) => displayName(row.schema, row.name));
  throw new PgweaveError('target-not-empty', `the target has ${existing.length === 1 ? `a ${existing[0]!.kind}` : `${existing.length} relations`} of the same name: ${names.join(', ')}${existing.length > names.length ? `, and ${existing.length - names.length} more` : ''}`, {
    hint: 'Give an empty database as --target, or drop them with --drop-existing.', details: { count: existing.length },
  });
}

/**
 * CREATE SCHEMA has no place where the schema is there already, `public` above all: the ledger then says so. Looked up rather than tried, since the server asks for CREATE on the database first, and
 * a role that was given the schema need not have it.
 */
export async function acceptSchemas(target: Session, plan: SchemaPlan, ledger: Ledger): Promise<void> {
  const there = new Set((await target.query<{ name: string }>('select nspname::text as name from pg_catalog.pg_namespace')).map((row) => row.name));
  for (const statement of plan.preData) {
    if (statement.object.kind !== 'schema' || ledger.done(statement.key) || !there.has(statement.object.name)) continue;
    await ledger.mark(target, statement.key, 'was there');
    ledger.confirm(statement.key);
  }
}
