import { publicationFacts } from '../catalog/publications.ts';
import { sourceColumns, type SourceColumnRow } from '../catalog/stream-columns.ts';
import { Applier } from '../changes/apply/applier.ts';
import type { Gate } from '../changes/apply/table-gates.ts';
import type { ChangeLog } from '../changes/change-log.ts';
import { forgetSpool } from '../changes/spool/registration.ts';
import { dropTables } from '../changes/table-commands.ts';
import { ensureChangesSchema } from '../changes/target-schema.ts';
import { settleAll } from '../core/abort.ts';
import { isInterrupted, PgweaveError } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { jobObjectName } from '../core/job-folder.ts';
import type { TableRef } from '../core/tables.ts';
import { formatLsn, type Lsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { AppliedRecord } from './follow/applied-record.ts';
import { committedLsn } from './follow/committed-lsn.ts';
import { ControlDesk } from './follow/control-desk.ts';
import { openLog, slotPosition } from './follow/open-log.ts';
import type { FollowOptions, FollowResult } from './follow/options.ts';
import { applierFilters } from './follow/row-filters.ts';
import { streamMayBeBinary } from './follow/stream-format.ts';
import { tableRules, type TableRules } from './follow/table-rules.ts';
import { serverFacts } from './server-facts.ts';
import { publicationNamesOf } from './publications.ts';
import { readSubscription } from './sync/subscription.ts';

export type { FollowOptions, FollowResult } from './follow/options.ts';

/**
 * Streams changes of a job that was cloned: from the source's slot, through a log, to the target, exactly once. Goes on where it stopped, after any crash on any side.
 * Ends when the signal fires (resolves; `interrupted` where nothing had begun), when `untilCaughtUp` is reached, or with the error that forbids going on.
 */
export async function follow(options: FollowOptions): Promise<FollowResult> {
  await using follower = await Follower.open(options);
  return await follower.run();
}

/** A follower in this process: what `follow` runs, with handles to pause and stop it. */
export class Follower implements AsyncDisposable {
  readonly #options: FollowOptions;
  readonly #emit: Emit;
  readonly #applier: Applier;
  readonly #desk: ControlDesk;
  readonly #log: ChangeLog;
  readonly #sessions: { source: Session | undefined };
  readonly #record: AppliedRecord | undefined;
  /** Where the source's WAL ended when the streaming began. */
  readonly #goal: Lsn;
  #caughtUp = false;
  #paused = false;

  private constructor(parts: { options: FollowOptions; emit: Emit; applier: Applier; desk: ControlDesk; log: ChangeLog; sessions: { source: Session | undefined }; record: AppliedRecord | undefined; goal: Lsn; control: { session: Session | undefined }; rules: CurrentRules }) {
    this.#options = parts.options;
    this.#emit = parts.emit;
    this.#applier = parts.applier;
    this.#desk = parts.desk;
    this.#log = parts.log;
    this.#sessions = parts.sessions;
    this.#record = parts.record;
    this.#goal = parts.goal;
    this.#controlHolder = parts.control;
    this.#rules = parts.rules;
  }

  readonly #rules: CurrentRules;
  readonly #controlHolder: { session: Session | undefined };

  /**
   * Connects both sides and checks everything that can stand against following. Throws `another-follower`, `followed-natively`, `job-not-cloned`, `publication-missing`, and what
   * receiveChanges throws of the slot.
   */
  static async open(options: FollowOptions): Promise<Follower> {
    const emit = options.onEvent ?? (() => undefined);
    const { job, signal } = options;
    emit({ type: 'phase', phase: 'preparing' });
    const holder: { session: Session | undefined } = { session: undefined };
    const sessions: { source: Session | undefined } = { source: undefined };
    const control = async (): Promise<Session> => {
      if (holder.session && !holder.session.lost) return holder.session;
      holder.session = await Session.open(options.target, { role: 'apply control', job, side: 'the target' });
      await holder.session.query('set default_transaction_read_only = off');
      return holder.session;
    };
    const cleanUp: (() => Promise<unknown> | undefined)[] = [async () => holder.session?.close(), async () => sessions.source?.close()];
    try {
      const openTarget = async () => {
        const session = await control();
        await refuseSubscribed(session, options);
        await ensureChangesSchema(session);
        const opened = await ControlDesk.open({ target: options.target, job, emit });
        cleanUp.unshift(() => opened.close());
        return { session, desk: opened, facts: await serverFacts(session) };
      };
      const openSource = async () => {
        const session = await sourceSession(options);
        sessions.source = session;
        return { session, facts: await serverFacts(session), publications: options.publications ?? (await jobPublications(session, job)) };
      };
      // Both sides at once: a round trip may be long, and there are many.
      const [{ session: target, desk, facts: targetFacts }, { session: source, facts: sourceFacts, publications }] = await settleAll(openTarget(), openSource());
      emit({ type: 'servers', source: sourceFacts, target: targetFacts });
      const rules = await currentRules(options, source, target, publications);
      const mapTable = (table: TableRef) => rules.tables.mapTable(table);
      const excludedColumns = (table: TableRef) => rules.tables.excludedColumns(table);
      const wanted = options.binary ?? 'auto';
      const binary = wanted === 'on' || (wanted === 'auto' && (await streamMayBeBinary(source, target, publications, mapTable)));
      const record = options.folder && (await AppliedRecord.open(options.folder, source));
      cleanUp.unshift(async () => record?.close());
      const applier = new Applier({
        target: options.target, job, binary, emit, signal, control, addColumns: options.addColumns ?? false, unknownTables: options.unknownTables ?? 'pause', mapTable, excludedColumns, rowFilter: (table) => rules.rowFilter(table), setWiseFrom: options.setWiseFrom, onCommitted: (lsn) => record?.note(lsn), onReconnected: () => copyUnfinished(applier, desk),
        describeSource: (table) => describeSource(options, sessions, table),
      });
      cleanUp.unshift(() => applier.close());
      const [progress, goal] = await settleAll(applier.open(), committedLsn(source, signal));
      if ([...applier.gates.all()].length === 0 && options.unknownTables !== 'apply') {
        throw new PgweaveError('job-not-cloned', `the target knows no table of job "${job}"`, { hint: `Copy them first: pgweave clone --follow --job ${job}`, retry: 'manual' });
      }
      record?.check(job, { progress, slotLsn: await slotPosition(source, options.slot ?? jobObjectName(job)), copiedLsn: oldestCopy(applier) });
      // Confirmed to the source before anything more is applied.
      if (progress !== undefined) record?.note(progress);
      const log = options.log ?? (await openLog(options, { source, target, publications, binary, progress, emit }));
      cleanUp.unshift(() => log.close());
      applier.attach(log);
      return new Follower({ options, emit, applier, desk, log, sessions, record, goal, control: holder, rules });
    } catch (error) {
      for (const work of cleanUp) await work()?.catch(() => undefined);
      throw error;
    }
  }

  /** Everything that the source wrote before it is on the target. */
  appliedLsn(): Lsn {
    return this.#applier.report.appliedLsn();
  }

  get applier(): Applier {
    return this.#applier;
  }

  /** Applies until stopped. May be called once. */
  async run(): Promise<FollowResult> {
    const { signal } = this.#options;
    const stop = () => this.#applier.stop();
    signal?.addEventListener('abort', stop, { once: true });
    this.#emit({ type: 'phase', phase: 'catching-up' });
    const watching = this.#watchCatchUp();
    this.#desk.serve({ applier: this.#applier, log: this.#log, pause: () => this.pause(), resume: () => this.resume(), stop: (request) => this.#stopFor(request), copyTable: (table) => this.#copyTable(table), dropTable: (table) => this.#dropTable(table) });
    for (const gate of this.#applier.gates.all()) {
      this.#applier.gates.announce(gate);
      const { name } = gate.record.state;
      if (gate.parked && (name === 'copied' || name === 'streaming')) this.#applier.drain(gate).catch(() => undefined);
    }
    copyUnfinished(this.#applier, this.#desk);
    try {
      await this.#applier.run();
    } catch (error) {
      this.#emit({ type: 'phase', phase: isInterrupted(error) ? 'stopped' : 'failed' });
      if (!(isInterrupted(error) && signal?.aborted)) throw error;
    } finally {
      signal?.removeEventListener('abort', stop);
      this.#ended = true;
      await watching.catch(() => undefined);
    }
    const result = this.#result();
    // The switchover that ended it may still be undone: whoever follows through says how it went.
    this.#emit({ type: 'phase', phase: this.#switchedOver ? 'switching-over' : this.#caughtUp ? 'done' : 'stopped' });
    return result;
  }

  #ended = false;

  /** Applies nothing until `resume`; changes gather in the log, on the source where it is full. */
  async pause(): Promise<void> {
    if (this.#paused) return;
    this.#paused = true;
    await this.#applier.hold();
    this.#emit({ type: 'phase', phase: 'paused' });
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#applier.release();
    this.#emit({ type: 'phase', phase: 'streaming' });
  }

  /** Copies a table anew while everything else streams, once `run` was called. Returns at once: how it ends the table's state tells. */
  copyAgain(table: TableRef): void {
    this.#desk.copyAgain(table);
  }

  /** Takes tables out of the job; their rows stay. What is published is left alone: it may not be this job's alone. */
  async dropTables(tables: readonly TableRef[]): Promise<void> {
    await dropTables(this.#applier, tables);
    for (const table of tables) this.#emit({ type: 'table-removed', table });
  }

  /** Finishes what is in flight; `run` then resolves. */
  stop(): void {
    this.#applier.stop();
  }

  /** A switchover ends the follower once everything is applied, and says whether a stream the other way was made. */
  #stopFor(request: Readonly<Record<string, unknown>> | undefined): void {
    if (request?.['reason'] === 'switchover') this.#switchedOver = { wayBack: typeof request['wayBack'] === 'string' ? request['wayBack'] : null };
    this.stop();
  }

  #switchedOver: FollowResult['switchedOver'];

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#desk.close();
    await this.#log.close();
    await this.#applier.close();
    this.#record?.close();
    // A failure leaves it registered: the next run looks into the spool once more and finds it empty.
    if (this.#log.drained) await forgetSpool(this.#controlHolder.session!, this.#options.job).catch(() => undefined);
    await this.#sessions.source?.close();
    await this.#controlHolder.session?.close();
  }

  /** Everything that the source held when the streaming began is applied: says so, and ends where that was the task. */
  async #watchCatchUp(): Promise<void> {
    try {
      await this.#log.waitUntilConfirmed(this.#goal, this.#options.signal);
    } catch {
      // The log's error reaches the applier by its own way.
      return;
    }
    if (this.#ended) return;
    if (this.#options.untilCaughtUp) {
      this.#caughtUp = true;
      this.stop();
    } else if (!this.#paused) this.#emit({ type: 'phase', phase: 'streaming' });
  }

  async #copyTable(table: TableRef): Promise<Lsn> {
    const { recopyTable } = await import('./follow/recopy.ts');
    const { source, target, job, signal } = this.#options;
    await using onSource = await sourceSession(this.#options);
    await using onTarget = await Session.open(target, { role: 'copy', job, side: 'the target', signal });
    const refresh = async () => Object.assign(this.#rules, await currentRules(this.#options, onSource, onTarget, this.#rules.publications));
    // Once before, since the table may have come after the stream began, and once more when it is published.
    await refresh();
    const lsn = await recopyTable({ source, target, job, emit: this.#emit, signal, rules: this.#rules.tables }, table);
    await refresh();
    return lsn;
  }

  async #dropTable(table: TableRef): Promise<void> {
    const { unpublishTable } = await import('./follow/recopy.ts');
    await unpublishTable(this.#options.source, this.#options.job, table);
    this.#emit({ type: 'table-removed', table });
  }

  #result(): FollowResult {
    const paused = [...this.#applier.gates.all()].flatMap((gate: Gate) => (gate.record.state.name === 'paused' ? [{ table: { schema: gate.record.schema, name: gate.record.name }, reason: gate.record.state.reason }] : []));
    const { report } = this.#applier;
    return { appliedLsn: formatLsn(report.appliedLsn()), transactions: report.transactions, rows: report.rows, paused, caughtUp: this.#caughtUp, switchedOver: this.#switchedOver };
  }
}

/** What the rules mean for the tables of the stream, as the source's catalog was when it was last read. */
interface CurrentRules {
  tables: TableRules;
  /** Condition of the rows that the applier takes, where the source does not filter. */
  rowFilter: (table: TableRef) => string | undefined;
  readonly publications: readonly string[];
}

async function currentRules(options: FollowOptions, source: Session, target: Session, publications: readonly string[]): Promise<CurrentRules> {
  const tables = await tableRules(options, source, target);
  return { tables, rowFilter: await applierFilters(source, options.job, publications, tables), publications };
}

function sourceSession(options: FollowOptions): Promise<Session> {
  return Session.open(options.source, { role: 'follow', job: options.job, side: 'the source', signal: options.signal });
}

async function jobPublications(source: Session, job: string): Promise<string[]> {
  const names = publicationNamesOf(job);
  const found: string[] = [];
  for (const name of [names.all, names.inserts]) if ((await source.query(publicationFacts(name))).length > 0) found.push(name);
  if (found.length === 0) throw new PgweaveError('publication-missing', `the source has no publication ${names.all}`, { retry: 'never', hint: `It was dropped, or job "${job}" was never cloned with --follow. Begin again: pgweave clone --follow --job ${job}` });
  return found;
}

/** Copies tables whose copy was broken off, with the process that made it or with the target. */
function copyUnfinished(applier: Applier, desk: ControlDesk): void {
  for (const { record } of applier.gates.all()) if (record.state.name === 'pending' || record.state.name === 'copying') desk.copyAgain({ schema: record.schema, name: record.name });
}

/** LSN of the oldest snapshot that a table of the job was copied in. */
function oldestCopy(applier: Applier): Lsn | undefined {
  let oldest: Lsn | undefined;
  for (const { record } of applier.gates.all()) if (record.copiedLsn !== undefined && (oldest === undefined || record.copiedLsn < oldest)) oldest = record.copiedLsn;
  return oldest;
}

async function describeSource(options: FollowOptions, sessions: { source: Session | undefined }, table: TableRef): Promise<{ name: string; type: string; notNull: boolean; defaultSql: string | undefined }[]> {
  if (!sessions.source || sessions.source.lost) sessions.source = await sourceSession(options);
  const rows = await sessions.source.query<SourceColumnRow>(sourceColumns(table));
  return rows.map((row) => ({ name: row.name, type: row.type, notNull: row.not_null, defaultSql: row.default_sql ?? undefined }));
}

/** Throws where the job was handed over to a subscription, whose worker reads the same slot. */
async function refuseSubscribed(target: Session, { job, slot }: FollowOptions): Promise<void> {
  const name = slot ?? jobObjectName(job);
  if (!(await readSubscription(target, name))) return;
  throw new PgweaveError('followed-natively', `job "${job}" is followed by the native subscription ${name} of the target`, {
    hint: `No follower is needed: pgweave status --job ${job} says where it stands. To follow with pgweave from now on, begin anew: pgweave cleanup --job ${job}, then pgweave clone --follow`, exitCode: 2, retry: 'never',
  });
}
