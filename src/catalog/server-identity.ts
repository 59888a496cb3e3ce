import type { Sql } from '../pg/session.ts';

export interface ServerIdentityRow {
  /** Of the cluster; a physical copy has the same. Null where the server hides it. */
  readonly system_identifier: string | null;
  readonly database: string;
  readonly database_oid: number;
  readonly encoding: string;
  readonly in_recovery: boolean;
  readonly role: string;
  readonly superuser: boolean;
  readonly backend_pid: number;
  /** Bytes of the whole database. Null where the role may not ask. */
  readonly database_bytes: bigint | null;
  readonly owner: string;
}

/** What a server says of itself and of the connected role. `readsControl`: whether the role may call pg_control_system() (`mayReadControl`). */
export function serverIdentity(readsControl: boolean): Sql {
  return {
    text: `
      select ${readsControl ? '(select system_identifier::text from pg_catalog.pg_control_system())' : 'null::text'} as system_identifier,
             d.datname as database, d.oid as database_oid, pg_catalog.pg_encoding_to_char(d.encoding) as encoding, pg_catalog.pg_is_in_recovery() as in_recovery,
             current_user::text as role, r.rolsuper as superuser, pg_catalog.pg_backend_pid() as backend_pid, pg_catalog.pg_get_userbyid(d.datdba) as owner,
             case when pg_catalog.has_database_privilege(d.oid, 'connect') then pg_catalog.pg_database_size(d.oid) end as database_bytes
        from pg_catalog.pg_database d, pg_catalog.pg_roles r
       where d.datname = pg_catalog.current_database() and r.rolname = current_user`,
  };
}

export function mayReadControl(): Sql {
  return { text: `select pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute') as allowed` };
}

/** The cluster's own number, which a physical copy shares. Needs what {@link mayReadControl} asks for. */
export function systemIdentifier(): Sql {
  return { text: 'select system_identifier::text as id from pg_catalog.pg_control_system()' };
}
