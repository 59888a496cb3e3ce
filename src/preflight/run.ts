import { columnDependentsOf } from '../catalog/column-dependents.ts';
import { preflightTables, type PreflightTableRow } from '../catalog/preflight-tables.ts';
import { roleRights, type RoleRightsRow } from '../catalog/role-rights.ts';
import { resolveSelection } from '../catalog/selection.ts';
import { mayReadControl, serverIdentity, type ServerIdentityRow } from '../catalog/server-identity.ts';
import { settings, type SettingRow } from '../catalog/settings.ts';
import { errorMessage, isInterrupted, PgweaveError } from '../core/errors.ts';
import { fixTimeWindows, noRules, type SelectionRules } from '../core/selection/rules.ts';
import { excludedColumns, type SelectionScope } from '../core/selection/select.ts';
import { tableKey } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { advice, check, type Check, type Side } from './check.ts';
import { poolerCheck, replicationConnectionCheck, subscriptionAddressCheck } from './connections.ts';
import type { CheckedServer, JobKind, PreflightContext, PreflightTable } from './context.ts';
import { databaseToComeCheck } from './database-to-come.ts';
import { diskCheck } from './disk.ts';
import { extensionChecks } from './extensions.ts';
import { identityChecks } from './identities.ts';
import { sourceObjectChecks, tablespaceCheck, targetEventTriggerCheck } from './objects.ts';
import { detectProvider } from './provider.ts';
import { ownerChecks, sourceRightsChecks, targetRightsChecks } from './rights.ts';
import { sameDatabaseCheck, sourceReadOnlyCheck, standbyCheck, targetWritableCheck, versionChecks } from './servers.ts';
import { targetContentsCheck } from './target-contents.ts';
import { textChecks } from './text-encoding.ts';
import { switchoverRightsCheck, transactionChecks } from './transactions.ts';
import { connectionRoomCheck, replicationRoomChecks, targetRoomChecks, walKeepingChecks, walLevelCheck } from './wal.ts';

export interface PreflightOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly kind: JobKind;
  /** What the job takes; default: everything. */
  readonly rules?: SelectionRules | undefined;
  /** Where the job spans several databases: which one this is, and all of them. */
  readonly scope?: SelectionScope | undefined;
  /** For one database of several, which is made where the target lacks it: a database of the target server that is there. */
  readonly madeThrough?: string | undefined;
  /** Transactions at least this old are named; default 60. */
  readonly oldTransactionSeconds?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface PreflightResult {
  readonly source: CheckedServer | undefined;
  readonly target: CheckedServer | undefined;
  readonly tables: readonly PreflightTable[];
  readonly sequences: number;
  readonly checks: readonly Check[];
}

const settingNames = [
  'wal_level', 'max_replication_slots', 'max_wal_senders', 'max_slot_wal_keep_size', 'wal_sender_timeout', 'idle_replication_slot_timeout', 'max_connections', 'superuser_reserved_connections', 'reserved_connections',
  'max_active_replication_origins', 'max_logical_replication_workers', 'max_worker_processes', 'max_sync_workers_per_subscription', 'default_transaction_read_only', 'hot_standby_feedback', 'max_standby_streaming_delay', 'data_directory',
];

/** Runs every check. Opens sessions that cannot write and closes them; writes nothing on either side. What cannot be reached or asked is a check of its own. */
export async function runPreflight(options: PreflightOptions): Promise<PreflightResult> {
  await using source = await reach('source', options.source, options);
  await using target = await reach('target', options.target, options);
  const all = source.server === undefined ? [] : await source.server.session.query<PreflightTableRow>(preflightTables());
  const tables = source.server === undefined ? [] : await chosen(all, source.server.session, options);
  const sequences = source.server === undefined ? 0 : (await source.server.session.one<{ count: number }>(`select count(*)::int as count from pg_catalog.pg_sequences where schemaname <> 'pgweave'`)).count;
  const context: PreflightContext = { kind: options.kind, source: source.server, target: target.server, tables, allTablesBytes: all.reduce((sum, t) => sum + Number(t.bytes), 0), oldTransactionSeconds: options.oldTransactionSeconds ?? 60, signal: options.signal };
  const checks: Check[] = [...source.checks, ...target.checks];
  for (const group of groups(context)) {
    try {
      checks.push(...(await group.run()));
    } catch (error) {
      // A service may hide a catalog or a function: what cannot be known is said, and the rest goes on.
      const forbidden = sqlstateOf(error) === sqlstate.insufficientPrivilege;
      const hidden = sqlstateOf(error) === sqlstate.undefinedFunction || sqlstateOf(error) === sqlstate.undefinedTable;
      if (!forbidden && !hidden) throw error;
      checks.push(check(group.id, group.side, 'warn', `${group.id.replaceAll('-', ' ')} could not be checked: ${errorMessage(error)}`, { facts: { sqlstate: sqlstateOf(error) }, ...(forbidden ? { fix: advice(group.side === 'both' ? 'source' : group.side, 'check as a role that may see it') } : {}) }));
    }
  }
  return { source: source.server, target: target.server, tables, sequences, checks };
}

/** What the rules leave, as they put it. Throws a usage error for rules that do not fit the source. */
async function chosen(all: readonly PreflightTableRow[], session: Session, options: PreflightOptions): Promise<PreflightTable[]> {
  const rules = fixTimeWindows(options.rules ?? noRules, new Date());
  const { selection } = await resolveSelection(session, rules, options.scope ?? { database: session.spec.database });
  await columnDependentsOf(session, excludedColumns(selection));
  return all.flatMap((t) => {
    const s = selection.get(tableKey(t));
    if (!s) return [{ ...t, mode: 'copy' as const, where: undefined, excludeColumns: [], mapTo: { schema: t.schema, name: t.name } }];
    return s.mode === 'skip' ? [] : [{ ...t, mode: s.mode, where: s.where, excludeColumns: s.excludeColumns, mapTo: s.mapTo }];
  });
}

interface Group {
  /** Id of the check that stands for the group where it cannot run. */
  readonly id: string;
  readonly side: Check['side'];
  readonly run: () => Check[] | Promise<Check[]>;
}

function groups(context: PreflightContext): Group[] {
  const { source, target } = context;
  const out: Group[] = [];
  const add = (id: string, side: Check['side'], run: Group['run']) => void out.push({ id, side, run });
  if (source && target) {
    add('versions', 'both', () => versionChecks(source, target, context));
    add('same-database', 'both', () => sameDatabaseCheck(source, target));
  }
  if (source) {
    add('source-pooler', 'source', () => poolerCheck(source, context));
    add('source-standby', 'source', () => standbyCheck(source, context));
    add('source-read-only', 'source', () => sourceReadOnlyCheck(source));
    add('wal-level', 'source', () => walLevelCheck(source, context));
    add('replication-slots', 'source', () => replicationRoomChecks(source, context));
    add('wal-keep-size', 'source', () => walKeepingChecks(source, context));
    add('source-connections', 'source', () => connectionRoomCheck(source, context));
    add('source-read', 'source', () => sourceRightsChecks(source, context));
    add('replication-connection', 'source', () => replicationConnectionCheck(source, context));
    add('long-transactions', 'source', () => transactionChecks(source, context));
    add('replica-identity', 'source', () => identityChecks(context));
    add('large-objects', 'source', () => sourceObjectChecks(source, context));
    add('switchover-rights', 'source', () => switchoverRightsCheck(source, context));
  }
  if (target) {
    add('target-pooler', 'target', () => poolerCheck(target, context));
    add('target-writable', 'target', () => targetWritableCheck(target));
    add('target-empty', 'target', () => targetContentsCheck(target, context));
    add('target-create', 'target', () => targetRightsChecks(target, context));
    add('target-connections', 'target', () => connectionRoomCheck(target, context));
    add('replication-origins', 'target', () => targetRoomChecks(target, context));
    add('event-triggers', 'target', () => targetEventTriggerCheck(target));
    add('disk-room', 'target', () => diskCheck(target, source, context));
  }
  if (source && target) {
    add('encoding', 'both', () => textChecks(source, target));
    add('extensions', 'both', () => extensionChecks(source, target));
    add('owner-roles', 'both', () => ownerChecks(source, target, context));
    add('tablespaces', 'both', () => tablespaceCheck(source, target));
    add('subscription-address', 'both', () => subscriptionAddressCheck(source, target, context));
  }
  return out;
}

interface Reached extends AsyncDisposable {
  readonly server: CheckedServer | undefined;
  readonly checks: readonly Check[];
}

/** Connects and reads what all checks share. A server that does not answer is a failed check. */
async function reach(side: Side, spec: ConnectionSpec, options: PreflightOptions): Promise<Reached> {
  const id = `${side}-reachable`;
  let session: Session;
  try {
    session = await Session.open(spec, { role: 'preflight', job: options.kind.job, side: `the ${side}`, signal: options.signal });
  } catch (error) {
    if (isInterrupted(error) || !(error instanceof PgweaveError) || error.exitCode === 2) throw error;
    if (side === 'target' && error.code === 'no-such-database' && options.madeThrough !== undefined) return { server: undefined, checks: [await databaseToComeCheck(spec, options.madeThrough, options)], [Symbol.asyncDispose]: async () => undefined };
    return { server: undefined, checks: [check(id, side, 'fail', error.message, { facts: { code: error.code, ...error.details }, ...(error.hint === undefined ? {} : { fix: advice(side, error.hint) }) })], [Symbol.asyncDispose]: async () => undefined };
  }
  try {
    await session.query('set default_transaction_read_only = on');
    const { allowed } = await session.one<{ allowed: boolean }>(mayReadControl());
    const server: CheckedServer = {
      side, session,
      provider: await detectProvider(session),
      identity: await session.one<ServerIdentityRow>(serverIdentity(allowed)),
      rights: await session.one<RoleRightsRow>(roleRights(session.serverVersion)),
      settings: new Map((await session.query<SettingRow>(settings(settingNames))).map((row) => [row.name, row])),
    };
    return { server, checks: [check(id, side, 'ok', `${side} answers at ${session.host.host}:${session.host.port}`, { facts: { host: session.host.host, port: session.host.port, version: session.serverVersionText } })], [Symbol.asyncDispose]: () => session.close() };
  } catch (error) {
    await session.close();
    throw error;
  }
}
