import { slotSender, subscriptionErrors, subscriptionWorkers, type SenderRow, type WorkerRow } from '../catalog/subscription-stats.ts';
import type { SyncState } from '../catalog/subscriptions.ts';
import { errorMessage } from '../core/errors.ts';
import { jobObjectName } from '../core/job-folder.ts';
import type { TableRef } from '../core/tables.ts';
import { formatBytes } from '../core/units.ts';
import { readProgress } from '../changes/apply/progress.ts';
import { registeredSpool } from '../changes/spool/registration.ts';
import { readTableStates } from '../changes/table-states.ts';
import { hasChangesSchema } from '../changes/target-schema.ts';
import { JobStatus, type JobSnapshot } from '../core/snapshot.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import { formatLsn, lsnDistance, maxLsn, parseLsn, zeroLsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { serverFacts } from './server-facts.ts';
import { readSwitchover } from './switchover/record.ts';
import { readSlot } from './sync/start-point.ts';
import { readSubscribedTables, readSubscription } from './sync/subscription.ts';

/** Where a job with a native subscription stands. A side that cannot be reached is null, with the reason in `problems`. */
export interface NativeStatus {
  readonly format: 1;
  readonly kind: 'native';
  readonly job: string;
  readonly at: string;
  readonly source: SourceSide | null;
  readonly target: TargetSide | null;
  readonly tables: readonly (TableRef & { readonly state: SyncState })[];
  /** WAL that the target has not confirmed, bytes; null where the source cannot be asked or the slot is gone. */
  readonly lagBytes: number | null;
  /** From commit on the source until applied on the target, as last measured; 0 where nothing is behind. */
  readonly lagMs: number | null;
  readonly problems: readonly string[];
  readonly verdict: Verdict;
}

export interface Verdict {
  readonly state: 'ready' | 'copying' | 'catching-up' | 'deferred' | 'disabled' | 'failing' | 'broken' | 'unknown' | 'switched-over';
  /** What the user can do now. */
  readonly text: string;
}

export interface SourceSide {
  readonly place: string;
  readonly version: string;
  readonly slot: { readonly name: string; readonly activePid: number | null; readonly walStatus: string | null; readonly retainedBytes: number | null; readonly safeBytes: number | null; readonly confirmedLsn: string | null; readonly currentLsn: string } | null;
  readonly sender: SenderRow | null;
}

export interface TargetSide {
  readonly place: string;
  readonly version: string;
  readonly subscription: { readonly name: string; readonly enabled: boolean; readonly slot: string | null; readonly binary: boolean; readonly streaming: string; readonly twoPhase: string; readonly origin: string };
  readonly workers: readonly WorkerRow[];
  /** From 15 on; null before. */
  readonly errors: { readonly apply: number; readonly sync: number; readonly conflicts: Readonly<Record<string, number>>; readonly resetAt: string | null } | null;
}

export interface StatusOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly signal?: AbortSignal | undefined;
}

/** Lag below which a switchover takes a moment only. */
const nearBytes = 16 * 1024 * 1024;

/** Asks both servers. Undefined where the target can be reached and has no subscription of this job. */
export async function nativeStatus(options: StatusOptions): Promise<NativeStatus | undefined> {
  const { job, signal } = options;
  const name = jobObjectName(job);
  const problems: string[] = [];
  const ask = async <T>(side: 'source' | 'target', work: (session: Session) => Promise<T>): Promise<T | null> => {
    try {
      await using session = await Session.open(options[side], { role: 'status', job, side: `the ${side}`, signal });
      return await work(session);
    } catch (error) {
      if (signal?.aborted) throw error;
      problems.push(errorMessage(error));
      return null;
    }
  };
  const there = await ask('target', async (session) => {
    const subscription = await readSubscription(session, name);
    if (!subscription) return undefined;
    const tables = await readSubscribedTables(session, name);
    const workers = await session.query<WorkerRow>(subscriptionWorkers(name, session.serverVersion));
    const [errors] = session.serverVersion >= 150_000 ? await session.query<{ stats: Record<string, unknown> }>(subscriptionErrors(name)) : [];
    const { enabled, slot, binary, streaming, two_phase: twoPhase, origin } = subscription;
    const side: TargetSide = { place: placeOf(session), version: versionOf(session), subscription: { name, enabled, slot, binary, streaming, twoPhase, origin }, workers, errors: errors ? errorsOf(errors.stats) : null };
    return { side, tables: tables.map((t) => ({ schema: t.schema, name: t.name, state: t.state })), switched: (await readSwitchover(session, job))?.status === 'done' };
  });
  if (there === undefined) return undefined;
  const source = await ask('source', async (session): Promise<SourceSide> => {
    const slot = await readSlot(session, name);
    const [sender] = slot?.active_pid ? await session.query<SenderRow>(slotSender(slot.active_pid)) : [];
    return {
      place: placeOf(session), version: versionOf(session), sender: sender ?? null,
      slot: slot ? { name, activePid: slot.active_pid, walStatus: slot.invalidation === null ? slot.wal_status : `lost (${slot.invalidation})`, retainedBytes: slot.retained_bytes === null ? null : Number(slot.retained_bytes), safeBytes: slot.safe_wal_size === null ? null : Number(slot.safe_wal_size), confirmedLsn: slot.confirmed_flush_lsn, currentLsn: slot.current_lsn } : null,
    };
  });
  const lagBytes = source?.slot?.confirmedLsn ? lsnDistance(parseLsn(source.slot.confirmedLsn), parseLsn(source.slot.currentLsn)) : null;
  const lagMs = source?.sender?.replay_lag_ms ?? (lagBytes === 0 ? 0 : null);
  const facts = { job, source, target: there?.side ?? null, tables: there?.tables ?? [], lagBytes, switched: there?.switched ?? false };
  return { format: 1, kind: 'native', job, at: new Date().toISOString(), source, target: facts.target, tables: facts.tables, lagBytes, lagMs, problems, verdict: judge(facts) };
}

interface Facts extends Pick<NativeStatus, 'job' | 'source' | 'target' | 'tables' | 'lagBytes'> {
  readonly switched: boolean;
}

/** The plain word at the end. */
export function judge({ job, source, target, tables, lagBytes, switched }: Facts): Verdict {
  const named = job === 'default' ? '' : ` --job ${job}`;
  if (switched) return { state: 'switched-over', text: `The target has taken over. What is left of the job: pgweave cleanup${named}` };
  if (!target) return { state: 'unknown', text: 'The target cannot be reached: nothing is known of the subscription. The source keeps WAL for it meanwhile.' };
  const subscription = quoteIdent(target.subscription.name);
  if (source && !source.slot) return { state: 'broken', text: `The slot is gone from the source, so changes are missing for good. Begin anew: pgweave cleanup${named}, then pgweave clone --sync${named}` };
  if (source?.slot?.walStatus?.startsWith('lost')) return { state: 'broken', text: `The source has removed WAL that the subscription needs. Begin anew: pgweave cleanup${named}, then pgweave clone --sync${named}` };
  if (!target.subscription.enabled) return { state: 'disabled', text: `The subscription is disabled${target.errors && target.errors.apply + target.errors.sync > 0 ? ' (after errors: the target\'s server log says which)' : ''}. To go on, on the target: ALTER SUBSCRIPTION ${subscription} ENABLE;` };
  if (tables.length === 0) return { state: 'deferred', text: `No table is subscribed yet. Next: pgweave sync${named} --copy-now` };
  if (!source) return { state: 'unknown', text: 'The source cannot be reached from here: the lag is not known. The target follows by itself as long as it reaches the source.' };
  const waiting = tables.filter((t) => t.state !== 'r');
  const idle = target.workers.length === 0 || source.slot?.activePid === null;
  if (idle) return { state: 'failing', text: `The target's worker is not connected to the source: it starts anew every few seconds and fails, or only just begins. The target's server log says why${target.errors && target.errors.apply > 0 ? `; ${target.errors.apply} errors so far` : ''}. A conflict with a row of the target is settled by changing that row, or by ALTER SUBSCRIPTION ${subscription} SKIP (lsn = …);` };
  if (waiting.length > 0) return { state: 'copying', text: `${waiting.length} of ${tables.length} tables are not there yet: wait${target.errors && target.errors.sync > 0 ? `. Copies failed ${target.errors.sync} times and begin anew by themselves; the target's server log says why` : ''}. pgweave status${named} --watch shows it.` };
  if (lagBytes !== null && lagBytes > nearBytes) return { state: 'catching-up', text: `The target is ${formatBytes(lagBytes)} of WAL behind and catches up: wait.` };
  return { state: 'ready', text: `All tables stream. Next: pgweave verify${named}, then pgweave switchover${named}` };
}

function errorsOf(stats: Record<string, unknown>): NonNullable<TargetSide['errors']> {
  const conflicts = Object.fromEntries(Object.entries(stats).flatMap(([key, value]) => (key.startsWith('confl_') && typeof value === 'number' ? [[key.slice(6), value]] : [])));
  return { apply: Number(stats['apply_error_count'] ?? 0), sync: Number(stats['sync_error_count'] ?? stats['sync_table_error_count'] ?? 0), conflicts, resetAt: typeof stats['stats_reset'] === 'string' ? stats['stats_reset'] : null };
}

function placeOf(session: Session): string {
  return `${session.host.host}:${session.host.port}/${session.spec.database}`;
}

function versionOf(session: Session): string {
  return session.serverVersionText.split(' ')[0]!;
}

/** A follower says that it lives once a second; this much later it does not. */
const followerSilentMs = 15_000;

/**
 * Where a job with pgweave's own stream stands, from the databases alone: for machines that have no state folder of it. Undefined where the target knows nothing of the job.
 */
export async function streamStatus(options: StatusOptions): Promise<{ readonly snapshot: JobSnapshot; readonly running: boolean } | undefined> {
  const { job, signal } = options;
  await using target = await Session.open(options.target, { role: 'status', job, side: 'the target', signal });
  if (!(await hasChangesSchema(target))) return undefined;
  const tables = await readTableStates(target, job);
  if (tables.length === 0) return undefined;
  await using source = await Session.open(options.source, { role: 'status', job, side: 'the source', signal });
  const [applier] = await target.query<{ silent_ms: number; received: string | null; applied: string | null }>(`select (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - seen_at) * 1000)::pg_catalog.int4 as silent_ms, received_lsn::text as received, applied_lsn::text as applied from pgweave.applier where job = $1`, [job]);
  const running = applier !== undefined && applier.silent_ms < followerSilentMs;
  const slot = await readSlot(source, jobObjectName(job));
  // A plain copy notes no position: nothing follows it.
  const plain = !slot && !running && tables.every((t) => t.copiedLsn === undefined);
  const status = new JobStatus(job, plain ? 'clone' : 'follow');
  status.emit({ type: 'servers', source: await serverFacts(source), target: await serverFacts(target) });
  status.emit({ type: 'tables-planned', tables: tables.map((t) => ({ schema: t.schema, name: t.name, bytes: 0, rows: -1, parts: 1, indexes: 0, state: t.state })) });
  const progress = await readProgress(target, job);
  if (slot) {
    const confirmed = slot.confirmed_flush_lsn === null ? zeroLsn : parseLsn(slot.confirmed_flush_lsn);
    // With a spool the slot is where changes are kept on disk, not where they are applied.
    const known = (await registeredSpool(target, job)) ? (applier?.applied ? parseLsn(applier.applied) : zeroLsn) : confirmed;
    const applied = maxLsn(progress ?? zeroLsn, known);
    status.emit({ type: 'stream-progress', receivedLsn: applier?.received ?? formatLsn(applied), appliedLsn: formatLsn(applied), sourceLsn: slot.current_lsn, lagBytes: lsnDistance(applied, parseLsn(slot.current_lsn)), lagMs: null, transactions: 0, rows: 0 });
    status.emit({ type: 'slot-health', slot: jobObjectName(job), walStatus: slot.wal_status ?? 'reserved', retainedBytes: Number(slot.retained_bytes ?? 0n), safeBytes: slot.safe_wal_size === null ? null : Number(slot.safe_wal_size) });
  }
  const switched = (await readSwitchover(target, job))?.status === 'done';
  status.emit({ type: 'phase', phase: switched ? 'switched-over' : tables.some((t) => t.state.name === 'pending' || t.state.name === 'copying') ? 'copying' : plain ? 'done' : running ? 'streaming' : 'stopped' });
  return { snapshot: status.read(), running };
}
