import type { Sql } from '../pg/session.ts';
import { notOfExtension, userSchema } from './user-objects.ts';

export interface RoleRightsRow {
  readonly role: string;
  readonly superuser: boolean;
  readonly create_role: boolean;
  readonly create_db: boolean;
  readonly replication: boolean;
  readonly bypass_rls: boolean;
  /** CREATE on the database: schemas, publications, extensions. */
  readonly create_on_database: boolean;
  readonly owns_database: boolean;
  readonly create_in_public: boolean;
  readonly signal_backend: boolean;
  /** Names of roles that it is a member of, with their rights. */
  readonly member_of: readonly string[];
  /** Functions of replication origins may be called (grantable since 14; before that superusers only). */
  readonly origin_functions: boolean;
  readonly reads_password_hashes: boolean;
}

export function roleRights(serverVersion: number): Sql {
  return {
    text: `
      select r.rolname::text as role, r.rolsuper as superuser, r.rolcreaterole or r.rolsuper as create_role, r.rolcreatedb or r.rolsuper as create_db, r.rolreplication or r.rolsuper as replication, r.rolbypassrls or r.rolsuper as bypass_rls,
             pg_catalog.has_database_privilege(d.oid, 'create') as create_on_database, pg_catalog.pg_has_role(d.datdba, 'usage') as owns_database,
             coalesce((select pg_catalog.has_schema_privilege(n.oid, 'create') from pg_catalog.pg_namespace n where n.nspname = 'public'), true) as create_in_public,
             pg_catalog.pg_has_role('pg_signal_backend', 'usage') as signal_backend,
             array(select m.rolname::text from pg_catalog.pg_roles m where m.oid <> r.oid and pg_catalog.pg_has_role(r.oid, m.oid, 'usage')) as member_of,
             ${serverVersion >= 140_000 ? `(select pg_catalog.bool_and(pg_catalog.has_function_privilege(p.oid, 'execute')) from pg_catalog.pg_proc p where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.proname in ('pg_replication_origin_create', 'pg_replication_origin_session_setup', 'pg_replication_origin_xact_setup', 'pg_replication_origin_progress'))` : 'r.rolsuper'} as origin_functions,
             pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'select') as reads_password_hashes
        from pg_catalog.pg_roles r, pg_catalog.pg_database d
       where r.rolname = current_user and d.datname = pg_catalog.current_database()`,
  };
}

export interface OwnerRow {
  readonly role: string;
  readonly objects: number;
  readonly example: string;
  readonly login: boolean;
  readonly superuser: boolean;
}

/** Roles that own user objects of the database (schemas, tables and their like, functions, types), with one object as an example. */
export function objectOwners(): Sql {
  return {
    text: `
      select r.rolname::text as role, count(*)::int as objects, pg_catalog.min(o.what) as example, r.rolcanlogin as login, r.rolsuper as superuser
        from (
          select n.nspowner as owner, 'schema ' || n.nspname as what from pg_catalog.pg_namespace n where ${userSchema()} and ${notOfExtension('n.oid', 'pg_namespace')}
          union all
          select c.relowner, case c.relkind when 'v' then 'view ' when 'm' then 'materialized view ' when 'S' then 'sequence ' when 'f' then 'foreign table ' else 'table ' end || n.nspname || '.' || c.relname
            from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and ${userSchema()} and ${notOfExtension('c.oid', 'pg_class')}
          union all
          select p.proowner, 'function ' || n.nspname || '.' || p.proname from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where ${userSchema()} and ${notOfExtension('p.oid', 'pg_proc')}
          union all
          select t.typowner, 'type ' || n.nspname || '.' || t.typname from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace where t.typtype in ('d', 'e', 'r') and ${userSchema()} and ${notOfExtension('t.oid', 'pg_type')}
        ) o join pg_catalog.pg_roles r on r.oid = o.owner
       where r.rolname <> 'pg_database_owner'
       group by r.rolname, r.rolcanlogin, r.rolsuper
       order by 1`,
  };
}

export interface KnownRoleRow {
  readonly role: string;
  /** The connected role may give objects to it: superuser, or a member that may SET ROLE (16 and newer tell that apart). */
  readonly assignable: boolean;
}

export function knownRoles(names: readonly string[], serverVersion: number): Sql {
  return { text: `select rolname::text as role, pg_catalog.pg_has_role(oid, '${serverVersion >= 160_000 ? 'set' : 'member'}') as assignable from pg_catalog.pg_roles where rolname::text = any($1)`, values: [names] };
}
