import { errorMessage } from '../core/errors.ts';
import { sqlstateOf } from '../pg/sqlstate.ts';
import { BucketSums } from './bucket-sums.ts';
import { bucketSumsSql, type BucketRow, type HashOptions } from './checksum-sql.ts';
import { eachLimited, type SnapshotPool } from './snapshot-pool.ts';
import { partsOf, type Part, type Unit } from './unit.ts';

export interface ScannedUnit {
  readonly unit: Unit;
  readonly rows: { readonly source: number; readonly target: number };
  /** Buckets in which the sides differ; empty: equal. */
  readonly differing: readonly number[];
  /** It could not be read: privileges, a table that went away, a row too large for one text. */
  readonly failure: string | undefined;
}

export interface ScanOptions {
  readonly source: SnapshotPool;
  readonly target: SnapshotPool;
  readonly hash: HashOptions;
  /** Sessions a side. */
  readonly jobs: number;
  /** Called after each part, with the blocks that it had. */
  readonly onPart?: (side: 'source' | 'target', blocks: number) => void;
  /** Called when both sides of a table are read. */
  readonly onUnit?: (scanned: ScannedUnit) => void;
}

interface State {
  readonly unit: Unit;
  readonly source: BucketSums;
  readonly target: BucketSums;
  pending: number;
  failure: string | undefined;
}

/** Errors that concern one table: they are reported with it, and the others go on. */
export function concernsOneTable(error: unknown): boolean {
  const state = sqlstateOf(error);
  return state !== undefined && (/^(22|42|54)/.test(state) || state === '55000' || state === '0A000');
}

/** Reads both sides of all tables in parallel, part by part, and compares their sums. Order of the results: as the tables end. */
export async function scanUnits(units: readonly Unit[], options: ScanOptions): Promise<ScannedUnit[]> {
  const results: ScannedUnit[] = [];
  const finish = (state: State) => {
    const scanned = {
      unit: state.unit, rows: { source: state.source.rows, target: state.target.rows }, failure: state.failure, differing: state.failure === undefined ? state.source.differing(state.target) : [],
    };
    results.push(scanned);
    options.onUnit?.(scanned);
  };
  const work: Record<'source' | 'target', { state: State; part: Part }[]> = { source: [], target: [] };
  // Large ones first, so that no single one is left at the end.
  for (const unit of [...units].sort((a, b) => blocksOf(b) - blocksOf(a))) {
    const parts = { source: partsOf(unit.sourceRelations), target: partsOf(unit.targetRelations) };
    const state: State = { unit, source: new BucketSums(unit.buckets), target: new BucketSums(unit.buckets), pending: parts.source.length + parts.target.length, failure: undefined };
    if (state.pending === 0) finish(state);
    for (const side of ['source', 'target'] as const) for (const part of parts[side]) work[side].push({ state, part });
  }
  const read = (side: 'source' | 'target') => eachLimited(work[side], options.jobs, async ({ state, part }) => {
    if (state.failure === undefined) {
      try {
        const rows = await options[side].use((session) => session.query<BucketRow>(bucketSumsSql(state.unit, side, part, options.hash)));
        state[side].add(rows);
      } catch (error) {
        if (!concernsOneTable(error)) throw error;
        state.failure = `the ${side} refuses to read it: ${errorMessage(error)}`;
      }
    }
    state.pending -= 1;
    options.onPart?.(side, part.toBlock === undefined ? part.relation.blocks - (part.fromBlock ?? 0) : part.toBlock - (part.fromBlock ?? 0));
    if (state.pending === 0) finish(state);
  });
  const outcomes = await Promise.allSettled([read('source'), read('target')]);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  return results;
}

function blocksOf(unit: Unit): number {
  return unit.sourceRelations.reduce((sum, r) => sum + r.blocks, 0);
}
