import { PgweaveError } from '../core/errors.ts';
import { quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';

/** Where pgweave keeps its own tables on a target. */
export const pgweaveSchema = 'pgweave';

/** Key of the advisory lock under which tables of ours are made: `create … if not exists` alone fails where two sessions race. */
const creationLock = 7_238_904_115_001;

/**
 * Makes schema `pgweave` and one module's tables in it, once: the module's version is recorded, and where it is there already nothing is run.
 * `statements` must be safe to run again on an older version's tables (`create table if not exists`, `alter table … add column if not exists`).
 * Call it outside a transaction. Throws `pgweave-schema-newer` where a later pgweave made the tables, `pgweave-schema-privilege` where the role may not.
 */
export async function ensurePgweaveTables(session: Session, module: string, version: number, statements: readonly string[]): Promise<void> {
  if ((await installedVersion(session, module)) === version) return;
  try {
    await session.transaction(async () => {
      await session.query(`select pg_catalog.pg_advisory_xact_lock(${creationLock})`);
      const [present] = await session.query<{ there: boolean }>(`select pg_catalog.to_regnamespace('pgweave') is not null as there`);
      if (!present!.there) await session.query('create schema pgweave');
      await session.query(`create table if not exists pgweave.module (name text primary key, version integer not null)`);
      const [found] = await session.query<{ version: number }>('select version from pgweave.module where name = $1', [module]);
      if (found && found.version > version) {
        throw new PgweaveError('pgweave-schema-newer', `schema pgweave on the target was made by a later pgweave (${module} ${found.version}, this one knows ${version})`, { hint: 'Use that later version, or remove what it made with its own: pgweave cleanup', retry: 'never' });
      }
      if (found?.version === version) return;
      for (const statement of statements) await session.query(statement);
      await session.query(`insert into pgweave.module (name, version) values (${quoteLiteral(module)}, ${version}) on conflict (name) do update set version = excluded.version`);
    });
  } catch (error) {
    if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) throw error;
    throw new PgweaveError('pgweave-schema-privilege', `role "${session.spec.user}" may not make schema pgweave in database "${session.spec.database}" of the target`, {
      hint: `As its owner: grant create on database "${session.spec.database}" to "${session.spec.user}"; (a schema pgweave made by another role must be handed over: alter schema pgweave owner to "${session.spec.user}";)`, cause: error,
    });
  }
}

/** Version of a module's tables; undefined where there are none. */
export async function installedVersion(session: Session, module: string): Promise<number | undefined> {
  const [there] = await session.query<{ there: boolean }>(`select pg_catalog.to_regclass('pgweave.module') is not null as there`);
  if (!there!.there) return undefined;
  const [row] = await session.query<{ version: number }>('select version from pgweave.module where name = $1', [module]);
  return row?.version;
}
