import type { Sql } from '../pg/session.ts';

export interface WorkerRow {
  readonly pid: number;
  /** `apply`, `table synchronization`, `parallel apply`; guessed before 17. */
  readonly kind: string;
  readonly table: string | null;
  readonly received_lsn: string | null;
  /** Milliseconds since a message came from the source; null where none came yet. */
  readonly silent_ms: number | null;
  readonly latest_end_lsn: string | null;
  /** When the source wrote what was reported last, ISO 8601. */
  readonly latest_end_time: string | null;
}

/** Workers of a subscription that run now on the target. Source: documentation, "pg_stat_subscription". */
export function subscriptionWorkers(subscription: string, serverVersion: number): Sql {
  const kind = serverVersion >= 170_000 ? 's.worker_type' : `case when s.relid is not null then 'table synchronization' ${serverVersion >= 160_000 ? `when s.leader_pid is not null then 'parallel apply'` : ''} else 'apply' end`;
  return {
    text: `select s.pid, ${kind} as kind, s.relid::pg_catalog.regclass::text as table, s.received_lsn::text as received_lsn, s.latest_end_lsn::text as latest_end_lsn,
             (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - s.last_msg_receipt_time) * 1000)::pg_catalog.int4 as silent_ms,
             pg_catalog.to_char(s.latest_end_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as latest_end_time
           from pg_catalog.pg_stat_subscription s where s.subname = $1 and s.pid is not null order by 2, 1`,
    values: [subscription],
  };
}

/** Errors and, from 18 on, conflicts that a subscription met since its statistics were reset; one row of jsonb, so that each version's columns come as they are. From 15 on. */
export function subscriptionErrors(subscription: string): Sql {
  return { text: `select pg_catalog.to_jsonb(s) as stats from pg_catalog.pg_stat_subscription_stats s where s.subname = $1`, values: [subscription] };
}

export interface SenderRow {
  readonly pid: number;
  readonly state: string | null;
  readonly client: string | null;
  readonly sent_lsn: string | null;
  /** Milliseconds from a commit here until the target reported it applied, of the newest such report; null while idle. */
  readonly replay_lag_ms: number | null;
}

/** The walsender that serves a slot, as the source sees it. Details are hidden from roles without pg_read_all_stats (null). */
export function slotSender(pid: number): Sql {
  return {
    text: `select r.pid, r.state, pg_catalog.host(r.client_addr) as client, r.sent_lsn::text as sent_lsn, (pg_catalog.date_part('epoch', r.replay_lag) * 1000)::pg_catalog.int4 as replay_lag_ms from pg_catalog.pg_stat_replication r where r.pid = $1`,
    values: [pid],
  };
}
