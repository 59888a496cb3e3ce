/**
 * Decoder of the output plugin pgoutput, protocol versions 1 to 4. Pure: bytes in, typed views out.
 * Source: PostgreSQL documentation, "Logical Replication Message Formats", and src/backend/replication/logical/proto.c.
 *
 * Integers are big-endian; `string` ends with a NUL byte; LSNs are int64; times are int64 microseconds since 2000-01-01 UTC.
 * `[xid]` is an int32 that is there only inside a stream block, that is between Stream Start and Stream Stop (protocol 2 and newer).
 *
 *   B  Begin              lsn final, time commit, int32 xid
 *   C  Commit             int8 flags, lsn commit, lsn end, time commit
 *   O  Origin             lsn commit on the origin server, string name
 *   R  Relation           [xid] int32 oid, string schema ('' is pg_catalog), string name, int8 replica identity (d i f n), int16 columns,
 *                         each: int8 flags (1: part of the key), string name, int32 type oid, int32 type modifier
 *   Y  Type               [xid] int32 oid, string schema ('' is pg_catalog), string name
 *   I  Insert             [xid] int32 relation, 'N' tuple
 *   U  Update             [xid] int32 relation, nothing or 'K' tuple (old key) or 'O' tuple (old row), 'N' tuple
 *   D  Delete             [xid] int32 relation, 'K' tuple or 'O' tuple
 *   T  Truncate           [xid] int32 relations, int8 options (1: cascade, 2: restart identity), int32 oid of each
 *   M  Message            [xid] int8 flags (1: transactional), lsn, string prefix, int32 length, bytes                      (14 and newer)
 *   S  Stream Start       int32 xid, int8 first segment (1)                                                                 (protocol 2)
 *   E  Stream Stop
 *   c  Stream Commit      int32 xid, int8 flags, lsn commit, lsn end, time commit
 *   A  Stream Abort       int32 xid, int32 subtransaction xid; with streaming = parallel also: lsn abort, time abort        (protocol 4)
 *   b  Begin Prepare      lsn prepare, lsn end, time prepare, int32 xid, string gid                                         (protocol 3)
 *   P  Prepare            int8 flags, lsn prepare, lsn end, time prepare, int32 xid, string gid
 *   K  Commit Prepared    int8 flags, lsn commit, lsn end, time commit, int32 xid, string gid
 *   r  Rollback Prepared  int8 flags, lsn prepare end, lsn rollback end, time prepare, time rollback, int32 xid, string gid
 *   p  Stream Prepare     int8 flags, lsn prepare, lsn end, time prepare, int32 xid, string gid
 *
 *   tuple                 int16 columns, each: 'n' null | 'u' unchanged TOAST value | 't' int32 length, text | 'b' int32 length, binary
 */
import type { Lsn } from '../pg/lsn.ts';
import { PgoutputError } from './error.ts';
import type { Delete, Insert, LogicalMessage, PgoutputMessage, Relation, RelationColumn, ReplicaIdentity, Truncate, TypeMessage, Update } from './messages.ts';
import { scanTuple } from './tuple.ts';

/** First byte of each message. */
export const messageKind = {
  begin: 0x42, commit: 0x43, origin: 0x4f, relation: 0x52, type: 0x59, insert: 0x49, update: 0x55, delete: 0x44, truncate: 0x54, message: 0x4d,
  streamStart: 0x53, streamStop: 0x45, streamCommit: 0x63, streamAbort: 0x41,
  beginPrepare: 0x62, prepare: 0x50, commitPrepared: 0x4b, rollbackPrepared: 0x72, streamPrepare: 0x70,
} as const;

const newRow = 0x4e;
const oldKey = 0x4b;
const oldRow = 0x4f;
const identities: Readonly<Record<number, ReplicaIdentity>> = { 0x64: 'default', 0x69: 'index', 0x66: 'full', 0x6e: 'nothing' };

/**
 * Decodes the message in `bytes[start, end)`. `inStream`: it stands between Stream Start and Stream Stop. The result refers to `bytes`, which must not
 * be overwritten while it is in use. Throws PgoutputError; never anything else, whatever the bytes.
 */
export function decodeMessage(bytes: Buffer, start: number, end: number, inStream: boolean): PgoutputMessage {
  if (end <= start) throw new PgoutputError('it is empty', 0);
  switch (bytes[start]!) {
    case messageKind.insert: return decodeInsert(bytes, start, end, inStream);
    case messageKind.update: return decodeUpdate(bytes, start, end, inStream);
    case messageKind.delete: return decodeDelete(bytes, start, end, inStream);
    default: return decodeOther(new Cursor(bytes, start, end), inStream);
  }
}

/** Where the messages of a stream are decoded one after another: knows by itself what stands inside a stream block. */
export class PgoutputDecoder {
  #inStream = false;

  /** Decodes the next message of the stream; as `decodeMessage`. */
  decode(bytes: Buffer, start = 0, end = bytes.length): PgoutputMessage {
    const message = decodeMessage(bytes, start, end, this.#inStream);
    if (message.type === 'stream-start') this.#inStream = true;
    else if (message.type === 'stream-stop') this.#inStream = false;
    return message;
  }
}

function decodeInsert(bytes: Buffer, start: number, end: number, inStream: boolean): Insert {
  const at = inStream ? start + 5 : start + 1;
  if (end - at < 5) throw new PgoutputError('the head of an insert is cut', end - start);
  if (bytes[at + 4] !== newRow) throw new PgoutputError('an insert without a new row', at + 4 - start);
  const newTuple = scanTuple(bytes, at + 5, end, start);
  if (newTuple.end !== end) throw new PgoutputError('bytes after the end of an insert', newTuple.end - start);
  return { type: 'insert', xid: inStream ? uint32(bytes, start + 1) : undefined, relation: uint32(bytes, at), newTuple };
}

function decodeUpdate(bytes: Buffer, start: number, end: number, inStream: boolean): Update {
  const at = inStream ? start + 5 : start + 1;
  if (end - at < 5) throw new PgoutputError('the head of an update is cut', end - start);
  const xid = inStream ? uint32(bytes, start + 1) : undefined;
  const relation = uint32(bytes, at);
  const kind = bytes[at + 4];
  if (kind === newRow) {
    const newTuple = scanTuple(bytes, at + 5, end, start);
    if (newTuple.end !== end) throw new PgoutputError('bytes after the end of an update', newTuple.end - start);
    return { type: 'update', xid, relation, oldKind: undefined, oldTuple: undefined, newTuple };
  }
  if (kind !== oldKey && kind !== oldRow) throw new PgoutputError('an update without a row', at + 4 - start);
  const oldTuple = scanTuple(bytes, at + 5, end, start);
  if (oldTuple.end >= end) throw new PgoutputError('an update is cut before its new row', end - start);
  if (bytes[oldTuple.end] !== newRow) throw new PgoutputError('an update without a new row', oldTuple.end - start);
  const newTuple = scanTuple(bytes, oldTuple.end + 1, end, start);
  if (newTuple.end !== end) throw new PgoutputError('bytes after the end of an update', newTuple.end - start);
  return { type: 'update', xid, relation, oldKind: kind === oldKey ? 'key' : 'full', oldTuple, newTuple };
}

function decodeDelete(bytes: Buffer, start: number, end: number, inStream: boolean): Delete {
  const at = inStream ? start + 5 : start + 1;
  if (end - at < 5) throw new PgoutputError('the head of a delete is cut', end - start);
  const kind = bytes[at + 4];
  if (kind !== oldKey && kind !== oldRow) throw new PgoutputError('a delete without an old row', at + 4 - start);
  const oldTuple = scanTuple(bytes, at + 5, end, start);
  if (oldTuple.end !== end) throw new PgoutputError('bytes after the end of a delete', oldTuple.end - start);
  return { type: 'delete', xid: inStream ? uint32(bytes, start + 1) : undefined, relation: uint32(bytes, at), oldKind: kind === oldKey ? 'key' : 'full', oldTuple };
}

function decodeOther(c: Cursor, inStream: boolean): PgoutputMessage {
  const kind = c.uint8('kind');
  const message = decodeBody(c, kind, inStream);
  c.finish();
  return message;
}

function decodeBody(c: Cursor, kind: number, inStream: boolean): PgoutputMessage {
  switch (kind) {
    case messageKind.begin: return { type: 'begin', finalLsn: c.lsn('final LSN'), commitTime: c.int64('commit time'), xid: c.uint32('xid') };
    case messageKind.commit: return { type: 'commit', flags: c.uint8('flags'), commitLsn: c.lsn('commit LSN'), endLsn: c.lsn('end LSN'), commitTime: c.int64('commit time') };
    case messageKind.origin: return { type: 'origin', commitLsn: c.lsn('commit LSN'), name: c.string('origin') };
    case messageKind.relation: return decodeRelation(c, inStream);
    case messageKind.type: return decodeType(c, inStream);
    case messageKind.truncate: return decodeTruncate(c, inStream);
    case messageKind.message: return decodeLogicalMessage(c, inStream);
    case messageKind.streamStart: return { type: 'stream-start', xid: c.uint32('xid'), firstSegment: c.uint8('first segment') === 1 };
    case messageKind.streamStop: return { type: 'stream-stop' };
    case messageKind.streamCommit:
      return { type: 'stream-commit', xid: c.uint32('xid'), flags: c.uint8('flags'), commitLsn: c.lsn('commit LSN'), endLsn: c.lsn('end LSN'), commitTime: c.int64('commit time') };
    case messageKind.streamAbort: {
      const xid = c.uint32('xid');
      const subxid = c.uint32('subtransaction xid');
      const parallel = c.remaining > 0;
      return { type: 'stream-abort', xid, subxid, abortLsn: parallel ? c.lsn('abort LSN') : undefined, abortTime: parallel ? c.int64('abort time') : undefined };
    }
    case messageKind.beginPrepare:
      return { type: 'begin-prepare', prepareLsn: c.lsn('prepare LSN'), endLsn: c.lsn('end LSN'), prepareTime: c.int64('prepare time'), xid: c.uint32('xid'), gid: c.string('gid') };
    case messageKind.prepare: case messageKind.streamPrepare:
      return {
        type: kind === messageKind.prepare ? 'prepare' : 'stream-prepare', flags: c.uint8('flags'), prepareLsn: c.lsn('prepare LSN'), endLsn: c.lsn('end LSN'), prepareTime: c.int64('prepare time'), xid: c.uint32('xid'),
        gid: c.string('gid'),
      };
    case messageKind.commitPrepared:
      return { type: 'commit-prepared', flags: c.uint8('flags'), commitLsn: c.lsn('commit LSN'), endLsn: c.lsn('end LSN'), commitTime: c.int64('commit time'), xid: c.uint32('xid'), gid: c.string('gid') };
    case messageKind.rollbackPrepared:
      return {
        type: 'rollback-prepared', flags: c.uint8('flags'), prepareEndLsn: c.lsn('prepare end LSN'), rollbackEndLsn: c.lsn('rollback end LSN'), prepareTime: c.int64('prepare time'), rollbackTime: c.int64('rollback time'),
        xid: c.uint32('xid'), gid: c.string('gid'),
      };
    default: throw new PgoutputError(`unknown kind 0x${kind.toString(16).padStart(2, '0')}`, 0);
  }
}

function decodeRelation(c: Cursor, inStream: boolean): Relation {
  const xid = inStream ? c.uint32('xid') : undefined;
  const oid = c.uint32('relation oid');
  const schema = c.string('schema') || 'pg_catalog';
  const name = c.string('table name');
  const identityAt = c.offset;
  const replicaIdentity = identities[c.uint8('replica identity')];
  if (replicaIdentity === undefined) throw new PgoutputError('unknown replica identity', identityAt);
  const count = c.uint16('column count');
  const columns: RelationColumn[] = [];
  for (let i = 0; i < count; i += 1) {
    const key = (c.uint8('column flags') & 1) === 1;
    columns.push({ key, name: c.string('column name'), typeOid: c.uint32('type oid'), typeModifier: c.int32('type modifier') });
  }
  return { type: 'relation', xid, oid, schema, name, replicaIdentity, columns };
}

function decodeType(c: Cursor, inStream: boolean): TypeMessage {
  return { type: 'type', xid: inStream ? c.uint32('xid') : undefined, oid: c.uint32('type oid'), schema: c.string('schema') || 'pg_catalog', name: c.string('type name') };
}

function decodeTruncate(c: Cursor, inStream: boolean): Truncate {
  const xid = inStream ? c.uint32('xid') : undefined;
  const count = c.uint32('relation count');
  const options = c.uint8('options');
  // Checked before the loop: a damaged count must not make an array of billions.
  if (c.remaining < count * 4) throw new PgoutputError('the list of truncated relations is cut', c.offset);
  const relations: number[] = [];
  for (let i = 0; i < count; i += 1) relations.push(c.uint32('relation oid'));
  return { type: 'truncate', xid, cascade: (options & 1) !== 0, restartIdentity: (options & 2) !== 0, relations };
}

function decodeLogicalMessage(c: Cursor, inStream: boolean): LogicalMessage {
  return { type: 'message', xid: inStream ? c.uint32('xid') : undefined, transactional: (c.uint8('flags') & 1) === 1, lsn: c.lsn('LSN'), prefix: c.string('prefix'), content: c.counted('content') };
}

function uint32(bytes: Buffer, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** Reads a message from its first byte to its last; every read is checked against the end. */
class Cursor {
  readonly #bytes: Buffer;
  readonly #start: number;
  readonly #end: number;
  #at: number;

  constructor(bytes: Buffer, start: number, end: number) {
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
    this.#at = start;
  }

  get remaining(): number {
    return this.#end - this.#at;
  }

  get offset(): number {
    return this.#at - this.#start;
  }

  uint8(what: string): number {
    return this.#bytes[this.#take(1, what)]!;
  }

  uint16(what: string): number {
    return this.#bytes.readUInt16BE(this.#take(2, what));
  }

  int32(what: string): number {
    return this.#bytes.readInt32BE(this.#take(4, what));
  }

  uint32(what: string): number {
    return this.#bytes.readUInt32BE(this.#take(4, what));
  }

  int64(what: string): bigint {
    return this.#bytes.readBigInt64BE(this.#take(8, what));
  }

  lsn(what: string): Lsn {
    return this.#bytes.readBigUInt64BE(this.#take(8, what)) as Lsn;
  }

  string(what: string): string {
    const nul = this.#bytes.indexOf(0, this.#at);
    if (nul < 0 || nul >= this.#end) throw new PgoutputError(`${what} is cut`, this.#end - this.#start);
    const text = this.#bytes.toString('utf8', this.#at, nul);
    this.#at = nul + 1;
    return text;
  }

  counted(what: string): Buffer {
    const lengthAt = this.offset;
    const length = this.int32(`length of ${what}`);
    if (length < 0) throw new PgoutputError(`length of ${what} is negative`, lengthAt);
    const at = this.#take(length, what);
    return this.#bytes.subarray(at, at + length);
  }

  finish(): void {
    if (this.#at !== this.#end) throw new PgoutputError('bytes after its end', this.offset);
  }

  #take(length: number, what: string): number {
    if (this.#end - this.#at < length) throw new PgoutputError(`${what} is cut`, this.#end - this.#start);
    const at = this.#at;
    this.#at += length;
    return at;
  }
}
