import { PgoutputDecoder } from '../../pgoutput/decoder.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import type { Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';

export interface LateChanges {
  readonly table: TableRef;
  readonly inserts: number;
  readonly updates: number;
  readonly deletes: number;
  readonly truncates: number;
}

/** Messages read at most: enough to name the tables; a writer that was not stopped writes on and on. */
const mostMessages = 20_000;

/**
 * Changes of published tables that were committed after the marker: somebody overrode the read-only default, or was never stopped [hard case 40]. Reads the
 * slot's own stream without consuming it; the slot must not be in use. `after`: start of the marker's commit record.
 */
export async function lateChanges(source: Session, slot: string, publications: readonly string[], after: Lsn): Promise<LateChanges[]> {
  const rows = await source.query<{ data: string }>(
    `select data from pg_catalog.pg_logical_slot_peek_binary_changes($1, null, $2, 'proto_version', '1', 'publication_names', $3)`, [slot, mostMessages, publications.map((p) => `"${p.replaceAll('"', '""')}"`).join(',')],
  );
  const decoder = new PgoutputDecoder();
  const relations = new Map<number, TableRef>();
  const found = new Map<string, { table: TableRef; inserts: number; updates: number; deletes: number; truncates: number }>();
  let late = false;
  const count = (oid: number, kind: 'inserts' | 'updates' | 'deletes' | 'truncates') => {
    const table = relations.get(oid);
    if (!late || !table) return;
    const entry = found.get(tableKey(table)) ?? { table, inserts: 0, updates: 0, deletes: 0, truncates: 0 };
    entry[kind] += 1;
    found.set(tableKey(table), entry);
  };
  for (const { data } of rows) {
    const message = decoder.decode(Buffer.from(data.slice(2), 'hex'));
    switch (message.type) {
      case 'begin':
        late = message.finalLsn > after;
        break;
      case 'relation':
        relations.set(message.oid, { schema: message.schema, name: message.name });
        break;
      case 'insert':
        count(message.relation, 'inserts');
        break;
      case 'update':
        count(message.relation, 'updates');
        break;
      case 'delete':
        count(message.relation, 'deletes');
        break;
      case 'truncate':
        for (const oid of message.relations) count(oid, 'truncates');
        break;
      default:
    }
  }
  return [...found.values()];
}
