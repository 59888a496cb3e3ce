import { sleep } from '../core/abort.ts';
import { PgweaveError } from '../core/errors.ts';
import { jobObjectName } from '../core/job-folder.ts';
import type { TableRef } from '../core/tables.ts';
import { formatLsn, parseLsn, type Lsn } from '../pg/lsn.ts';
import type { Session } from '../pg/session.ts';

/**
 * How other processes steer a running follower: requests are rows of `pgweave.control` on the target, announced by NOTIFY; the follower writes its answer into the
 * row. They meet in the database, so that the request may come from another terminal or machine.
 *
 * - `hold`: apply nothing after the transaction in hand. Answer: `appliedLsn`. `run-to` with an LSN: while held, apply exactly the transactions whose commit record
 *   begins below it, then hold again. `release`: go on. A hold ends by itself when it is not extended ({@link extendHold}), so that a requester who dies stops nobody.
 *   Verifying at one LSN X: hold; make a temporary slot on the source (its snapshot is at X, and X is not below what is applied); run-to X; take the target's snapshot; release.
 * - `pause`, `resume`: the same for people, without an end by itself.
 * - `retry`, `skip-transaction`, `copy-again`, `drop` with a table: see table-commands.ts. Answered when done; `copy-again` when the table is copied.
 * - `stop`: finish the transaction in hand and end.
 *
 * A switchover's drain needs no request: it puts a marker into the source's WAL and waits for its row in `pgweave.marker` (sentinel.ts).
 */
export type ControlAction = 'hold' | 'run-to' | 'release' | 'pause' | 'resume' | 'retry' | 'skip-transaction' | 'copy-again' | 'drop' | 'stop';

export interface ControlRequest {
  readonly action: ControlAction;
  readonly table?: TableRef | undefined;
  readonly lsn?: Lsn | undefined;
  readonly arguments?: Readonly<Record<string, unknown>> | undefined;
  /** A hold that is not extended ends after this; default 30 s. */
  readonly holdMs?: number | undefined;
}

export interface ControlAnswer {
  readonly id: bigint;
  readonly appliedLsn: Lsn | undefined;
  readonly answer: Readonly<Record<string, unknown>>;
}

export interface OpenRequest extends ControlRequest {
  readonly id: bigint;
}

export const controlChannel = 'pgweave_control';
const defaultHoldMs = 30_000;

/** Advisory lock of the follower of a job, held for as long as it runs. Two 32-bit keys: a constant, and the job's name hashed. */
export function followerLockSql(job: string, call: 'pg_try_advisory_lock' | 'pg_advisory_unlock'): { text: string; values: unknown[] } {
  return { text: `select pg_catalog.${call}(707406, pg_catalog.hashtext($1)) as done`, values: [jobObjectName(job)] };
}

/** Who follows the job on this target now: the backend that holds the lock; undefined where nobody does. */
export async function runningFollower(target: Session, job: string): Promise<{ readonly pid: number; readonly application: string; readonly client: string | null } | undefined> {
  const [row] = await target.query<{ pid: number; application: string | null; client: string | null }>(
    `select l.pid, a.application_name as application, pg_catalog.host(a.client_addr) as client
     from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid
     where l.locktype = 'advisory' and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
       and l.classid = 707406 and l.objid = (pg_catalog.hashtext($1)::pg_catalog.int8 & 4294967295)::pg_catalog.oid and l.objsubid = 2 and l.granted`,
    [jobObjectName(job)],
  );
  return row && { pid: row.pid, application: row.application ?? '', client: row.client };
}

/** Leaves a request for the follower. Returns its id. */
export async function requestControl(target: Session, job: string, request: ControlRequest): Promise<bigint> {
  const { id } = await target.one<{ id: bigint }>(
    `insert into pgweave.control (job, action, schema_name, table_name, lsn, arguments, expires_at) values ($1, $2, $3, $4, $5, $6, pg_catalog.clock_timestamp() + $7 * interval '1 ms') returning id`,
    [job, request.action, request.table?.schema ?? null, request.table?.name ?? null, request.lsn === undefined ? null : formatLsn(request.lsn), JSON.stringify(request.arguments ?? {}), request.holdMs ?? defaultHoldMs],
  );
  await target.query('select pg_catalog.pg_notify($1, $2)', [controlChannel, job]);
  return id;
}

/** Keeps a hold for another while. */
export async function extendHold(target: Session, id: bigint, holdMs = defaultHoldMs): Promise<void> {
  await target.query(`update pgweave.control set expires_at = pg_catalog.clock_timestamp() + $2 * interval '1 ms' where id = $1`, [id, holdMs]);
}

/** Waits for the answer. Throws `no-follower` where no follower runs (any more), the follower's own error where it refused, `control-timeout` after `timeoutMs`. */
export async function waitForAnswer(target: Session, job: string, id: bigint, options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined }): Promise<ControlAnswer> {
  const end = Date.now() + options.timeoutMs;
  for (let round = 0; ; round += 1) {
    const [row] = await target.query<{ status: string; answer: Record<string, unknown> | null }>('select status, answer from pgweave.control where id = $1', [id]);
    if (row?.status === 'done') return { id, appliedLsn: typeof row.answer?.['appliedLsn'] === 'string' ? parseLsn(row.answer['appliedLsn']) : undefined, answer: row.answer ?? {} };
    if (row?.status === 'failed' || !row) {
      const { code, message, hint } = (row?.answer ?? {}) as { code?: string; message?: string; hint?: string };
      throw new PgweaveError(code ?? 'control-failed', message ?? 'the follower dropped the request', hint === undefined ? {} : { hint });
    }
    if (round % 50 === 49 && !(await runningFollower(target, job))) {
      // It may have answered and ended since its row was read: then the answer counts.
      const unanswered = await target.query(`delete from pgweave.control where id = $1 and status in ('waiting', 'running') returning id`, [id]);
      if (unanswered.length > 0) throw noFollowerError(job);
      continue;
    }
    if (Date.now() > end) throw new PgweaveError('control-timeout', `the follower of job "${job}" has not answered within ${Math.round(options.timeoutMs / 1000)} s`, { retry: 'backoff', hint: 'It may be busy with a large transaction. pgweave status shows what it does.' });
    await sleep(10, options.signal);
  }
}

/** Asks and waits. Throws `no-follower` at once where none runs. */
export async function controlFollower(target: Session, job: string, request: ControlRequest, options: { readonly timeoutMs?: number; readonly signal?: AbortSignal | undefined } = {}): Promise<ControlAnswer> {
  if (!(await runningFollower(target, job))) throw noFollowerError(job);
  const id = await requestControl(target, job, request);
  return waitForAnswer(target, job, id, { timeoutMs: options.timeoutMs ?? 60_000, signal: options.signal });
}

export function noFollowerError(job: string): PgweaveError {
  return new PgweaveError('no-follower', `no follower of job "${job}" runs on this target`, { retry: 'manual', hint: `Start it: pgweave follow --job ${job}` });
}

// ---- the follower's side ------------------------------------------------------------------------------------------------------------------------------------

interface Row {
  id: bigint;
  action: string;
  schema_name: string | null;
  table_name: string | null;
  lsn: string | null;
  arguments: Record<string, unknown>;
}

/** Takes the requests that wait, oldest first, and marks them running. */
export async function takeRequests(session: Session, job: string): Promise<OpenRequest[]> {
  const rows = await session.query<Row>(
    `update pgweave.control set status = 'running' where job = $1 and status = 'waiting' returning id, action, schema_name, table_name, lsn::text, arguments`, [job],
  );
  return rows.sort((a, b) => (a.id < b.id ? -1 : 1)).map((row) => ({
    id: row.id, action: row.action as ControlAction, table: row.schema_name === null || row.table_name === null ? undefined : { schema: row.schema_name, name: row.table_name },
    lsn: row.lsn === null ? undefined : parseLsn(row.lsn), arguments: row.arguments,
  }));
}

export async function answerRequest(session: Session, id: bigint, status: 'done' | 'failed', answer: Readonly<Record<string, unknown>>): Promise<void> {
  await session.query('update pgweave.control set status = $2, answer = $3, answered_at = pg_catalog.clock_timestamp() where id = $1', [id, status, JSON.stringify(answer)]);
}

/** Whether a hold has run out or its request is gone. */
export async function isExpired(session: Session, id: bigint): Promise<boolean> {
  const [row] = await session.query<{ expired: boolean }>('select expires_at < pg_catalog.clock_timestamp() as expired from pgweave.control where id = $1', [id]);
  return row?.expired ?? true;
}

/** Removes answered requests after a while, and at start all that an earlier follower left unanswered. */
export async function clearRequests(session: Session, job: string, all: boolean): Promise<void> {
  await session.query(`delete from pgweave.control where job = $1 and (answered_at < pg_catalog.clock_timestamp() - interval '10 minutes' or $2 and status = 'running')`, [job, all]);
}
