import type { Sql } from '../pg/session.ts';
import { notOfExtension, userSchema } from './user-objects.ts';

export interface DatabaseLocaleRow {
  readonly encoding: string;
  readonly collate: string;
  readonly ctype: string;
  /** `libc`, `icu` or `builtin` (17 and newer). */
  readonly provider: string;
  readonly locale: string | null;
  /** Version of the library's rules that the database's indexes were built with; null where not recorded. */
  readonly recorded_version: string | null;
  /** Version of the library in use now. */
  readonly actual_version: string | null;
}

/** The database's own locale. Before 15 only libc was possible, without a version. */
export function databaseLocale(serverVersion: number): Sql {
  const provider = serverVersion >= 150_000 ? `case d.datlocprovider when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end` : `'libc'`;
  const locale = serverVersion >= 170_000 ? 'd.datlocale' : serverVersion >= 150_000 ? 'd.daticulocale' : 'null::text';
  const versions = serverVersion >= 150_000 ? 'd.datcollversion, pg_catalog.pg_database_collation_actual_version(d.oid)' : 'null::text, null::text';
  return {
    text: `
      select encoding, "collate", ctype, provider, locale, recorded_version, actual_version
        from (select pg_catalog.pg_encoding_to_char(d.encoding) as encoding, d.datcollate::text as collate, d.datctype::text as ctype, ${provider} as provider, ${locale} as locale, ${versions}
                from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()) as x(encoding, "collate", ctype, provider, locale, recorded_version, actual_version)`,
  };
}

export interface UsedCollationRow {
  readonly schema: string;
  readonly name: string;
  readonly provider: string;
  readonly recorded_version: string | null;
  readonly actual_version: string | null;
  /** How many columns of user tables use it. */
  readonly columns: number;
  /** The first of them, `schema.table.column`. */
  readonly example: string;
}

/** Collations that columns of user tables name; the database's default, C and POSIX are left out. */
export function usedCollations(): Sql {
  return {
    text: `
      select cn.nspname::text as schema, co.collname::text as name, case co.collprovider when 'i' then 'icu' when 'b' then 'builtin' when 'd' then 'default' else 'libc' end as provider,
             co.collversion as recorded_version, pg_catalog.pg_collation_actual_version(co.oid) as actual_version, count(*)::int as columns,
             pg_catalog.min(n.nspname || '.' || c.relname || '.' || a.attname) as example
        from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        join pg_catalog.pg_collation co on co.oid = a.attcollation join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
       where c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped and co.collname not in ('default', 'C', 'POSIX') and ${userSchema()} and ${notOfExtension('c.oid', 'pg_class')}
       group by co.oid, cn.nspname, co.collname, co.collprovider, co.collversion
       order by 1, 2`,
  };
}

/** Which of the server's own collations (schema pg_catalog) fit this database's encoding; ICU knows some encodings not at all (src/common/encnames.c). */
export function systemCollations(names: readonly string[]): Sql {
  return {
    text: `
      select distinct co.collname::text as name, pg_catalog.pg_collation_actual_version(co.oid) as actual_version
        from pg_catalog.pg_collation co join pg_catalog.pg_namespace n on n.oid = co.collnamespace
       where n.nspname = 'pg_catalog' and co.collname::text = any($1)
         and exists (select 1 from pg_catalog.pg_database d where d.datname = pg_catalog.current_database() and co.collencoding in (-1, d.encoding)
                     and (co.collprovider <> 'i' or pg_catalog.pg_encoding_to_char(d.encoding) not in ('SQL_ASCII', 'EUC_JIS_2004', 'MULE_INTERNAL', 'JOHAB', 'SHIFT_JIS_2004')))`,
    values: [names],
  };
}

/** Columns of user tables whose text is ordered by a locale (not C): how many indexes on the source use the default collation. */
export function columnsInDefaultCollation(): Sql {
  return {
    text: `
      select count(*)::int as columns
        from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped and a.attcollation = 100 and ${userSchema()}`,
  };
}
