import type { Sql } from '../pg/session.ts';
import { sharedLabels } from './database-attributes.ts';

export interface RoleRow {
  readonly oid: number;
  readonly name: string;
  readonly superuser: boolean;
  readonly inherit: boolean;
  readonly create_role: boolean;
  readonly create_db: boolean;
  readonly login: boolean;
  readonly replication: boolean;
  readonly bypass_rls: boolean;
  /** -1: no limit. */
  readonly connection_limit: number;
  /** Hash as stored; null where there is none or it cannot be read. */
  readonly password: string | null;
  readonly valid_until: string | null;
  readonly comment: string | null;
  readonly labels: readonly { readonly provider: string; readonly label: string }[];
  /** Settings of the role in every database, `name=value`. */
  readonly settings: readonly string[];
  /** This database names it: owner, privilege, policy, setting, user mapping. */
  readonly used: boolean;
}

/** Whether the session may read password hashes: superusers only, so never on managed services. */
export function canReadPasswords(): Sql {
  return { text: `select pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'select') as allowed` };
}

/** Every role but the predefined ones. */
export function roles(withPasswords: boolean): Sql {
  return {
    text: `
      select r.oid, r.rolname::text as name, r.rolsuper as superuser, r.rolinherit as inherit, r.rolcreaterole as create_role, r.rolcreatedb as create_db, r.rolcanlogin as login, r.rolreplication as replication,
             r.rolbypassrls as bypass_rls, r.rolconnlimit as connection_limit, ${withPasswords ? 'r.rolpassword' : 'null::text'} as password, r.rolvaliduntil::text as valid_until,
             pg_catalog.shobj_description(r.oid, 'pg_authid') as comment, ${sharedLabels('r.oid', 'pg_authid')} as labels,
             coalesce((select s.setconfig from pg_catalog.pg_db_role_setting s where s.setrole = r.oid and s.setdatabase = 0), '{}'::text[]) as settings,
             exists (select 1 from pg_catalog.pg_shdepend d, pg_catalog.pg_database b
                      where b.datname = pg_catalog.current_database() and d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and d.refobjid = r.oid
                        and (d.dbid = b.oid or (d.classid = 'pg_catalog.pg_database'::pg_catalog.regclass and d.objid = b.oid)))
               or exists (select 1 from pg_catalog.pg_db_role_setting s join pg_catalog.pg_database b on b.oid = s.setdatabase where b.datname = pg_catalog.current_database() and s.setrole = r.oid)
               or exists (select 1 from pg_catalog.pg_user_mappings u where u.umuser = r.oid)
               or exists (select 1 from pg_catalog.pg_database b where b.datname = pg_catalog.current_database() and b.datdba = r.oid) as used
        from pg_catalog.${withPasswords ? 'pg_authid' : 'pg_roles'} r
       where r.rolname !~ '^pg_'
       order by r.rolname collate "C"`,
  };
}

export interface MembershipRow {
  readonly role: string;
  readonly member: string;
  readonly admin: boolean;
  /** Null before 16, where the member's own INHERIT decides. */
  readonly inherit: boolean | null;
  readonly set: boolean | null;
}

/** Who is a member of what. The same pair can have several grantors; their options are joined. */
export function memberships(serverVersion: number): Sql {
  const options = serverVersion >= 160_000 ? 'pg_catalog.bool_or(m.inherit_option) as inherit, pg_catalog.bool_or(m.set_option) as set' : 'null::boolean as inherit, null::boolean as set';
  return {
    text: `
      select r.rolname::text as role, u.rolname::text as member, pg_catalog.bool_or(m.admin_option) as admin, ${options}
        from pg_catalog.pg_auth_members m join pg_catalog.pg_roles r on r.oid = m.roleid join pg_catalog.pg_roles u on u.oid = m.member
       group by r.rolname, u.rolname order by r.rolname collate "C", u.rolname collate "C"`,
  };
}

export interface ParameterPrivilegeRow {
  readonly parameter: string;
  /** Null: PUBLIC. */
  readonly grantee: string | null;
  readonly privilege: string;
  readonly grantable: boolean;
}

/** GRANT … ON PARAMETER, 15 and newer. */
export function parameterPrivileges(): Sql {
  return {
    text: `
      select p.parname as parameter, g.rolname::text as grantee, a.privilege_type as privilege, a.is_grantable as grantable
        from pg_catalog.pg_parameter_acl p cross join lateral pg_catalog.aclexplode(p.paracl) a left join pg_catalog.pg_roles g on g.oid = a.grantee
       where a.grantee <> 10 order by 1, 2, 3`,
  };
}
