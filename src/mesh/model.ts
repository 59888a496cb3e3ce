/**
 * The merge as pure functions: what the generated SQL must compute, and the oracle of the fuzzer. A row's state is a join semilattice: joining is
 * commutative, associative and idempotent, so every order of delivery ends in the same state; what is visible is a function of the joined states alone.
 */

/** Microseconds since 2020 shifted by nine bits, plus the node's number. Above 2^53, hence bigint. */
export type Stamp = bigint;

export interface Register {
  readonly stamp: Stamp;
  readonly value: string | null;
}

/** A node's own total of a counter, as exact decimal text, and when it was last changed. */
export interface Total {
  readonly stamp: Stamp;
  readonly total: string;
}

/** Everything known of one key of one table. */
export interface RowState {
  readonly key: string;
  /** Newest write; 0 where none is known. */
  readonly w: Stamp;
  /** Newest deletion; 0 where none is known. */
  readonly d: Stamp;
  /** Values that go with the newest write. */
  readonly row: Readonly<Record<string, string | null>>;
  /** Values with stamps of their own. */
  readonly registers: Readonly<Record<string, Register>>;
  /** The life that the counters belong to: the deletion that came before it. */
  readonly generation: Stamp;
  readonly counters: Readonly<Record<string, Readonly<Record<string, Total>>>>;
}

/** What the model must know of a table. */
export interface ModelTable {
  readonly byColumn: boolean;
  /** Columns of each unique key other than the primary. */
  readonly uniques: readonly (readonly string[])[];
  /** One text for all that a column's type takes to be equal, such as 1 for 1.00; default: the value itself. */
  readonly canonical?: (column: string, value: string) => string;
  /** CHECK, NOT NULL and the range of types, over the merged values. */
  readonly valid?: (values: Readonly<Record<string, string | null>>) => boolean;
}

export const nothing = (key: string): RowState => ({ key, w: 0n, d: 0n, row: {}, registers: {}, generation: -1n, counters: {} });

const higher = (a: Stamp, b: Stamp): Stamp => (a > b ? a : b);

/** The join of two states of one key. */
export function join(a: RowState, b: RowState): RowState {
  if (a.key !== b.key) throw new RangeError(`states of two keys cannot be joined: ${a.key}, ${b.key}`);
  const registers: Record<string, Register> = { ...a.registers };
  for (const [name, theirs] of Object.entries(b.registers)) {
    const ours = registers[name];
    if (!ours || theirs.stamp > ours.stamp) registers[name] = theirs;
  }
  return { key: a.key, w: higher(a.w, b.w), d: higher(a.d, b.d), row: b.w > a.w ? b.row : a.row, registers, ...joinCounters(a, b) };
}

function joinCounters(a: RowState, b: RowState): Pick<RowState, 'generation' | 'counters'> {
  if (a.generation !== b.generation) return a.generation > b.generation ? { generation: a.generation, counters: a.counters } : { generation: b.generation, counters: b.counters };
  const counters: Record<string, Record<string, Total>> = {};
  for (const name of new Set([...Object.keys(a.counters), ...Object.keys(b.counters)])) {
    const totals: Record<string, Total> = { ...a.counters[name] };
    for (const [node, theirs] of Object.entries(b.counters[name] ?? {})) {
      const ours = totals[node];
      if (!ours || theirs.stamp > ours.stamp) totals[node] = theirs;
    }
    counters[name] = totals;
  }
  return { generation: a.generation, counters };
}

export function isAlive(state: RowState): boolean {
  return state.w > state.d;
}

/** The values of a live row: registers and sums over what goes with the newest write. */
export function valuesOf(state: RowState): Record<string, string | null> {
  const values: Record<string, string | null> = { ...state.row };
  for (const [name, register] of Object.entries(state.registers)) values[name] = register.value;
  for (const [name, totals] of Object.entries(state.counters)) values[name] = sumDecimals(Object.values(totals).map((t) => t.total));
  return values;
}

/** Whether `a` goes before `b` where both claim a unique key: the newer write, then the greater key, byte by byte. */
export function outranks(a: RowState, b: RowState): boolean {
  if (a.w !== b.w) return a.w > b.w;
  return Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)) > 0;
}

export interface Visibility {
  readonly visible: readonly RowState[];
  /** Alive, but out of sight: an older claim to a unique key, or values that fail a constraint. */
  readonly hidden: readonly RowState[];
}

/** What every node shows once it knows the same states. */
export function visibility(states: Iterable<RowState>, table: ModelTable): Visibility {
  const live = [...states].filter(isAlive);
  const values = new Map(live.map((s) => [s.key, valuesOf(s)]));
  const claims = new Map<string, RowState>();
  const claimsOf = (state: RowState): string[] => table.uniques.flatMap((columns, i) => {
    const parts = columns.map((c) => {
      const value = values.get(state.key)![c] ?? null;
      return value === null ? null : (table.canonical?.(c, value) ?? value);
    });
    return parts.includes(null) ? [] : [JSON.stringify([i, parts])];
  });
  // Each claim belongs to the highest live row, whether or not that row is itself visible.
  for (const state of live) {
    for (const claim of claimsOf(state)) {
      const holder = claims.get(claim);
      if (!holder || outranks(state, holder)) claims.set(claim, state);
    }
  }
  const visible: RowState[] = [];
  const hidden: RowState[] = [];
  for (const state of live) {
    const holdsAll = claimsOf(state).every((claim) => claims.get(claim) === state);
    (holdsAll && (table.valid?.(values.get(state.key)!) ?? true) ? visible : hidden).push(state);
  }
  return { visible, hidden };
}

/** Joins changes into a store, key by key. */
export function mergeInto(store: Map<string, RowState>, change: RowState): void {
  store.set(change.key, join(store.get(change.key) ?? nothing(change.key), change));
}

/** The exact sum of decimal texts, written as PostgreSQL's numeric does: with as many decimals as the longest summand. */
export function sumDecimals(texts: readonly string[]): string {
  let scale = 0;
  for (const t of texts) scale = Math.max(scale, decimals(t));
  let sum = 0n;
  for (const t of texts) {
    const match = /^(-?)(\d+)(?:\.(\d+))?$/.exec(t);
    if (!match) throw new RangeError(`not a decimal number: ${t}`);
    const digits = BigInt(match[2]! + (match[3] ?? '').padEnd(scale, '0'));
    sum += match[1] ? -digits : digits;
  }
  if (scale === 0) return sum.toString();
  const text = (sum < 0n ? -sum : sum).toString().padStart(scale + 1, '0');
  return `${sum < 0n ? '-' : ''}${text.slice(0, -scale)}.${text.slice(-scale)}`;
}

function decimals(text: string): number {
  const dot = text.indexOf('.');
  return dot < 0 ? 0 : text.length - dot - 1;
}

/** A line of the journal as it leaves PostgreSQL: stamps as text, since they exceed 2^53. */
export interface JournalLine {
  readonly op: string;
  readonly w: string;
  /** The JSON text of the metadata, unparsed. */
  readonly m: string | null;
  readonly img: readonly (string | null)[];
}

/** How to read the journal of a table. */
export interface JournalTable extends ModelTable {
  /** Names of the values in `img`. */
  readonly sent: readonly string[];
  readonly keys: readonly string[];
  readonly counters: readonly string[];
  /** Columns that go with the newest write though the table is merged by column. */
  readonly rowColumns: readonly string[];
}

/** Turns a line of the journal into the state that it carries. */
export function stateOfLine(line: JournalLine, table: JournalTable): RowState {
  const image: Record<string, string | null> = Object.fromEntries(table.sent.map((name, i) => [name, line.img[i] ?? null]));
  const keyValues = table.keys.map((k) => table.canonical?.(k, image[k]!) ?? image[k]!);
  const key = keyValues.length === 1 ? keyValues[0]! : arrayText(keyValues);
  const stamp = BigInt(line.w);
  if (!table.byColumn) return line.op === 'D' ? { ...nothing(key), d: stamp } : { ...nothing(key), w: stamp, row: image };
  const meta = parseStamps(line.m!) as { g: string; b: string; w?: string; s: Record<string, string>; c: Record<string, Record<string, [string, string]>> };
  const row: Record<string, string | null> = {};
  const registers: Record<string, Register> = {};
  for (const name of table.sent) {
    if (table.counters.includes(name)) continue;
    if (table.keys.includes(name) || table.rowColumns.includes(name)) row[name] = image[name] ?? null;
    else registers[name] = { stamp: BigInt(meta.s[name] ?? meta.b), value: image[name] ?? null };
  }
  const counters = Object.fromEntries(Object.entries(meta.c).map(([name, totals]) => [name, Object.fromEntries(Object.entries(totals).map(([node, [total, s]]) => [node, { total, stamp: BigInt(s) }]))]));
  return { key, w: line.op === 'D' ? BigInt(meta.w ?? '0') : stamp, d: line.op === 'D' ? stamp : 0n, row, registers, generation: BigInt(meta.g), counters };
}

/** As PostgreSQL writes an array of texts: rows of one stamp are ranked by it. */
export function arrayText(values: readonly string[]): string {
  const plain = (v: string) => v !== '' && !/[{}",\\\s]/.test(v) && v.toUpperCase() !== 'NULL';
  return `{${values.map((v) => (plain(v) ? v : `"${v.replace(/["\\]/g, '\\$&')}"`)).join(',')}}`;
}

/** Parses the metadata with every number kept as text. */
export function parseStamps(json: string): unknown {
  return JSON.parse(json.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (token) => (token.startsWith('"') ? token : `"${token}"`))) as unknown;
}
