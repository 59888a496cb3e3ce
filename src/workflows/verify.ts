import { resolveSelection, selectableTables } from '../catalog/selection.ts';
import { verifyTables, type VerifyTableRow } from '../catalog/verify-tables.ts';
import { readTableStateMap } from '../changes/table-states.ts';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import { notedRules } from '../copy/kept-selection.ts';
import type { Emit } from '../core/events.ts';
import { checkJobName, jobObjectName } from '../core/job-folder.ts';
import { describeRules, fixTimeWindows, hasRules, noRules, type SelectionRules } from '../core/selection/rules.ts';
import { matchTables, unmatchedError, type Selection, type SelectionScope } from '../core/selection/select.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { displayName } from '../pg/identifiers.ts';
import { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { compareTables, emptyReport, incomparableReport, type ComparedTable, type CompareProgress } from '../verify/compare.ts';
import { compareLargeObjects } from '../verify/large-objects.ts';
import { planUnits, type PlannedUnits } from '../verify/plan-units.ts';
import type { LargeObjectReport, SequenceReport, TableReport } from '../verify/report.ts';
import { compareSequences } from '../verify/sequences.ts';
import { SnapshotPool } from '../verify/snapshot-pool.ts';
import type { Unit } from '../verify/unit.ts';
import { followedGate, memberGate, subscribedGate, type Verdict } from './verify/gate.ts';
import { exactMoment, lsnText, openTogether, plainMoment, type Moment } from './verify/moment.ts';
import { repairDifferences } from './verify/repair-run.ts';
import { settle } from './verify/settle.ts';
import { readSituation, type Situation, type VerifyMode } from './verify/situation.ts';

export type { VerifyMode } from './verify/situation.ts';
export type { ColumnDifference, LargeObjectReport, SequenceReport, ShownRow, TableReport } from '../verify/report.ts';

export interface VerifyOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  /** Default `default`. */
  readonly job?: string;
  /** What the job moves; default everything. */
  readonly rules?: SelectionRules | undefined;
  readonly scope?: SelectionScope | undefined;
  /** Of the job's tables, those that these rules take, such as `includeTables`; default all. Throws a usage error for names that are not there. */
  readonly only?: SelectionRules | undefined;
  /** Sessions a side; default 4. */
  readonly jobs?: number;
  /** Per cent of each table's rows, chosen by the hash of their key. */
  readonly sample?: number | undefined;
  /** False leaves values out of the report; default true. */
  readonly values?: boolean;
  /** Rows of each table that are described; default 20. */
  readonly show?: number;
  /** Make the target's rows as the source's where they differ. */
  readonly repair?: boolean;
  /** Reports of an earlier run that was interrupted: these tables are not compared again. */
  readonly known?: readonly TableReport[];
  /** How long a native subscription may take to catch up, milliseconds; default one minute. */
  readonly lagTimeoutMs?: number;
  /** Both sides hold still: whatever follows is not asked. Tables that replication does not carry are compared too. */
  readonly atRest?: boolean;
  readonly onTable?: ((report: TableReport) => void) | undefined;
  readonly onProgress?: ((progress: CompareProgress) => void) | undefined;
  readonly onEvent?: Emit | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface VerifyReport {
  readonly format: 1;
  readonly job: string;
  readonly mode: VerifyMode;
  /** Both sides were compared as of this; null where that was not possible. */
  readonly lsn: string | null;
  /** How long the applier stood still, milliseconds; null where nothing was held. */
  readonly pausedMs: number | null;
  readonly startedAt: string;
  readonly durationMs: number;
  readonly sample: number | null;
  readonly tables: readonly TableReport[];
  readonly totals: { readonly tables: number; readonly equal: number; readonly different: number; readonly notCompared: number; readonly leftOut: number; readonly rows: number; readonly differingRows: number };
  readonly sequences: readonly SequenceReport[];
  /** Null where they could not be read, or replication is under way, which does not carry them. */
  readonly largeObjects: LargeObjectReport | null;
  readonly notes: readonly string[];
  /** Nothing differs and everything was compared. */
  readonly ok: boolean;
}

/** Differences kept for a repair, each table. */
const keptForRepair = 100_000;
/** Differences of a subscription's tables that are looked at again. */
const keptForRecheck = 20_000;

/** Compares the rows of source and target, and what else must agree. Writes to the target only with `repair`, to the source never. */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  const run = new Run(options);
  return run.run();
}

class Run {
  readonly #options: VerifyOptions;
  readonly #job: string;
  readonly #since = performance.now();
  readonly #startedAt = new Date().toISOString();
  readonly #notes: string[] = [];
  #pausedMs: number | null = null;
  /** Which tables were asked for; undefined: all. */
  #accepts: ((table: TableRef) => boolean) | undefined;

  constructor(options: VerifyOptions) {
    this.#options = options;
    this.#job = checkJobName(options.job ?? 'default');
    if (options.sample !== undefined && !(options.sample > 0 && options.sample <= 100)) throw new PgweaveError('usage', `not a sample: ${options.sample} per cent`, { hint: 'Give a number above 0, up to 100.', exitCode: 2, retry: 'never' });
    if (options.repair && options.sample !== undefined) throw new PgweaveError('usage', 'a sample cannot be repaired', { hint: 'Leave --sample or --repair out.', exitCode: 2, retry: 'never' });
  }

  async run(): Promise<VerifyReport> {
    const situation = await this.#situation();
    await using moment = await this.#moment(situation);
    const { planned, selection, transcode } = await this.#plan(moment);
    const hash = { transcode };
    const { units, reports } = await this.#gate(planned, situation, moment);
    let compared = await this.#compare(moment, units, hash);
    if (situation.mode === 'subscription') compared = await settle(compared, { ...this.#context(hash), subscription: situation.subscription! });
    const sequences = await this.#sequences(selection);
    const largeObjects = this.#replicates(situation) ? null : await this.#largeObjects(moment);
    if (this.#options.repair) compared = await repairDifferences(compared, { ...this.#context(hash), situation, moment, compareAgain: (again) => this.#again(again, situation, hash) });
    return this.#report(situation, moment, [...reports, ...compared.map((c) => c.report)], sequences, largeObjects);
  }

  async #situation(): Promise<Situation> {
    const { target, signal, atRest } = this.#options;
    await using session = await Session.open(target, { role: 'verify', job: this.#job, side: 'the target', signal });
    const situation = await readSituation(session, this.#job);
    return atRest ? { ...situation, mode: 'plain' } : situation;
  }

  #replicates(situation: Situation): boolean {
    return situation.mode === 'running' || situation.mode === 'subscription';
  }

  #momentOptions() {
    return { source: this.#options.source, target: this.#options.target, job: this.#job, signal: this.#options.signal };
  }

  async #moment(situation: Situation): Promise<Moment> {
    if (situation.mode === 'running') {
      const moment = await exactMoment(this.#momentOptions());
      this.#pausedMs = (this.#pausedMs ?? 0) + moment.pausedMs;
      return moment;
    }
    if (situation.mode === 'stopped') this.#notes.push('the follower of this job does not run: changes made on the source since it stopped count as differences');
    return plainMoment(this.#momentOptions());
  }

  async #plan(moment: Moment): Promise<{ planned: PlannedUnits; selection: Selection; transcode: boolean }> {
    const { rules, scope, only, sample } = this.#options;
    const { sourceSession: source, targetSession: target } = moment;
    const where = scope ?? { database: source.spec.database };
    const selection = await this.#selection(moment, rules ?? noRules, where);
    if (only && hasRules(only)) this.#accepts = await this.#narrowedTo(only, where, source);
    const [here, there] = [await source.query<VerifyTableRow>(verifyTables()), await target.query<VerifyTableRow>(verifyTables())];
    const done = new Set((this.#options.known ?? []).map((r) => tableKey(r.table)));
    const planned = planUnits({ tables: here, serverVersion: source.serverVersion }, { tables: there, serverVersion: target.serverVersion }, { selection, sample, accepts: (t) => !done.has(tableKey(t)) && (this.#accepts?.(t) ?? true) });
    const encoding = async (session: Session) => (await session.one<{ encoding: string }>(`select pg_catalog.current_setting('server_encoding') as encoding`)).encoding;
    return { planned, selection, transcode: (await encoding(source)) !== (await encoding(target)) };
  }

  /** Without rules, what a clone of the job wrote down on the target counts, as far as the source still has it. */
  async #selection({ sourceSession: source, targetSession: target }: Moment, rules: SelectionRules, scope: SelectionScope): Promise<Selection> {
    const noted = hasRules(rules) ? undefined : await notedRules(target, this.#job);
    if (!noted) return (await resolveSelection(source, fixTimeWindows(rules, new Date()), scope)).selection;
    if (hasRules(noted)) this.#notes.push(`compared by the rules that stand on the target: ${describeRules(noted).join('; ')}`);
    return matchTables(noted, scope, await selectableTables(source)).selection;
  }

  async #narrowedTo(only: SelectionRules, scope: SelectionScope, source: Session): Promise<(table: TableRef) => boolean> {
    const { selection, unmatched } = matchTables(only, scope, await selectableTables(source));
    if (unmatched.length > 0 && (scope.databases ?? []).length <= 1) throw unmatchedError(unmatched);
    return (table) => selection.get(tableKey(table))?.mode === 'copy';
  }

  async #gate(planned: PlannedUnits, situation: Situation, moment: Moment): Promise<{ units: Unit[]; reports: TableReport[] }> {
    const all = (): Verdict => ({ compare: true });
    let verdict: (unit: Unit) => Verdict = all;
    if (situation.mode === 'running') verdict = followedGate(await readTableStateMap(moment.targetSession, this.#job), moment.lsn!);
    if (situation.mode === 'subscription') verdict = await subscribedGate(moment.targetSession, situation.subscription!.name);
    const { states } = situation;
    if (verdict === all && situation.followed && states.size > 0) verdict = memberGate(states);
    // A table that is missing on the target is no fault where the job does not have it.
    const member = (table: TableRef) => !situation.followed || states.size === 0 || states.has(tableKey(table));
    const reports = [...(this.#options.known ?? []), ...planned.incomparable.map((t) => (member(t.table) ? incomparableReport(t) : { ...emptyReport(t), status: 'left-out' as const, reason: 'not part of the job' }))];
    const insertsOnly = situation.followed ? await this.#insertsOnly(moment) : new Set<string>();
    const units: Unit[] = [];
    for (const unit of planned.units) {
      const said = verdict(unit);
      if (said.compare) units.push(insertsOnly.has(tableKey(unit.table)) ? { ...unit, notes: [...unit.notes, 'without a replica identity: only inserts are replicated'] } : unit);
      else reports.push({ ...emptyReport(unit), status: said.status, reason: said.reason });
    }
    return { units, reports };
  }

  /** Tables of the job's second publication: updates and deletes of theirs never reach the target. */
  async #insertsOnly(moment: Moment): Promise<Set<string>> {
    const rows = await moment.sourceSession.query<TableRef>('select schemaname::text as schema, tablename::text as name from pg_catalog.pg_publication_tables where pubname = $1', [`${jobObjectName(this.#job)}_inserts`]);
    return new Set(rows.map(tableKey));
  }

  #compare(moment: Moment, units: readonly Unit[], hash: { readonly transcode: boolean }, again = false): Promise<ComparedTable[]> {
    const { jobs = 4, show = 20, values = true, repair, onTable, onProgress, signal } = this.#options;
    return compareTables({
      job: this.#job, source: moment.source, target: moment.target, units, hash, jobs, lsn: lsnText(moment), keep: repair ? keptForRepair : this.#keep, show, values, signal,
      ...(again ? {} : { onProgress, onTable: (report) => { if (report.status === 'equal') onTable?.(report); } }),
    });
  }

  readonly #keep = keptForRecheck;

  async #again(units: readonly Unit[], situation: Situation, hash: { readonly transcode: boolean }): Promise<ComparedTable[]> {
    await using moment = await this.#moment(situation);
    const compared = await this.#compare(moment, units, hash, true);
    return situation.mode === 'subscription' ? await settle(compared, { ...this.#context(hash), subscription: situation.subscription! }) : compared;
  }

  #context(hash: { readonly transcode: boolean }) {
    const { show = 20, values = true, lagTimeoutMs = 60_000, jobs = 4, onEvent, signal } = this.#options;
    return { ...this.#momentOptions(), hash, show, values, lagTimeoutMs, jobs, keep: this.#options.repair ? keptForRepair : this.#keep, emit: onEvent ?? (() => undefined), signal };
  }

  async #sequences(selection: Selection): Promise<SequenceReport[]> {
    const { source, target, signal } = this.#options;
    const opened = await openTogether<[Session, Session]>([Session.open(source, { role: 'verify', job: this.#job, side: 'the source', signal }), Session.open(target, { role: 'verify', job: this.#job, side: 'the target', signal })]);
    await using here = opened[0];
    await using there = opened[1];
    try {
      return await compareSequences(here, there, (owner) => selection.get(tableKey(owner))?.mode !== 'skip' && (this.#accepts?.(owner) ?? true), this.#accepts === undefined, (owner) => selection.get(tableKey(owner))?.mapTo ?? owner);
    } catch (error) {
      if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) throw error;
      this.#notes.push(`sequences could not be read: ${errorMessage(error)}`);
      return [];
    }
  }

  async #largeObjects(moment: Moment): Promise<LargeObjectReport | null> {
    if (this.#accepts || this.#options.sample !== undefined) return null;
    await using source = new SnapshotPool(moment.source, { job: this.#job, signal: this.#options.signal });
    await using target = new SnapshotPool(moment.target, { job: this.#job, signal: this.#options.signal });
    try {
      return await compareLargeObjects(source, target);
    } catch (error) {
      if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) throw error;
      this.#notes.push(`large objects could not be read: ${errorMessage(error)}`);
      return null;
    }
  }

  #report(situation: Situation, moment: Moment, unsorted: readonly TableReport[], sequences: readonly SequenceReport[], largeObjects: LargeObjectReport | null): VerifyReport {
    const name = (r: TableReport) => displayName(r.table.schema, r.table.name);
    const tables = [...unsorted].sort((a, b) => (name(a) < name(b) ? -1 : 1));
    const count = (status: TableReport['status']) => tables.filter((t) => t.status === status).length;
    const behind = sequences.filter((s) => s.status === 'behind' || s.status === 'missing' || s.status === 'different');
    const notes = [...this.#notes];
    if (this.#replicates(situation)) {
      if (behind.length > 0) notes.push(`${behind.length} ${behind.length === 1 ? 'sequence is' : 'sequences are'} behind the source, as replication does not carry them; switchover does`);
      notes.push('large objects are not compared while changes stream: replication does not carry them; switchover does');
    }
    const objects = largeObjects === null ? 0 : largeObjects.missing + largeObjects.extra + largeObjects.changed;
    const totals = {
      tables: tables.length, equal: count('equal'), different: count('different'), notCompared: count('not-compared'), leftOut: count('left-out'), rows: tables.reduce((sum, t) => sum + t.rows.source, 0),
      differingRows: tables.reduce((sum, t) => sum + t.missing + t.extra + t.changed, 0),
    };
    const ok = totals.different === 0 && totals.notCompared === 0 && objects === 0 && (this.#replicates(situation) || behind.length === 0);
    this.#options.onEvent?.({ type: 'verified', tables: totals.equal + totals.different, rows: totals.rows, differing: totals.different, lsn: lsnText(moment) });
    return {
      format: 1, job: this.#job, mode: situation.mode, lsn: lsnText(moment), pausedMs: this.#pausedMs, startedAt: this.#startedAt, durationMs: Math.round(performance.now() - this.#since), sample: this.#options.sample ?? null, tables, totals, sequences,
      largeObjects, notes, ok,
    };
  }
}
