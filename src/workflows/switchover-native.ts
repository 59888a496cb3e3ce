import { randomBytes } from 'node:crypto';
import { emitMarker, switchoverMarker, type Marker } from '../changes/sentinel.ts';
import { copiedTables } from './sync/start-point.ts';
import { publicationLeaves } from '../catalog/publications.ts';
import { readSequenceValues } from '../catalog/sequence-values.ts';
import type { SubscribedTableRow, SubscriptionRow } from '../catalog/subscriptions.ts';
import { errorMessage, interruptedError, PgweaveError } from '../core/errors.ts';
import type { Emit, StepEvent } from '../core/events.ts';
import { failpoint } from '../core/failpoints.ts';
import { jobObjectName } from '../core/job-folder.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { formatBytes, formatCount, formatDuration } from '../core/units.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { displayName, quoteIdent } from '../pg/identifiers.ts';
import { formatLsn, type Lsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { publicationNamesOf } from './publications.ts';
import { lateChanges } from './switchover/late-changes.ts';
import { describeLock, lockSource, restoreWrites, type PreviousSetting, type SourceLock } from './switchover/lock-source.ts';
import { checkNative, closeNativeForward, closeNativeWayBack, openNativeWayBack, resumeNative, stopSubscription, waitUntilApplied, wayBackConnection } from './switchover/native-steps.ts';
import { refuseLossyWayBack } from './switchover/own-columns.ts';
import { readSwitchover, SwitchoverSteps } from './switchover/record.ts';
import { keptSelection } from '../copy/kept-selection.ts';
import { carrySequences } from '../copy/sequences.ts';
import { carryUnreplicated } from './switchover/unreplicated.ts';
import { isWayBack, oppositeJob } from '../core/way-back.ts';
import { readSubscription, subscriptionMark } from './sync/subscription.ts';
import type { SwitchoverOptions, SwitchoverResult } from './switchover.ts';

export interface NativeSwitchoverOptions extends SwitchoverOptions {
  /** For --reverse: the address at which the old source reaches the target, where it is not the one of `target`. */
  readonly targetForSource?: ConnectionSpec | undefined;
}

/** Used where the caller gives none: PostgreSQL's worker may have a large transaction in hand. */
const defaultTimeoutMs = 300_000;

/** Whether a native subscription follows for this job. */
export async function isNativeJob(target: ConnectionSpec, job: string, signal?: AbortSignal): Promise<boolean> {
  await using session = await Session.open(target, { role: 'switchover', job, side: 'the target', signal });
  return (await readSubscription(session, jobObjectName(job)))?.comment === subscriptionMark(job);
}

/**
 * Hands over a job that a native subscription follows: the steps of {@link switchover}, with the slot's confirmed position in the marker's place. Where anything fails before the
 * end, the source takes writes again, the subscription follows on, and the error says so. Can be run again after any crash.
 */
export async function switchoverNative(given: NativeSwitchoverOptions): Promise<SwitchoverResult> {
  const signal = given.signal ?? new AbortController().signal;
  const options = { ...given, timeoutMs: given.timeoutMs ?? defaultTimeoutMs, signal };
  const { job } = options;
  await using source = await Session.open(options.source, { role: 'switchover', job, side: 'the source', signal });
  await using target = await Session.open(options.target, { role: 'switchover', job, side: 'the target', signal });
  const before = await readSwitchover(target, job);
  if (before?.status === 'running') await resumeNative(options.source, target, job);
  // Before anything is locked: afterwards it would only cost time.
  if (options.reverse) wayBackConnection(options);
  const ready = await checkNative(source, target, job);
  if (options.reverse) await refuseLossyWayBack(source, target, { tables: ready.tables, kept: await keptSelection(target, job), native: true });
  const run = new NativeRun(options, source, target, ready.subscription, ready.tables);
  return options.dryRun ? run.dryRun(ready.lagBytes) : await run.run(ready.lagBytes, before?.status === 'running' ? (before.previous ?? undefined) : undefined);
}

type RunOptions = NativeSwitchoverOptions & { readonly timeoutMs: number; readonly signal: AbortSignal };

class NativeRun {
  readonly #options: RunOptions;
  readonly #source: Session;
  readonly #target: Session;
  readonly #subscription: SubscriptionRow;
  readonly #tables: readonly SubscribedTableRow[];
  readonly #emit: Emit;
  readonly #slot: string;

  constructor(options: RunOptions, source: Session, target: Session, subscription: SubscriptionRow, tables: readonly SubscribedTableRow[]) {
    this.#options = options;
    this.#source = source;
    this.#target = target;
    this.#subscription = subscription;
    this.#tables = tables;
    this.#emit = options.onEvent ?? (() => undefined);
    this.#slot = jobObjectName(options.job);
  }

  dryRun(lagBytes: number): SwitchoverResult {
    const steps: Omit<StepEvent, 'type'>[] = [];
    const add = (name: string, status: StepEvent['status'], detail: string) => {
      const step = { name, status, detail, elapsedMs: 0 };
      steps.push(step);
      this.#emit({ type: 'step', ...step });
    };
    const scope = this.#options.lock ?? 'database';
    add('checks', 'ok', this.#checked(lagBytes));
    add('new writes refused', 'skipped', scope === 'database' ? `would run ALTER DATABASE ${quoteIdent(this.#options.source.database)} SET default_transaction_read_only = on, end other sessions, lock ${this.#tables.length} tables` : scope === 'tables' ? `would lock ${this.#tables.length} tables` : 'no lock: writers are stopped by you');
    add('drained', 'skipped', `would wait up to ${formatDuration(this.#options.timeoutMs)} for the subscription to apply everything`);
    add('sequences', 'skipped', 'would carry values over');
    if (this.#options.verify) add('verified', 'skipped', 'would compare all rows');
    if (this.#options.reverse) add('way back', 'skipped', `would make subscription ${jobObjectName(oppositeJob(this.#options.job))} on the source`);
    return { run: 'dry-run', steps, refusedMs: 0, markerLsn: null, sequences: 0, wayBack: null };
  }

  async run(lagBytes: number, previous: PreviousSetting | undefined): Promise<SwitchoverResult> {
    const { job, signal } = this.#options;
    const run = `${switchoverMarker}${randomBytes(6).toString('hex')}`;
    const steps = await SwitchoverSteps.begin(this.#target, job, run, previous, this.#emit);
    this.#emit({ type: 'phase', phase: 'switching-over' });
    try {
      await steps.step('checks', () => Promise.resolve({ detail: this.#checked(lagBytes) }));
      return await this.#underLock(steps, run, previous);
    } catch (error) {
      if (error instanceof PgweaveError && error.code === 'still-locked') throw error;
      await resumeNative(this.#options.source, this.#target, job).catch(() => undefined);
      await steps.end('undone').catch(() => undefined);
      this.#emit({ type: 'phase', phase: 'streaming' });
      if (signal.aborted) throw interruptedError('The source takes writes as before; nothing was handed over. The same command begins anew.');
      if (!(error instanceof PgweaveError) || error.hint?.includes('Writes are taken again')) throw error;
      throw new PgweaveError(error.code, error.message, { hint: `${error.hint ? `${error.hint} ` : ''}The source takes writes as before; nothing was handed over.`, retry: error.retry, exitCode: error.exitCode, cause: error });
    }
  }

  async #underLock(steps: SwitchoverSteps, run: string, previous: PreviousSetting | undefined): Promise<SwitchoverResult> {
    const { job, signal, timeoutMs, verify, reverse } = this.#options;
    const refusedFrom = performance.now();
    this.#emit({ type: 'writes', refused: true });
    let lock: SourceLock | undefined;
    try {
      ({ lock } = await steps.step('new writes refused', () => this.#lock(steps, previous)));
      const held = lock;
      await failpoint('switchover.locked');
      const { marker } = await steps.step('end of the WAL', async () => {
        const made = await emitMarker(this.#source, run);
        return { marker: made, detail: formatLsn(made.lsn) };
      });
      await failpoint('switchover.marker');
      await steps.step('drained', async () => {
        await waitUntilApplied(this.#source, this.#slot, marker.lsn, timeoutMs, signal);
        return { detail: 'the subscription has applied everything' };
      });
      await failpoint('switchover.drained');
      const { count } = await steps.step('sequences', () => this.#sequences(held));
      await failpoint('switchover.sequences');
      await steps.step('large objects, unlogged', () => this.#unreplicated());
      if (verify) await steps.step('verified', async () => ({ detail: await verify({ tables: this.#tables.map(refOf), lsn: marker.lsn }) }));
      await steps.step('nothing came after', () => this.#lookBehind(marker));
      await failpoint('switchover.stopped');
      const wayBack = reverse ? (await steps.step('way back', () => this.#wayBack(steps))).wayBack : undefined;
      await failpoint('switchover.before-hand-over');
      await this.#openTarget(steps);
      await steps.end('done', formatLsn(marker.lsn));
      await held.keep();
      const refusedMs = Math.round(performance.now() - refusedFrom);
      this.#emit({ type: 'writes', refused: false });
      await failpoint('switchover.handed-over');
      // From here on the target has taken over: what follows is tidying, which cleanup does too.
      await steps.step('forward subscription closed', async () => {
        await closeNativeForward(this.#source, this.#target, job);
        return { detail: `subscription, slot and publication ${this.#slot} removed` };
      }).catch(() => undefined);
      // The subscription that has just been closed was itself a way back.
      if (isWayBack(job)) this.#emit({ type: 'way-back', open: false, slot: this.#slot });
      if (wayBack) this.#emit({ type: 'way-back', open: true, slot: wayBack.slot });
      await steps.end('done', formatLsn(marker.lsn));
      this.#emit({ type: 'phase', phase: 'switched-over' });
      return { run, steps: steps.all, refusedMs, markerLsn: formatLsn(marker.lsn), sequences: count, wayBack: wayBack ?? null };
    } catch (error) {
      if (lock) {
        // A subscription that follows the other way must end before the source is written again.
        await closeNativeWayBack(this.#source, this.#target, job).catch(() => undefined);
        try {
          await lock.release();
        } catch (failure) {
          throw new PgweaveError('still-locked', `the switchover failed (${errorMessage(error)}), and the source could not be opened again: ${errorMessage(failure)}`, { hint: `The source may still refuse writes. As soon as it can be reached: pgweave switchover --job ${job} --unlock`, cause: error });
        }
        steps.undone('new writes refused', `taken back after ${formatDuration(performance.now() - refusedFrom)}: the source takes writes as before`);
      }
      this.#emit({ type: 'writes', refused: false });
      throw error;
    }
  }

  #checked(lagBytes: number): string {
    return `lag ${formatBytes(Math.max(0, lagBytes))}, ${formatCount(this.#tables.length)} of ${formatCount(this.#tables.length)} tables streaming`;
  }

  async #lock(steps: SwitchoverSteps, previous: PreviousSetting | undefined): Promise<{ lock: SourceLock; detail: string }> {
    const { source, job, timeoutMs, signal } = this.#options;
    const scope = this.#options.lock ?? 'database';
    const published = await this.#source.query<TableRef>(publicationLeaves(Object.values(publicationNamesOf(job))));
    const lock = await lockSource(source, { job, scope, tables: published, timeoutMs, signal, previous, remember: (setting) => steps.remember(setting) });
    return { lock, detail: describeLock(scope, source.database, lock) };
  }

  async #sequences(lock: SourceLock): Promise<{ count: number; detail: string }> {
    // Sequences of tables that are not followed may be used on the target already, and those that it lacks are none of the job's.
    const there = new Set((await readSequenceValues(this.#target)).map(tableKey));
    const { set, ahead } = await carrySequences(lock.session, this.#target, { buffer: this.#options.sequenceBuffer ?? 0n, select: (s) => there.has(tableKey(s)) });
    const shown = set.slice(0, 3).map((s) => `${s.sequence.name} ${formatCount(s.value)}`).join(', ');
    return { count: set.length, detail: [`${set.length} set${shown === '' ? '' : ` (${shown}${set.length > 3 ? ', …' : ''})`}`, ...(ahead.length > 0 ? [`${ahead.length} further on the target already`] : [])].join('; ') };
  }

  async #unreplicated(): Promise<{ detail: string }> {
    const { source, target, job, signal } = this.#options;
    const known = new Set((await copiedTables(this.#target, job)).map(tableKey));
    if (known.size === 0) return { detail: 'not carried: PostgreSQL made the copy, which has no large objects and no unlogged tables' };
    const done = await carryUnreplicated({ source, target, job, signal, includes: (table) => known.has(tableKey(table)) });
    if (done.tables === 0 && done.objects === 0) return { detail: 'none, or unchanged since the copy' };
    return { detail: `${done.tables} unlogged tables (${formatCount(done.rows)} rows), ${formatCount(done.objects)} large objects (${formatBytes(done.bytes)})` };
  }

  /** Stops the subscription and looks into its slot for changes of published tables that were committed after the end that was waited for. */
  async #lookBehind(marker: Marker): Promise<{ detail: string }> {
    const { job, timeoutMs, signal } = this.#options;
    await stopSubscription(this.#target, this.#source, this.#slot, timeoutMs, signal);
    const names = await this.#source.query<{ name: string }>('select pubname::text as name from pg_catalog.pg_publication where pubname = any($1::pg_catalog.text[])', [Object.values(publicationNamesOf(job))]);
    const late = await lateChanges(this.#source, this.#slot, names.map((n) => n.name), (marker.lsn - 1n) as Lsn);
    if (late.length > 0) {
      throw new PgweaveError('late-changes', `somebody wrote to the source after the end was marked: ${late.slice(0, 5).map((l) => displayName(l.table.schema, l.table.name)).join(', ')}`, { hint: 'Nothing is lost: the subscription gets these changes too. Find the writer (a session that sets default_transaction_read_only itself, or was not stopped), then switch over once more.' });
    }
    return { detail: 'the subscription has stopped; the slot holds no later change of a published table' };
  }

  async #wayBack(steps: SwitchoverSteps): Promise<{ wayBack: { job: string; slot: string }; detail: string }> {
    const { source, target, job, targetForSource, signal } = this.#options;
    await steps.rememberWayBack();
    const wayBack = await openNativeWayBack(this.#source, this.#target, { source, target, job, targetForSource, binary: this.#subscription.binary, signal });
    return { wayBack, detail: `subscription ${wayBack.slot} on ${source.hosts[0]!.host} follows the target from its first write on` };
  }

  /** On the way back the target is the old source, which the first switchover closed: it takes writes again as before that. */
  async #openTarget(steps: SwitchoverSteps): Promise<void> {
    const first = await readSwitchover(this.#source, oppositeJob(this.#options.job));
    if (first?.status !== 'done' || !first.previous) return;
    const { previous } = first;
    await steps.step('target takes writes', async () => {
      await restoreWrites(this.#options.target, previous);
      return { detail: `ALTER DATABASE ${quoteIdent(this.#options.target.database)} ${previous.defaultTransactionReadOnly === null ? 'RESET default_transaction_read_only' : `SET default_transaction_read_only = ${previous.defaultTransactionReadOnly}`}` };
    });
    // Both directions begin anew: the first one's record would forbid it.
    await this.#source.query('delete from pgweave.switchover where job = $1', [oppositeJob(this.#options.job)]);
  }
}

function refOf(t: TableRef): TableRef {
  return { schema: t.schema, name: t.name };
}
