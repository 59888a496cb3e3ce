import type { Sql } from '../pg/session.ts';

export interface SubscriptionRow {
  readonly oid: number;
  readonly name: string;
  readonly enabled: boolean;
  /** Null after `slot_name = none`. */
  readonly slot: string | null;
  readonly publications: (string | null)[];
  readonly binary: boolean;
  /** As text: `f`, `t` (on), `p` (parallel); before 16 `true` or `false`. */
  readonly streaming: string;
  /** `d` disabled, `p` pending, `e` enabled; `d` before 15. */
  readonly two_phase: string;
  /** `any` or `none`; `any` before 16. */
  readonly origin: string;
  readonly owner: string;
  /** Whose it is: our mark, or somebody's words. */
  readonly comment: string | null;
}

/** One subscription of this database. `subconninfo` is left out on purpose: it may hold a password. */
export function subscriptionByName(name: string, serverVersion: number): Sql {
  const twoPhase = serverVersion >= 150_000 ? 's.subtwophasestate::text' : `'d'`;
  const origin = serverVersion >= 160_000 ? 's.suborigin' : `'any'`;
  return {
    text: `select s.oid, s.subname::text as name, s.subenabled as enabled, s.subslotname::text as slot, s.subpublications as publications, s.subbinary as binary, s.substream::text as streaming, ${twoPhase} as two_phase, ${origin} as origin,
             pg_catalog.pg_get_userbyid(s.subowner)::text as owner, pg_catalog.obj_description(s.oid, 'pg_subscription') as comment
           from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid where d.datname = pg_catalog.current_database() and s.subname = $1`,
    values: [name],
  };
}

/**
 * pg_subscription_rel.srsubstate: i not begun, d rows are being copied, f rows are in and wait to meet the stream, s met the stream, r ready.
 * Source: documentation, "pg_subscription_rel".
 */
export type SyncState = 'i' | 'd' | 'f' | 's' | 'r';

export const syncStateWords: Readonly<Record<SyncState, string>> = { i: 'waiting for its copy', d: 'copying', f: 'copied, meeting the stream', s: 'copied, catching up', r: 'streaming' };

export interface SubscribedTableRow {
  readonly schema: string;
  readonly name: string;
  readonly state: SyncState;
  readonly lsn: string | null;
}

/** A subscription's tables on the target. */
export function subscribedTables(subscription: string): Sql {
  return {
    text: `select n.nspname::text as schema, c.relname::text as name, r.srsubstate::text as state, r.srsublsn::text as lsn
             from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid join pg_catalog.pg_subscription_rel r on r.srsubid = s.oid
               join pg_catalog.pg_class c on c.oid = r.srrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where d.datname = pg_catalog.current_database() and s.subname = $1 order by 1, 2`,
    values: [subscription],
  };
}

export interface TargetTableRow {
  readonly schema: string;
  readonly name: string;
  readonly exists: boolean;
}

/** Which of these tables are on a server, as ordinary or partitioned tables. */
export function existingTables(schemas: readonly string[], names: readonly string[]): Sql {
  return {
    text: `select w.schema, w.name, c.oid is not null as exists
             from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) as w(schema, name)
             left join pg_catalog.pg_namespace n on n.nspname = w.schema left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name and c.relkind in ('r', 'p')`,
    values: [schemas, names],
  };
}
