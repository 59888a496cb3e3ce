import { randomBytes } from 'node:crypto';
import { emitMarker, switchoverMarker, waitForMarker } from '../changes/sentinel.ts';
import { controlFollower } from '../changes/control.ts';
import type { TableRecord } from '../changes/table-states.ts';
import { publicationLeaves } from '../catalog/publications.ts';
import { errorMessage, interruptedError, PgweaveError } from '../core/errors.ts';
import type { Emit, StepEvent } from '../core/events.ts';
import { failpoint } from '../core/failpoints.ts';
import { jobObjectName } from '../core/job-folder.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { formatBytes, formatCount, formatDuration } from '../core/units.ts';
import { isWayBack, oppositeJob } from '../core/way-back.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { displayName, quoteIdent } from '../pg/identifiers.ts';
import { formatLsn, type Lsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { dropPublications, publicationNamesOf } from './publications.ts';
import { lateChanges, type LateChanges } from './switchover/late-changes.ts';
import { describeLock, lockSource, restoreWrites, type LockScope, type SourceLock } from './switchover/lock-source.ts';
import { resumeNative } from './switchover/native-steps.ts';
import { refuseLossyWayBack } from './switchover/own-columns.ts';
import { followedSlot, probeFollower, settledTables } from './switchover/ready.ts';
import { readSwitchover, SwitchoverSteps } from './switchover/record.ts';
import { keptSelection, type KeptSelection } from '../copy/kept-selection.ts';
import { carrySequences } from '../copy/sequences.ts';
import { sequenceOnTarget } from '../catalog/sequences.ts';
import { carryUnreplicated } from './switchover/unreplicated.ts';
import { beginAfterDrain, closeWayBack, openWayBack, type WayBack } from './switchover/way-back.ts';

export interface SwitchoverOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  /** For each wait: for the lock, for the marker. Milliseconds, default 30,000. */
  readonly timeoutMs?: number;
  readonly lock?: LockScope;
  /** Increments that each sequence goes ahead of the source; default 0. */
  readonly sequenceBuffer?: bigint;
  /** Keep the old source following the new one. */
  readonly reverse?: boolean;
  /** Compares the rows under the lock; throws where they differ, which undoes the switchover. Returns what people read. */
  readonly verify?: ((context: VerifyContext) => Promise<string>) | undefined;
  /** Checks only: nothing is locked, nothing written. */
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
  readonly onEvent?: Emit;
}

/** What a verification under the lock works with: both sides hold still, the applier has met the marker at `lsn`. */
export interface VerifyContext {
  readonly tables: readonly TableRef[];
  readonly lsn: Lsn;
}

export interface SwitchoverResult {
  readonly run: string;
  readonly steps: readonly Omit<StepEvent, 'type'>[];
  /** How long writes were refused, milliseconds; 0 for a dry run. */
  readonly refusedMs: number;
  readonly markerLsn: string | null;
  readonly sequences: number;
  /** The job that now streams from the new primary to the old one; null without --reverse. */
  readonly wayBack: { readonly job: string; readonly slot: string } | null;
}

/** Used where the caller gives none. */
const defaultTimeoutMs = 30_000;

interface State {
  readonly source: Session;
  readonly target: Session;
  readonly options: SwitchoverOptions & { readonly timeoutMs: number; readonly signal: AbortSignal };
  readonly tables: readonly TableRecord[];
  readonly kept: KeptSelection;
  readonly emit: Emit;
}

/**
 * Hands over from source to target: stops writes, puts a marker into the WAL, waits until the target has applied it, carries over what replication does not, and leaves the source
 * closed and the target ready. The follower may run in any process on any machine: all meet in the databases. Where anything fails before the end, the source takes writes again
 * and the error says so. Can be run again after any crash. Throws PgweaveError.
 */
export async function switchover(given: SwitchoverOptions): Promise<SwitchoverResult> {
  const options = { ...given, timeoutMs: given.timeoutMs ?? defaultTimeoutMs, signal: given.signal ?? new AbortController().signal };
  const { job, signal } = options;
  const emit: Emit = options.onEvent ?? (() => undefined);
  await using source = await Session.open(options.source, { role: 'switchover', job, side: 'the source', signal });
  await using target = await Session.open(options.target, { role: 'switchover', job, side: 'the target', signal });
  const before = await readSwitchover(target, job);
  if (before?.status === 'done') {
    throw new PgweaveError('switched-over-already', `job ${job} was switched over at ${before.startedAt.slice(0, 19)} UTC`, { hint: before.wayBack ? `The way back is open: pgweave switchover --job ${job} --back` : 'The target has the writes. What is left of the job is removed by: pgweave cleanup', retry: 'never' });
  }
  const tables = await settledTables(target, job);
  const kept = await keptSelection(target, job);
  if (options.reverse) await refuseLossyWayBack(source, target, { tables, kept, native: false });
  const state: State = { source, target, options, tables, kept, emit };
  if (options.dryRun) return await dryRun(state);
  const run = `${switchoverMarker}${randomBytes(6).toString('hex')}`;
  const steps = await SwitchoverSteps.begin(target, job, run, before?.status === 'running' ? (before.previous ?? undefined) : undefined, emit);
  emit({ type: 'phase', phase: 'switching-over' });
  let wayBack: WayBack | undefined;
  try {
    await steps.step('checks', () => check(state, run));
    const early = options.reverse === true && (await hasOrigin(target, job));
    if (early) wayBack = await steps.step('way back', () => makeWayBack(state, steps)).then((r) => r.wayBack);
    return await underLock(state, steps, run, wayBack, before?.status === 'running' ? (before.previous ?? undefined) : undefined);
  } catch (error) {
    // The record stays `running`, so that --unlock knows what to restore.
    if (error instanceof PgweaveError && error.code === 'still-locked') throw error;
    if (options.reverse) await closeWayBack(target, job);
    await steps.end('undone').catch(() => undefined);
    emit({ type: 'phase', phase: 'streaming' });
    throw stillOpen(error, signal);
  }
}

/** An error after which the source takes writes: says so. */
function stillOpen(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return interruptedError('The source takes writes as before; nothing was handed over. The same command begins anew.');
  if (!(error instanceof PgweaveError)) return error;
  const hint = error.hint?.includes('Writes are taken again') ? error.hint : `${error.hint ? `${error.hint} ` : ''}The source takes writes as before; nothing was handed over.`;
  return new PgweaveError(error.code, error.message, { hint, retry: error.retry, exitCode: error.exitCode, cause: error, details: error.details });
}

function stillLocked(job: string, error: unknown, failure: unknown): PgweaveError {
  return new PgweaveError('still-locked', `the switchover failed (${errorMessage(error)}), and the source could not be opened again: ${errorMessage(failure)}`, {
    hint: `The source may still refuse writes. As soon as it can be reached: pgweave switchover --job ${job} --unlock`, cause: error,
  });
}

async function underLock(state: State, steps: SwitchoverSteps, run: string, early: WayBack | undefined, previous: { readonly defaultTransactionReadOnly: string | null } | undefined): Promise<SwitchoverResult> {
  const { source, target, options } = state;
  const { job, signal, timeoutMs } = options;
  const published = await source.query<TableRef>(publicationLeaves(Object.values(publicationNamesOf(job))));
  const refusedFrom = performance.now();
  state.emit({ type: 'writes', refused: true });
  let lock: SourceLock | undefined;
  try {
    ({ lock } = await steps.step('new writes refused', () => takeLock(state, steps, published, previous)));
    const held = lock;
    await failpoint('switchover.locked');
    const { marker } = await steps.step('marker in the WAL', async () => {
      const made = await emitMarker(source, run);
      return { marker: made, detail: formatLsn(made.lsn) };
    });
    await failpoint('switchover.marker');
    const { commitLsn } = await steps.step('drained', async () => {
      const met = await waitForMarker(target, job, marker, timeoutMs, signal);
      if (!met) throw new PgweaveError('not-drained', `the target did not apply the marker within ${formatDuration(timeoutMs)}`, { hint: `Does the follower run, and what is its lag? pgweave status --job ${job}. A longer --timeout waits longer.` });
      return { commitLsn: met.commitLsn, detail: 'the target has applied the marker' };
    });
    if (early && isWayBack(job)) await beginAfterDrain(source, target, early.job);
    await failpoint('switchover.drained');
    const { count } = await steps.step('sequences', () => moveSequences(state, held));
    await failpoint('switchover.sequences');
    await steps.step('large objects, unlogged', () => moveUnreplicated(state));
    const { verify } = options;
    if (verify) await steps.step('verified', async () => ({ detail: await verify({ tables: state.tables, lsn: marker.lsn }) }));
    const wayBack = options.reverse ? (early ?? (await steps.step('way back', () => makeWayBack(state, steps))).wayBack) : undefined;
    await failpoint('switchover.before-hand-over');
    await steps.step('nothing came after the marker', () => stopAndLookBehind(state, commitLsn, wayBack));
    await openTarget(state, steps);
    // From here on the target has taken over: what follows is tidying and is not undone.
    await steps.end('done', formatLsn(marker.lsn));
    await held.keep();
    const refusedMs = Math.round(performance.now() - refusedFrom);
    state.emit({ type: 'writes', refused: false });
    await failpoint('switchover.handed-over');
    await steps.step('forward stream closed', () => closeForward(state)).catch(() => undefined);
    // The stream that has just been closed was itself a way back.
    if (isWayBack(job)) state.emit({ type: 'way-back', open: false, slot: jobObjectName(job) });
    if (wayBack) state.emit({ type: 'way-back', open: true, slot: wayBack.slot });
    await steps.end('done', formatLsn(marker.lsn));
    state.emit({ type: 'phase', phase: 'switched-over' });
    return { run, steps: steps.all, refusedMs, markerLsn: formatLsn(marker.lsn), sequences: count, wayBack: wayBack ? { job: wayBack.job, slot: wayBack.slot } : null };
  } catch (error) {
    if (lock) {
      try {
        await lock.release();
      } catch (failure) {
        throw stillLocked(options.job, error, failure);
      }
      steps.undone('new writes refused', `taken back after ${formatDuration(performance.now() - refusedFrom)}: the source takes writes as before`);
    }
    state.emit({ type: 'writes', refused: false });
    throw error;
  }
}

async function check({ source, target, options, tables }: State, run: string): Promise<{ detail: string }> {
  const { lagBytes } = await probeFollower(source, target, options.job, run.replace(switchoverMarker, 'probe:'), options.timeoutMs, options.signal);
  return { detail: `lag ${formatBytes(lagBytes)}, ${formatCount(tables.length)} of ${formatCount(tables.length)} tables streaming` };
}

async function dryRun(state: State): Promise<SwitchoverResult> {
  const { options } = state;
  const steps: Omit<StepEvent, 'type'>[] = [];
  const add = (name: string, status: StepEvent['status'], detail: string) => {
    const step = { name, status, detail, elapsedMs: 0 };
    steps.push(step);
    state.emit({ type: 'step', ...step });
  };
  const { lagBytes } = await followedSlot(state.source, options.job);
  add('checks', 'ok', `lag ${formatBytes(lagBytes)}, ${formatCount(state.tables.length)} tables streaming`);
  const scope = options.lock ?? 'database';
  const database = quoteIdent(options.source.database);
  add('new writes refused', 'skipped', scope === 'database' ? `would run ALTER DATABASE ${database} SET default_transaction_read_only = on, end other sessions, lock ${state.tables.length} tables` : scope === 'tables' ? `would lock ${state.tables.length} tables` : 'no lock: writers are stopped by you');
  for (const [name, detail] of [['marker in the WAL', 'would write one logical message'], ['drained', `would wait up to ${formatDuration(options.timeoutMs)} for the target to apply it`], ['sequences', 'would carry values over'], ['large objects, unlogged', 'would copy again what replication does not carry'], ...(options.verify ? [['verified', 'would compare all rows']] : []), ...(options.reverse ? [['way back', `would make slot and publication ${jobObjectName(oppositeJob(options.job))} on the target`]] : [])] as [string, string][]) add(name, 'skipped', detail);
  return { run: 'dry-run', steps, refusedMs: 0, markerLsn: null, sequences: 0, wayBack: null };
}

async function takeLock(state: State, steps: SwitchoverSteps, published: readonly TableRef[], previous: { readonly defaultTransactionReadOnly: string | null } | undefined): Promise<{ lock: SourceLock; detail: string }> {
  const { options } = state;
  const scope = options.lock ?? 'database';
  const lock = await lockSource(options.source, { job: options.job, scope, tables: published, timeoutMs: options.timeoutMs, signal: options.signal, previous, remember: (setting) => steps.remember(setting) });
  return { lock, detail: describeLock(scope, options.source.database, lock) };
}

async function moveSequences(state: State, lock: SourceLock): Promise<{ count: number; detail: string }> {
  const { set, ahead, missing } = await carrySequences(lock.session, state.target, { buffer: state.options.sequenceBuffer ?? 0n, mapTo: (s) => sequenceOnTarget(s, s.ownedBy, state.kept.mapTo) });
  const shown = set.slice(0, 3).map((s) => `${s.sequence.name} ${formatCount(s.value)}`).join(', ');
  const parts = [`${set.length} set${shown === '' ? '' : ` (${shown}${set.length > 3 ? ', …' : ''})`}`];
  if (ahead.length > 0) parts.push(`${ahead.length} further on the target already`);
  if (missing.length > 0) parts.push(`${missing.length} not on the target`);
  return { count: set.length, detail: parts.join('; ') };
}

async function moveUnreplicated(state: State): Promise<{ detail: string }> {
  const { options, tables } = state;
  const known = new Set(tables.map(tableKey));
  const done = await carryUnreplicated({ source: options.source, target: options.target, job: options.job, signal: options.signal, includes: (table) => known.has(tableKey(table)) });
  if (done.tables === 0 && done.objects === 0) return { detail: 'none, or unchanged since the copy' };
  return { detail: `${done.tables} unlogged tables (${formatCount(done.rows)} rows), ${formatCount(done.objects)} large objects (${formatBytes(done.bytes)})` };
}

async function makeWayBack(state: State, steps: SwitchoverSteps): Promise<{ wayBack: WayBack; detail: string; status?: 'warn' }> {
  const { options, tables, kept } = state;
  await steps.rememberWayBack();
  const roots = await state.target.query<TableRef>(publicationRoots(tables.map(kept.mapTo)));
  const wayBack = await openWayBack(options.source, options.target, options.job, roots, kept, options.signal);
  const inserts = wayBack.insertsOnly.length;
  return {
    wayBack, detail: `slot ${wayBack.slot} on the target${inserts > 0 ? `; ${inserts} tables without replica identity send back inserts only` : ''}`, ...(inserts > 0 ? { status: 'warn' as const } : {}),
  };
}

/** Ordinary and partitioned tables of the job that exist on the target; unlogged ones cannot be published and are left out by ensurePublications. */
function publicationRoots(tables: readonly TableRef[]): { text: string; values: readonly unknown[] } {
  return {
    text: `select n.nspname as schema, c.relname as name from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) as u(s, t)
             join pg_catalog.pg_namespace n on n.nspname = u.s join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = u.t where c.relkind in ('r', 'p') order by 1, 2`,
    values: [tables.map((t) => t.schema), tables.map((t) => t.name)],
  };
}

async function hasOrigin(target: Session, job: string): Promise<boolean> {
  return (await target.query('select 1 from pg_catalog.pg_replication_origin where roname = $1', [jobObjectName(job)])).length > 0;
}

/** Ends the follower and looks into the slot for what was committed after the marker. */
async function stopAndLookBehind(state: State, markerCommit: Lsn, wayBack: WayBack | undefined): Promise<{ detail: string }> {
  const { source, target, options } = state;
  const slot = jobObjectName(options.job);
  // A last round trip: what was committed meanwhile is behind the marker and before this moment.
  await controlFollower(target, options.job, { action: 'stop', arguments: { reason: 'switchover', wayBack: wayBack?.job ?? null } }, { timeoutMs: options.timeoutMs, signal: options.signal });
  await waitUntilFree(source, slot, options.timeoutMs, options.signal);
  const names = await source.query<{ name: string }>('select pubname as name from pg_catalog.pg_publication where pubname = any($1::pg_catalog.text[])', [Object.values(publicationNamesOf(options.job))]);
  const late = await lateChanges(source, slot, names.map((n) => n.name), markerCommit);
  if (late.length > 0) throw lateError(late, options.job);
  return { detail: 'the follower has ended; the slot holds no later change of a published table' };
}

function lateError(late: readonly LateChanges[], job: string): PgweaveError {
  const shown = late.slice(0, 5).map((l) => `${displayName(l.table.schema, l.table.name)} (${[[l.inserts, 'inserts'], [l.updates, 'updates'], [l.deletes, 'deletes'], [l.truncates, 'truncates']].filter(([n]) => Number(n) > 0).map(([n, word]) => `${n} ${word}`).join(', ')})`).join(', ');
  return new PgweaveError('late-changes', `somebody wrote to the source after the marker: ${shown}`, {
    hint: `Nothing is lost: the slot holds these changes. Find the writer (a session that sets default_transaction_read_only itself, or was not stopped), start the follower again (pgweave follow --job ${job}), then switch over once more.`,
  });
}

async function waitUntilFree(source: Session, slot: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const [row] = await source.query<{ pid: number | null }>('select active_pid as pid from pg_catalog.pg_replication_slots where slot_name = $1', [slot]);
    if (!row || row.pid === null) return;
    if (Date.now() > end) throw new PgweaveError('follower-remains', `process ${row.pid} still uses slot ${slot}`, { hint: 'The follower was asked to end and did not. Stop it by hand, then run the same command again.' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (signal.aborted) throw interruptedError();
  }
}

/** On the way back the target is the old source, which the first switchover closed: it takes writes again as before that. */
async function openTarget(state: State, steps: SwitchoverSteps): Promise<void> {
  const { source, options } = state;
  const first = await readSwitchover(source, oppositeJob(options.job));
  if (first?.status !== 'done' || !first.previous) return;
  const { previous } = first;
  await steps.step('target takes writes', async () => {
    await restoreWrites(options.target, previous);
    return { detail: `ALTER DATABASE ${quoteIdent(options.target.database)} ${previous.defaultTransactionReadOnly === null ? 'RESET default_transaction_read_only' : `SET default_transaction_read_only = ${previous.defaultTransactionReadOnly}`}` };
  });
  // Both directions begin anew: the first one's record would forbid it.
  await source.query('delete from pgweave.switchover where job = $1', [oppositeJob(options.job)]);
}

/** The old stream must not go on: it would bring old values over new ones. */
async function closeForward(state: State): Promise<{ detail: string }> {
  const { source, options } = state;
  await source.query('select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where slot_name = $1', [jobObjectName(options.job)]);
  await dropPublications(source, options.job);
  return { detail: `slot and publication ${jobObjectName(options.job)} removed from the source` };
}

/**
 * For a switchover that died: the source takes writes again as before. Returns false where none was under way. The target must not have been written to by applications.
 */
export async function undoSwitchover(options: Pick<SwitchoverOptions, 'source' | 'target' | 'job' | 'signal'>): Promise<boolean> {
  await using target = await Session.open(options.target, { role: 'switchover', job: options.job, side: 'the target', signal: options.signal });
  const record = await readSwitchover(target, options.job);
  if (record?.status !== 'running') return false;
  if (record.previous) await restoreWrites(options.source, record.previous);
  if (!(await resumeNative(options.source, target, options.job)) && record.wayBack) await closeWayBack(target, options.job);
  await target.query(`update pgweave.switchover set status = 'undone', ended_at = pg_catalog.clock_timestamp() where job = $1`, [options.job]);
  return true;
}
