import { readApplyTarget } from '../../catalog/apply-target.ts';
import type { Emit } from '../../core/events.ts';
import { errorMessage } from '../../core/errors.ts';
import { parsePredicate } from '../../core/selection/predicate.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { displayName } from '../../pg/identifiers.ts';
import { formatLsn, zeroLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';
import { sqlstateOf } from '../../pg/sqlstate.ts';
import type { Relation } from '../../pgoutput/messages.ts';
import { readTableStateMap, recordTableEvent, type TableEvent, type TableRecord } from '../table-states.ts';
import { countParked } from './parked.ts';
import { makePlan, PlanError, sameRelation, type SourceColumn, type TablePlan } from './plan.ts';

/** Whether a change is applied, is in the copied rows already, or waits. */
export type Verdict = 'apply' | 'skip' | 'park';

/** One table of the job as the running applier sees it. */
export interface Gate {
  record: TableRecord;
  /** Changes wait in `pgweave.parked_changes`: newer ones wait behind them. */
  parked: boolean;
  /** Taken out of the job while the stream went on. */
  left?: boolean;
}

/** Keeps the set of gates in state `copied` as records change: with thousands of tables, looking through all of them at every commit costs more than the commit. */
class KnownGate implements Gate {
  parked: boolean;
  left = false;
  readonly #copied: Set<Gate>;
  #record: TableRecord;

  constructor(record: TableRecord, parked: boolean, copied: Set<Gate>) {
    this.parked = parked;
    this.#copied = copied;
    this.#record = record;
    this.record = record;
  }

  get record(): TableRecord {
    return this.#record;
  }

  set record(record: TableRecord) {
    this.#record = record;
    if (record.state.name === 'copied') this.#copied.add(this);
    else this.#copied.delete(this);
  }
}

/** Where a relation's changes go. */
export interface Route {
  readonly gate: Gate;
  /** Undefined where the target cannot take the relation as it is: its changes are parked. */
  readonly plan: TablePlan | undefined;
}

export interface GateOptions {
  readonly job: string;
  readonly binary: boolean;
  readonly emit: Emit;
  /** Columns of a source table, for the DDL that a schema change needs; undefined where the source cannot be asked. */
  readonly describeSource?: ((table: TableRef) => Promise<readonly SourceColumn[]>) | undefined;
  /** Adds columns that the source has and the target lacks, instead of pausing the table. */
  readonly addColumns: boolean;
  /** The table on the target for a table of the source; default the same name. Table states are kept by the source's name. */
  readonly mapTable?: ((table: TableRef) => TableRef) | undefined;
  /** Columns that are not replicated. */
  readonly excludedColumns?: ((table: TableRef) => readonly string[]) | undefined;
  /** SQL condition in parentheses of the rows that go, for a table of which the source sends all; undefined where it filters them itself, or there is none. */
  readonly rowFilter?: ((table: TableRef) => string | undefined) | undefined;
  /** Tables that the job does not know: applied (for a stream without a copy) or paused until somebody says what they are. */
  readonly unknownTables: 'apply' | 'pause';
}

export function verdict(gate: Gate, commitLsn: Lsn): Verdict {
  const { state, copiedLsn, pausedLsn } = gate.record;
  if (gate.left) return 'skip';
  if (copiedLsn !== undefined && commitLsn < copiedLsn) return 'skip';
  switch (state.name) {
    case 'pending': case 'copying': return 'park';
    case 'copied': case 'streaming': return gate.parked ? 'park' : 'apply';
    case 'paused': return pausedLsn !== undefined && commitLsn < pausedLsn && !gate.parked ? 'apply' : 'park';
    default:
      state satisfies never;
      return 'park';
  }
}

/** The states of a job's tables, and the plans for the relations that the source describes. */
export class TableGates {
  readonly #options: GateOptions;
  readonly #control: () => Session;
  readonly #gates = new Map<string, Gate>();
  readonly #copied = new Set<Gate>();
  #routes = new WeakMap<Relation, Route>();
  readonly #latest = new Map<string, { relation: Relation; route: Route }>();

  constructor(control: () => Session, options: GateOptions) {
    this.#control = control;
    this.#options = options;
  }

  /** Reads all states anew. */
  async load(): Promise<void> {
    const records = await readTableStateMap(this.#control(), this.#options.job);
    const parked = new Set((await countParked(this.#control(), this.#options.job)).map(tableKey));
    for (const [key, gate] of this.#gates) {
      if (records.has(key) || gate.left) continue;
      this.#gates.delete(key);
      this.#copied.delete(gate);
    }
    for (const [key, record] of records) {
      const gate = this.#gates.get(key);
      if (gate) {
        gate.record = record;
        gate.left = false;
        gate.parked = parked.has(key);
      } else this.#gates.set(key, new KnownGate(record, parked.has(key), this.#copied));
    }
    this.forgetPlans();
  }

  all(): Iterable<Gate> {
    return this.#gates.values();
  }

  /** Those whose rows are in and whose stream has not passed their snapshot. */
  copied(): Iterable<Gate> {
    return this.#copied;
  }

  get(table: TableRef): Gate | undefined {
    return this.#gates.get(tableKey(table));
  }

  /** The route of a relation that was resolved; undefined where it must be resolved first. */
  route(relation: Relation): Route | undefined {
    return this.#routes.get(relation);
  }

  /** The table left the job: what still arrives of it is dropped. */
  leave(table: TableRef): void {
    const gate = this.get(table);
    if (gate) gate.left = true;
  }

  forgetPlans(): void {
    this.#routes = new WeakMap();
    this.#latest.clear();
  }

  forgetPlan(table: TableRef): void {
    const latest = this.#latest.get(tableKey(table));
    if (!latest) return;
    this.#routes.delete(latest.relation);
    this.#latest.delete(tableKey(table));
  }

  /**
   * Looks the relation's table up on the target and plans how to write it. Where the target cannot take it, the table is paused, durably, from the transaction at
   * `commitLsn` on [hard case 18].
   */
  async resolve(relation: Relation, commitLsn: Lsn): Promise<Route> {
    const key = tableKey(relation);
    const latest = this.#latest.get(key);
    if (latest?.route.plan && sameRelation(latest.relation, relation)) {
      this.#routes.set(relation, latest.route);
      return latest.route;
    }
    const gate = this.#gates.get(key) ?? (await this.#unknown(relation, commitLsn));
    let plan: TablePlan | undefined;
    try {
      plan = await this.plan(relation);
    } catch (error) {
      if (!(error instanceof PlanError)) throw error;
      if (verdict(gate, commitLsn) === 'apply') await this.record(gate, { type: 'failed', reason: error.message, lsn: commitLsn }, error.hint);
    }
    const route: Route = { gate, plan };
    this.#routes.set(relation, route);
    this.#latest.set(key, { relation, route });
    return route;
  }

  /** @throws PlanError where the target cannot take the relation. */
  async plan(relation: Relation, binary = this.#options.binary): Promise<TablePlan> {
    const excluded = this.#options.excludedColumns?.(relation) ?? [];
    const where = this.#options.rowFilter?.(relation);
    const filter = where === undefined ? undefined : { where, columns: (await parsePredicate(where)).columns };
    const on = this.#options.mapTable?.(relation) ?? relation;
    const target = await readApplyTarget(this.#control(), on);
    const lacks = target ? relation.columns.filter((c) => !excluded.includes(c.name) && !target.columns.some((t) => t.name === c.name)) : [];
    const described = lacks.length > 0 && this.#options.describeSource ? await this.#options.describeSource(relation).catch(() => []) : [];
    try {
      const plan = makePlan(relation, target, described, { binary, excluded, filter });
      this.#warnOfTriggers(plan);
      return plan;
    } catch (error) {
      if (!(error instanceof PlanError) || error.ddl.length === 0 || !this.#options.addColumns || lacks.some((c) => !described.some((d) => d.name === c.name))) throw error;
      try {
        for (const statement of error.ddl) await this.#control().query(statement);
      } catch (refused) {
        throw new PlanError('target-column-refused', `${error.message}; adding failed: ${errorMessage(refused)}`, error.hint ?? '', error.ddl);
      }
      this.#options.emit({ type: 'log', level: 'info', message: `${displayName(relation.schema, relation.name)}: ran on the target, as the source had done: ${error.ddl.join(' ')}` });
      return makePlan(relation, await readApplyTarget(this.#control(), on), [], { binary, excluded, filter });
    }
  }

  /** Brings a table's state forward, durably, and tells. */
  async record(gate: Gate, event: TableEvent, hint?: string): Promise<void> {
    gate.record = await recordTableEvent(this.#control(), this.#options.job, gate.record, event);
    this.announce(gate, hint);
  }

  /** Tells of a state that was recorded elsewhere. */
  announce(gate: Gate, hint?: string): void {
    const { schema, name, state } = gate.record;
    this.#options.emit({ type: 'table-state', table: { schema, name }, state });
    if (state.name !== 'paused') return;
    const shown = displayName(schema, name);
    this.#options.emit({ type: 'warning', code: 'table-paused', message: `${shown} is paused${state.lsn === null ? '' : ` at ${state.lsn}`}: ${state.reason}. Its changes are kept; the other tables go on`, hint: hint ?? `pgweave table ${shown} --retry | --skip-transaction | --copy-again` });
  }

  async #unknown(relation: Relation, commitLsn: Lsn): Promise<Gate> {
    const key = tableKey(relation);
    // Somebody may have taken it into the job since the states were read.
    const recorded = (await readTableStateMap(this.#control(), this.#options.job)).get(key);
    if (recorded) {
      const known = new KnownGate(recorded, (await countParked(this.#control(), this.#options.job)).some((p) => tableKey(p) === key), this.#copied);
      this.#gates.set(key, known);
      return known;
    }
    const leaves = await this.#leavesOf(relation);
    const first = leaves[0];
    const table = { schema: relation.schema, name: relation.name };
    const gate = new KnownGate({ ...table, state: { name: 'pending' }, copiedLsn: undefined, pausedLsn: undefined, rowKey: undefined, sqlstate: undefined }, false, this.#copied);
    this.#gates.set(key, gate);
    // A partitioned table that was copied leaf by leaf and is published as a whole: one snapshot for all its leaves makes it one table.
    if (first && leaves.every((leaf) => leaf.copiedLsn === first.copiedLsn && (leaf.state.name === 'copied' || leaf.state.name === 'streaming'))) {
      await this.record(gate, { type: 'copied', lsn: first.copiedLsn });
    } else if (this.#options.unknownTables === 'apply') {
      gate.record = { ...gate.record, state: { name: 'streaming' }, copiedLsn: zeroLsn };
    } else {
      const shown = displayName(relation.schema, relation.name);
      await this.record(gate, { type: 'failed', reason: 'the table is published by the source and was not copied by this job', lsn: commitLsn }, `To take it in: pgweave table ${shown} --copy-again   To leave it out: pgweave table ${shown} --drop`);
    }
    return gate;
  }

  async #leavesOf(relation: Relation): Promise<TableRecord[]> {
    const leaves = await this.#control().query<{ schema: string; name: string }>(
      `select n.nspname as schema, c.relname as name from pg_catalog.pg_class p join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
         cross join lateral pg_catalog.pg_partition_tree(p.oid) t join pg_catalog.pg_class c on c.oid = t.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where pn.nspname = $1 and p.relname = $2 and p.relkind = 'p' and t.isleaf`,
      [relation.schema, relation.name],
    ).catch((error: unknown) => {
      if (sqlstateOf(error) === undefined) throw error;
      return [];
    });
    return leaves.flatMap((leaf) => this.#gates.get(tableKey(leaf))?.record ?? []);
  }

  readonly #warned = new Set<string>();

  #warnOfTriggers(plan: TablePlan): void {
    if (plan.target.firingTriggers.length === 0 || this.#warned.has(plan.key)) return;
    this.#warned.add(plan.key);
    this.#options.emit({ type: 'warning', code: 'triggers-fire', message: `${displayName(plan.target.schema, plan.target.name)}: triggers enabled as ALWAYS or REPLICA fire on the target for each change: ${plan.target.firingTriggers.join(', ')}` });
  }
}

/** For people: `17/A0B1`. */
export function lsnText(lsn: Lsn | undefined): string {
  return lsn === undefined ? 'unknown' : formatLsn(lsn);
}
