import { columnArrays, readColumns, scanTuple } from '../../pgoutput/tuple.ts';
import { columnKind, type Tuple } from '../../pgoutput/messages.ts';
import type { Change } from '../change-log.ts';
import type { TablePlan } from './plan.ts';

/**
 * Several source transactions merged to their net effect per key. Pure: no I/O.
 *
 * A table's changes become, for each key, one of: insert, update, delete, replace (a delete followed by an insert) or nothing. Written in the order deletes,
 * updates, inserts this gives the same rows as the changes one after another: rows are told apart by their key, and the key's rows are in the same final state.
 * What that order can violate on the way are keys other than this one (a swap of unique values) and exclusion constraints; then the server refuses, nothing is
 * committed, and the same changes are applied in source order instead [hard case 45]. Where the net effect cannot be told (a key that is deleted twice),
 * {@link OrderNeeded} asks for source order at once.
 */
export type RowChange = Extract<Change, { type: 'insert' | 'update' | 'delete' }>;

export type EntryKind = 'none' | 'insert' | 'update' | 'delete' | 'replace';
export type Key = string | number;

export interface Entry {
  readonly key: Key;
  kind: EntryKind;
  /** Tuple that holds the key under which the row is found on the target. */
  keyTuple: Tuple;
  /** The row's new values; undefined for deletes. */
  tuple: Tuple | undefined;
}

/** What a segment does to one table. */
export interface TableWork {
  readonly plan: TablePlan;
  /** Where set: these changes in source order, and nothing else. */
  readonly ordered: RowChange[] | undefined;
  /** Rows that are only inserted, while nothing else has happened to the table: no key is looked at, which is most of the cost. Then empty, and `entries` is set. */
  appended: Tuple[];
  entries: Map<Key, Entry> | undefined;
  inserts: number;
  updates: number;
  deletes: number;
}

export interface TruncateWork {
  readonly plans: readonly TablePlan[];
  readonly restartIdentity: boolean;
}

/** A part of a batch within which every table keeps one shape. Truncates come first: what stood before them in the same segment is gone anyway. */
export interface Segment {
  readonly truncates: TruncateWork[];
  readonly tables: Map<string, TableWork>;
}

/** Changes of this table must be applied one by one, in source order. */
export class OrderNeeded extends Error {
  readonly tableKey: string;

  constructor(tableKey: string) {
    super('the net effect of these changes cannot be told');
    this.name = 'OrderNeeded';
    this.tableKey = tableKey;
  }
}

/** Merges changes, table by table, into segments. `inOrder(key)`: whether a table's changes are kept in source order. */
export class Merger {
  readonly segments: Segment[] = [];
  readonly #inOrder: (plan: TablePlan) => boolean;
  #current: Segment | undefined;

  constructor(inOrder: (plan: TablePlan) => boolean) {
    this.#inOrder = inOrder;
  }

  add(plan: TablePlan, change: RowChange): void {
    const work = this.#work(plan);
    if (work.ordered) {
      work.ordered.push(change);
      if (change.type === 'insert') work.inserts += 1;
      else if (change.type === 'update') work.updates += 1;
      else work.deletes += 1;
      return;
    }
    switch (change.type) {
      case 'insert':
        work.inserts += 1;
        insert(work, change.newTuple);
        return;
      case 'update':
        work.updates += 1;
        update(work, change.oldTuple, change.newTuple);
        return;
      case 'delete':
        work.deletes += 1;
        remove(work, change.oldTuple);
        return;
      default:
        change satisfies never;
    }
  }

  truncate(plans: readonly TablePlan[], restartIdentity: boolean): void {
    if (plans.length === 0) return;
    this.#current ??= this.#begin();
    // A table that was described anew since: its old shape's changes are gone with the truncate, too.
    for (const plan of plans) this.#current.tables.delete(plan.key);
    this.#current.truncates.push({ plans, restartIdentity });
  }

  #begin(): Segment {
    const segment: Segment = { truncates: [], tables: new Map() };
    this.segments.push(segment);
    return segment;
  }

  #work(plan: TablePlan): TableWork {
    this.#current ??= this.#begin();
    let work = this.#current.tables.get(plan.key);
    // The table was altered between two changes: what came before is written before.
    if (work && work.plan !== plan) {
      this.#current = this.#begin();
      work = undefined;
    }
    if (!work) {
      work = { plan, ordered: this.#inOrder(plan) ? [] : undefined, appended: [], entries: undefined, inserts: 0, updates: 0, deletes: 0 };
      this.#current.tables.set(plan.key, work);
    }
    return work;
  }
}

/** The entries by key; what was only appended until now becomes entries. */
function entriesOf(work: TableWork): Map<Key, Entry> {
  if (work.entries) return work.entries;
  const { appended } = work;
  work.entries = new Map();
  work.appended = [];
  for (const tuple of appended) insertEntry(work, work.entries, tuple);
  return work.entries;
}

function insert(work: TableWork, tuple: Tuple): void {
  if (work.entries) insertEntry(work, work.entries, tuple);
  else work.appended.push(tuple);
}

function insertEntry(work: TableWork, entries: Map<Key, Entry>, tuple: Tuple): void {
  const key = keyOf(work.plan, tuple);
  const known = entries.get(key);
  if (!known) entries.set(key, { key, kind: 'insert', keyTuple: tuple, tuple });
  else if (known.kind === 'none') {
    known.kind = 'insert';
    known.keyTuple = tuple;
    known.tuple = tuple;
  } else if (known.kind === 'delete') {
    known.kind = 'replace';
    known.tuple = tuple;
  } else throw new OrderNeeded(work.plan.key);
}

function update(work: TableWork, oldTuple: Tuple | undefined, newTuple: Tuple): void {
  const { plan } = work;
  const key = keyOf(plan, newTuple);
  if (oldTuple) {
    const oldKey = keyOf(plan, oldTuple);
    if (oldKey !== key) {
      moveKey(work, oldKey, oldTuple, newTuple);
      return;
    }
  }
  const entries = entriesOf(work);
  const known = entries.get(key);
  if (!known) {
    entries.set(key, { key, kind: 'update', keyTuple: newTuple, tuple: newTuple });
    return;
  }
  if (known.kind === 'none' || known.kind === 'delete') throw new OrderNeeded(plan.key);
  known.tuple = newTuple.hasUnchanged ? fillUnchanged(newTuple, known.tuple!) : newTuple;
}

/** The key itself changes: the old row goes, a new one comes. Values that the source did not send are those of the old row, which must then be in this batch. */
function moveKey(work: TableWork, oldKey: Key, oldTuple: Tuple, newTuple: Tuple): void {
  const { plan } = work;
  // A row that is deleted and inserted would lose what the target keeps in columns of its own.
  if (plan.keepsOwnColumns) throw new OrderNeeded(plan.key);
  const known = entriesOf(work).get(oldKey);
  let tuple = newTuple;
  if (tuple.hasUnchanged && known?.tuple) tuple = fillUnchanged(tuple, known.tuple);
  if (tuple.hasUnchanged && plan.relation.replicaIdentity === 'full') tuple = fillUnchanged(tuple, oldTuple);
  if (tuple.hasUnchanged) throw new OrderNeeded(plan.key);
  remove(work, oldTuple);
  insert(work, tuple);
}

function remove(work: TableWork, oldTuple: Tuple): void {
  const key = keyOf(work.plan, oldTuple);
  const entries = entriesOf(work);
  const known = entries.get(key);
  if (!known) {
    entries.set(key, { key, kind: 'delete', keyTuple: oldTuple, tuple: undefined });
    return;
  }
  switch (known.kind) {
    case 'insert':
      known.kind = 'none';
      break;
    case 'update': case 'replace':
      known.kind = 'delete';
      break;
    case 'none': case 'delete':
      throw new OrderNeeded(work.plan.key);
    default:
      known.kind satisfies never;
  }
  known.tuple = undefined;
}

/** A row's key as something that a Map tells apart: a number where it is one integer column, else the bytes of the key columns. */
export function keyOf(plan: TablePlan, tuple: Tuple): Key {
  const { bytes } = tuple;
  const { keyColumns } = plan;
  let at = tuple.start;
  const first = keyColumns[0]!;
  for (let i = 0; i < first; i += 1) at = skip(bytes, at);
  if (keyColumns.length === 1) {
    const typeOid = plan.relation.columns[first]!.typeOid;
    return isInteger(typeOid) ? integerKey(bytes, at) : bytes.toString('latin1', at, skip(bytes, at));
  }
  let text = '';
  let from = at;
  let column = first;
  for (let n = 0; n < keyColumns.length; n += 1) {
    const wanted = keyColumns[n]!;
    if (wanted > column) {
      // A gap between key columns: take what came before it.
      text += bytes.toString('latin1', from, at);
      for (; column < wanted; column += 1) at = skip(bytes, at);
      from = at;
    }
    at = skip(bytes, at);
    column += 1;
  }
  return text + bytes.toString('latin1', from, at);
}

function isInteger(typeOid: number): boolean {
  return typeOid === 23 || typeOid === 20 || typeOid === 21;
}

/** int2, int4, int8 in text or binary; beyond 2^53 the bytes. */
function integerKey(bytes: Buffer, at: number): Key {
  const kind = bytes[at]!;
  const length = bytes[at + 4]!;
  if (kind === columnKind.binary) {
    if (length === 4) return bytes.readInt32BE(at + 5);
    if (length === 2) return bytes.readInt16BE(at + 5);
    const high = bytes.readInt32BE(at + 5);
    if (high > -0x200000 && high < 0x1fffff) return high * 0x1_0000_0000 + bytes.readUInt32BE(at + 9);
  } else if (kind === columnKind.text && length <= 15) {
    let i = at + 5;
    const end = i + length;
    const negative = bytes[i] === 0x2d;
    if (negative) i += 1;
    let value = 0;
    for (; i < end; i += 1) value = value * 10 + bytes[i]! - 0x30;
    return negative ? -value : value;
  }
  return bytes.toString('latin1', at, skip(bytes, at));
}

function skip(bytes: Buffer, at: number): number {
  const kind = bytes[at]!;
  if (kind === columnKind.null || kind === columnKind.unchanged) return at + 1;
  return at + 5 + ((bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!);
}

const a = columnArrays();
const b = columnArrays();

/** The newer tuple with its unchanged values taken from the older one, which may itself have unchanged ones [3]. */
export function fillUnchanged(newer: Tuple, older: Tuple): Tuple {
  readColumns(newer, a);
  readColumns(older, b);
  let size = 2;
  for (let i = 0; i < newer.count; i += 1) size += 5 + (a.kinds[i] === columnKind.unchanged ? b.lengths[i]! : a.lengths[i]!);
  const bytes = Buffer.allocUnsafe(size);
  bytes.writeUInt16BE(newer.count, 0);
  let at = 2;
  for (let i = 0; i < newer.count; i += 1) {
    const old = a.kinds[i] === columnKind.unchanged;
    const from = old ? b : a;
    const kind = from.kinds[i]!;
    bytes[at] = kind;
    at += 1;
    if (kind === columnKind.text || kind === columnKind.binary) {
      const length = from.lengths[i]!;
      bytes.writeUInt32BE(length, at);
      (old ? older : newer).bytes.copy(bytes, at + 4, from.offsets[i]!, from.offsets[i]! + length);
      at += 4 + length;
    }
  }
  return scanTuple(bytes, 0, at, 0);
}
