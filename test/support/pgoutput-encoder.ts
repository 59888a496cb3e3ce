import { columnKind, type PgoutputMessage, type Tuple } from '../../src/pgoutput/messages.ts';

/** Writes pgoutput messages as a server does, for tests of everything that reads them. */

/** A column's value in a row to encode: NULL, an unchanged TOAST value, text, or binary. */
export type Value = null | undefined | string | Buffer;

/** A message to encode: rows are given as values instead of views. */
export type Encodable = PgoutputMessage extends infer M ? (M extends PgoutputMessage ? { readonly [K in keyof M]: M[K] extends Tuple ? readonly Value[] : M[K] extends Tuple | undefined ? readonly Value[] | undefined : M[K] } : never) : never;

const identityBytes = { default: 'd', index: 'i', full: 'f', nothing: 'n' } as const;

class Writer {
  readonly #parts: Buffer[] = [];

  char(c: string): this {
    this.#parts.push(Buffer.from(c, 'latin1'));
    return this;
  }

  uint8(n: number): this {
    this.#parts.push(Buffer.of(n));
    return this;
  }

  int16(n: number): this {
    const b = Buffer.alloc(2);
    b.writeUInt16BE(n);
    this.#parts.push(b);
    return this;
  }

  int32(n: number): this {
    const b = Buffer.alloc(4);
    b.writeInt32BE(n | 0);
    this.#parts.push(b);
    return this;
  }

  int64(n: bigint): this {
    const b = Buffer.alloc(8);
    b.writeBigInt64BE(BigInt.asIntN(64, n));
    this.#parts.push(b);
    return this;
  }

  string(text: string): this {
    this.#parts.push(Buffer.from(text, 'utf8'), Buffer.of(0));
    return this;
  }

  bytes(b: Buffer): this {
    this.#parts.push(b);
    return this;
  }

  /** The xid inside a stream block. */
  xid(xid: number | undefined): this {
    return xid === undefined ? this : this.int32(xid);
  }

  tuple(values: readonly Value[]): this {
    this.int16(values.length);
    for (const value of values) {
      if (value === null) this.uint8(columnKind.null);
      else if (value === undefined) this.uint8(columnKind.unchanged);
      else {
        const bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : value;
        this.uint8(typeof value === 'string' ? columnKind.text : columnKind.binary).int32(bytes.length).bytes(bytes);
      }
    }
    return this;
  }

  get result(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** The bytes of one message. A message with an `xid` of a kind that has one only in a stream block is encoded as inside of it. */
export function encodeMessage(m: Encodable): Buffer {
  const w = new Writer();
  switch (m.type) {
    case 'begin': return w.char('B').int64(m.finalLsn).int64(m.commitTime).int32(m.xid).result;
    case 'commit': return w.char('C').uint8(m.flags).int64(m.commitLsn).int64(m.endLsn).int64(m.commitTime).result;
    case 'origin': return w.char('O').int64(m.commitLsn).string(m.name).result;
    case 'relation': {
      w.char('R').xid(m.xid).int32(m.oid).string(m.schema === 'pg_catalog' ? '' : m.schema).string(m.name).char(identityBytes[m.replicaIdentity]).int16(m.columns.length);
      for (const c of m.columns) w.uint8(c.key ? 1 : 0).string(c.name).int32(c.typeOid).int32(c.typeModifier);
      return w.result;
    }
    case 'type': return w.char('Y').xid(m.xid).int32(m.oid).string(m.schema === 'pg_catalog' ? '' : m.schema).string(m.name).result;
    case 'insert': return w.char('I').xid(m.xid).int32(m.relation).char('N').tuple(m.newTuple).result;
    case 'update':
      w.char('U').xid(m.xid).int32(m.relation);
      if (m.oldTuple) w.char(m.oldKind === 'full' ? 'O' : 'K').tuple(m.oldTuple);
      return w.char('N').tuple(m.newTuple).result;
    case 'delete': return w.char('D').xid(m.xid).int32(m.relation).char(m.oldKind === 'full' ? 'O' : 'K').tuple(m.oldTuple).result;
    case 'truncate':
      w.char('T').xid(m.xid).int32(m.relations.length).uint8((m.cascade ? 1 : 0) | (m.restartIdentity ? 2 : 0));
      for (const oid of m.relations) w.int32(oid);
      return w.result;
    case 'message': return w.char('M').xid(m.xid).uint8(m.transactional ? 1 : 0).int64(m.lsn).string(m.prefix).int32(m.content.length).bytes(m.content).result;
    case 'stream-start': return w.char('S').int32(m.xid).uint8(m.firstSegment ? 1 : 0).result;
    case 'stream-stop': return w.char('E').result;
    case 'stream-commit': return w.char('c').int32(m.xid).uint8(m.flags).int64(m.commitLsn).int64(m.endLsn).int64(m.commitTime).result;
    case 'stream-abort':
      w.char('A').int32(m.xid).int32(m.subxid);
      if (m.abortLsn !== undefined) w.int64(m.abortLsn).int64(m.abortTime ?? 0n);
      return w.result;
    case 'begin-prepare': return w.char('b').int64(m.prepareLsn).int64(m.endLsn).int64(m.prepareTime).int32(m.xid).string(m.gid).result;
    case 'prepare': return w.char('P').uint8(m.flags).int64(m.prepareLsn).int64(m.endLsn).int64(m.prepareTime).int32(m.xid).string(m.gid).result;
    case 'stream-prepare': return w.char('p').uint8(m.flags).int64(m.prepareLsn).int64(m.endLsn).int64(m.prepareTime).int32(m.xid).string(m.gid).result;
    case 'commit-prepared': return w.char('K').uint8(m.flags).int64(m.commitLsn).int64(m.endLsn).int64(m.commitTime).int32(m.xid).string(m.gid).result;
    case 'rollback-prepared':
      return w.char('r').uint8(m.flags).int64(m.prepareEndLsn).int64(m.rollbackEndLsn).int64(m.prepareTime).int64(m.rollbackTime).int32(m.xid).string(m.gid).result;
    default: throw new TypeError(`cannot encode ${(m as { type: string }).type}`);
  }
}

/** A CopyData frame of the frontend/backend protocol around bytes. */
export function copyData(payload: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head[0] = 0x64;
  head.writeInt32BE(payload.length + 4, 1);
  return Buffer.concat([head, payload]);
}

/** An XLogData frame around a message, as it comes over the wire. */
export function xlogData(message: Buffer, at = 0n, walEnd = at): Buffer {
  const head = Buffer.alloc(25);
  head[0] = 0x77;
  head.writeBigUInt64BE(at, 1);
  head.writeBigUInt64BE(walEnd, 9);
  return copyData(Buffer.concat([head, message]));
}

/** A primary keepalive frame. */
export function keepalive(walEnd: bigint, replyRequested = false): Buffer {
  const payload = Buffer.alloc(18);
  payload[0] = 0x6b;
  payload.writeBigUInt64BE(walEnd, 1);
  payload[17] = replyRequested ? 1 : 0;
  return copyData(payload);
}
