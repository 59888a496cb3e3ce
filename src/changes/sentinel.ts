import { sleep } from '../core/abort.ts';
import { parseLsn, type Lsn } from '../pg/lsn.ts';
import type { Session } from '../pg/session.ts';
import { messagePrefix } from './change-log.ts';

/**
 * A marker in the source's WAL, in commit order: a transactional logical message. When the applier meets it, everything that committed before it is applied,
 * and it writes a row into `pgweave.marker` in that very target transaction. Source: PostgreSQL documentation, "pg_logical_emit_message"; pgoutput passes
 * messages on since version 14.
 */
export interface Marker {
  readonly content: string;
  /** Where the source's WAL ended just after the marker was committed. */
  readonly lsn: Lsn;
}

/** Markers of a switchover begin with this; the rest is the run's own id. */
export const switchoverMarker = 'switchover:';

/** Puts a marker into the source's WAL. Works on a database that refuses writes, since our sessions may write. */
export async function emitMarker(source: Session, content: string): Promise<Marker> {
  await source.query('select pg_catalog.pg_logical_emit_message(true, $1, $2::text)', [messagePrefix, content]);
  const { lsn } = await source.one<{ lsn: string }>('select pg_catalog.pg_current_wal_insert_lsn()::text as lsn');
  return { content, lsn: parseLsn(lsn) };
}

/**
 * Waits until the applier has met the marker; undefined after `timeoutMs`. Polls every 10 ms: the wait stands within the time in which writes are refused.
 */
export async function waitForMarker(target: Session, job: string, marker: Marker, timeoutMs: number, signal?: AbortSignal): Promise<{ commitLsn: Lsn } | undefined> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const [row] = await target.query<{ commit_lsn: string }>('select commit_lsn::text from pgweave.marker where job = $1 and content = $2 limit 1', [job, marker.content]);
    if (row) return { commitLsn: parseLsn(row.commit_lsn) };
    if (Date.now() >= end) return undefined;
    await sleep(10, signal);
  }
}
