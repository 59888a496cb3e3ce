import type { Session } from '../pg/session.ts';
import { rowsByKeySql, type HashOptions } from './checksum-sql.ts';
import { keyArrays } from './describe.ts';
import type { RowDifference } from './narrow.ts';
import type { Unit } from './unit.ts';

export interface RecheckOptions {
  /** Sessions outside any snapshot. */
  readonly source: Session;
  readonly target: Session;
  readonly hash: HashOptions;
  /** Resolves once the target has applied all that the source has committed by now; false where it does not get there in time. */
  readonly caughtUp: () => Promise<boolean>;
  /** At most so many rounds for rows that change all the time. */
  readonly rounds?: number;
}

export interface Rechecked {
  readonly differing: readonly RowDifference[];
  /** Rows that changed between any two looks, so that nothing can be said. */
  readonly undecided: number;
  /** The target did not catch up in time: what differs may be under way still. */
  readonly behind: boolean;
}

const keysPerQuery = 200;

interface Candidate {
  readonly difference: RowDifference;
  /** Every state in which the row was seen on the source. */
  readonly seen: Set<string>;
  stable: number;
}

/**
 * Looks again at rows that differed between two snapshots taken apart, while changes flow. A row is equal as soon as the target shows a state that the source had; it differs when the source
 * showed one state before and after the target, which had time to apply it, showed another, twice.
 */
export async function recheckRows(unit: Unit, rows: readonly RowDifference[], options: RecheckOptions): Promise<Rechecked> {
  let open: Candidate[] = uniqueByKey(rows).map((difference) => ({ difference, seen: new Set(), stable: 0 }));
  const differing: RowDifference[] = [];
  let behind = false;
  for (let round = 0; open.length > 0 && round < (options.rounds ?? 20); round += 1) {
    const look = (side: 'source' | 'target') => keyStates(unit, side, open.map((c) => c.difference), options[side], options.hash);
    const before = await look('source');
    if (!(await options.caughtUp())) {
      behind = true;
      break;
    }
    const there = await look('target');
    const after = await look('source');
    open = open.filter((candidate, i) => {
      candidate.seen.add(before[i]!).add(after[i]!);
      if (candidate.seen.has(there[i]!)) return false;
      if (before[i] !== after[i]) return true;
      candidate.stable += 1;
      if (candidate.stable < 2) return true;
      const kind = before[i] === '' ? 'extra' : there[i] === '' ? 'missing' : 'changed';
      differing.push({ ...candidate.difference, kind });
      return false;
    });
  }
  return { differing: behind ? [...differing, ...open.map((c) => c.difference)] : differing, undecided: behind ? 0 : open.length, behind };
}

function uniqueByKey(rows: readonly RowDifference[]): RowDifference[] {
  return [...new Map(rows.map((row) => [JSON.stringify(row.key), row])).values()];
}

/** The hashes of each row, by its key, as one text; empty where there is none, several where the key is there several times. */
export async function keyStates(unit: Unit, side: 'source' | 'target', differences: readonly RowDifference[], session: Session, hash: HashOptions): Promise<string[]> {
  const out = differences.map((): string[] => []);
  for (let from = 0; from < differences.length; from += keysPerQuery) {
    const keys = keyArrays(unit, differences.slice(from, from + keysPerQuery));
    const rows = await session.query<{ n: number; h1: bigint; h2: bigint }>(rowsByKeySql(unit, side, [], hash), keys);
    for (const row of rows) out[from + row.n - 1]!.push(`${row.h1}.${row.h2}`);
  }
  return out.map((hashes) => hashes.sort().join(' '));
}
