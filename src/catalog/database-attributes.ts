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
  /** False: privileges are the built-in default, and \`privileges\` is what that means. */
  readonly explicit: boolean;
  readonly privileges: readonly { readonly grantee: string | null; readonly privilege: string; readonly grantable: boolean }[];
}

/** Owner, comment and privileges of the current database. Grantee null is PUBLIC. */
export function databaseAttributes(): Sql {
  return {
    text: `
      select o.rolname::text as owner, pg_catalog.shobj_description(d.oid, 'pg_database') as comment, d.datacl is not null as explicit,
             (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('grantee', g.rolname, 'privilege', a.privilege_type, 'grantable', a.is_grantable) order by g.rolname collate "C" nulls first, a.privilege_type), '[]'::json)
                from pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a left join pg_catalog.pg_roles g on g.oid = a.grantee where a.grantee <> d.datdba) as privileges
        from pg_catalog.pg_database d join pg_catalog.pg_roles o on o.oid = d.datdba
       where d.datname = pg_catalog.current_database()`,
  };
}
