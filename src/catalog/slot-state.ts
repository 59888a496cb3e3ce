import { quoteLiteral } from '../pg/identifiers.ts';
import type { Sql } from '../pg/session.ts';

export interface SlotStateRow {
  readonly slot_type: string;
  readonly plugin: string | null;
  readonly database: string | null;
  readonly active_pid: number | null;
  /** reserved, extended, unreserved, lost. Null before the slot has reserved WAL. */
  readonly wal_status: string | null;
  /** Bytes of WAL that may still be written before the slot is in danger; null where unlimited, or lost. */
  readonly safe_wal_size: bigint | null;
  readonly confirmed_flush_lsn: string | null;
  /** Why it was invalidated, where the server says so (16 and newer). */
  readonly invalidation: string | null;
  /** The server's position: end of WAL, on a standby what it has replayed. */
  readonly current_lsn: string;
  /** Bytes of WAL that the slot keeps on the server. */
  readonly retained_bytes: bigint | null;
  /** max_slot_wal_keep_size in bytes; -1 unlimited. */
  readonly keep_bytes: bigint;
}

/** State of one slot and the server's position. Without parameters, so that a walsender can run it too. Source: view pg_replication_slots; 13 and newer. */
export function slotState(slot: string, serverVersion: number): Sql {
  const invalidation = serverVersion >= 170_000 ? 's.invalidation_reason' : serverVersion >= 160_000 ? `case when s.conflicting then 'conflict with recovery' end` : 'null::text';
  return {
    text: `
      select s.slot_type, s.plugin::text as plugin, s.database::text as database, s.active_pid, s.wal_status, s.safe_wal_size, s.confirmed_flush_lsn::text as confirmed_flush_lsn, ${invalidation} as invalidation,
             p.lsn::text as current_lsn, pg_catalog.pg_wal_lsn_diff(p.lsn, s.restart_lsn)::int8 as retained_bytes,
             (select case when g.setting = '-1' then -1 else g.setting::int8 * 1048576 end from pg_catalog.pg_settings g where g.name = 'max_slot_wal_keep_size') as keep_bytes
        from pg_catalog.pg_replication_slots s,
             (select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_lsn() end as lsn) p
       where s.slot_name = ${quoteLiteral(slot).trim()}`,
  };
}

export interface SlotUserRow {
  readonly role: string | null;
  readonly application: string | null;
  /** Null for a unix socket, or where the role may not see it. */
  readonly client: string | null;
  readonly since: string | null;
}

/** Who holds a slot, by the process id that the slot names. */
export function slotUser(pid: number): Sql {
  return {
    text: `select usename::text as role, application_name as application, pg_catalog.host(client_addr) as client, pg_catalog.to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as since
             from pg_catalog.pg_stat_activity where pid = ${Math.trunc(pid)}`,
  };
}
