import type { Sql } from '../pg/session.ts';

export interface IndexProgressRow {
  readonly pid: number;
  /** Such as `loading tuples in tree`. */
  readonly phase: string;
  /** Of the phase; null where the server does not count. */
  readonly percent: number | null;
}

/** What these backends say of the index each builds. Source: documentation, "CREATE INDEX Progress Reporting" (PostgreSQL 12 and later). */
export function indexBuildProgress(pids: readonly number[]): Sql {
  return {
    text: `
      select pid, pg_catalog.regexp_replace(phase, '^building index: ', '') as phase,
             (case when tuples_total > 0 then 100.0 * tuples_done / tuples_total when blocks_total > 0 then 100.0 * blocks_done / blocks_total end)::int as percent
        from pg_catalog.pg_stat_progress_create_index where pid = any($1::int[])`,
    values: [pids],
  };
}
