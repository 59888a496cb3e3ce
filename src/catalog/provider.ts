import type { Sql } from '../pg/session.ts';

export interface ProviderMarks {
  /** The connected role is a superuser, which no service gives away. */
  readonly superuser: boolean;
  readonly roles: readonly string[];
  /** Prefixes of custom settings, such as `rds`. */
  readonly setting_prefixes: readonly string[];
  readonly functions: readonly string[];
}

const markRoles = ['rds_superuser', 'rdsadmin', 'cloudsqlsuperuser', 'cloudsqladmin', 'alloydbsuperuser', 'alloydbadmin', 'azure_pg_admin', 'azuresu', 'neon_superuser', 'cloud_admin', 'supabase_admin', 'supabase_auth_admin'];

/** Roles, settings and functions by which managed services can be told apart. */
export function providerMarks(): Sql {
  return {
    text: `
      select (select rolsuper from pg_catalog.pg_roles where rolname = current_user) as superuser,
             coalesce((select pg_catalog.array_agg(rolname::text) from pg_catalog.pg_roles where rolname::text = any($1)), '{}') as roles,
             coalesce((select pg_catalog.array_agg(distinct pg_catalog.split_part(name, '.', 1)) from pg_catalog.pg_settings where name like '%.%'), '{}') as setting_prefixes,
             coalesce((select pg_catalog.array_agg(distinct proname::text) from pg_catalog.pg_proc where proname in ('aurora_version', 'aurora_db_instance_identifier', 'neon_version')), '{}') as functions`,
    values: [markRoles],
  };
}
