import type { Sql } from '../pg/session.ts';

export interface ExtensionRow {
  readonly name: string;
  readonly version: string;
  readonly schema: string;
}

/** Extensions of the database; plpgsql, which is everywhere, is left out. */
export function installedExtensions(): Sql {
  return {
    text: `select e.extname::text as name, e.extversion as version, n.nspname::text as schema from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname <> 'plpgsql' order by 1`,
  };
}

export interface AvailableExtensionRow {
  readonly name: string;
  readonly default_version: string;
  readonly versions: readonly string[];
  /** Needs a superuser and is not marked trusted (13 and newer have that mark). */
  readonly needs_superuser: boolean;
  readonly installed_version: string | null;
}

export function availableExtensions(names: readonly string[]): Sql {
  return {
    text: `
      select e.name::text as name, e.default_version, e.installed_version,
             pg_catalog.array_agg(v.version order by v.version) as versions,
             pg_catalog.bool_and(v.superuser and not v.trusted) as needs_superuser
        from pg_catalog.pg_available_extensions e join pg_catalog.pg_available_extension_versions v on v.name = e.name
       where e.name::text = any($1)
       group by e.name, e.default_version, e.installed_version`,
    values: [names],
  };
}
