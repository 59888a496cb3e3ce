import { withDatabase, type ConnectionSpec } from '../pg/conninfo.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import { Session } from '../pg/session.ts';
import { check, sqlFix, type Check } from './check.ts';
import type { JobKind } from './context.ts';

/** One database of several that the target lacks: clone and sync make it, where the role may. Looked at from `through`, a database that is there. */
export async function databaseToComeCheck(target: ConnectionSpec, through: string, options: { readonly kind: JobKind; readonly signal?: AbortSignal | undefined }): Promise<Check> {
  await using session = await Session.open(withDatabase(target, through), { role: 'preflight', job: options.kind.job, side: 'the target', signal: options.signal });
  const { may } = await session.one<{ may: boolean }>('select rolsuper or rolcreatedb as may from pg_catalog.pg_roles where rolname = current_user');
  const facts = { database: target.database, through };
  return may
    ? check('target-database', 'target', 'ok', `database "${target.database}" is not on the target yet and will be made`, { facts })
    : check('target-database', 'target', 'fail', `database "${target.database}" is not on the target, and role ${target.user} may not make it`, { facts, fix: sqlFix('target', `alter role ${quoteIdent(target.user)} createdb;`) });
}
