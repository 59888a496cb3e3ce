import { PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { withDatabase, type ConnectionSpec } from '../../pg/conninfo.ts';
import { quoteIdent, quoteLiteral } from '../../pg/identifiers.ts';
import { Session } from '../../pg/session.ts';
import { sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';

interface LocaleRow {
  readonly encoding: string;
  readonly collate: string;
  readonly ctype: string;
}

/**
 * Makes the target's database where it is missing, with the encoding and locale of the source's where the target's system knows them. `through`: a database of the target server that is
 * there, to connect to. Returns whether it was made.
 */
export async function createDatabaseIfMissing(source: ConnectionSpec, target: ConnectionSpec, through: string, options: { readonly job: string; readonly emit: Emit; readonly signal: AbortSignal }): Promise<boolean> {
  await using there = await Session.open(withDatabase(target, through), { role: 'create', job: options.job, side: 'the target', signal: options.signal });
  if ((await there.query('select from pg_catalog.pg_database where datname = $1', [target.database])).length > 0) return false;
  await using session = await Session.open(source, { role: 'create', job: options.job, side: 'the source', signal: options.signal });
  const { encoding, collate, ctype } = await session.one<LocaleRow>('select pg_catalog.pg_encoding_to_char(encoding) as encoding, datcollate as collate, datctype as ctype from pg_catalog.pg_database where datname = pg_catalog.current_database()');
  const create = `create database ${quoteIdent(target.database)} template template0 encoding ${quoteLiteral(encoding)}`;
  try {
    await there.query(`${create} lc_collate ${quoteLiteral(collate)} lc_ctype ${quoteLiteral(ctype)}`);
  } catch (error) {
    switch (sqlstateOf(error)) {
      case sqlstate.duplicateDatabase: return false;
      case sqlstate.insufficientPrivilege: throw new PgweaveError('may-not-create-database', `role "${target.user}" may not create database "${target.database}" on the target`, { hint: `Have it made: create database ${quoteIdent(target.database)} owner ${quoteIdent(target.user)} template template0 encoding ${quoteLiteral(encoding)};`, cause: error });
      // 42809: the system does not know the locale.
      case '42809':
      case '22023':
        await there.query(create);
        options.emit({ type: 'warning', code: 'locale-unknown', message: `database "${target.database}" was made with the target's own locale: it does not know ${collate}`, hint: 'Texts may sort otherwise than on the source. Install the locale there and make the database by hand to keep the order.' });
        return true;
      default: throw error;
    }
  }
  return true;
}
