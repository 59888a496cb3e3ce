import { maySeeOrigins, originsInUse, replicationRoom, slotByName, type ReplicationRoomRow, type SlotRow } from '../catalog/replication-room.ts';
import { settingBytes, settingMs } from '../catalog/settings.ts';
import { jobObjectName } from '../core/job-folder.ts';
import { formatBytes, formatDuration } from '../core/units.ts';
import { quoteLiteral } from '../pg/identifiers.ts';
import { advice, check, counted, sqlFix, type Check, type CheckStatus } from './check.ts';
import { decodes, majorOf, numberSetting, type CheckedServer, type PreflightContext } from './context.ts';
import { settingFix, walLevelFix } from './provider-fixes.ts';

/** wal_level of the source: only a job that follows needs `logical`. */
export function walLevelCheck(source: CheckedServer, context: PreflightContext): Check[] {
  const level = source.settings.get('wal_level')?.setting ?? 'unknown';
  const facts = { walLevel: level };
  if (level === 'logical') return [check('wal-level', 'source', 'ok', 'wal_level = logical', { facts })];
  // 19 can raise the effective level by itself; it then answers logical above.
  if (decodes(context.kind)) return [check('wal-level', 'source', 'fail', `wal_level = ${level}; following changes needs logical`, { facts, fix: walLevelFix('source', source.provider) })];
  return [check('wal-level', 'source', 'warn', `wal_level = ${level}: enough for a plain clone, --follow and --sync would need logical`, { facts, fix: walLevelFix('source', source.provider) })];
}

/** Slots, WAL senders and origins that are free. A slot for the stream and one for verify; a sender for each. */
export async function replicationRoomChecks(source: CheckedServer, context: PreflightContext): Promise<Check[]> {
  const used = await source.session.one<ReplicationRoomRow>(replicationRoom());
  // sync: the main slot plus one for each table that PostgreSQL's own workers copy at a time.
  const needed = 2;
  const checks: Check[] = [];
  for (const [id, label, setting, inUse] of [
    ['replication-slots', 'replication slots', 'max_replication_slots', used.slots], ['wal-senders', 'wal senders', 'max_wal_senders', used.senders],
  ] as const) {
    const max = numberSetting(source, setting) ?? 0;
    const free = max - inUse;
    const status: CheckStatus = free >= needed ? 'ok' : decodes(context.kind) && free < 1 ? 'fail' : 'warn';
    const note = status === 'ok' ? '' : decodes(context.kind) ? `; the job takes 1, verify of a running job 1 more` : '; a plain clone takes none';
    checks.push(check(id, 'source', decodes(context.kind) || status === 'ok' ? status : 'warn', `${label}: ${max}, ${Math.max(0, free)} free${note}`, { facts: { max, used: inUse, free }, ...(status === 'ok' ? {} : { fix: settingFix('source', source.provider, setting, String(inUse + needed + 2), true) }) }));
  }
  if (decodes(context.kind)) checks.push(...(await slotNameCheck(source, context)));
  return checks;
}

async function slotNameCheck(source: CheckedServer, context: PreflightContext): Promise<Check[]> {
  const name = jobObjectName(context.kind.job);
  const [slot] = await source.session.query<SlotRow>(slotByName(name));
  if (!slot) return [check('slot-name', 'source', 'ok', `no slot ${name} is there yet`, { facts: { slot: name, exists: false } })];
  const facts = { slot: name, exists: true, database: slot.database, active: slot.active, walStatus: slot.wal_status };
  if (slot.wal_status === 'lost') return [check('slot-name', 'source', 'fail', `slot ${name} is lost: WAL that it needed was removed`, { facts, fix: advice('pgweave', `begin anew: pgweave cleanup --job ${context.kind.job}, then clone again`) })];
  if (slot.database !== source.identity.database) return [check('slot-name', 'source', 'fail', `slot ${name} belongs to database ${slot.database ?? '(none)'}`, { facts, fix: [advice('pgweave', 'choose another name with --job'), sqlFix('source', `select pg_drop_replication_slot(${quoteLiteral(name)});   -- where nothing needs it any more`)] })];
  return [check('slot-name', 'source', 'warn', `slot ${name} is there${slot.active ? ' and in use' : ''}: job "${context.kind.job}" has begun before and would go on`, { facts, fix: advice('pgweave', `to begin anew: pgweave cleanup --job ${context.kind.job}`) })];
}

/** Connections free for the parallel copies. */
export async function connectionRoomCheck(server: CheckedServer, context: PreflightContext): Promise<Check[]> {
  const max = numberSetting(server, 'max_connections');
  if (max === undefined) return [];
  const used = await server.session.one<ReplicationRoomRow>(replicationRoom());
  const reserved = (numberSetting(server, 'superuser_reserved_connections') ?? 3) + (numberSetting(server, 'reserved_connections') ?? 0);
  const free = max - used.connections - (server.rights.superuser ? 0 : reserved);
  const needed = context.kind.jobs + 4;
  const facts = { max, used: used.connections, free, needed };
  if (free >= needed) return [check(`${server.side}-connections`, server.side, 'ok', `connections on the ${server.side}: ${max}, ${free} free`, { facts })];
  return [check(`${server.side}-connections`, server.side, free < 2 ? 'fail' : 'warn', `connections on the ${server.side}: ${max}, ${Math.max(0, free)} free, and the job wants about ${needed}`, { facts, fix: [advice('pgweave', 'give fewer --jobs'), settingFix(server.side, server.provider, 'max_connections', String(max + needed), true)] })];
}

/** How much WAL the source keeps for a slot that lags, and when it gives up on a silent receiver. */
export function walKeepingChecks(source: CheckedServer, context: PreflightContext): Check[] {
  if (!decodes(context.kind)) return [];
  const checks: Check[] = [];
  const keep = source.settings.get('max_slot_wal_keep_size');
  if (keep) {
    const bytes = settingBytes(keep);
    const database = Number(source.identity.database_bytes ?? 0n);
    if (bytes < 0) checks.push(check('wal-keep-size', 'source', 'warn', 'max_slot_wal_keep_size has no limit: while the job lags or is stopped, WAL fills the source\'s disk', { facts: { bytes: -1 }, fix: [settingFix('source', source.provider, 'max_slot_wal_keep_size', '50GB', false), advice('pgweave', 'or watch the slot with pgweave status, and give --spool DIR so that WAL is fetched during the copy')] }));
    else if (bytes < Math.max(database / 10, 1024 ** 3)) checks.push(check('wal-keep-size', 'source', 'warn', `max_slot_wal_keep_size = ${formatBytes(bytes)}: the slot is lost if more WAL than that is written while the copy runs or the job is stopped`, { facts: { bytes, databaseBytes: database }, fix: [advice('pgweave', 'give --spool DIR so that WAL is fetched during the copy'), settingFix('source', source.provider, 'max_slot_wal_keep_size', '50GB', false)] }));
    else checks.push(check('wal-keep-size', 'source', 'ok', `max_slot_wal_keep_size = ${formatBytes(bytes)}`, { facts: { bytes } }));
  }
  const timeout = source.settings.get('wal_sender_timeout');
  if (timeout) {
    const ms = settingMs(timeout);
    const short = ms > 0 && ms < 10_000;
    checks.push(check('wal-sender-timeout', 'source', short ? 'warn' : 'ok', `wal_sender_timeout = ${ms === 0 ? 'off' : formatDuration(ms)}${short ? ': a short pause of the network ends the stream' : ''}`, { facts: { ms }, ...(short ? { fix: settingFix('source', source.provider, 'wal_sender_timeout', '60s', false) } : {}) }));
  }
  const idle = source.settings.get('idle_replication_slot_timeout');
  if (idle && settingMs(idle) > 0) checks.push(check('idle-slot-timeout', 'source', 'warn', `idle_replication_slot_timeout = ${formatDuration(settingMs(idle))}: the slot is lost if the job is stopped for longer`, { facts: { ms: settingMs(idle) }, fix: settingFix('source', source.provider, 'idle_replication_slot_timeout', '0', false) }));
  return checks;
}

async function originRoomCheck(target: CheckedServer, setting: string, context: PreflightContext): Promise<Check> {
  const max = numberSetting(target, setting) ?? 0;
  const { allowed } = await target.session.one<{ allowed: boolean }>(maySeeOrigins());
  if (!allowed) return check('replication-origins', 'target', 'ok', `replication origins: ${max} (${setting}); how many are free this role may not see`, { facts: { setting, max, used: null } });
  const { origins: used } = await target.session.one<{ origins: number }>(originsInUse());
  const free = max - used;
  return check('replication-origins', 'target', free >= 1 ? 'ok' : context.kind.mode === 'sync' ? 'fail' : 'warn', `replication origins: ${max}, ${Math.max(0, free)} free (${setting})`, {
    facts: { setting, max, used }, ...(free >= 1 ? {} : { fix: settingFix('target', target.provider, setting, String(used + 4), true) }),
  });
}

/** Room on the target: origins that follow progress, and for --sync the workers of the subscription. */
export async function targetRoomChecks(target: CheckedServer, context: PreflightContext): Promise<Check[]> {
  if (!decodes(context.kind)) return [];
  const setting = majorOf(target) >= 18 ? 'max_active_replication_origins' : 'max_replication_slots';
  const origins = await originRoomCheck(target, setting, context);
  if (context.kind.mode !== 'sync') return [origins];
  const workers = numberSetting(target, 'max_logical_replication_workers') ?? 0;
  const all = numberSetting(target, 'max_worker_processes') ?? 0;
  const sync = numberSetting(target, 'max_sync_workers_per_subscription') ?? 0;
  const enough = workers >= 2 && all > workers;
  return [origins, check('subscription-workers', 'target', workers === 0 ? 'fail' : enough ? 'ok' : 'warn', `logical replication workers: ${workers} of ${counted(all, 'worker process', 'worker processes')}, ${sync} of them to copy tables for one subscription`, {
    facts: { maxLogicalReplicationWorkers: workers, maxWorkerProcesses: all, maxSyncWorkersPerSubscription: sync },
    ...(enough ? {} : { fix: [settingFix('target', target.provider, 'max_logical_replication_workers', '4', true), settingFix('target', target.provider, 'max_worker_processes', String(Math.max(8, all + 4)), true)] }),
  })];
}
