import type { Batch, Change, ChangeLog } from '../../src/changes/change-log.ts';
import { receiveInMemory, type ReceiveOptions } from '../../src/changes/receive.ts';
import type { MemoryLog } from '../../src/changes/memory-log.ts';
import { columnValue } from '../../src/pgoutput/index.ts';
import type { Tuple } from '../../src/pgoutput/messages.ts';
import { parseLsn, zeroLsn, type Lsn } from '../../src/pg/lsn.ts';
import { ReplicationSession } from '../../src/pg/replication-session.ts';
import type { TestDatabase } from './servers.ts';

/** What tests of the change log share. */

/** A transaction in words that can be compared. */
export interface ReadTransaction {
  readonly xid: number;
  readonly commitLsn: Lsn;
  readonly endLsn: Lsn;
  readonly origin: string | undefined;
  readonly gid: string | undefined;
  readonly large: boolean;
  readonly changes: string[];
}

function words(tuple: Tuple | undefined): string {
  if (!tuple) return '';
  return Array.from({ length: tuple.count }, (_, i) => {
    const value = columnValue(tuple, i);
    const text = value === null ? 'null' : value === undefined ? 'unchanged' : value.toString('utf8');
    return text.length > 40 ? `${text.length} bytes` : text;
  }).join(',');
}

/** `insert t (1,a)`, `update t (old key) -> (new row)`, `truncate t,u cascade`, `message text`. */
export function describeChange(c: Change): string {
  switch (c.type) {
    case 'insert': return `insert ${c.relation.name} (${words(c.newTuple)})`;
    case 'update': return `update ${c.relation.name} ${c.oldKind === undefined ? '' : `${c.oldKind} (${words(c.oldTuple)}) `}-> (${words(c.newTuple)})`;
    case 'delete': return `delete ${c.relation.name} ${c.oldKind} (${words(c.oldTuple)})`;
    case 'truncate': return `truncate ${c.relations.map((r) => r.name).join(',')}${c.cascade ? ' cascade' : ''}${c.restartIdentity ? ' restart' : ''}`;
    case 'message': return `message ${c.content.toString('utf8')}`;
  }
}

export async function describeBatch(batch: Batch, signal?: AbortSignal): Promise<ReadTransaction[]> {
  if (batch.kind === 'transactions') return batch.transactions.map((t) => ({ xid: t.xid, commitLsn: t.commitLsn, endLsn: t.endLsn, origin: t.origin, gid: t.gid, large: false, changes: Array.from(t.changes(), describeChange) }));
  const t = batch.transaction;
  const changes: string[] = [];
  for await (const part of t.parts(signal)) for (const change of part.changes()) changes.push(describeChange(change));
  return [{ xid: t.xid, commitLsn: t.commitLsn, endLsn: t.endLsn, origin: t.origin, gid: t.gid, large: true, changes }];
}

/** Reads until `enough` says so. Every transaction is confirmed at once unless `confirm` is false. */
export async function readUntil(log: ChangeLog, enough: (all: readonly ReadTransaction[]) => boolean, options: { readonly confirm?: boolean; readonly maxBytes?: number } = {}): Promise<ReadTransaction[]> {
  const all: ReadTransaction[] = [];
  while (!enough(all)) {
    const batch = await log.read({ maxBytes: options.maxBytes ?? 1024 * 1024, signal: AbortSignal.timeout(90_000) });
    all.push(...(await describeBatch(batch)));
    if (options.confirm !== false) log.confirm(all.at(-1)!.endLsn);
  }
  return all;
}

/** Reads up to the change `message <text>`, which `mark` has written. */
export function readToMark(log: ChangeLog, text: string, options: { readonly confirm?: boolean; readonly maxBytes?: number } = {}): Promise<ReadTransaction[]> {
  return readUntil(log, (all) => all.at(-1)?.changes.includes(`message ${text}`) === true, options);
}

/** SQL that puts a mark into the stream. */
export function mark(text: string): string {
  return `select pg_catalog.pg_logical_emit_message(true, 'pgweave', '${text}')`;
}

/** Makes a publication of all tables and a slot in a database, both named after it. */
export async function makeSlot(database: TestDatabase, options: { readonly twoPhase?: boolean; readonly publication?: string } = {}): Promise<{ slot: string; lsn: Lsn }> {
  const slot = database.name;
  await database.run(options.publication ?? `create publication ${slot} for all tables`);
  await using replication = await ReplicationSession.open(database.spec, { role: 'test' });
  const { consistentPoint } = await replication.createLogicalSlot({ name: slot, ...(options.twoPhase ? { twoPhase: true } : {}) });
  return { slot, lsn: consistentPoint };
}

/** Receives from a database's slot, in memory. */
export function receiveFrom(database: TestDatabase, options: Partial<ReceiveOptions> = {}): Promise<MemoryLog> {
  return receiveInMemory({ source: database.spec, slot: database.name, publications: [database.name], startLsn: zeroLsn, healthEveryMs: 0, ...options });
}

export async function confirmedFlushLsn(database: TestDatabase): Promise<Lsn> {
  const [row] = await database.query<{ lsn: string }>('select confirmed_flush_lsn::text as lsn from pg_catalog.pg_replication_slots where slot_name = $1', [database.name]);
  return parseLsn(row!.lsn);
}

export async function currentLsn(database: TestDatabase): Promise<Lsn> {
  const [row] = await database.query<{ lsn: string }>('select pg_catalog.pg_current_wal_insert_lsn()::text as lsn');
  return parseLsn(row!.lsn);
}
