import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeMessage, type Encodable, type Value } from '../../test/support/pgoutput-encoder.ts';
import type { Lsn } from '../pg/lsn.ts';
import { columnArrays, columnKind, columnValue, decodeMessage, PgoutputDecoder, PgoutputError, readColumns, type PgoutputMessage, type Tuple } from './index.ts';

const lsn = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((n) => n as Lsn);
const time = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const oid = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const byte = fc.integer({ min: 0, max: 255 });
const text = fc.string({ unit: 'grapheme', maxLength: 12 }).map((s) => s.replaceAll('\0', ''));
// An empty schema is pg_catalog on the wire.
const schema = fc.oneof(text.filter((s) => s !== ''), fc.constant('pg_catalog'));
const buffer = fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b));
const value: fc.Arbitrary<Value> = fc.oneof(fc.constant(null), fc.constant(undefined), text, buffer);
const row = fc.array(value, { maxLength: 12 });

function messages(inStream: boolean): fc.Arbitrary<Encodable> {
  const xid = inStream ? oid : fc.constant(undefined);
  const kind = <T extends Encodable['type']>(type: T) => fc.constant(type);
  const prepared = { flags: byte, prepareLsn: lsn, endLsn: lsn, prepareTime: time, xid: oid, gid: text };
  return fc.oneof(
    fc.record({ type: kind('insert'), xid, relation: oid, newTuple: row }),
    fc.oneof(
      fc.record({ type: kind('update'), xid, relation: oid, oldKind: fc.constantFrom('key' as const, 'full' as const), oldTuple: row, newTuple: row }),
      fc.record({ type: kind('update'), xid, relation: oid, oldKind: fc.constant(undefined), oldTuple: fc.constant(undefined), newTuple: row }),
    ),
    fc.record({ type: kind('delete'), xid, relation: oid, oldKind: fc.constantFrom('key' as const, 'full' as const), oldTuple: row }),
    fc.record({ type: kind('truncate'), xid, cascade: fc.boolean(), restartIdentity: fc.boolean(), relations: fc.array(oid, { maxLength: 5 }) }),
    fc.record({
      type: kind('relation'), xid, oid, schema, name: text, replicaIdentity: fc.constantFrom('default' as const, 'index' as const, 'full' as const, 'nothing' as const),
      columns: fc.array(fc.record({ name: text, key: fc.boolean(), typeOid: oid, typeModifier: int32 }), { maxLength: 6 }),
    }),
    fc.record({ type: kind('type'), xid, oid, schema, name: text }),
    fc.record({ type: kind('message'), xid, transactional: fc.boolean(), lsn, prefix: text, content: buffer }),
    fc.record({ type: kind('begin'), finalLsn: lsn, commitTime: time, xid: oid }),
    fc.record({ type: kind('commit'), flags: byte, commitLsn: lsn, endLsn: lsn, commitTime: time }),
    fc.record({ type: kind('origin'), commitLsn: lsn, name: text }),
    fc.record({ type: kind('stream-start'), xid: oid, firstSegment: fc.boolean() }),
    fc.constant({ type: 'stream-stop' as const }),
    fc.record({ type: kind('stream-commit'), xid: oid, flags: byte, commitLsn: lsn, endLsn: lsn, commitTime: time }),
    fc.oneof(
      fc.record({ type: kind('stream-abort'), xid: oid, subxid: oid, abortLsn: lsn, abortTime: time }),
      fc.record({ type: kind('stream-abort'), xid: oid, subxid: oid, abortLsn: fc.constant(undefined), abortTime: fc.constant(undefined) }),
    ),
    fc.record({ type: kind('begin-prepare'), prepareLsn: lsn, endLsn: lsn, prepareTime: time, xid: oid, gid: text }),
    fc.record({ type: kind('prepare'), ...prepared }),
    fc.record({ type: kind('stream-prepare'), ...prepared }),
    fc.record({ type: kind('commit-prepared'), flags: byte, commitLsn: lsn, endLsn: lsn, commitTime: time, xid: oid, gid: text }),
    fc.record({ type: kind('rollback-prepared'), flags: byte, prepareEndLsn: lsn, rollbackEndLsn: lsn, prepareTime: time, rollbackTime: time, xid: oid, gid: text }),
  ) as fc.Arbitrary<Encodable>;
}

function values(tuple: Tuple): Value[] {
  return Array.from({ length: tuple.count }, (_, i) => {
    const v = columnValue(tuple, i);
    return Buffer.isBuffer(v) && tuple.kinds[i] === columnKind.text ? v.toString('utf8') : v;
  });
}

/** The message with its rows as values again, so that it can be compared with what was encoded. */
function plain(m: PgoutputMessage): unknown {
  const out: Record<string, unknown> = { ...m };
  for (const key of ['oldTuple', 'newTuple']) if (out[key]) out[key] = values(out[key] as Tuple);
  return out;
}

/** The message in the middle of a larger buffer, so that reading past either end shows. */
function padded(bytes: Buffer): { buffer: Buffer; start: number; end: number } {
  const buffer = Buffer.concat([Buffer.alloc(7, 0x74), bytes, Buffer.alloc(9, 0x75)]);
  return { buffer, start: 7, end: 7 + bytes.length };
}

function thrownBy(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe.each([false, true])('decoder, in a stream block: %s', (inStream) => {
  it('decodes what was encoded', () => {
    fc.assert(fc.property(messages(inStream), (m) => {
      const { buffer, start, end } = padded(encodeMessage(m));
      expect(plain(decodeMessage(buffer, start, end, inStream))).toEqual(m);
    }), { numRuns: 1500 });
  });

  it('refuses a message cut at any byte, and one with a byte too many, naming the offset', () => {
    fc.assert(fc.property(messages(inStream), (m) => {
      const whole = encodeMessage(m);
      const { buffer, start, end } = padded(whole);
      for (let cut = 0; cut < whole.length; cut += 1) {
        const error = thrownBy(() => decodeMessage(buffer, start, start + cut, inStream));
        // A Stream Abort without its last sixteen bytes is one of protocols 2 and 3.
        if (m.type === 'stream-abort' && cut === 9) continue;
        expect(error, `${m.type} cut at ${cut} of ${whole.length}`).toBeInstanceOf(PgoutputError);
        expect((error as PgoutputError).offset).toBeLessThanOrEqual(cut);
      }
      const error = thrownBy(() => decodeMessage(buffer, start, end + 1, inStream));
      expect(error, `${m.type} with a byte more`).toBeInstanceOf(PgoutputError);
      expect((error as PgoutputError).offset).toBeLessThanOrEqual(whole.length + 1);
    }), { numRuns: 400 });
  });

  it('throws nothing but PgoutputError, whatever the bytes', () => {
    const check = (bytes: Buffer) => {
      const { buffer, start, end } = padded(bytes);
      const error = thrownBy(() => {
        const m = decodeMessage(buffer, start, end, inStream);
        // What it lets through can be read to the last column without leaving the message.
        for (const tuple of ['oldTuple', 'newTuple'].map((k) => (m as unknown as Record<string, Tuple | undefined>)[k])) {
          if (!tuple) continue;
          for (let i = 0; i < tuple.count; i += 1) expect(tuple.offsets[i]! + tuple.lengths[i]!).toBeLessThanOrEqual(end);
        }
      });
      expect([undefined, PgoutputError]).toContain(error === undefined ? undefined : (error as Error).constructor);
    };
    const kinds = [...Buffer.from('BCORYIUDTMSEcAbPKrp')];
    fc.assert(fc.property(fc.constantFrom(...kinds), fc.uint8Array({ maxLength: 64 }), (kind, rest) => check(Buffer.concat([Buffer.of(kind), rest]))), { numRuns: 4000 });
    // One byte changed somewhere in a good message.
    fc.assert(fc.property(messages(inStream), fc.nat(), byte, (m, at, b) => {
      const bytes = encodeMessage(m);
      bytes[at % bytes.length] = b;
      check(bytes);
    }), { numRuns: 4000 });
  });
});

describe('rows', () => {
  const bytes = encodeMessage({ type: 'insert', xid: undefined, relation: 7, newTuple: [null, undefined, 'grün', Buffer.of(1, 2, 3), ''] });
  const message = decodeMessage(bytes, 0, bytes.length, false);
  const tuple = (message as { newTuple: Tuple }).newTuple;

  it('are views on the received bytes', () => {
    const view = columnValue(tuple, 3)!;
    expect(view.buffer).toBe(bytes.buffer);
    expect([...view]).toEqual([1, 2, 3]);
    expect(columnValue(tuple, 0)).toBeNull();
    expect(columnValue(tuple, 1)).toBeUndefined();
    expect(columnValue(tuple, 4)?.length).toBe(0);
    expect(tuple.hasUnchanged).toBe(true);
    expect(tuple.end).toBe(bytes.length);
    expect(bytes[tuple.start]).toBe(columnKind.null);
    expect(() => columnValue(tuple, 5)).toThrow(RangeError);
  });

  it('fill arrays of the caller', () => {
    const arrays = columnArrays(8);
    expect(readColumns(tuple, arrays)).toBe(5);
    expect([...arrays.kinds.subarray(0, 5)]).toEqual([...tuple.kinds]);
    expect([...arrays.offsets.subarray(0, 5)]).toEqual([...tuple.offsets]);
    expect([...arrays.lengths.subarray(0, 5)]).toEqual([0, 0, 5, 3, 0]);
    expect(() => readColumns(tuple, columnArrays(4))).toThrow(RangeError);
  });

  it('may have 1,600 columns or none', () => {
    for (const count of [0, 1600]) {
      const wide = encodeMessage({ type: 'delete', xid: undefined, relation: 1, oldKind: 'full', oldTuple: Array.from({ length: count }, (_, i) => String(i)) });
      const decoded = decodeMessage(wide, 0, wide.length, false) as { oldTuple: Tuple };
      expect(decoded.oldTuple.count).toBe(count);
      expect(Array.from({ length: count }, (_, i) => columnValue(decoded.oldTuple, i)?.toString())).toEqual(Array.from({ length: count }, (_, i) => String(i)));
    }
  });
});

it('a damaged count of truncated relations is an error, not an array of billions', () => {
  const bytes = encodeMessage({ type: 'truncate', xid: undefined, cascade: false, restartIdentity: false, relations: [1, 2] });
  bytes.writeUInt32BE(0xffffffff, 1);
  expect(thrownBy(() => decodeMessage(bytes, 0, bytes.length, false))).toBeInstanceOf(PgoutputError);
});

it('a decoder of a whole stream knows where stream blocks begin and end', () => {
  const decoder = new PgoutputDecoder();
  const insert = (xid: number | undefined) => ({ type: 'insert' as const, xid, relation: 3, newTuple: ['x'] });
  const stream: Encodable[] = [insert(undefined), { type: 'stream-start', xid: 9, firstSegment: true }, insert(10), { type: 'stream-stop' }, insert(undefined)];
  expect(stream.map((m) => plain(decoder.decode(encodeMessage(m))))).toEqual(stream);
});
