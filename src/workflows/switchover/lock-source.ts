import { sleep } from '../../core/abort.ts';
import { errorMessage, PgweaveError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoints.ts';
import type { TableRef } from '../../core/tables.ts';
import { formatDuration } from '../../core/units.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { qualifiedName, quoteIdent, quoteLiteral } from '../../pg/identifiers.ts';
import { Session } from '../../pg/session.ts';
import { sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';

/**
 * `database`: new transactions of the whole database are read-only by default, other sessions are ended, and the tables are locked against the sessions that override the default.
 * `tables`: only the tables are locked; nobody is disconnected, writers wait. `none`: the user has stopped the writers already.
 */
export type LockScope = 'database' | 'tables' | 'none';

export interface LockOptions {
  readonly job: string;
  readonly scope: LockScope;
  /** Published tables; partitioned ones lock their partitions too. */
  readonly tables: readonly TableRef[];
  /** For ending sessions and getting the locks together. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /**
   * The database's own `default_transaction_read_only` before a first attempt changed it, as {@link remember} was told; leave out for a first attempt.
   */
  readonly previous?: PreviousSetting | undefined;
  /** Called before anything is changed, so that another process can undo it. */
  readonly remember?: (previous: PreviousSetting) => void | Promise<void>;
}

/** The database's setting: a value, or null where it had none of its own. */
export interface PreviousSetting {
  readonly defaultTransactionReadOnly: string | null;
}

/** Writes are refused while this lives. Exactly one of `release` and `keep` ends it; disposing releases. */
export interface SourceLock extends AsyncDisposable {
  readonly sessionsEnded: number;
  /** Sessions that we may not end, such as a superuser's: what they could write waits for the table locks. */
  readonly sessionsLeft: readonly { readonly pid: number; readonly user: string; readonly application: string }[];
  readonly tablesLocked: number;
  /** A session that holds the locks, for reading in the state that they keep. Its transaction stays open. */
  readonly session: Session;
  /** Takes writes again as before: restores the database's setting, lets go of the tables. */
  release(): Promise<void>;
  /** Lets go of the tables, leaves the database read-only by default: the target has taken over. */
  keep(): Promise<void>;
}

/** Stops writes on the source. Where any part fails, everything is undone before the error goes up. Needs: owner of the database (or superuser) for `database`, UPDATE on the tables, pg_signal_backend to end others' sessions. */
export async function lockSource(spec: ConnectionSpec, options: LockOptions): Promise<SourceLock> {
  const session = await Session.open(spec, { role: 'lock', job: options.job, side: 'the source' });
  const deadline = Date.now() + options.timeoutMs;
  let previous = options.previous;
  let changed = options.scope === 'database' && previous !== undefined;
  const undo = async () => {
    await session.query('rollback').catch(() => undefined);
    if (changed && previous) await restoreWrites(session.lost ? spec : session, previous);
    await session.close();
  };
  try {
    // Ours must be able to lock, whatever the database's default says by now.
    await session.query('set default_transaction_read_only = off');
    let sessionsEnded = 0;
    let sessionsLeft: SourceLock['sessionsLeft'] = [];
    if (options.scope === 'database') {
      previous ??= { defaultTransactionReadOnly: await databaseSetting(session) };
      await options.remember?.(previous);
      await failpoint('lock.before-read-only');
      changed = true;
      await readOnlyByDefault(session).catch((error: unknown) => {
        // Refused by the server: nothing was changed. With a lost connection it may have been.
        if (sqlstateOf(error) !== undefined || error instanceof PgweaveError) changed = options.previous !== undefined;
        throw error;
      });
      await failpoint('lock.after-read-only');
      ({ ended: sessionsEnded, left: sessionsLeft } = await endOthers(session, options.job, deadline, options.signal));
      await failpoint('lock.after-sessions');
    }
    if (options.scope !== 'none' && options.tables.length > 0) await lockTables(session, options.tables, deadline, options.signal);
    else await session.query('begin');
    await failpoint('lock.after-tables');
    let over = false;
    const lock: SourceLock = {
      sessionsEnded, sessionsLeft, session, tablesLocked: options.scope === 'none' ? 0 : options.tables.length,
      async release() {
        if (over) return;
        over = true;
        await undo();
      },
      async keep() {
        if (over) return;
        over = true;
        await session.query('rollback').catch(() => undefined);
        await session.close();
      },
      [Symbol.asyncDispose]: () => lock.release(),
    };
    return lock;
  } catch (error) {
    try {
      await undo();
    } catch (second) {
      throw new PgweaveError('still-locked', `${errorMessage(error)}; and database "${spec.database}" could not be made writable again: ${errorMessage(second)}`, { hint: `On the source: ${restoreStatement(spec.database, previous)};`, cause: error });
    }
    throw error;
  }
}

/** The statement that gives the database its own setting back. */
function restoreStatement(database: string, previous: PreviousSetting | undefined): string {
  const setting = previous?.defaultTransactionReadOnly ?? null;
  return `alter database ${quoteIdent(database)} ${setting === null ? 'reset default_transaction_read_only' : `set default_transaction_read_only = ${quoteLiteral(setting)}`}`;
}

/** Takes writes again: the database's own setting as it was. Also for another process, after the one that locked has died. */
export async function restoreWrites(where: Session | ConnectionSpec, previous: PreviousSetting): Promise<void> {
  const run = async (session: Session) => {
    await session.query('set default_transaction_read_only = off');
    await session.query(restoreStatement(session.spec.database, previous));
  };
  if (where instanceof Session) return run(where);
  await using session = await Session.open(where, { role: 'unlock', side: 'the source' });
  await run(session);
}

async function databaseSetting(session: Session): Promise<string | null> {
  const [row] = await session.query<{ setting: string | null }>(`
    select pg_catalog.split_part(c, '=', 2) as setting from pg_catalog.pg_db_role_setting s join pg_catalog.pg_database d on d.oid = s.setdatabase, pg_catalog.unnest(s.setconfig) as c
    where d.datname = pg_catalog.current_database() and s.setrole = 0 and c like 'default\\_transaction\\_read\\_only=%'`);
  return row?.setting ?? null;
}

async function readOnlyByDefault(session: Session): Promise<void> {
  try {
    await session.query(`alter database ${quoteIdent(session.spec.database)} set default_transaction_read_only = on`);
  } catch (error) {
    if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) throw error;
    throw new PgweaveError('may-not-lock', `role "${session.spec.user}" may not make database "${session.spec.database}" read-only: it must own it`, {
      hint: `On the source: ALTER DATABASE ${quoteIdent(session.spec.database)} OWNER TO ${quoteIdent(session.spec.user)}; or use --lock tables, which only needs UPDATE on the tables; or stop the writers yourself and use --lock none.`, cause: error,
    });
  }
}

interface Other {
  pid: number;
  user: string;
  application: string;
}

/** Ends every client session of the database but those of this job, and waits until they are gone. */
async function endOthers(session: Session, job: string, deadline: number, signal: AbortSignal | undefined): Promise<{ ended: number; left: Other[] }> {
  // Sessions that begin after ALTER DATABASE are read-only by default; those of before keep what they had. Without pg_read_all_stats the kind of others' sessions is hidden (null).
  const others = await session.query<Other>(`
    select pid, coalesce(usename, '') as user, application_name as application from pg_catalog.pg_stat_activity
    where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid() and usename is not null and coalesce(backend_type, 'client backend') = 'client backend'
      and pid not in (select r.pid from pg_catalog.pg_stat_replication r) and pid not in (select w.pid from pg_catalog.pg_stat_subscription w where w.pid is not null) and application_name not like $1`, [`pgweave ${job.replaceAll('_', '\\_')} %`]);
  const left: Other[] = [];
  for (const other of others) {
    try {
      await session.query('select pg_catalog.pg_terminate_backend($1)', [other.pid]);
    } catch (error) {
      if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) throw error;
      left.push(other);
    }
  }
  const gone = others.filter((o) => !left.includes(o)).map((o) => o.pid);
  while (gone.length > 0) {
    const still = await session.query<{ pid: number }>('select pid from pg_catalog.pg_stat_activity where pid = any ($1)', [gone]);
    if (still.length === 0) break;
    if (Date.now() > deadline) throw new PgweaveError('sessions-remain', `${still.length} sessions of the source did not end in time (pid ${still.map((s) => s.pid).join(', ')})`, { hint: 'Writes are taken again. Look into pg_stat_activity what they do; a longer --timeout waits longer.' });
    await sleep(20, signal);
  }
  return { ended: gone.length, left };
}

/** Opens a transaction that holds SHARE locks: reads go on, writes wait, and every writer of before has ended. */
async function lockTables(session: Session, tables: readonly TableRef[], deadline: number, signal: AbortSignal | undefined): Promise<void> {
  // One statement locks in this order; sorted, two switchovers cannot wait for one another.
  const names = tables.map((t) => qualifiedName(t.schema, t.name)).sort();
  for (;;) {
    const remaining = deadline - Date.now();
    if (remaining <= 0) throw await lockTimeout(session, names.length);
    await session.query('begin');
    try {
      await session.query(`set local lock_timeout = ${Math.max(1, Math.round(remaining))}`);
      for (let at = 0; at < names.length; at += 500) await session.query(`lock table ${names.slice(at, at + 500).join(', ')} in share mode`);
      await session.query('set local lock_timeout = 0');
      return;
    } catch (error) {
      await session.query('rollback').catch(() => undefined);
      const state = sqlstateOf(error);
      if (state === sqlstate.lockNotAvailable) throw await lockTimeout(session, names.length);
      if (state === sqlstate.insufficientPrivilege) {
        throw new PgweaveError('may-not-lock', `role "${session.spec.user}" may not lock every published table: ${(error as Error).message}`, { hint: `On the source: GRANT UPDATE ON ALL TABLES IN SCHEMA … TO ${quoteIdent(session.spec.user)}; or stop the writers yourself and use --lock none.`, cause: error });
      }
      // Writers that hold one of the tables and want another: they go first, then again.
      if (state !== sqlstate.deadlockDetected) throw error;
      await sleep(50, signal);
    }
  }
}

async function lockTimeout(session: Session, tables: number): Promise<PgweaveError> {
  const blockers = await session.query<{ pid: number; user: string; seconds: number }>(`
    select distinct a.pid, coalesce(a.usename, '') as user, pg_catalog.date_part('epoch', pg_catalog.now() - a.xact_start)::pg_catalog.int4 as seconds
    from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'relation' and l.granted and l.mode in ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') and a.datname = pg_catalog.current_database()
      and a.pid <> pg_catalog.pg_backend_pid() and l.relation >= 16384`).catch(() => []);
  const who = blockers.slice(0, 5).map((b) => `pid ${b.pid} (${b.user}, its transaction began ${formatDuration((b.seconds ?? 0) * 1000)} ago)`).join(', ');
  return new PgweaveError('lock-timeout', `the ${tables} tables could not be locked in time${who === '' ? '' : `: written by ${who}`}`, { hint: 'Writes are taken again. Try when it is quiet, end those transactions, or give a longer --timeout.' });
}

/** What the lock holds, in words for people. */
export function describeLock(scope: LockScope, database: string, lock: SourceLock): string {
  const plural = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;
  const parts = scope === 'database' ? [`ALTER DATABASE ${quoteIdent(database)} SET default_transaction_read_only = on`, `${plural(lock.sessionsEnded, 'session')} ended`] : [];
  if (lock.sessionsLeft.length > 0) parts.push(`${plural(lock.sessionsLeft.length, 'session')} could not be ended (${lock.sessionsLeft.map((s) => `pid ${s.pid} of ${s.user}`).join(', ')})`);
  parts.push(scope === 'none' ? 'no lock: writers were stopped by you' : `${plural(lock.tablesLocked, 'table')} locked`);
  return parts.join('; ');
}
