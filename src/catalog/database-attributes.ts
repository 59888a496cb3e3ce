import type { Sql } from '../pg/session.ts';

export interface DatabaseSettingRow {
  /** Null: ALTER DATABASE … SET; else ALTER ROLE … IN DATABASE … SET. */
  readonly role: string | null;
  /** `name=value` each. */
  readonly settings: readonly string[];
}

/** Settings that belong to the current database. */
export function databaseSettings(): Sql {
  return {
    text: `
      select r.rolname::text as role, s.setconfig as settings
        from pg_catalog.pg_db_role_setting s join pg_catalog.pg_database d on d.oid = s.setdatabase left join pg_catalog.pg_roles r on r.oid = s.setrole
       where d.datname = pg_catalog.current_database() order by r.rolname collate "C" nulls first`,
  };
}

export interface DatabaseAttributesRow {
  readonly owner: string;
  readonly comment: string | null;
  /** -1: no limit. */
  readonly connection_limit: number;
  readonly labels: readonly { readonly provider: string; readonly label: string }[];
  /** False: privileges are the built-in default, and \`privileges\` is what that means. */
  readonly explicit: boolean;
  readonly privileges: readonly { readonly grantee: string | null; readonly privilege: string; readonly grantable: boolean }[];
}

/** Security labels of an object that all databases share, as JSON. */
export function sharedLabels(oid: string, catalog: string): string {
  return `(select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('provider', l.provider, 'label', l.label) order by l.provider), '[]'::json) from pg_catalog.pg_shseclabel l where l.objoid = ${oid} and l.classoid = 'pg_catalog.${catalog}'::pg_catalog.regclass)`;
}

/** What database properties can be given on the target: who owns the database there, and whether the session may hand it to `owner`. */
export function databaseOwner(owner: string): Sql {
  return {
    text: `
      select o.rolname::text as owner, current_user::text as me,
             exists (select 1 from pg_catalog.pg_roles r where r.rolname = $1 and pg_catalog.pg_has_role(r.oid, 'member')) and coalesce((select r.rolsuper or r.rolcreatedb from pg_catalog.pg_roles r where r.rolname = current_user), false) as may
        from pg_catalog.pg_database d join pg_catalog.pg_roles o on o.oid = d.datdba where d.datname = pg_catalog.current_database()`,
    values: [owner],
  };
}

export interface DatabaseOwnerRow {
  readonly owner: string;
  readonly me: string;
  readonly may: boolean;
}

/** Owner, comment and privileges of the current database. Grantee null is PUBLIC. */
export function databaseAttributes(): Sql {
  return {
    text: `
      select o.rolname::text as owner, pg_catalog.shobj_description(d.oid, 'pg_database') as comment, d.datconnlimit as connection_limit, ${sharedLabels('d.oid', 'pg_database')} as labels, d.datacl is not null as explicit,
             (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('grantee', g.rolname, 'privilege', a.privilege_type, 'grantable', a.is_grantable) order by g.rolname collate "C" nulls first, a.privilege_type), '[]'::json)
                from pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a left join pg_catalog.pg_roles g on g.oid = a.grantee where a.grantee <> d.datdba) as privileges
        from pg_catalog.pg_database d join pg_catalog.pg_roles o on o.oid = d.datdba
       where d.datname = pg_catalog.current_database()`,
  };
}
