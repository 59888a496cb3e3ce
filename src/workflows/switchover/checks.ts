import { randomBytes } from 'node:crypto';
import { publicationLeaves, publishable, type PublishableRow } from '../../catalog/publications.ts';
import { readSequenceValues } from '../../catalog/sequence-values.ts';
import { sequenceOnTarget } from '../../catalog/sequences.ts';
import { readTableStates } from '../../changes/table-states.ts';
import { keptSelection } from '../../copy/kept-selection.ts';
import { lockRights, preparedHere, unreplicated, wayBackRoom, writerSessions, type LockRightsRow, type UnreplicatedRow, type WayBackRoomRow, type WriterSessionsRow } from '../../catalog/switchover-readiness.ts';
import { errorMessage, isInterrupted, PgweaveError } from '../../core/errors.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { formatBytes, formatCount, formatDuration } from '../../core/units.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { displayName, quoteIdent, quoteLiteral } from '../../pg/identifiers.ts';
import { Session } from '../../pg/session.ts';
import { publicationNamesOf } from '../publications.ts';
import { checkNative } from './native-steps.ts';
import { wayBackFaults } from './own-columns.ts';
import { probeFollower, settledTables } from './ready.ts';
import { readSwitchover } from './record.ts';

export interface SwitchoverChecksOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  /** A native subscription follows, not our own stream. */
  readonly native: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** One thing that is looked at before a switchover. `failed`: it would be refused; `warn`: it costs time, or something is left to you. */
export interface SwitchoverCheck {
  readonly name: string;
  readonly status: 'ok' | 'warn' | 'failed';
  readonly detail: string;
  /** What to do about it, SQL or a command where there is one. */
  readonly fix?: string;
}

/** How long the probe may take: somebody waits before a page. */
const probeTimeoutMs = 10_000;
/** Below this, copying again under the lock is not worth a word. */
const quickBytes = 16 * 1024 ** 2;

type Found = Omit<SwitchoverCheck, 'name'>;

/**
 * Everything that a switchover needs, looked at while writes go on: the switchover's own preflight, and what it would only meet under the lock. Nothing is locked and no row of the users' is written;
 * one marker passes through the WAL to prove that the stream moves. Throws only where a side cannot be reached.
 */
export async function switchoverChecks(options: SwitchoverChecksOptions): Promise<SwitchoverCheck[]> {
  const { job, native } = options;
  const signal = options.signal ?? new AbortController().signal;
  await using source = await Session.open(options.source, { role: 'switchover', job, side: 'the source', signal });
  await using target = await Session.open(options.target, { role: 'switchover', job, side: 'the target', signal });
  const published = await source.query<TableRef>(publicationLeaves(Object.values(publicationNamesOf(job))));
  const checks: readonly (readonly [name: string, look: () => Promise<Found>])[] = [
    ['Earlier switchover', () => earlier(target, job)],
    ...(native ? [['Subscription', () => nativeStream(source, target, job)] as const] : [['Tables', () => ownTables(target, job)] as const, ['Stream', () => ownStream(source, target, job, signal)] as const]),
    ['Refusing writes', () => mayLock(source, published)],
    ['Other sessions', () => others(source, job)],
    ['Sequences', () => sequences(source, target, job)],
    ['Large objects, unlogged tables', () => outside(source)],
    ['Way back', () => wayBack(source, target, published, job, native)],
  ];
  const found: SwitchoverCheck[] = [];
  // One after the other: both sessions are single connections, and the page shows them in this order.
  for (const [name, look] of checks) found.push({ name, ...(await look().catch((error: unknown) => refusal(error))) });
  return found;
}

/** What a switchover would say; a look that failed for another reason is no promise either. */
function refusal(error: unknown): Found {
  if (isInterrupted(error)) throw error;
  const fix = error instanceof PgweaveError ? error.hint : undefined;
  return { status: 'failed', detail: `${sentence(errorMessage(error))}`, ...(fix === undefined ? {} : { fix }) };
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;
}

async function earlier(target: Session, job: string): Promise<Found> {
  const before = await readSwitchover(target, job);
  const at = before?.startedAt.slice(0, 19);
  if (before?.status === 'done') return { status: 'failed', detail: `This job was switched over at ${at} UTC.`, fix: `pgweave cleanup --job ${job}` };
  if (before?.status === 'running') return { status: 'warn', detail: `One that began at ${at} UTC has not ended. A new one takes it over; to give it up instead:`, fix: `pgweave switchover --job ${job} --unlock` };
  return { status: 'ok', detail: before ? `The one of ${at} UTC was undone.` : 'None.' };
}

async function ownTables(target: Session, job: string): Promise<Found> {
  const tables = await settledTables(target, job);
  return { status: 'ok', detail: `${formatCount(tables.length)} of ${formatCount(tables.length)} are copied, none is paused.` };
}

async function ownStream(source: Session, target: Session, job: string, signal: AbortSignal): Promise<Found> {
  const { lagBytes, roundTripMs } = await probeFollower(source, target, job, `probe:${randomBytes(6).toString('hex')}`, probeTimeoutMs, signal);
  return { status: 'ok', detail: `A marker written to the source was applied on the target ${formatDuration(roundTripMs)} later; ${formatBytes(Math.max(0, lagBytes))} of WAL were not confirmed before it.` };
}

async function nativeStream(source: Session, target: Session, job: string): Promise<Found> {
  const { tables, lagBytes } = await checkNative(source, target, job);
  return { status: 'ok', detail: `${formatCount(tables.length)} of ${formatCount(tables.length)} tables stream; ${formatBytes(Math.max(0, lagBytes))} of WAL are not confirmed yet.` };
}

/** Rights and locks: prepared transactions hold theirs whatever is ended. */
async function mayLock(source: Session, published: readonly TableRef[]): Promise<Found> {
  const rights = await source.one<LockRightsRow>(lockRights(published.map((t) => t.schema), published.map((t) => t.name)));
  const user = quoteIdent(source.spec.user);
  if (!rights.superuser && !rights.owns_database) return { status: 'failed', detail: `Role ${source.spec.user} does not own database ${source.spec.database}, so it may not make it read-only.`, fix: `ALTER DATABASE ${quoteIdent(source.spec.database)} OWNER TO ${user};` };
  if (rights.unlockable_count > 0) return { status: 'failed', detail: `Role ${source.spec.user} may not lock ${formatCount(rights.unlockable_count)} of ${formatCount(published.length)} tables, such as ${rights.unlockable[0]}.`, fix: `GRANT UPDATE ON ${rights.unlockable.join(', ')} TO ${user};` };
  const prepared = await source.query<{ gid: string }>(preparedHere());
  if (prepared.length > 0) return { status: 'failed', detail: `${formatCount(prepared.length)} prepared ${prepared.length === 1 ? 'transaction holds its' : 'transactions hold their'} locks until somebody ends ${prepared.length === 1 ? 'it' : 'them'}.`, fix: `COMMIT PREPARED ${quoteLiteral(prepared[0]!.gid).trim()};` };
  if (!rights.signal_backend) return { status: 'warn', detail: `Role ${source.spec.user} may end its own sessions only; those of other roles stay connected, and what they write waits for the locks.`, fix: `GRANT pg_signal_backend TO ${user};` };
  return { status: 'ok', detail: `The database can be made read-only and ${formatCount(published.length)} tables can be locked.` };
}

async function others(source: Session, job: string): Promise<Found> {
  const { sessions, long, oldest_seconds: oldest, oldest_pid: pid } = await source.one<WriterSessionsRow>(writerSessions(job));
  if (sessions === 0) return { status: 'ok', detail: 'Nobody else is connected to the source.' };
  const ended = `${formatCount(sessions)} ${sessions === 1 ? 'session is' : 'sessions are'} ended`;
  if (long > 0) return { status: 'warn', detail: `${ended}, and with them ${formatCount(long)} ${long === 1 ? 'transaction' : 'transactions'} in mid-work, the oldest for ${formatDuration((oldest ?? 0) * 1000)} (pid ${pid}).`, fix: 'Let long transactions finish first, or they are rolled back.' };
  return { status: 'ok', detail: `${ended}; applications connect again to the target.` };
}

async function sequences(source: Session, target: Session, job: string): Promise<Found> {
  const { mapTo } = await keptSelection(target, job);
  const from = await readSequenceValues(source);
  const there = new Set((await readSequenceValues(target)).map(tableKey));
  const missing = from.filter((s) => !there.has(tableKey(sequenceOnTarget(s, s.ownedBy, mapTo))));
  if (missing.length > 0) return { status: 'warn', detail: `${formatCount(missing.length)} of ${formatCount(from.length)} are not on the target and stay behind: ${missing.slice(0, 3).map((s) => displayName(s.schema, s.name)).join(', ')}${missing.length > 3 ? ', …' : ''}.` };
  return { status: 'ok', detail: from.length === 0 ? 'None to carry over.' : `${formatCount(from.length)} can be read and are carried over.` };
}

async function outside(source: Session): Promise<Found> {
  const found = await source.one<UnreplicatedRow>(unreplicated());
  const bytes = found.large_object_bytes + found.unlogged_bytes;
  if (found.large_objects === 0 && found.unlogged === 0) return { status: 'ok', detail: 'None.' };
  const what = [...(found.large_objects > 0 ? [`${formatCount(found.large_objects)}${found.large_objects === 100_000 ? ' or more' : ''} large objects`] : []), ...(found.unlogged > 0 ? [`${formatCount(found.unlogged)} unlogged tables`] : [])].join(', ');
  return { status: bytes > quickBytes ? 'warn' : 'ok', detail: `${what}, ${formatBytes(bytes)}: replication does not carry them, so they are copied again while writes are refused, unless nothing changed since the copy.` };
}

/** Only asked for with "keep the way back open", so what stands against it is never more than a warning. */
async function wayBack(source: Session, target: Session, published: readonly TableRef[], job: string, native: boolean): Promise<Found> {
  const room = await target.one<WayBackRoomRow>(wayBackRoom());
  if (room.wal_level !== 'logical') return { status: 'warn', detail: `It cannot be kept open: the target has wal_level = ${room.wal_level}.`, fix: `ALTER SYSTEM SET wal_level = 'logical';   -- then restart the target` };
  if (!room.replication) return { status: 'warn', detail: `It cannot be kept open: role ${target.spec.user} may not replicate from the target.`, fix: `ALTER ROLE ${quoteIdent(target.spec.user)} REPLICATION;` };
  if (room.slots_used >= room.slots_max) return { status: 'warn', detail: `It cannot be kept open: all ${room.slots_max} replication slots of the target are in use.`, fix: `ALTER SYSTEM SET max_replication_slots = ${room.slots_max + 5};   -- then restart the target` };
  if (room.senders_used >= room.senders_max) return { status: 'warn', detail: `It cannot be kept open: all ${room.senders_max} WAL senders of the target are in use.`, fix: `ALTER SYSTEM SET max_wal_senders = ${room.senders_max + 5};   -- then restart the target` };
  const kept = await keptSelection(target, job);
  const faults = await wayBackFaults(source, target, { tables: native ? published : await readTableStates(target, job), kept, native });
  if (faults.length > 0) return { status: 'warn', detail: `It cannot be kept open: ${faults.map((f) => f.text).join('; ')}.`, fix: faults.map((f) => f.fix).join('\n') };
  const there = published.map(kept.mapTo);
  const rows = await target.query<PublishableRow>(publishable(there.map((t) => t.schema), there.map((t) => t.name)));
  const bare = rows.filter((r) => !r.identified && !r.unlogged);
  if (bare.length > 0) return { status: 'warn', detail: `${formatCount(bare.length)} of ${formatCount(rows.length)} tables have no replica identity on the target, such as ${displayName(bare[0]!.schema, bare[0]!.name)}: only their inserts would go back.` };
  return { status: 'ok', detail: `It can be kept open: wal_level = logical, ${room.slots_max - room.slots_used} slots and ${room.senders_max - room.senders_used} WAL senders of the target are free.` };
}
