import { endOfRecord } from '../../changes/log-core.ts';
import { sleep } from '../../core/abort.ts';
import { parseLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';

const lookEveryMs = 20;

interface Row extends Record<string, unknown> {
  readonly flushed: string;
  readonly inserted: string;
  readonly delay: number;
}

/**
 * An LSN behind every transaction that the source shows as committed when this is called, and that its stream reaches without anything more being written. With synchronous_commit = off a
 * commit is seen before it is flushed, and only what is flushed is streamed: by the WAL writer within three of its rounds. What else is left then (records of no commit) may stay there for
 * long, and nobody waits for it. Source: PostgreSQL documentation, "Asynchronous Commit".
 */
export async function committedLsn(source: Session, signal?: AbortSignal): Promise<Lsn> {
  const began = performance.now();
  let inserted: Lsn | undefined;
  for (;;) {
    const row = await source.one<Row>(
      `select (case when r.standby then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_flush_lsn() end)::text as flushed,
              (case when r.standby then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_insert_lsn() end)::text as inserted,
              (select setting::int4 from pg_catalog.pg_settings where name = 'wal_writer_delay') as delay
         from (select pg_catalog.pg_is_in_recovery() as standby) r`,
    );
    inserted ??= endOfRecord(parseLsn(row.inserted));
    const flushed = parseLsn(row.flushed);
    if (flushed >= inserted || performance.now() - began > 3 * row.delay) return flushed;
    await sleep(lookEveryMs, signal);
  }
}
