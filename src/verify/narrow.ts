import type { Session } from '../pg/session.ts';
import { keyedRowsSql, rowGroupsSql, type HashOptions } from './checksum-sql.ts';
import type { SnapshotPool } from './snapshot-pool.ts';
import type { Unit } from './unit.ts';

/** `missing`: on the target; `extra`: there and not on the source; `changed`: the same key with another row. */
export type DifferenceKind = 'missing' | 'extra' | 'changed';

/** One row that differs. Tables without a key know a row by its hashes only; `count` tells how many equal ones there are too few or too many. */
export interface RowDifference {
  readonly kind: DifferenceKind;
  /** Values of the key columns as text; undefined without a key. */
  readonly key: readonly string[] | undefined;
  readonly hash: { readonly h1: bigint; readonly h2: bigint };
  readonly count: number;
}

export interface Narrowed {
  readonly missing: number;
  readonly extra: number;
  readonly changed: number;
  /** The first ones, at most as many as were asked for. */
  readonly rows: readonly RowDifference[];
}

const fetchRows = 5000;

/** Finds the rows behind buckets that differ: both sides are read in the order of the key's hash and merged, in constant memory. All are counted, `keep` are kept. */
export async function narrow(unit: Unit, buckets: readonly number[] | undefined, pools: { readonly source: SnapshotPool; readonly target: SnapshotPool; readonly hash: HashOptions }, keep: number): Promise<Narrowed> {
  return pools.source.use((source) => pools.target.use(async (target) => {
    const counts = { missing: 0, extra: 0, changed: 0 };
    const rows: RowDifference[] = [];
    const found = (difference: RowDifference) => {
      counts[difference.kind] += difference.count;
      if (rows.length < keep) rows.push(difference);
    };
    if (unit.key) {
      const key = unit.key.length;
      await merge(rowsOf(source, keyedRowsSql(unit, 'source', buckets, pools.hash)), rowsOf(target, keyedRowsSql(unit, 'target', buckets, pools.hash)), (row) => [row['k'] as bigint], (a, b) => compareKeyed(a, b, key, found));
    } else {
      await merge(rowsOf(source, rowGroupsSql(unit, 'source', buckets, pools.hash)), rowsOf(target, rowGroupsSql(unit, 'target', buckets, pools.hash)), (row) => [row['h1'] as bigint, row['h2'] as bigint], (a, b) => {
        const hash = { h1: (a[0] ?? b[0])!['h1'] as bigint, h2: (a[0] ?? b[0])!['h2'] as bigint };
        const difference = Number((a[0]?.['rows'] as bigint | undefined) ?? 0n) - Number((b[0]?.['rows'] as bigint | undefined) ?? 0n);
        if (difference !== 0) found({ kind: difference > 0 ? 'missing' : 'extra', key: undefined, hash, count: Math.abs(difference) });
      });
    }
    return { ...counts, rows };
  }));
}

type Row = Record<string, unknown>;

async function* rowsOf(session: Session, sql: string): AsyncGenerator<Row> {
  await session.query(`declare pgweave_rows no scroll cursor for ${sql}`);
  for (;;) {
    const rows = await session.query<Row>(`fetch ${fetchRows} from pgweave_rows`);
    yield* rows;
    if (rows.length < fetchRows) break;
  }
  await session.query('close pgweave_rows');
}

/** Walks two ordered streams in step and hands over the rows of each order value, of one side or of both. */
async function merge(source: AsyncGenerator<Row>, target: AsyncGenerator<Row>, order: (row: Row) => readonly bigint[], group: (source: Row[], target: Row[]) => void): Promise<void> {
  const a = new Groups(source, order);
  const b = new Groups(target, order);
  // Both at once: they are two servers.
  let [left, right] = await Promise.all([a.next(), b.next()]);
  while (left || right) {
    const which = !left ? 1 : !right ? -1 : compareOrder(left.at, right.at);
    group(which <= 0 ? left!.rows : [], which >= 0 ? right!.rows : []);
    const [nextLeft, nextRight] = await Promise.all([which <= 0 ? a.next() : left, which >= 0 ? b.next() : right]);
    left = nextLeft;
    right = nextRight;
  }
}

function compareOrder(a: readonly bigint[], b: readonly bigint[]): number {
  for (const [i, x] of a.entries()) if (x !== b[i]) return x < b[i]! ? -1 : 1;
  return 0;
}

class Groups {
  readonly #rows: AsyncGenerator<Row>;
  readonly #order: (row: Row) => readonly bigint[];
  #ahead: Row | undefined;
  #begun = false;

  constructor(rows: AsyncGenerator<Row>, order: (row: Row) => readonly bigint[]) {
    this.#rows = rows;
    this.#order = order;
  }

  async next(): Promise<{ readonly at: readonly bigint[]; readonly rows: Row[] } | undefined> {
    if (!this.#begun) {
      this.#begun = true;
      this.#ahead = await this.#read();
    }
    const first = this.#ahead;
    if (!first) return undefined;
    const at = this.#order(first);
    const rows = [first];
    for (;;) {
      this.#ahead = await this.#read();
      if (!this.#ahead || compareOrder(at, this.#order(this.#ahead)) !== 0) return { at, rows };
      rows.push(this.#ahead);
    }
  }

  async #read(): Promise<Row | undefined> {
    const { value, done } = await this.#rows.next();
    return done ? undefined : (value as Row);
  }
}

/** Rows whose keys have one hash: nearly always one on each side; else several keys, or one key several times on a target without the unique index. */
function compareKeyed(source: readonly Row[], target: readonly Row[], columns: number, found: (difference: RowDifference) => void): void {
  const keyOf = (row: Row) => Array.from({ length: columns }, (_, i) => row[`x${i}`] as string);
  const byKey = new Map<string, { key: string[]; source: Row[]; target: Row[] }>();
  const entry = (row: Row) => {
    const key = keyOf(row);
    const text = JSON.stringify(key);
    const known = byKey.get(text) ?? { key, source: [], target: [] };
    byKey.set(text, known);
    return known;
  };
  for (const row of source) entry(row).source.push(row);
  for (const row of target) entry(row).target.push(row);
  for (const group of byKey.values()) {
    const same = (a: Row, b: Row) => a['h1'] === b['h1'] && a['h2'] === b['h2'];
    const left = [...group.source];
    const right = group.target.filter((row) => {
      const at = left.findIndex((x) => same(x, row));
      if (at < 0) return true;
      left.splice(at, 1);
      return false;
    });
    while (left.length > 0 && right.length > 0) {
      const row = left.pop()!;
      right.pop();
      found({ kind: 'changed', key: group.key, hash: hashOf(row), count: 1 });
    }
    for (const row of left) found({ kind: 'missing', key: group.key, hash: hashOf(row), count: 1 });
    for (const row of right) found({ kind: 'extra', key: group.key, hash: hashOf(row), count: 1 });
  }
}

function hashOf(row: Row): { h1: bigint; h2: bigint } {
  return { h1: row['h1'] as bigint, h2: row['h2'] as bigint };
}
