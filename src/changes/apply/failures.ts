import { errorMessage } from '../../core/errors.ts';
import { isConnectionLoss, isTransient, sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';
import { ServerError } from '../../pg/server-error.ts';
import { columnKind, type Tuple } from '../../pgoutput/messages.ts';
import type { UnitResult } from '../../pg/pipeline.ts';
import type { WrittenUnit } from './batch-writer.ts';
import { notSentReason } from './filtered-rows.ts';
import type { RowChange } from './merge.ts';
import type { TablePlan } from './plan.ts';

/** What went wrong while a batch was applied, as far as it can be told. */
export interface Failure {
  readonly error: Error;
  /** The connection is gone, or cannot be used any more. */
  readonly lost: boolean;
  /** The table that failed; undefined where no statement of a table did. */
  readonly plan: TablePlan | undefined;
  /** The change that failed, where changes were written one by one. */
  readonly change: RowChange | undefined;
  /** The batch before was not committed, or somebody else moved the job's progress. */
  readonly outOfTurn: boolean;
}

/** Division by zero in the first unit of a transaction is its guard (progress.ts). */
const divisionByZero = '22012';

/** Awaits a transaction's units; the failure, or undefined and `conflicts` counts rows that should have been there and were not. */
export async function settleUnits(units: readonly WrittenUnit[], onMissed: (rows: number, plan: TablePlan) => void): Promise<Failure | undefined> {
  for (const [index, unit] of units.entries()) {
    let result: UnitResult;
    try {
      result = await unit.result;
    } catch (error) {
      return { error: error as Error, lost: true, plan: undefined, change: undefined, outOfTurn: false };
    }
    if (result.error) {
      const failed = unit.rows[Math.min(result.completed, unit.rows.length - 1)];
      const byName = result.error.table === undefined ? undefined : planNamed(units, result.error.schema, result.error.table);
      const plan = unit.plan ?? failed?.plan ?? byName;
      const lost = isConnectionLoss(result.error) || result.error.severity === 'FATAL';
      return { error: result.error, lost, plan, change: failed?.change, outOfTurn: index === 0 && result.error.code === divisionByZero };
    }
    countMissed(unit, result, onMissed);
  }
  return undefined;
}

function countMissed(unit: WrittenUnit, result: UnitResult, onMissed: (rows: number, plan: TablePlan) => void): void {
  if (unit.plan) {
    // A set statement: the greatest count among its statements (`set local` counts nothing).
    const [row] = unit.rows;
    const affected = Math.max(0, ...result.counts);
    if (row && affected < row.expected) onMissed(row.expected - affected, unit.plan);
    return;
  }
  for (let i = 0; i < unit.rows.length; i += 1) {
    const row = unit.rows[i]!;
    if (result.counts[i] === 0 && row.expected > 0) onMissed(1, row.plan);
  }
}

function planNamed(units: readonly WrittenUnit[], schema: string | undefined, table: string): TablePlan | undefined {
  const fits = (plan: TablePlan | undefined) => plan !== undefined && plan.target.name === table && (schema === undefined || plan.target.schema === schema);
  for (const unit of units) {
    if (fits(unit.plan)) return unit.plan;
    const row = unit.rows.find((r) => fits(r.plan));
    if (row) return row.plan;
  }
  return undefined;
}

/** Trying the same again may help: deadlock, serialization failure, lock or statement timeout, a target that restarts, resources that ran short. */
export function mayRetry(error: unknown): boolean {
  const state = sqlstateOf(error);
  return isTransient(error) || state === sqlstate.queryCanceled || state === sqlstate.diskFull || state === sqlstate.outOfMemory || state === '53000';
}

/** The target was altered since the plan was made: undefined column or table, a changed type under a prepared statement, a changed result. */
export function isSchemaError(error: unknown): boolean {
  const state = sqlstateOf(error);
  return state !== undefined && (state.startsWith('42') || state === sqlstate.featureNotSupported) && state !== sqlstate.insufficientPrivilege;
}

/** Why a table is paused, in one line: `duplicate key value violates unique constraint "x": Key (no)=(7) already exists.` */
export function failureReason(error: Error): string {
  const ours = notSentReason(error.message);
  if (ours !== undefined) return ours;
  const detail = error instanceof ServerError ? error.detail : undefined;
  return errorMessage(error) + (detail === undefined ? '' : `: ${detail}`);
}

/** The key of the row that a change is about, such as `id=17`; undefined where there is none to show. */
export function rowKey(plan: TablePlan, change: RowChange): string | undefined {
  const tuple = change.type === 'insert' ? change.newTuple : (change.oldTuple ?? (change.type === 'update' ? change.newTuple : undefined));
  if (!tuple) return undefined;
  const columns = plan.keyColumns.length > 0 ? plan.keyColumns : plan.relation.columns.flatMap((c, i) => (c.key ? [i] : [])).slice(0, 5);
  const parts = columns.map((i) => `${plan.relation.columns[i]!.name}=${valueText(plan, tuple, i)}`);
  return parts.length === 0 ? undefined : parts.join(', ').slice(0, 500);
}

function valueText(plan: TablePlan, tuple: Tuple, i: number): string {
  const kind = tuple.kinds[i];
  if (kind === columnKind.null) return 'null';
  if (kind === columnKind.unchanged) return '(unchanged)';
  const bytes = tuple.bytes.subarray(tuple.offsets[i]!, tuple.offsets[i]! + tuple.lengths[i]!);
  if (kind === columnKind.text) return bytes.toString('utf8');
  const type = plan.relation.columns[i]!.typeOid;
  if (type === 23) return String(bytes.readInt32BE(0));
  if (type === 20) return String(bytes.readBigInt64BE(0));
  if (type === 21) return String(bytes.readInt16BE(0));
  if (type === 25 || type === 1043 || type === 1042) return bytes.toString('utf8');
  return `\\x${bytes.toString('hex')}`;
}
