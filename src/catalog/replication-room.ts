import type { Sql } from '../pg/session.ts';

export interface ReplicationRoomRow {
  readonly slots: number;
  readonly senders: number;
  readonly origins: number;
  readonly connections: number;
}

/** Replication slots, WAL senders, origins and client connections in use now. */
export function replicationRoom(): Sql {
  return {
    text: `
      select (select count(*)::int from pg_catalog.pg_replication_slots) as slots,
             (select count(*)::int from pg_catalog.pg_stat_activity where backend_type = 'walsender') as senders,
             (select count(*)::int from pg_catalog.pg_replication_origin_status) as origins,
             (select count(*)::int from pg_catalog.pg_stat_activity where backend_type = 'client backend') as connections`,
  };
}

export interface SlotRow {
  readonly slot_name: string;
  readonly database: string | null;
  readonly active: boolean;
  readonly wal_status: string | null;
}

export function slotByName(name: string): Sql {
  return { text: `select slot_name, database, active, wal_status from pg_catalog.pg_replication_slots where slot_name = $1`, values: [name] };
}
