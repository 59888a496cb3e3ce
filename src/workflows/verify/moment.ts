import { randomBytes } from 'node:crypto';
import { controlFollower, extendHold, requestControl, waitForAnswer } from '../../changes/control.ts';
import { sleep } from '../../core/abort.ts';
import { PgweaveError } from '../../core/errors.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { quoteLiteral } from '../../pg/identifiers.ts';
import { formatLsn, type Lsn } from '../../pg/lsn.ts';
import { ReplicationSession } from '../../pg/replication-session.ts';
import { Session } from '../../pg/session.ts';
import { checksumSettings } from '../../verify/checksum-sql.ts';
import type { VerifySnapshot } from '../../verify/snapshot-pool.ts';

/** Both sides at one moment, held open for reading. */
export interface Moment extends AsyncDisposable {
  readonly source: VerifySnapshot;
  readonly target: VerifySnapshot;
  /** Sessions inside the snapshots, for the catalogs. */
  readonly sourceSession: Session;
  readonly targetSession: Session;
  /** Both sides hold exactly what was committed on the source before it; undefined for two snapshots taken apart. */
  readonly lsn: Lsn | undefined;
  /** How long the applier stood still, milliseconds. */
  readonly pausedMs: number;
}

export interface MomentOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly signal?: AbortSignal | undefined;
}

const holdMs = 30_000;
/** The applier stands still for no longer than this while the source's slot is being made. */
const longestSlotMs = 8000;
const slotAttempts = 5;
const answerTimeoutMs = 120_000;

/** Two plain snapshots, one after the other; `between` runs after the source's. */
export async function plainMoment(options: MomentOptions, between?: () => Promise<unknown>): Promise<Moment> {
  const [source, target] = await openTogether([openHolder(options.source, 'source', options), openHolder(options.target, 'target', options)]);
  try {
    await beginSnapshot(source);
    await between?.();
    await beginSnapshot(target);
    return await makeMoment(options, source, target, undefined, 0);
  } catch (error) {
    await source.close();
    await target.close();
    throw error;
  }
}

/** Waits for all; where one fails, closes the others and throws its error. */
export async function openTogether<T extends readonly AsyncDisposable[]>(opening: { readonly [K in keyof T]: Promise<T[K]> }): Promise<T> {
  const outcomes = await Promise.allSettled(opening);
  const failed = outcomes.find((o) => o.status === 'rejected');
  if (!failed) return outcomes.map((o) => (o as PromiseFulfilledResult<AsyncDisposable>).value) as unknown as T;
  for (const o of outcomes) if (o.status === 'fulfilled') await o.value[Symbol.asyncDispose]();
  throw failed.reason;
}

/**
 * Both sides at one LSN while the source is written to: the applier is held; a temporary slot exports a snapshot of the source and says its LSN; the applier goes on to exactly there; the
 * target's snapshot is taken; the applier goes on. `whileHeld` runs before it does. Throws `no-follower`, and what the follower answers.
 */
export async function exactMoment(options: MomentOptions, whileHeld?: (moment: Moment) => Promise<void>): Promise<Moment> {
  const { job, signal } = options;
  const opened = await openTogether<[Session, Session, Session, ReplicationSession]>([
    openHolder(options.source, 'source', options), openHolder(options.target, 'target', options), Session.open(options.target, { role: 'verify control', job, side: 'the target', signal }),
    ReplicationSession.open(options.source, { role: 'verify-slot', job, side: 'the source', signal }),
  ]);
  const [source, target] = opened;
  await using control = opened[2];
  await using sender = opened[3];
  try {
    await control.query('set default_transaction_read_only = off');
    await waitUntilFree(control, options);
    const slot = `${jobObjectName(job)}_verify_${randomBytes(3).toString('hex')}`;
    // Making a slot waits for all transactions that run. Those that run now are waited for before the applier is asked to stand still.
    await sender.createLogicalSlot({ name: slot, temporary: true });
    await sender.dropSlot(slot);
    const held = await holdForSlot(control, sender, slot, source, options);
    try {
      await controlFollower(control, job, { action: 'run-to', lsn: held.lsn }, { timeoutMs: answerTimeoutMs, signal });
      await beginSnapshot(target);
      const moment = await makeMoment(options, source, target, held.lsn, 0);
      await whileHeld?.(moment);
      return { ...moment, pausedMs: await held.release() };
    } finally {
      await held.release();
    }
  } catch (error) {
    await source.close();
    await target.close();
    throw error;
  }
}

/** A person's pause, or another verification, stands in the way: releasing the applier would undo the one and spoil the other. */
async function waitUntilFree(control: Session, { job, signal }: MomentOptions): Promise<void> {
  for (const end = Date.now() + 15_000; ; await sleep(200, signal)) {
    const [row] = await control.query<{ held: boolean }>('select held from pgweave.applier where job = $1', [job]);
    if (!row?.held) return;
    if (Date.now() > end) throw new PgweaveError('applier-held', `the follower of job "${job}" is paused, or another verification holds it`, { hint: 'Resume it (dashboard, or POST /api/v1/resume), or wait for the other verification, then verify again.', retry: 'manual' });
  }
}

interface Held {
  readonly lsn: Lsn;
  /** Lets the applier go on; says how long it stood still. */
  release(): Promise<number>;
}

/** Holds the applier and has the source export its snapshot; where that takes too long the applier goes on, and it is tried again. */
async function holdForSlot(control: Session, sender: ReplicationSession, slot: string, source: Session, options: MomentOptions): Promise<Held> {
  const { job, signal } = options;
  for (let attempt = 1; ; attempt += 1) {
    const id = await requestControl(control, job, { action: 'hold', holdMs });
    await waitForAnswer(control, job, id, { timeoutMs: answerTimeoutMs, signal });
    const since = performance.now();
    const extending = setInterval(() => void extendHold(control, id, holdMs).catch(() => undefined), holdMs / 6);
    let released: Promise<number> | undefined;
    const release = () => (released ??= (async () => {
      clearInterval(extending);
      await controlFollower(control, job, { action: 'release' }, { timeoutMs: answerTimeoutMs });
      return Math.round(performance.now() - since);
    })());
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      void sender.session.cancel();
    }, longestSlotMs);
    try {
      const created = await sender.createLogicalSlot({ name: slot, temporary: true, snapshot: 'export' });
      await source.query(`begin isolation level repeatable read read only; set transaction snapshot ${quoteLiteral(created.snapshotName ?? '')}`);
      clearTimeout(timer);
      return { lsn: created.consistentPoint, release };
    } catch (error) {
      clearTimeout(timer);
      await release();
      if (!late || signal?.aborted) throw error;
      if (attempt >= slotAttempts) throw new PgweaveError('slot-waits', 'the source has transactions that run for long: a snapshot for verify waits for each of them', { hint: 'pgweave validate --follow names them. Verify again when they have ended.', cause: error, retry: 'backoff' });
      await sleep(500 * attempt, signal);
    }
  }
}

async function openHolder(spec: ConnectionSpec, side: 'source' | 'target', { job, signal }: MomentOptions): Promise<Session> {
  const session = await Session.open(spec, { role: 'verify snapshot', job, side: `the ${side}`, signal });
  await session.query(checksumSettings);
  return session;
}

async function beginSnapshot(session: Session): Promise<void> {
  await session.query('begin isolation level repeatable read read only; select pg_catalog.txid_current_snapshot()');
}

async function makeMoment(options: MomentOptions, source: Session, target: Session, lsn: Lsn | undefined, pausedMs: number): Promise<Moment> {
  const exported = async (session: Session) => (await session.one<{ id: string }>('select pg_catalog.pg_export_snapshot() as id')).id;
  return {
    source: { side: 'source', spec: { ...options.source, hosts: [source.host] }, id: await exported(source) }, target: { side: 'target', spec: { ...options.target, hosts: [target.host] }, id: await exported(target) },
    sourceSession: source, targetSession: target, lsn, pausedMs,
    async [Symbol.asyncDispose]() {
      await source.close();
      await target.close();
    },
  };
}

export function lsnText(moment: Moment): string | null {
  return moment.lsn === undefined ? null : formatLsn(moment.lsn);
}
