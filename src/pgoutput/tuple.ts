import { PgoutputError } from './error.ts';
import { columnKind, type Tuple } from './messages.ts';

/** Arrays that `readColumns` fills, made once and used for many rows. */
export interface ColumnArrays {
  readonly kinds: Uint8Array;
  readonly offsets: Uint32Array;
  readonly lengths: Uint32Array;
}

/** Arrays for rows of up to `columns` columns; a table has 1,600 at most. */
export function columnArrays(columns = 1600): ColumnArrays {
  return { kinds: new Uint8Array(columns), offsets: new Uint32Array(columns), lengths: new Uint32Array(columns) };
}

/** Writes kind, offset and length of each column into `into`; throws RangeError where it has too little room. Returns the number of columns. */
export function readColumns(tuple: Tuple, into: ColumnArrays): number {
  const { bytes, count } = tuple;
  const { kinds, offsets, lengths } = into;
  if (kinds.length < count) throw new RangeError(`a row of ${count} columns does not fit into arrays of ${kinds.length}`);
  let at = tuple.start;
  for (let i = 0; i < count; i += 1) {
    const kind = bytes[at]!;
    kinds[i] = kind;
    if (kind === columnKind.text || kind === columnKind.binary) {
      const length = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!;
      offsets[i] = at + 5;
      lengths[i] = length;
      at += 5 + length;
    } else {
      offsets[i] = at + 1;
      lengths[i] = 0;
      at += 1;
    }
  }
  return count;
}

/** The bytes of column `index`; null for NULL, undefined for an unchanged TOAST value. */
export function columnValue(tuple: Tuple, index: number): Buffer | null | undefined {
  const kind = tuple.kinds[index];
  if (kind === undefined) throw new RangeError(`a row of ${tuple.count} columns has no column ${index}`);
  if (kind === columnKind.null) return null;
  if (kind === columnKind.unchanged) return undefined;
  const offset = tuple.offsets[index]!;
  return tuple.bytes.subarray(offset, offset + tuple.lengths[index]!);
}

class ReceivedTuple implements Tuple {
  readonly bytes: Buffer;
  readonly count: number;
  readonly start: number;
  readonly end: number;
  readonly hasUnchanged: boolean;
  #columns: ColumnArrays | undefined;

  constructor(bytes: Buffer, count: number, start: number, end: number, hasUnchanged: boolean) {
    this.bytes = bytes;
    this.count = count;
    this.start = start;
    this.end = end;
    this.hasUnchanged = hasUnchanged;
    this.#columns = undefined;
  }

  get kinds(): Uint8Array {
    return (this.#columns ?? this.#read()).kinds;
  }

  get offsets(): Uint32Array {
    return (this.#columns ?? this.#read()).offsets;
  }

  get lengths(): Uint32Array {
    return (this.#columns ?? this.#read()).lengths;
  }

  #read(): ColumnArrays {
    const columns = columnArrays(this.count);
    readColumns(this, columns);
    this.#columns = columns;
    return columns;
  }
}

/**
 * Walks a TupleData that begins at `offset` and must end at or before `end`; checks every kind and length, copies nothing. The next part of the message
 * begins at the result's `end`. `base` is where the message begins, for the offset in errors.
 */
export function scanTuple(bytes: Buffer, offset: number, end: number, base: number): Tuple {
  if (end - offset < 2) throw new PgoutputError('the column count of a row is cut', end - base);
  const count = (bytes[offset]! << 8) | bytes[offset + 1]!;
  const start = offset + 2;
  let at = start;
  let unchanged = false;
  for (let i = 0; i < count; i += 1) {
    if (at >= end) throw new PgoutputError(`column ${i + 1} of ${count} is missing`, at - base);
    const kind = bytes[at]!;
    if (kind === columnKind.text || kind === columnKind.binary) {
      if (end - at < 5) throw new PgoutputError(`the length of column ${i + 1} of ${count} is cut`, end - base);
      const length = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!;
      if (length < 0 || length > end - at - 5) throw new PgoutputError(`the value of column ${i + 1} of ${count} is cut or has a wrong length`, at + 1 - base);
      at += 5 + length;
    } else if (kind === columnKind.null) {
      at += 1;
    } else if (kind === columnKind.unchanged) {
      unchanged = true;
      at += 1;
    } else {
      throw new PgoutputError(`column ${i + 1} of ${count} is of unknown kind 0x${kind.toString(16).padStart(2, '0')}`, at - base);
    }
  }
  return new ReceivedTuple(bytes, count, start, at, unchanged);
}
