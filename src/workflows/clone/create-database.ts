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
  /** pg_database.datlocprovider: c libc, i ICU (15), b builtin (17). */
  readonly provider: string;
  /** Of ICU and builtin. */
  readonly locale: string | null;
  /** ICU's tailoring rules (16). */
  readonly rules: string | null;
}

/** The locale columns by version: documentation, pg_database. */
function localeSql(version: number): string {
  const provider = version >= 150_000 ? 'datlocprovider::text' : `'c'`;
  const locale = version >= 170_000 ? 'datlocale' : version >= 150_000 ? 'daticulocale' : 'null::text';
  return `select pg_catalog.pg_encoding_to_char(encoding) as encoding, datcollate as collate, datctype as ctype, ${provider} as provider, ${locale} as locale, ${version >= 160_000 ? 'daticurules' : 'null::text'} as rules from pg_catalog.pg_database where datname = pg_catalog.current_database()`;
}

/** Options of CREATE DATABASE for the source's locale; undefined where the target's version has no such provider. */
function localeOptions({ collate, ctype, provider, locale, rules }: LocaleRow, version: number): string | undefined {
  const libc = `lc_collate ${quoteLiteral(collate)} lc_ctype ${quoteLiteral(ctype)}`;
  if (provider === 'c' || locale === null) return version >= 150_000 ? `locale_provider libc ${libc}` : libc;
  if (provider === 'i' && version >= 150_000) return `locale_provider icu icu_locale ${quoteLiteral(locale)}${rules !== null && version >= 160_000 ? ` icu_rules ${quoteLiteral(rules)}` : ''} ${libc}`;
  return provider === 'b' && version >= 170_000 ? `locale_provider builtin builtin_locale ${quoteLiteral(locale)} ${libc}` : undefined;
}

/**
 * Makes the target's database where it is missing, with the encoding and locale of the source's where the target's system knows them. `through`: a database of the target server that is
 * there, to connect to. Returns whether it was made.
 */
export async function createDatabaseIfMissing(source: ConnectionSpec, target: ConnectionSpec, through: string, options: { readonly job: string; readonly emit: Emit; readonly signal: AbortSignal }): Promise<boolean> {
  await using there = await Session.open(withDatabase(target, through), { role: 'create', job: options.job, side: 'the target', signal: options.signal });
  if ((await there.query('select from pg_catalog.pg_database where datname = $1', [target.database])).length > 0) return false;
  await using session = await Session.open(source, { role: 'create', job: options.job, side: 'the source', signal: options.signal });
  const row = await session.one<LocaleRow>(localeSql(session.serverVersion));
  const { encoding } = row;
  const wanted = localeOptions(row, there.serverVersion);
  const create = `create database ${quoteIdent(target.database)} template template0 encoding ${quoteLiteral(encoding)}`;
  const withOwnLocale = async () => {
    await there.query(create);
    options.emit({ type: 'warning', code: 'locale-unknown', message: `database "${target.database}" was made with the target's own locale: it does not know ${row.provider === 'c' ? row.collate : `${row.provider === 'i' ? 'ICU locale' : 'builtin locale'} ${row.locale}`}`, hint: 'Texts may sort otherwise than on the source. Install the locale there and make the database by hand to keep the order.' });
    return true;
  };
  if (wanted === undefined) return await withOwnLocale();
  try {
    await there.query(`${create} ${wanted}`);
  } catch (error) {
    switch (sqlstateOf(error)) {
      case sqlstate.duplicateDatabase: return false;
      case sqlstate.insufficientPrivilege: throw new PgweaveError('may-not-create-database', `role "${target.user}" may not create database "${target.database}" on the target`, { hint: `Have it made: create database ${quoteIdent(target.database)} owner ${quoteIdent(target.user)} template template0 encoding ${quoteLiteral(encoding)};`, cause: error });
      // The system does not know the locale.
      case '42809':
      case '22023':
      case sqlstate.featureNotSupported: return await withOwnLocale();
      default: throw error;
    }
  }
  return true;
}
