import { subscribedTables, type SubscribedTableRow, type SubscriptionRow } from '../../catalog/subscriptions.ts';
import { sleep } from '../../core/abort.ts';
import { PgweaveError, usageError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoints.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { formatBytes, formatDuration } from '../../core/units.ts';
import { oppositeJob } from '../../core/way-back.ts';
import { displayName } from '../../pg/identifiers.ts';
import { formatLsn, parseLsn, type Lsn } from '../../pg/lsn.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { Session } from '../../pg/session.ts';
import { ensurePublications, publicationNamesOf } from '../publications.ts';
import { subscriptionConnection, type SubscriptionConnection } from '../sync/connection.ts';
import { publishedRelations } from '../sync/published-relations.ts';
import { readSlot } from '../sync/start-point.ts';
import { checkOurs, createSubscription, dropSubscription, enableSubscription, readSubscription, subscriptionMark } from '../sync/subscription.ts';

/** A native job that is ready to be handed over: every table streams, the target's worker is connected. Throws what is in the way. */
export async function checkNative(source: Session, target: Session, job: string): Promise<{ readonly subscription: SubscriptionRow; readonly tables: readonly SubscribedTableRow[]; readonly lagBytes: number }> {
  const name = jobObjectName(job);
  const subscription = await readSubscription(target, name);
  if (!subscription) throw new PgweaveError('no-such-job', `the target has no subscription ${name}`, { hint: `Is --target right, and is the job called so? pgweave status --job ${job}` });
  checkOurs(subscription, job);
  if (!subscription.enabled) throw new PgweaveError('subscription-disabled', `subscription ${name} is disabled on the target`, { hint: `pgweave status --job ${job} says why it may be; to go on: pgweave sync --job ${job}` });
  const tables = await target.query<SubscribedTableRow>(subscribedTables(name));
  const waiting = tables.filter((t) => t.state !== 'r');
  if (tables.length === 0 || waiting.length > 0) {
    throw new PgweaveError('not-copied', tables.length === 0 ? 'no table is subscribed' : `${waiting.length} of ${tables.length} tables do not stream yet, such as ${displayName(waiting[0]!.schema, waiting[0]!.name)}`, { hint: `Wait until they do: pgweave status --job ${job} --watch` });
  }
  // The worker comes back within seconds after an error or a restart: a moment without it is no reason to give up.
  for (let attempt = 0; ; attempt += 1) {
    const slot = await readSlot(source, name);
    if (!slot) throw new PgweaveError('no-slot', `the source has no slot ${name}`, { hint: `The subscription cannot go on. Begin anew: pgweave cleanup --job ${job}` });
    if (slot.active_pid !== null) return { subscription, tables, lagBytes: Number(parseLsn(slot.current_lsn) - parseLsn(slot.confirmed_flush_lsn ?? '0/0')) };
    if (attempt >= 100) throw new PgweaveError('no-follower', `the target's worker is not connected: slot ${name} is not in use`, { hint: `The target's server log says why. pgweave status --job ${job}` });
    await sleep(100);
  }
}

/** Waits until the target has confirmed everything before `lsn`: with nothing in flight its worker answers the source's keepalives at once. */
export async function waitUntilApplied(source: Session, slot: string, lsn: Lsn, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const row = await readSlot(source, slot);
    const confirmed = parseLsn(row?.confirmed_flush_lsn ?? '0/0');
    if (confirmed >= lsn) return;
    if (Date.now() > end) throw new PgweaveError('not-drained', `the target did not apply everything within ${formatDuration(timeoutMs)}: ${formatBytes(Number(lsn - confirmed))} of WAL are left, up to ${formatLsn(lsn)}`, { hint: 'Try again when the lag is small (pgweave status). A longer --timeout waits longer.' });
    await sleep(10, signal);
  }
}

/** Stops a subscription's worker and waits until its slot is free, so that nothing comes any more and the slot can be looked into. */
export async function stopSubscription(target: Session, source: Session, name: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
  await target.query(`alter subscription "${name}" disable`);
  const end = Date.now() + timeoutMs;
  for (;;) {
    const slot = await readSlot(source, name);
    if (!slot || slot.active_pid === null) return;
    if (Date.now() > end) throw new PgweaveError('follower-remains', `process ${slot.active_pid} still uses slot ${name}`, { hint: 'The subscription was disabled and its worker has not ended. Look at it on the target, then run the same command again.' });
    await sleep(20, signal);
  }
}

export interface NativeWayBackOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly binary: boolean;
  /** The address at which the old source reaches the target, where it is not the one of `target`. */
  readonly targetForSource?: ConnectionSpec | undefined;
  readonly signal: AbortSignal;
}

/** What the old source's workers connect to the target with. Throws a usage error where the target's address would mean the old source itself. */
export function wayBackConnection(options: Pick<NativeWayBackOptions, 'source' | 'target' | 'targetForSource'>): SubscriptionConnection {
  try {
    return subscriptionConnection(options.target, options.source, { sourceForTarget: options.targetForSource });
  } catch (error) {
    if (!(error instanceof PgweaveError) || error.code !== 'usage') throw error;
    const { user, database, hosts } = options.target;
    throw usageError(`for the way back the old source connects to the target on its own, and would take "${hosts[0]!.host}" for itself`, `Give the address at which it reaches the target: --target-for-source postgresql://${user}@HOST:${hosts[0]!.port}/${database}`);
  }
}

/**
 * Opens the way back with a native subscription on the old source. The forward subscription must be stopped: then the new slot on the target begins after everything that came from the source,
 * and no change goes round in a circle, also before 16; from 16 on `origin = none` sees to it once more. Can be run again: what an earlier attempt left is replaced.
 */
export async function openNativeWayBack(source: Session, target: Session, options: NativeWayBackOptions): Promise<{ readonly job: string; readonly slot: string }> {
  const job = oppositeJob(options.job);
  const name = jobObjectName(job);
  await closeNativeWayBack(source, target, options.job);
  const tables = [...new Map((await publishedRelations(source, options.job)).map((t): [string, TableRef] => [tableKey(t), { schema: t.schema, name: t.name }])).values()];
  const publications = await ensurePublications(target, { job, tables, viaRoot: true });
  await failpoint('switchover.reverse-publication');
  await target.query(`select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`, [name]);
  await failpoint('switchover.reverse-slot');
  const { conninfo } = wayBackConnection(options);
  const origin = source.serverVersion >= 160_000 && target.serverVersion >= 160_000 ? 'none' as const : 'any' as const;
  await createSubscription(source, { job, name, conninfo, slot: name, publications: publications.names, copyData: false, settings: { streaming: 'parallel', binary: options.binary, twoPhase: false, origin }, source: options.target });
  await enableSubscription(source, name);
  await failpoint('switchover.reverse-subscription');
  return { job, slot: name };
}

/** Takes the way back away: the subscription on the old source first, then its slot on the target. */
export async function closeNativeWayBack(source: Session, target: Session, job: string): Promise<void> {
  const name = jobObjectName(oppositeJob(job));
  const there = await readSubscription(source, name);
  if (there?.comment === subscriptionMark(oppositeJob(job))) await dropSubscription(source, name);
  for (let attempt = 0; ; attempt += 1) {
    const slot = await readSlot(target, name);
    if (!slot) return;
    if (slot.active_pid === null) {
      await target.query('select pg_catalog.pg_drop_replication_slot($1)', [name]);
      return;
    }
    if (attempt > 200) throw new PgweaveError('slot-in-use', `slot ${name} on the target is in use by process ${slot.active_pid}`, { hint: 'Something follows the way back of an earlier run. Stop it, or choose another --job.' });
    await sleep(50);
  }
}

/** After the hand-over: the forward subscription would bring old values over new ones, and its slot would keep the old source's WAL for ever. */
export async function closeNativeForward(source: Session, target: Session, job: string): Promise<void> {
  const name = jobObjectName(job);
  if (await readSubscription(target, name)) await dropSubscription(target, name);
  if (await readSlot(source, name)) await source.query('select pg_catalog.pg_drop_replication_slot($1)', [name]);
  for (const publication of Object.values(publicationNamesOf(job))) await source.query(`drop publication if exists "${publication}"`);
}

/** After a switchover that died: the subscription follows again. Does nothing for a job without one. */
export async function resumeNative(sourceSpec: ConnectionSpec, target: Session, job: string): Promise<boolean> {
  const subscription = await readSubscription(target, jobObjectName(job));
  if (subscription?.comment !== subscriptionMark(job)) return false;
  await using source = await Session.open(sourceSpec, { role: 'switchover', job, side: 'the source' });
  await closeNativeWayBack(source, target, job);
  if (!subscription.enabled) await enableSubscription(target, subscription.name);
  return true;
}
