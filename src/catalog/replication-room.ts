import type { Sql } from '../pg/session.ts';

export interface ReplicationRoomRow {
  readonly slots: number;
  readonly senders: number;
  readonly connections: number;
}

/** Replication slots, WAL senders and client connections in use now. Any role may ask. */
export function replicationRoom(): Sql {
  return {
    text: `
      select (select count(*)::int from pg_catalog.pg_replication_slots) as slots,
             (select count(*)::int from pg_catalog.pg_stat_activity where backend_type = 'walsender') as senders,
             (select count(*)::int from pg_catalog.pg_stat_activity where backend_type = 'client backend') as connections`,
  };
}

/** Replication origins in use now. Only superusers may read this view, unless it was granted to others (PostgreSQL documentation, "pg_replication_origin_status"). */
export function originsInUse(): Sql {
  return { text: `select count(*)::int as origins from pg_catalog.pg_replication_origin_status` };
}

/** Whether the role may ask for {@link originsInUse}. */
export function maySeeOrigins(): Sql {
  return { text: `select pg_catalog.has_table_privilege('pg_catalog.pg_replication_origin_status', 'select') as allowed` };
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
