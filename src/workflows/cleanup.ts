import { databaseReadOnly, originsLike, pgweaveTables, publicationsLike, slotsLike, subscriptionsLike } from '../catalog/leftovers.ts';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { jobObjectName } from '../core/job-folder.ts';
import { sleep } from '../core/abort.ts';
import { formatBytes } from '../core/units.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';

export type LeftoverKind = 'subscription' | 'origin' | 'slot' | 'publication' | 'rows' | 'schema';

/** One thing that pgweave made and that is still there. */
export interface Leftover {
  readonly side: 'source' | 'target';
  readonly kind: LeftoverKind;
  readonly name: string;
  readonly detail: string;
  /** Process id of the backend that uses it (an active slot), else null. */
  readonly usedBy: number | null;
  /** What removing it runs, for people to read. */
  readonly sql: string;
}

export interface CleanupOptions {
  readonly source?: ConnectionSpec | undefined;
  readonly target?: ConnectionSpec | undefined;
  readonly job: string;
  /** Every job's objects rather than this job's alone. */
  readonly all?: boolean;
  readonly signal?: AbortSignal;
  readonly onEvent?: Emit;
}

export interface CleanupPlan {
  readonly leftovers: readonly Leftover[];
  /** Sides that could not be looked at, with the reason. Their objects stay. */
  readonly unreachable: readonly { readonly side: 'source' | 'target'; readonly reason: string }[];
  /** Things that stay on purpose, with what to do about them. */
  readonly notes: readonly string[];
}

export interface CleanupResult {
  readonly removed: readonly Leftover[];
  readonly failed: readonly { readonly leftover: Leftover; readonly reason: string }[];
}

/**
 * Names that a job gives: `pgweave_<job>` alone or with one of the endings below. A job may itself be called `x_reverse`; with a known list of endings
 * `pgweave_x` never takes what belongs to job `xy`.
 */
export const jobEndings = ['inserts', 'reverse', 'reverse_inserts', 'verify', 'copy', 'sync'] as const;

/** The regular expression over the names that belong to a job (PostgreSQL's flavour). Endings may carry a number: `pgweave_shop_copy_3`. */
export function leftoverPattern(job: string, all: boolean): string {
  return all ? '^pgweave_[a-z0-9_]+$' : `^${jobObjectName(job)}(_(${jobEndings.join('|')})(_[0-9a-z]+)?)?$`;
}

const order: readonly LeftoverKind[] = ['subscription', 'origin', 'slot', 'publication', 'rows', 'schema'];

/** Lists what is left of a job on both sides. Reads only. A side that cannot be reached is reported, not thrown, unless neither can. */
export async function planCleanup(options: CleanupOptions): Promise<CleanupPlan> {
  const leftovers: Leftover[] = [];
  const unreachable: { side: 'source' | 'target'; reason: string }[] = [];
  const notes: string[] = [];
  for (const side of ['target', 'source'] as const) {
    const spec = options[side];
    if (!spec) {
      notes.push(`The ${side} was not given, so nothing was looked for there. Give --${side} to include it.`);
      continue;
    }
    try {
      await using session = await Session.open(spec, { role: 'cleanup', job: options.job, side: `the ${side}`, signal: options.signal });
      leftovers.push(...(await leftoversOn(session, side, options)));
      const { read_only: readOnly } = await session.one<{ read_only: boolean }>(databaseReadOnly());
      if (readOnly) notes.push(`The ${side} refuses writes by a database setting, as a switchover leaves it. To open it: ALTER DATABASE ${quoteIdent(spec.database)} RESET default_transaction_read_only;`);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      unreachable.push({ side, reason: errorMessage(error) });
    }
  }
  if (unreachable.length > 0 && leftovers.length === 0 && (unreachable.length === 2 || !options.source || !options.target)) {
    throw new PgweaveError('cleanup-nothing-reachable', unreachable.map((u) => u.reason).join('; '), { hint: 'Nothing was changed. Bring at least one side up, or correct its connection string.' });
  }
  leftovers.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
  return { leftovers, unreachable, notes };
}

async function leftoversOn(session: Session, side: 'source' | 'target', options: CleanupOptions): Promise<Leftover[]> {
  const pattern = leftoverPattern(options.job, options.all === true);
  const found: Leftover[] = [];
  const add = (kind: LeftoverKind, name: string, detail: string, sql: string, usedBy: number | null = null) => found.push({ side, kind, name, detail, usedBy, sql });
  // pg_subscription is readable by superusers only where columns are not granted; the columns used here are.
  for (const s of await session.query<{ name: string; enabled: boolean; slot: string | null }>(subscriptionsLike(pattern))) {
    const name = quoteIdent(s.name);
    add('subscription', s.name, `${s.enabled ? 'enabled' : 'disabled'}, slot ${s.slot ?? 'none'}`, `ALTER SUBSCRIPTION ${name} DISABLE; ALTER SUBSCRIPTION ${name} SET (slot_name = NONE); DROP SUBSCRIPTION ${name};`);
  }
  for (const o of await readable(() => session.query<{ name: string }>(originsLike(pattern)))) add('origin', o.name, 'replication origin', `SELECT pg_replication_origin_drop(${quoteLiteral(o.name)});`);
  for (const s of await session.query<{ name: string; pid: number | null; temporary: boolean; wal_status: string; retained: bigint | null }>(slotsLike(pattern))) {
    if (s.temporary) continue;
    add('slot', s.name, `${s.pid === null ? 'inactive' : `in use by process ${s.pid}`}, keeps ${formatBytes(Number(s.retained ?? 0n))} of WAL`, `SELECT pg_drop_replication_slot(${quoteLiteral(s.name)});`, s.pid);
  }
  for (const p of await session.query<{ name: string }>(publicationsLike(pattern))) add('publication', p.name, 'publication', `DROP PUBLICATION ${quoteIdent(p.name)};`);
  const tables = await session.query<{ name: string; by_job: boolean }>(pgweaveTables());
  if (tables.length > 0) await addOwnTables(session, tables, options, add);
  return found;
}

async function addOwnTables(session: Session, tables: readonly { name: string; by_job: boolean }[], options: CleanupOptions, add: (kind: LeftoverKind, name: string, detail: string, sql: string) => void): Promise<void> {
  const jobTables = tables.filter((t) => t.by_job).map((t) => t.name);
  // After a switchover the way back has kept its state on the other side, under a name of its own.
  const jobs = [options.job, `${options.job}_reverse`];
  let others = false;
  let ours = 0;
  for (const table of jobTables) {
    const row = await session.one<{ ours: bigint; others: boolean }>(
      `select count(*) filter (where job = any($1)) as ours, coalesce(bool_or(job <> all($1)), false) as others from pgweave.${quoteIdent(table)}`, [jobs],
    );
    ours += Number(row.ours);
    others ||= row.others;
  }
  if (options.all || !others) add('schema', 'pgweave', `${tables.length} tables of state`, 'DROP SCHEMA pgweave CASCADE;');
  else if (ours > 0) add('rows', 'pgweave', `${ours} rows of state of job ${options.job}; the schema is shared with other jobs`, jobTables.map((t) => `DELETE FROM pgweave.${quoteIdent(t)} WHERE job IN (${jobs.map(quoteLiteral).join(', ')});`).join(' '));
}

/** pg_replication_origin is a catalog that some managed servers hide from non-superusers. */
async function readable<T>(read: () => Promise<T[]>): Promise<T[]> {
  try {
    return await read();
  } catch (error) {
    if (sqlstateOf(error) === sqlstate.insufficientPrivilege) return [];
    throw error;
  }
}

/**
 * Removes what a plan lists, the target's side of a link before the source's, each on its own: what cannot be removed is reported and the rest goes on.
 * With `force` the backends that use a slot are ended first; without it a used slot is left and reported.
 */
export async function runCleanup(plan: CleanupPlan, options: CleanupOptions & { readonly force?: boolean }): Promise<CleanupResult> {
  const removed: Leftover[] = [];
  const failed: { leftover: Leftover; reason: string }[] = [];
  for (const side of ['target', 'source'] as const) {
    const mine = plan.leftovers.filter((l) => l.side === side);
    const spec = options[side];
    if (mine.length === 0 || !spec) continue;
    await using session = await Session.open(spec, { role: 'cleanup', job: options.job, side: `the ${side}`, signal: options.signal });
    for (const leftover of mine) {
      try {
        await remove(session, leftover, options.force === true);
        removed.push(leftover);
        options.onEvent?.({ type: 'log', level: 'info', message: `removed ${leftover.kind} ${leftover.name} on the ${side}` });
      } catch (error) {
        if (options.signal?.aborted) throw error;
        failed.push({ leftover, reason: errorMessage(error) });
      }
    }
  }
  return { removed, failed };
}

async function remove(session: Session, leftover: Leftover, force: boolean): Promise<void> {
  switch (leftover.kind) {
    case 'subscription': {
      const name = quoteIdent(leftover.name);
      await session.query(`alter subscription ${name} disable`);
      // Without a slot name DROP SUBSCRIPTION does not call the other server, which may be gone. The slot is removed on its own.
      await session.query(`alter subscription ${name} set (slot_name = none)`);
      await session.query(`drop subscription ${name}`);
      return;
    }
    case 'origin':
      await dropOrigin(session, leftover.name);
      return;
    case 'slot':
      await dropSlot(session, leftover.name, force);
      return;
    case 'publication':
      await session.query(`drop publication if exists ${quoteIdent(leftover.name)}`);
      return;
    case 'rows':
      await session.transaction(() => session.query(leftover.sql));
      return;
    case 'schema':
      await session.query('drop schema if exists pgweave cascade');
      return;
    default:
      leftover.kind satisfies never;
  }
}

async function dropOrigin(session: Session, name: string): Promise<void> {
  // The session that used an origin holds it until its backend has ended: a moment after a follower stopped.
  for (let attempt = 0; ; attempt += 1) {
    try {
      await session.query('select pg_catalog.pg_replication_origin_drop($1)', [name]);
      return;
    } catch (error) {
      if (sqlstateOf(error) === sqlstate.undefinedObject) return;
      if (sqlstateOf(error) !== sqlstate.objectInUse || attempt >= 50) throw error;
      await sleep(100);
    }
  }
}

async function dropSlot(session: Session, name: string, force: boolean): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    const [slot] = await session.query<{ pid: number | null }>('select active_pid as pid from pg_catalog.pg_replication_slots where slot_name = $1', [name]);
    if (!slot) return;
    if (slot.pid === null) {
      try {
        await session.query('select pg_catalog.pg_drop_replication_slot($1)', [name]);
        return;
      } catch (error) {
        if (sqlstateOf(error) !== sqlstate.objectInUse || attempt >= 50) throw error;
      }
    } else if (force) await session.query('select pg_catalog.pg_terminate_backend($1)', [slot.pid]);
    // A walsender whose client has just gone needs a moment to notice: one second without force.
    else if (attempt >= 10) throw new PgweaveError('slot-in-use', `process ${slot.pid} uses the slot`, { hint: 'Stop the follower first, or add --force to end it.' });
    await sleep(100);
  }
}
