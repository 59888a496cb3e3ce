import { tableKey } from '../../core/tables.ts';
import type { Lsn } from '../../pg/lsn.ts';
import type { Relation } from '../../pgoutput/messages.ts';
import type { Change } from '../change-log.ts';
import { Merger, type Segment } from './merge.ts';
import { ParkedBuffer } from './parked.ts';
import type { TablePlan } from './plan.ts';
import { verdict, type Route, type TableGates } from './table-gates.ts';

/** A marker of ours that was met: everything before it is applied with it. */
export interface MetMarker {
  readonly content: string;
  readonly lsn: Lsn;
  readonly commitLsn: Lsn;
}

export interface TableCounts {
  inserts: number;
  updates: number;
  deletes: number;
}

/** What a batch does, ready to be written. */
export interface Content {
  readonly segments: readonly Segment[];
  readonly parked: readonly ParkedBuffer[];
  readonly markers: readonly MetMarker[];
  /** Applied changes by table key. */
  readonly counts: ReadonlyMap<string, TableCounts>;
  readonly changeCount: number;
}

/** Source of changes: a transaction, or a part of a large one. */
export interface ChangeSource {
  readonly commitLsn: Lsn;
  readonly commitTime: bigint;
  changes(): Iterable<Change>;
}

/** A relation was met that has no route yet: resolve it and build again. */
export interface Unresolved {
  readonly unresolved: Relation;
  readonly commitLsn: Lsn;
}

/**
 * Gathers what several transactions do: applied, skipped or parked table by table. Pure; stops at the first relation without a route. Throws OrderNeeded where the
 * net effect of a table cannot be told: build again with that table kept in order.
 */
export function buildContent(sources: readonly ChangeSource[], gates: TableGates, inOrder: (plan: TablePlan) => boolean): Content | Unresolved {
  const merger = new Merger(inOrder);
  const parked: ParkedBuffer[] = [];
  const markers: MetMarker[] = [];
  let changeCount = 0;
  let waiting: Map<string, ParkedBuffer> | undefined;
  let waitingFor: ChangeSource | undefined;
  const park = (route: Route, source: ChangeSource): ParkedBuffer => {
    if (waitingFor !== source) waiting = undefined;
    waitingFor = source;
    waiting ??= new Map();
    const key = tableKey(route.gate.record);
    let buffer = waiting.get(key);
    if (!buffer) {
      buffer = new ParkedBuffer(route.gate.record, source.commitLsn, source.commitTime);
      waiting.set(key, buffer);
      parked.push(buffer);
    }
    return buffer;
  };
  let lastRelation: Relation | undefined;
  let lastRoute: Route | undefined;
  let lastVerdict: ReturnType<typeof verdict> = 'park';
  for (const source of sources) {
    const { commitLsn } = source;
    // The verdict depends on the transaction: it is looked up again for each.
    lastRelation = undefined;
    for (const change of source.changes()) {
      changeCount += 1;
      if (change.type === 'message') {
        markers.push({ content: change.content.toString('utf8'), lsn: change.lsn, commitLsn });
        continue;
      }
      if (change.type === 'truncate') {
        const plans: TablePlan[] = [];
        for (const relation of change.relations) {
          const route = gates.route(relation);
          if (!route) return { unresolved: relation, commitLsn };
          const decision = verdict(route.gate, commitLsn);
          if (decision === 'apply' && !route.plan) return { unresolved: relation, commitLsn };
          if (decision === 'park') park(route, source).add({ type: 'truncate', relation, restartIdentity: change.restartIdentity });
          else if (decision === 'apply' && route.plan) plans.push(route.plan);
        }
        merger.truncate(plans, change.restartIdentity);
        continue;
      }
      if (change.relation !== lastRelation) {
        const route = gates.route(change.relation);
        if (!route) return { unresolved: change.relation, commitLsn };
        lastRelation = change.relation;
        lastRoute = route;
        lastVerdict = verdict(route.gate, commitLsn);
        // Resolving once more pauses the table from this transaction on, or finds that somebody has mended the target.
        if (lastVerdict === 'apply' && !route.plan) return { unresolved: change.relation, commitLsn };
      }
      if (lastVerdict === 'apply') merger.add(lastRoute!.plan!, change);
      else if (lastVerdict === 'park') park(lastRoute!, source).add(change);
    }
  }
  const counts = new Map<string, TableCounts>();
  for (const segment of merger.segments) {
    for (const [key, work] of segment.tables) {
      const known = counts.get(key);
      if (known) {
        known.inserts += work.inserts;
        known.updates += work.updates;
        known.deletes += work.deletes;
      } else counts.set(key, { inserts: work.inserts, updates: work.updates, deletes: work.deletes });
    }
  }
  return { segments: merger.segments, parked, markers, counts, changeCount };
}
