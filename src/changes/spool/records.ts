/**
 * What a segment file holds: records, one after another, framed like messages of PostgreSQL's protocol so that the same code cuts both.
 *
 *   record   kind, int32 length (of itself and what follows), uint32 CRC-32 of kind, length and payload, payload
 *     'S'    start, the first of each segment: 16 bytes "pgweave spool 1\n", lsn acknowledged before this segment, then XLogData frames that bring a reader who
 *            begins here to where the stream is: Relation messages that hold, those of open streamed transactions in blocks of their own, and the beginning of
 *            what is under way
 *     'C'    a new connection to the source: what was incomplete comes again from its beginning
 *     'F'    whole CopyData frames as they were received (frames.ts)
 *
 * A process writes to segments of its own and never into one that it found. Only the last segment may end in a torn record, which is cut off.
 */
import { crc32 } from 'node:zlib';
import type { Lsn } from '../../pg/lsn.ts';

export const recordKind = { start: 0x53, connection: 0x43, frames: 0x46 } as const;

/** Offset of a record's payload. */
export const recordHead = 9;
const magic = Buffer.from('pgweave spool 1\n', 'latin1');
const startHead = magic.length + 8;

export interface SegmentStart {
  /** Everything before it lies in earlier segments, or did not concern us. */
  readonly ackLsn: Lsn;
}

/** The head of a record; its payload follows as it is. */
export function recordHeader(kind: number, payload: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(recordHead);
  head[0] = kind;
  let length = recordHead - 1;
  for (const part of payload) length += part.length;
  head.writeInt32BE(length, 1);
  let crc = crc32(head.subarray(0, 5));
  for (const part of payload) crc = crc32(part, crc);
  head.writeUInt32BE(crc, 5);
  return head;
}

/** Whether a whole record is as it was written. */
export function recordIsSound(bytes: Buffer, start: number, end: number): boolean {
  if (end - start < recordHead) return false;
  return crc32(bytes.subarray(start + recordHead, end), crc32(bytes.subarray(start, start + 5))) === bytes.readUInt32BE(start + 5);
}

export function encodeStart(start: SegmentStart): Buffer {
  const out = Buffer.alloc(startHead);
  magic.copy(out);
  out.writeBigUInt64BE(start.ackLsn, magic.length);
  return out;
}

/** Reads the payload of a start record; undefined where it is none of this version. `framesAt`: where its frames begin. */
export function decodeStart(bytes: Buffer, start: number, end: number): (SegmentStart & { readonly framesAt: number }) | undefined {
  if (end - start < startHead || !bytes.subarray(start, start + magic.length).equals(magic)) return undefined;
  return { ackLsn: bytes.readBigUInt64BE(start + magic.length) as Lsn, framesAt: start + startHead };
}
