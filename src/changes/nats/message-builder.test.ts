import { tmpdir } from 'node:os';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeBatch, type ReadTransaction } from '../../../test/support/change-log.ts';
import { encodeMessage, keepalive, xlogData, type Encodable } from '../../../test/support/pgoutput-encoder.ts';
import { insert, relation } from '../../../test/support/stream-history.ts';
import { zeroLsn, type Lsn } from '../../pg/lsn.ts';
import { FrameBuffer } from '../frame-buffer.ts';
import { LogCore } from '../log-core.ts';
import { MessageBuilder, type BuiltMessage } from './message-builder.ts';

const lsn = (n: number) => BigInt(n) as Lsn;
const begin = (at: number): Encodable => ({ type: 'begin', finalLsn: lsn(at), commitTime: 5n, xid: at });
const commit = (at: number): Encodable => ({ type: 'commit', flags: 0, commitLsn: lsn(at), endLsn: lsn(at + 8), commitTime: 5n });
const framesOf = (...messages: Encodable[]) => Buffer.concat(messages.map((m) => xlogData(encodeMessage(m))));

function builderOf(messageBytes: number, start = 0): { builder: MessageBuilder; messages: BuiltMessage[] } {
  const messages: BuiltMessage[] = [];
  return { builder: new MessageBuilder({ log: 'l', last: lsn(start), to: lsn(start), messageBytes, run: 'r', emit: (m) => messages.push(m) }), messages };
}

function take(builder: MessageBuilder, bytes: Buffer): void {
  builder.frames(bytes, 0, bytes.length);
}

/** What a reader makes of messages that begin at any group. */
async function read(messages: readonly BuiltMessage[]): Promise<ReadTransaction[]> {
  const core = new LogCore({ startLsn: zeroLsn, memoryBytes: 64 << 20, largeBytes: 4 << 20, heldBytes: 1 << 20, spillFolder: tmpdir(), leaveOut: () => false, onRoom: () => undefined, ask: () => undefined });
  let frames = new FrameBuffer();
  for (const m of messages) {
    if (m.part === 0) frames = new FrameBuffer();
    frames.append(m.data);
    frames.takeFrames((bytes, start, end) => core.accept(bytes, start, end));
  }
  const out: ReadTransaction[] = [];
  while (core.waitingTransactions > 0) out.push(...(await describeBatch(await core.read({ maxBytes: 1 << 20 }))));
  return out;
}

describe('messages of the log on NATS', () => {
  it('hold whole transactions, each group with the tables that it needs, and tell where they stand', async () => {
    const { builder, messages } = builderOf(10_000);
    take(builder, framesOf(begin(100), relation(1), insert(1, 'a'), commit(100), begin(200), insert(1, 'b'), commit(200)));
    expect(messages).toEqual([]);
    builder.flush();
    take(builder, framesOf(begin(300), insert(1, 'c'), commit(300), begin(400), commit(400)));
    take(builder, keepalive(500n));
    builder.flush();
    builder.position();
    expect(messages.map(({ kind, after, last, to, part, more, id }) => ({ kind, after, last, to, part, more, id }))).toEqual([
      { kind: 'changes', after: 0n, last: 208n, to: 208n, part: 0, more: false, id: 'changes 0/D0' },
      { kind: 'changes', after: 208n, last: 308n, to: 500n, part: 0, more: false, id: 'changes 0/134' },
      { kind: 'position', after: 308n, last: 308n, to: 500n, part: 0, more: false, id: 'position 0/1F4 r' },
    ]);
    expect((await read(messages.slice(1))).map((t) => t.changes)).toEqual([['insert t1 (c)']]);
  });

  it('do not tell of a transaction that goes into the next message because this one is full', () => {
    const { builder, messages } = builderOf(300);
    take(builder, framesOf(begin(100), relation(1), insert(1, 'x'.repeat(40)), commit(100), begin(200), insert(1, 'y'.repeat(40)), commit(200)));
    builder.flush();
    expect(messages.map(({ last, to }) => ({ last, to }))).toEqual([{ last: 108n, to: 108n }, { last: 208n, to: 208n }]);
  });

  it('leave out what the log has already, and begin a broken transaction again', async () => {
    const { builder, messages } = builderOf(120, 208);
    take(builder, framesOf(begin(100), relation(1), insert(1, 'a'), commit(100)));
    take(builder, framesOf(begin(300), ...Array.from({ length: 5 }, (_, i) => insert(1, `x${i}`))));
    const parts = messages.length;
    expect(parts).toBeGreaterThan(1);
    // A part does not say that its transaction is in the log.
    expect(messages.every((m) => m.more && m.last === 208n && m.to === 208n)).toBe(true);
    builder.connection();
    take(builder, framesOf(begin(300), relation(1), insert(1, 'y'), commit(300)));
    builder.flush();
    expect(messages[parts]!.part).toBe(0);
    expect((await read(messages.slice(parts))).map((t) => t.changes)).toEqual([['insert t1 (y)']]);
  });

  it('give every reader the rest of the log, whatever the size of messages and the cut of frames', async () => {
    await fc.assert(fc.asyncProperty(
      fc.array(fc.array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.string({ maxLength: 60 })), { maxLength: 8 }), { minLength: 1, maxLength: 12 }), fc.integer({ min: 40, max: 2000 }), fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }),
      async (transactions, messageBytes, flushes) => {
        const { builder, messages } = builderOf(messageBytes);
        const described = new Set<number>();
        const expected: { end: bigint; changes: string[] }[] = [];
        transactions.forEach((rows, i) => {
          const at = 100 * (i + 1);
          const frames: Encodable[] = [begin(at)];
          for (const [table, value] of rows) {
            if (!described.has(table)) frames.push(relation(table));
            described.add(table);
            frames.push(insert(table, value));
          }
          frames.push(commit(at));
          for (const frame of frames) take(builder, framesOf(frame));
          if (rows.length > 0) expected.push({ end: BigInt(at + 8), changes: rows.map(([table, value]) => `insert t${table} (${value})`) });
          if (flushes[i]) builder.flush();
        });
        builder.flush();
        for (const m of messages) expect(m.data.length).toBeLessThanOrEqual(messageBytes);
        for (let i = 1; i < messages.length; i += 1) expect(messages[i]!.to >= messages[i - 1]!.to && messages[i]!.after === messages[i - 1]!.last).toBe(true);
        // Whoever goes on behind a message lacks nothing: what ends before its position is in it, or in one before.
        for (const m of messages) expect(expected.filter((e) => e.end > m.last && e.end <= m.to)).toEqual([]);
        expect(new Set(messages.map((m) => m.id)).size).toBe(messages.length);
        for (const [i, first] of messages.entries()) {
          if (first.part > 0) continue;
          const got = await read(messages.slice(i));
          expect(got.map((t) => ({ end: t.endLsn as bigint, changes: t.changes }))).toEqual(expected.filter((e) => e.end > first.after));
        }
      },
    ), { numRuns: 60 });
  });
});
