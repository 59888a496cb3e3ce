import { setMaxListeners } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ChangeLog } from '../changes/change-log.ts';
import type { NatsSpec } from '../changes/nats/connection.ts';
import { ensureChangesSchema } from '../changes/target-schema.ts';
import { readProgress } from '../changes/apply/progress.ts';
import { planTables, readTableStates, recordTableEvent, type TableRecord } from '../changes/table-states.ts';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import { fingerprint, JobFolder, jobObjectName, defaultJobFolder } from '../core/job-folder.ts';
import type { StreamProgress } from '../core/events.ts';
import type { Log } from '../core/log.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { lsnDistance, maxLsn, parseLsn, zeroLsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { planCleanup, runCleanup } from '../workflows/cleanup.ts';
import { Follower } from '../workflows/follow.ts';
import { ensurePublications } from '../workflows/publications.ts';
import { readSlot } from '../workflows/sync/start-point.ts';
import type { FanoutConfig, FanoutTarget } from './config.ts';
import { slotLostError, type Engine, type Round, type TargetFacts, type TargetLag } from './engine.ts';
import { dropSlotNow } from './native-target.ts';
import { checkPublisher, natsJobOf, natsLogNameOf, NatsTargetLog, publicationsByPublisher } from './nats-target.ts';
import { SharedStream } from './shared-stream.ts';
import type { SlotLag } from './source-watch.ts';
import { resolveTables, schemaError, schemaFaults, selectionRulesOf, streamedTables, unionOfTables } from './tables.ts';
import { TargetLog } from './target-log.ts';

/** In the target's part of the state folder: its place in the shared stream was given up. */
const givenUpFile = 'given-up.json';

const nothing: ReadonlySet<string> = new Set();

/** What a target's applier is begun with. `begun`: rows were copied to it before. */
interface Ends {
  readonly owner: string;
  readonly publications: readonly string[];
  readonly source: Session;
  readonly session: Session;
  readonly begun: boolean;
}

interface Running {
  follower: Follower | undefined;
  /** Tables whose first copy was begun in this process, by `tableKey`. */
  readonly copies: Set<string>;
  /** What the applier told last. */
  progress: StreamProgress | undefined;
  /** Undefined where the applier opens one for itself. */
  readonly log: ChangeLog | undefined;
  readonly stop: AbortController;
  ended: Promise<void>;
  /** Why it ended, where it did so by itself. */
  error: unknown;
  alive: boolean;
}

/** The job whose slot and publication all targets share that have no row filters of their own. */
export function sharedJobOf(config: FanoutConfig): string {
  return `${fingerprint(config.publication).slice(0, 4)}_shared`;
}

/** Row filters are evaluated by the source as it decodes: a target that has some cannot share. */
function shares(target: FanoutTarget): boolean {
  return target.engine === 'stream' && Object.keys(target.filters).length === 0;
}

/** The log on NATS that the target reads; undefined where it reads the source. */
function natsOf(config: FanoutConfig, target: FanoutTarget): FanoutConfig['log'] {
  return shares(target) ? config.log : undefined;
}

/** The job that slot and publication on the source belong to. */
function ownerOf(config: FanoutConfig, target: FanoutTarget): string {
  if (natsOf(config, target)) return natsJobOf(config);
  return shares(target) ? sharedJobOf(config) : streamJobOf(config, target);
}

/** The job name of a stream target; the origin on the target is `pgweave_<job>`, and so are slot and publication on the source where it does not share. */
export function streamJobOf(config: FanoutConfig, target: FanoutTarget): string {
  return `${fingerprint(config.publication).slice(0, 4)}_${target.name}`.slice(0, 32);
}

/**
 * Targets that pgweave's own stream keeps: each has an applier, a position, filters and a speed of its own, and the source is decoded once for all that have no row filters. Tables are copied one by one in the snapshot of a temporary slot, while everything
 * else streams on; rows of a table that is added or copied anew are exact from its own LSN on.
 */
export class StreamEngine implements Engine {
  readonly #log: Log;
  readonly #ended: (name: string) => void;
  readonly #running = new Map<string, Running>();
  readonly #shared = new Map<string, Promise<SharedStream>>();

  /** `ended(name)`: a target's applier has ended by itself; its keeper should look at once. */
  constructor(log: Log, ended: (name: string) => void) {
    this.#log = log;
    this.#ended = ended;
  }

  slotOf(config: FanoutConfig, target: FanoutTarget): string {
    return jobObjectName(ownerOf(config, target));
  }

  /** The shared slot stands where the slowest target is; each target's own lag is known here. */
  lagOf(config: FanoutConfig, target: FanoutTarget, slot: SlotLag): TargetLag {
    const job = streamJobOf(config, target);
    const running = this.#running.get(job);
    const told = running?.alive ? running.progress : undefined;
    const shared = shares(target) ? this.#opened.get(sharedJobOf(config)) : undefined;
    const confirmed = shared?.confirmedOf(job);
    const active = running?.alive === true && slot.active;
    const own = { ...slot, active, lagMs: told?.lagMs ?? null, rows: told?.rows ?? 0 };
    if (natsOf(config, target)) {
      // What the publisher lacks, and what of the published the target lacks. The slot is the publisher's: no target holds it back.
      const stands = running?.log?.position();
      return { ...own, active: active && stands?.connected === true, lagBytes: slot.lagBytes + (stands ? lsnDistance(stands.confirmedLsn, slot.confirmedLsn) : 0), retainedBytes: 0, walStatus: 'reserved' };
    }
    if (!shared || confirmed === undefined) return own;
    const lagBytes = lsnDistance(confirmed, shared.sourceLsn);
    return { ...own, lagBytes, retainedBytes: Math.min(slot.retainedBytes, lagBytes) };
  }

  async giveUp(config: FanoutConfig, target: FanoutTarget, source: Session): Promise<void> {
    const job = streamJobOf(config, target);
    await this.#stopFollower(job);
    if (natsOf(config, target)) return;
    if (!shares(target)) {
      await dropSlotNow(source, jobObjectName(job));
      return;
    }
    // The others keep the slot: nothing on the source tells after a restart that this target was given up. Written down before its place is let go.
    this.#folder(config, target).write(givenUpFile, { format: 1, at: new Date().toISOString() });
    (await this.#shared.get(sharedJobOf(config)))?.forget(job);
  }

  readonly #opened = new Map<string, SharedStream>();

  async reconcile(config: FanoutConfig, target: FanoutTarget, { signal, say, inTurn }: Round): Promise<TargetFacts> {
    const job = streamJobOf(config, target);
    await using source = await Session.open(config.source, { role: 'fanout', job, side: 'the source', signal });
    await using session = await Session.open(target.connection, { role: 'fanout', job, side: `target ${target.name}`, signal });
    const tables = await resolveTables(source, target);
    const faults = await schemaFaults(session, tables);
    if (faults.length > 0) throw schemaError(target.name, faults);
    await ensureChangesSchema(session);
    const folder = this.#folder(config, target);
    folder.write('selection.json', { format: 1, rules: selectionRulesOf(target) });

    const chosen = tables.chosen.map((s) => s.table);
    const before = await readTableStates(session, job);
    const begun = before.some((r) => r.copiedLsn !== undefined);
    // A target that was emptied knows nothing of what is in flight to it: its applier begins anew, too.
    if (before.length === 0) await this.#stopFollower(job);
    // Whoever was interrupted as it began the target anew left the mark behind.
    if (!begun) rmSync(folder.file(givenUpFile), { force: true });
    if (begun && folder.read(givenUpFile) !== undefined) throw slotLostError(jobObjectName(job), target, 'its place in the shared stream was given up');
    const owner = ownerOf(config, target);
    const viaNats = natsOf(config, target) !== undefined;
    const publications = viaNats ? await publicationsByPublisher(source, config, await streamedTables(source, tables)) : await inTurn(async () => {
      const { names } = await ensurePublications(source, { job: owner, tables: shares(target) ? await unionOfTables(source, config.targets.filter(shares)) : await streamedTables(source, tables), both: true });
      await this.#slot(source, target, jobObjectName(owner), begun);
      if (shares(target)) await this.#sharedStream(config, { owner, publications: names, source });
      return names;
    });
    await this.#plan(source, session, target, job, chosen, before);
    this.#wanted.set(job, new Set(chosen.map(tableKey)));
    await this.#follow(config, target, job, folder, { owner, publications, source, session, begun });

    const wanted = new Set(chosen.map(tableKey));
    const known = new Map(before.map((r) => [tableKey(r), r]));
    const removed = before.filter((r) => !wanted.has(tableKey(r))).map((r) => ({ schema: r.schema, name: r.name }));
    if (removed.length > 0) {
      const running = this.#running.get(job);
      await running?.follower?.dropTables(removed);
      for (const table of removed) running?.copies.delete(tableKey(table));
    }
    const pending = chosen.filter((t) => ['pending', 'copying'].includes(known.get(tableKey(t))?.state.name ?? 'pending'));
    const added = before.length > 0 ? pending.filter((t) => !known.has(tableKey(t))) : [];
    this.#copy(job, pending, say);

    const now = await readTableStates(session, job);
    const paused = now.filter((r) => r.state.name === 'paused');
    if (paused.length > 0) {
      const [first] = paused;
      throw new PgweaveError('tables-paused', `target ${target.name}: ${paused.length} of ${now.length} tables are paused, such as ${first!.schema}.${first!.name}: ${first!.state.name === 'paused' ? first!.state.reason : ''}`, {
        hint: `The others stream on. Settle it: pgweave table NAME --job ${job} --source … --target … --retry | --skip-transaction | --copy-again`, retry: 'backoff',
      });
    }
    if (viaNats) await checkPublisher(source, config);
    return { tables: now.length, ready: now.filter((r) => r.state.name === 'streaming' || r.state.name === 'copied').length, added, removed, version: session.serverVersionText };
  }

  async reset(config: FanoutConfig, target: FanoutTarget, signal: AbortSignal): Promise<void> {
    const job = streamJobOf(config, target);
    await this.#stopFollower(job);
    await using source = await Session.open(config.source, { role: 'fanout', job, side: 'the source', signal });
    await this.giveUp(config, target, source);
    const options = { target: target.connection, job, signal };
    await runCleanup(await planCleanup(options), options);
    rmSync(this.#folder(config, target).file(givenUpFile), { force: true });
  }

  async remove(config: FanoutConfig, target: FanoutTarget, remaining: readonly FanoutTarget[], signal: AbortSignal): Promise<string[]> {
    const job = streamJobOf(config, target);
    await this.#stopFollower(job);
    if (shares(target) && !natsOf(config, target)) {
      (await this.#shared.get(sharedJobOf(config)))?.forget(job);
      if (!remaining.some(shares)) await this.#closeShared(config, signal);
    }
    const options = { source: config.source, target: target.connection, job, signal };
    const plan = await planCleanup(options);
    const { failed } = await runCleanup(plan, { ...options, force: true });
    return [...plan.unreachable.map((u) => `${u.side}: ${u.reason}`), ...failed.map((f) => `${f.leftover.kind} ${f.leftover.name}: ${f.reason}`)];
  }

  /** Stops all appliers after the transaction in hand. */
  async close(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((job) => this.#stopFollower(job)));
    for (const shared of this.#shared.values()) await shared.then((s) => s.close()).catch(() => undefined);
    this.#shared.clear();
  }

  /** The last target that shared has gone: its slot and publication go too. */
  async #closeShared(config: FanoutConfig, signal: AbortSignal): Promise<void> {
    const job = sharedJobOf(config);
    await this.#shared.get(job)?.then((s) => s.close()).catch(() => undefined);
    this.#shared.delete(job);
    this.#opened.delete(job);
    const options = { source: config.source, job, signal, force: true };
    await runCleanup(await planCleanup(options), options);
  }

  #folder(config: FanoutConfig, target: FanoutTarget): JobFolder {
    return new JobFolder(streamJobOf(config, target), join(defaultJobFolder('fanout'), config.publication, target.name));
  }

  /** The slot is there, or is made where the target has not begun. */
  async #slot(source: Session, target: FanoutTarget, slot: string, begun: boolean): Promise<void> {
    const there = await readSlot(source, slot);
    if (there?.wal_status === 'lost' || (!there && begun)) throw slotLostError(slot, target, there ? 'it is lost' : 'it is gone');
    if (!there) await source.query(`select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
  }

  async #plan(source: Session, session: Session, target: FanoutTarget, job: string, chosen: readonly TableRef[], before: readonly TableRecord[]): Promise<void> {
    await planTables(session, job, chosen);
    if (target.initialSync) return;
    const { lsn } = await source.one<{ lsn: string }>('select pg_catalog.pg_current_wal_lsn()::text as lsn');
    for (const table of chosen) if (!before.some((r) => tableKey(r) === tableKey(table) && r.copiedLsn !== undefined)) await recordTableEvent(session, job, table, { type: 'copied', lsn: parseLsn(lsn) });
  }

  async #follow(config: FanoutConfig, target: FanoutTarget, job: string, folder: JobFolder, ends: Ends): Promise<void> {
    const current = this.#running.get(job);
    if (current?.alive) return;
    this.#running.delete(job);
    // Told once; the round after this one begins it again.
    if (current?.error !== undefined && !isRestart(current.error)) throw current.error;
    const stop = new AbortController();
    setMaxListeners(0, stop.signal);
    const nats = natsOf(config, target);
    const log = nats ? await this.#natsView(config, nats, target, job, ends) : shares(target) ? await this.#viewOf(job, ends) : undefined;
    const running: Running = { log, stop, alive: true, error: undefined, ended: Promise.resolve(), progress: undefined, follower: undefined, copies: new Set() };
    const follower = await Follower.open({
      source: config.source, target: target.connection, job, folder, signal: stop.signal, slot: jobObjectName(ends.owner), publications: ends.publications, ...(log ? { log, binary: 'off' as const } : {}),
      onEvent: (event) => {
        if (event.type === 'warning') this.#log.warn(`${target.name}: ${event.message}`);
        else if (event.type === 'stream-progress') running.progress = event;
      },
    }).catch(async (error: unknown) => {
      await log?.close();
      throw error;
    });
    running.follower = follower;
    for (const { record } of follower.applier.gates.all()) if (record.state.name === 'pending' || record.state.name === 'copying') running.copies.add(tableKey(record));
    running.ended = this.#run(follower, running, target);
    this.#running.set(job, running);
  }

  readonly #wanted = new Map<string, ReadonlySet<string>>();

  /** A target's view of the shared stream, from where it stands; a new one begins at what is received now, since its rows are copied later than that. */
  async #viewOf(job: string, ends: Ends): Promise<TargetLog> {
    const shared = await this.#shared.get(ends.owner);
    if (!shared) throw streamReplacedError();
    const progress = await readProgress(ends.session, job);
    // What is confirmed for it beyond its own progress did not concern it: an idle stream leaves no mark on the target.
    const startLsn = progress !== undefined || ends.begun ? maxLsn(progress ?? zeroLsn, shared.confirmedOf(job) ?? shared.options.startLsn) : shared.receivedLsn;
    return new TargetLog({ shared, job, startLsn, wanted: () => this.#wanted.get(job) ?? nothing });
  }

  /** The log on NATS from where the target stands: its progress; the earliest of its copies, where nothing was applied since; a new one begins at the log's end, since its rows are copied later than that. */
  async #natsView(config: FanoutConfig, nats: NatsSpec, target: FanoutTarget, job: string, ends: Ends): Promise<NatsTargetLog> {
    const progress = await readProgress(ends.session, job);
    const copied = (await readTableStates(ends.session, job)).flatMap((r) => (r.copiedLsn === undefined ? [] : [r.copiedLsn]));
    const startLsn = progress ?? (copied.length === 0 ? undefined : copied.reduce((least, lsn) => (lsn < least ? lsn : least)));
    return NatsTargetLog.open({
      nats, log: await natsLogNameOf(config, ends.source), startLsn, wanted: () => this.#wanted.get(job) ?? nothing,
      emit: (event) => {
        if (event.type === 'warning') this.#log.warn(`${target.name}: ${event.message}`);
        else if (event.type === 'log') this.#log[event.level](`${target.name}: ${event.message}`);
      },
    });
  }

  /** The stream of this owner; opened where there is none that goes on, and for other publications. Called in turn: one slot serves one stream. */
  async #sharedStream(config: FanoutConfig, ends: { readonly owner: string; readonly publications: readonly string[]; readonly source: Session }): Promise<SharedStream> {
    const known = await this.#shared.get(ends.owner)?.catch(() => undefined);
    if (known && known.failure === undefined && known.options.publications.join() === ends.publications.join()) return known;
    await known?.close(streamReplacedError());
    const opening = this.#openShared(config, ends);
    this.#shared.set(ends.owner, opening);
    return opening;
  }

  async #openShared(config: FanoutConfig, ends: { readonly owner: string; readonly publications: readonly string[]; readonly source: Session }): Promise<SharedStream> {
    const slot = jobObjectName(ends.owner);
    const { lsn } = await ends.source.one<{ lsn: string }>('select confirmed_flush_lsn::text as lsn from pg_catalog.pg_replication_slots where slot_name = $1', [slot]);
    const shared = await SharedStream.open({
      source: config.source, job: ends.owner, slot, publications: ends.publications, startLsn: parseLsn(lsn),
      emit: (event) => {
        if (event.type === 'warning') this.#log.warn(`shared stream: ${event.message}`);
      },
    });
    // Targets that are not up yet hold their place: where exactly they stand is known when they are.
    for (const target of config.targets) if (shares(target)) shared.register(streamJobOf(config, target), parseLsn(lsn));
    this.#opened.set(ends.owner, shared);
    return shared;
  }

  async #run(follower: Follower, running: Running, target: FanoutTarget): Promise<void> {
    try {
      await follower.run();
    } catch (error) {
      running.error = error;
    } finally {
      await follower[Symbol.asyncDispose]().catch((error: unknown) => this.#log.warn(`${target.name}: ${errorMessage(error)}`));
      running.alive = false;
      if (!running.stop.signal.aborted) this.#ended(target.name);
    }
  }

  async #stopFollower(job: string): Promise<void> {
    const running = this.#running.get(job);
    this.#running.delete(job);
    running?.stop.abort();
    await running?.ended;
  }

  /** Begins copies and leaves them to the follower: rounds go on meanwhile and tell how far they are. What was pending when the follower began it copies by itself. */
  #copy(job: string, pending: readonly TableRef[], say: (text: string) => void): void {
    const running = this.#running.get(job);
    const begun = pending.filter((t) => running && !running.copies.has(tableKey(t)));
    if (begun.length > 0) say(`copying ${begun.length} tables`);
    for (const table of begun) {
      running!.copies.add(tableKey(table));
      running!.follower?.copyAgain(table);
    }
  }
}

/** Other publications, or a stream that failed: whoever reads it goes on with the new one from where it stands. */
function streamReplacedError(): PgweaveError {
  return new PgweaveError('shared-stream-replaced', 'the shared stream is opened anew', { retry: 'backoff' });
}

function isRestart(error: unknown): boolean {
  return error instanceof PgweaveError && error.code === 'shared-stream-replaced';
}
