import { copyBytes, type Pipeline } from '../../pg/pipeline.ts';
import { columnArrays, readColumns } from '../../pgoutput/tuple.ts';
import { columnKind, type Tuple } from '../../pgoutput/messages.ts';

/**
 * Rows as COPY data, taken from pgoutput's tuples as bytes. Binary: a value is `int32 length, bytes` in both, so it is copied with its length.
 * Text: backslash, tab, newline and carriage return are escaped. Source: PostgreSQL documentation, "COPY", File Formats.
 */
const largeBytes = 16_384;
const scratch = columnArrays();

/** A value came in a form that this COPY cannot carry: text in a binary stream, or an unchanged TOAST value. */
export class CopyFormError extends Error {
  constructor(what: string) {
    super(`a column's value came as ${what}`);
    this.name = 'CopyFormError';
  }
}

export function copyHeader(pipeline: Pipeline, binary: boolean): void {
  if (!binary) return;
  const room = pipeline.copyRoom(19);
  room.write('PGCOPY\n\xff\r\n\0', pipeline.at, 'latin1');
  room.fill(0, pipeline.at + 11, pipeline.at + 19);
  pipeline.advance(pipeline.at + 19);
}

export function copyTrailer(pipeline: Pipeline, binary: boolean): void {
  if (!binary) return;
  const room = pipeline.copyRoom(2);
  room[pipeline.at] = 0xff;
  room[pipeline.at + 1] = 0xff;
  pipeline.advance(pipeline.at + 2);
}

/** One row: the columns at `positions`, or all of them in their order where undefined. */
export function copyRow(pipeline: Pipeline, tuple: Tuple, positions: readonly number[] | undefined, binary: boolean): void {
  if (!binary) copyTextRow(pipeline, tuple, positions);
  else if (positions === undefined && tuple.end - tuple.start < largeBytes) copyWholeBinaryRow(pipeline, tuple);
  else copyBinaryRow(pipeline, tuple, positions);
}

/** The hot path: all columns, nothing large. */
function copyWholeBinaryRow(pipeline: Pipeline, tuple: Tuple): void {
  const { bytes, count } = tuple;
  const room = pipeline.copyRoom(2 + 4 * count + tuple.end - tuple.start);
  let to = pipeline.at;
  room[to] = count >> 8;
  room[to + 1] = count & 0xff;
  to += 2;
  let from = tuple.start;
  for (let i = 0; i < count; i += 1) {
    const kind = bytes[from]!;
    if (kind === columnKind.binary) {
      const size = 4 + ((bytes[from + 1]! << 24) | (bytes[from + 2]! << 16) | (bytes[from + 3]! << 8) | bytes[from + 4]!);
      copyBytes(bytes, from + 1, size, room, to);
      from += 1 + size;
      to += size;
    } else if (kind === columnKind.null) {
      room[to] = 0xff;
      room[to + 1] = 0xff;
      room[to + 2] = 0xff;
      room[to + 3] = 0xff;
      from += 1;
      to += 4;
    } else throw new CopyFormError(kind === columnKind.text ? 'text' : 'unchanged');
  }
  pipeline.advance(to);
}

function copyBinaryRow(pipeline: Pipeline, tuple: Tuple, positions: readonly number[] | undefined): void {
  const { bytes } = tuple;
  readColumns(tuple, scratch);
  const count = positions?.length ?? tuple.count;
  copyUint16(pipeline, count);
  for (let n = 0; n < count; n += 1) {
    const i = positions === undefined ? n : positions[n]!;
    const kind = scratch.kinds[i]!;
    const length = scratch.lengths[i]!;
    if (kind === columnKind.null) copyUint32(pipeline, 0xffffffff);
    else if (kind !== columnKind.binary) throw new CopyFormError(kind === columnKind.text ? 'text' : 'unchanged');
    else {
      copyUint32(pipeline, length);
      copyValue(pipeline, bytes, scratch.offsets[i]!, length);
    }
  }
}

function copyTextRow(pipeline: Pipeline, tuple: Tuple, positions: readonly number[] | undefined): void {
  const { bytes } = tuple;
  readColumns(tuple, scratch);
  const count = positions?.length ?? tuple.count;
  for (let n = 0; n < count; n += 1) {
    const i = positions === undefined ? n : positions[n]!;
    const kind = scratch.kinds[i]!;
    const length = scratch.lengths[i]!;
    if (kind === columnKind.null) copyLiteral(pipeline, 0x5c, 0x4e);
    else if (kind !== columnKind.text) throw new CopyFormError(kind === columnKind.binary ? 'binary' : 'unchanged');
    else copyEscaped(pipeline, bytes, scratch.offsets[i]!, length);
    if (n < count - 1) copyLiteral(pipeline, 0x09);
  }
  copyLiteral(pipeline, 0x0a);
}

function copyLiteral(pipeline: Pipeline, ...values: readonly number[]): void {
  const room = pipeline.copyRoom(values.length);
  let at = pipeline.at;
  for (const value of values) {
    room[at] = value;
    at += 1;
  }
  pipeline.advance(at);
}

function copyEscaped(pipeline: Pipeline, bytes: Buffer, from: number, length: number): void {
  // In pieces, so that the room for the worst case stays small.
  for (let at = from; at < from + length; at += largeBytes) {
    const end = Math.min(from + length, at + largeBytes);
    const room = pipeline.copyRoom(2 * (end - at));
    let to = pipeline.at;
    for (let i = at; i < end; i += 1) {
      const c = bytes[i]!;
      // Two comparisons for nearly every byte: this loop is where most of a text stream's time goes.
      if (c > 0x0d && c !== 0x5c) {
        room[to] = c;
        to += 1;
      } else if (c === 0x5c || c === 0x09 || c === 0x0a || c === 0x0d) {
        room[to] = 0x5c;
        room[to + 1] = c === 0x5c ? 0x5c : c === 0x09 ? 0x74 : c === 0x0a ? 0x6e : 0x72;
        to += 2;
      } else {
        room[to] = c;
        to += 1;
      }
    }
    pipeline.advance(to);
  }
}

export function copyUint16(pipeline: Pipeline, value: number): void {
  const room = pipeline.copyRoom(2);
  room.writeUInt16BE(value, pipeline.at);
  pipeline.advance(pipeline.at + 2);
}

export function copyUint32(pipeline: Pipeline, value: number): void {
  const room = pipeline.copyRoom(4);
  room.writeUInt32BE(value, pipeline.at);
  pipeline.advance(pipeline.at + 4);
}

/** Bytes of a value, large ones without copying them. */
export function copyValue(pipeline: Pipeline, bytes: Buffer, from: number, length: number): void {
  if (length > largeBytes) {
    pipeline.copyLarge(bytes.subarray(from, from + length));
    return;
  }
  const room = pipeline.copyRoom(length);
  copyBytes(bytes, from, length, room, pipeline.at);
  pipeline.advance(pipeline.at + length);
}
