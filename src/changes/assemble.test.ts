import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { describeBatch, type ReadTransaction } from '../../test/support/change-log.ts';
import { encodeMessage, keepalive, xlogData, type Encodable } from '../../test/support/pgoutput-encoder.ts';
import { chunks, expectedOf, insert, relation, streamOf, transactionPlan } from '../../test/support/stream-history.ts';
import { zeroLsn, type Lsn } from '../pg/lsn.ts';
import { LogCore, type LogCoreOptions } from './log-core.ts';

const spillFolder = mkdtempSync(join(tmpdir(), 'pgweave-assemble-'));
afterAll(() => rmSync(spillFolder, { recursive: true, force: true }));

function makeCore(options: Partial<LogCoreOptions> = {}): LogCore {
  return new LogCore({ startLsn: zeroLsn, memoryBytes: 64 << 20, largeBytes: 4 << 20, heldBytes: 32 << 20, spillFolder, leaveOut: () => false, onRoom: () => undefined, ask: () => undefined, ...options });
}

const lsn = (n: number) => BigInt(n) as Lsn;
const begin = (at: number): Encodable => ({ type: 'begin', finalLsn: lsn(at), commitTime: 5n, xid: at });
const commit = (at: number): Encodable => ({ type: 'commit', flags: 0, commitLsn: lsn(at), endLsn: lsn(at + 8), commitTime: 5n });
const streamStart = (xid: number, firstSegment: boolean): Encodable => ({ type: 'stream-start', xid, firstSegment });
const streamStop: Encodable = { type: 'stream-stop' };
const streamCommit = (xid: number, at: number): Encodable => ({ type: 'stream-commit', xid, flags: 0, commitLsn: lsn(at), endLsn: lsn(at + 8), commitTime: 5n });
const streamAbort = (xid: number, subxid: number): Encodable => ({ type: 'stream-abort', xid, subxid, abortLsn: undefined, abortTime: undefined });
const prepareFields = (xid: number, at: number) => ({ prepareLsn: lsn(at), endLsn: lsn(at + 8), prepareTime: 5n, xid, gid: `g${xid}` });

function send(core: LogCore, ...messages: Encodable[]): void {
  const bytes = Buffer.concat(messages.map((m) => xlogData(encodeMessage(m))));
  if (bytes.length > 0) core.accept(bytes, 0, bytes.length);
}

function sendKeepalive(core: LogCore, at: number): void {
  const bytes = keepalive(BigInt(at));
  core.accept(bytes, 0, bytes.length);
}

/** Everything that waits. */
async function drain(core: LogCore, maxBytes = 1 << 20): Promise<ReadTransaction[]> {
  const out: ReadTransaction[] = [];
  while (core.waitingTransactions > 0) out.push(...(await describeBatch(await core.read({ maxBytes }))));
  return out;
}
const changesOf = async (core: LogCore, maxBytes?: number) => (await drain(core, maxBytes)).map((t) => t.changes);

describe('whole transactions', () => {
  it('come in commit order with their facts', async () => {
    const core = makeCore();
    send(core, begin(100), relation(1), insert(1, 'a'), insert(1, 'b'), commit(100), begin(200), { type: 'origin', commitLsn: lsn(3), name: 'elsewhere' }, insert(1, 'c'), commit(200));
    expect(await drain(core)).toEqual([
      { xid: 100, commitLsn: 100n, endLsn: 108n, origin: undefined, gid: undefined, large: false, changes: ['insert t1 (a)', 'insert t1 (b)'] },
      { xid: 200, commitLsn: 200n, endLsn: 208n, origin: 'elsewhere', gid: undefined, large: false, changes: ['insert t1 (c)'] },
    ]);
    expect(core.receivedLsn).toBe(208n);
  });

  it('wait for their commit, and are batched up to the bytes and the number asked for', async () => {
    const core = makeCore();
    send(core, begin(100), relation(1), insert(1, 'a'));
    expect(core.waitingTransactions).toBe(0);
    send(core, commit(100), begin(200), insert(1, 'b'), commit(200), begin(300), insert(1, 'c'), commit(300));
    const two = await core.read({ maxBytes: 1 << 20, maxTransactions: 2 });
    expect(two).toMatchObject({ kind: 'transactions', changeCount: 2, more: true });
    const last = await core.read({ maxBytes: 1 });
    // Larger than asked for, so it comes in parts.
    expect(last.kind).toBe('large');
    expect((await describeBatch(last)).map((t) => t.changes)).toEqual([['insert t1 (c)']]);
  });

  it('that are known already, empty, or of an origin to leave out are skipped, but their positions count', async () => {
    const core = makeCore({ startLsn: lsn(150), leaveOut: (name) => name === 'loop' });
    send(core, begin(100), relation(1), insert(1, 'old'), commit(100), begin(200), commit(200), begin(300), { type: 'origin', commitLsn: lsn(1), name: 'loop' }, insert(1, 'x'), commit(300));
    expect(core.waitingTransactions).toBe(0);
    expect(core.confirmedLsn).toBe(308n);
    send(core, begin(400), insert(1, 'new'), commit(400));
    expect(await changesOf(core)).toEqual([['insert t1 (new)']]);
  });

  it('hold back what may be acknowledged until they are confirmed; keepalives count only where nothing is in flight', () => {
    const core = makeCore();
    sendKeepalive(core, 50);
    expect(core.confirmedLsn).toBe(50n);
    send(core, begin(100), relation(1), insert(1, 'a'), commit(100));
    sendKeepalive(core, 500);
    expect([core.receivedLsn, core.confirmedLsn]).toEqual([500n, 0n]);
    core.confirm(lsn(108));
    expect(core.confirmedLsn).toBe(500n);
    send(core, begin(600), insert(1, 'a'));
    sendKeepalive(core, 700);
    // Inside a transaction a keepalive says nothing about what came before its commit.
    expect(core.receivedLsn).toBe(500n);
  });

  it('see each table as it was described at their point, the same description being the same object', async () => {
    const core = makeCore();
    send(core, begin(100), relation(1), insert(1, 'a'), relation(1, ['id', 'more']), { type: 'insert', xid: undefined, relation: 1, newTuple: ['b', null] }, commit(100));
    send(core, begin(200), relation(1, ['id', 'more']), { type: 'insert', xid: undefined, relation: 1, newTuple: ['c', null] }, commit(200));
    const batch = await core.read({ maxBytes: 1 << 20 });
    const relations = (batch.kind === 'transactions' ? batch.transactions : []).flatMap((t) => [...t.changes()].map((c) => (c.type === 'insert' ? c.relation : undefined)));
    expect(relations.map((r) => r?.columns.length)).toEqual([1, 2, 2]);
    expect(relations[1]).toBe(relations[2]);
  });

  it('a change of a table that was never described is an error when read', async () => {
    const core = makeCore();
    send(core, begin(100), insert(77, 'a'), commit(100));
    await expect(drain(core)).rejects.toMatchObject({ code: 'protocol-violation' });
  });

  it.each<[string, Encodable[]]>([
    ['a change outside', [insert(1, 'a')]], ['a transaction inside another', [begin(1), begin(2)]], ['a commit alone', [commit(1)]], ['a stream block inside a transaction', [begin(1), streamStart(5, true)]],
    ['a begin inside a stream block', [streamStart(5, true), begin(1)]], ['the commit of an unknown stream', [streamCommit(4, 9)]], ['the end of a block alone', [streamStop]],
  ])('%s is refused', (_name, messages) => {
    expect(() => send(makeCore(), ...messages)).toThrow(expect.objectContaining({ code: 'protocol-violation' }));
  });
});

describe('a large transaction', () => {
  const rows = (from: number, count: number) => Array.from({ length: count }, (_, i) => insert(1, `row ${from + i}`));

  it('is read while it arrives', async () => {
    const core = makeCore({ largeBytes: 500 });
    send(core, begin(100), relation(1), ...rows(0, 20));
    const batch = await core.read({ maxBytes: 1 << 20 });
    expect(batch.kind).toBe('large');
    expect(core.inFlight).toBe(true);
    expect(() => (batch.kind === 'large' ? batch.transaction.endLsn : 0n)).toThrow(RangeError);
    const reading = describeBatch(batch);
    send(core, ...rows(20, 20));
    await new Promise((resolve) => setImmediate(resolve));
    send(core, ...rows(40, 1), commit(100), begin(200), insert(1, 'next'), commit(200));
    const [transaction] = await reading;
    expect(transaction!.changes).toEqual(Array.from({ length: 41 }, (_, i) => `insert t1 (row ${i})`));
    expect(transaction!.endLsn).toBe(108n);
    expect(await changesOf(core)).toEqual([['insert t1 (next)']]);
    expect(core.waitingBytes).toBe(0);
  });

  it('that has arrived whole before it is read comes like any other', async () => {
    const core = makeCore({ largeBytes: 500 });
    send(core, begin(100), relation(1), ...rows(0, 20));
    send(core, ...rows(20, 5), commit(100), begin(200), insert(1, 'next'), commit(200));
    const read = await drain(core);
    expect(read.map((t) => [t.large, t.changes.length])).toEqual([[false, 25], [false, 1]]);
    expect(core.waitingBytes).toBe(0);
  });

  it('is interrupted when the connection breaks, and comes again', async () => {
    const core = makeCore({ largeBytes: 500 });
    send(core, begin(100), relation(1), ...rows(0, 20));
    const reading = describeBatch(await core.read({ maxBytes: 1 << 20 }));
    core.reset();
    await expect(reading).rejects.toMatchObject({ code: 'transaction-interrupted', retry: 'backoff' });
    send(core, begin(100), relation(1), ...rows(0, 30), commit(100));
    expect((await changesOf(core)).map((c) => c.length)).toEqual([30]);
    expect(core.waitingBytes).toBe(0);
  });

  it('that nobody had begun to read is taken back silently', async () => {
    const core = makeCore({ largeBytes: 500 });
    send(core, begin(50), relation(1), insert(1, 'first'), commit(50), begin(100), ...rows(0, 20));
    core.reset();
    send(core, begin(50), relation(1), insert(1, 'first'), commit(50), begin(100), ...rows(0, 20), commit(100));
    expect((await changesOf(core)).map((c) => c.length)).toEqual([1, 20]);
    expect(core.waitingBytes).toBe(0);
  });

  it('gives back its memory when its reader stops half way, and when the log goes back', async () => {
    const core = makeCore({ largeBytes: 500, memoryBytes: 2000 });
    send(core, begin(100), relation(1), ...rows(0, 60));
    expect(core.full).toBe(true);
    const batch = await core.read({ maxBytes: 1 << 20 });
    if (batch.kind !== 'large') throw new Error('not large');
    for await (const part of batch.transaction.parts()) {
      expect(part.changeCount).toBe(60);
      break;
    }
    expect([core.full, core.waitingBytes]).toEqual([false, 0]);
    send(core, ...rows(60, 60));
    expect(core.waitingBytes).toBe(0);
    core.rewind();
    send(core, begin(100), relation(1), ...rows(0, 60), commit(100));
    expect((await changesOf(core)).map((c) => c.length)).toEqual([60]);
  });
});

describe('streamed transactions', () => {
  it('are held until their commit and come in commit order, without rolled-back subtransactions', async () => {
    const core = makeCore();
    send(core, streamStart(10, true), relation(1, ['id'], 10), insert(1, 'a', 10), insert(1, 'sub', 11), streamStop);
    send(core, streamStart(20, true), relation(1, ['id'], 20), insert(1, 'other', 20), streamStop);
    send(core, begin(50), relation(1), insert(1, 'plain'), commit(50));
    send(core, streamAbort(10, 11), streamStart(10, false), insert(1, 'b', 10), insert(1, 'sub 12', 12), streamStop, streamAbort(30, 30));
    send(core, streamCommit(20, 60), streamCommit(10, 70));
    expect((await drain(core)).map((t) => [t.xid, t.commitLsn, t.changes])).toEqual([
      [50, 50n, ['insert t1 (plain)']],
      [20, 60n, ['insert t1 (other)']],
      [10, 70n, ['insert t1 (a)', 'insert t1 (b)', 'insert t1 (sub 12)']],
    ]);
  });

  it('that are rolled back leave nothing', async () => {
    const core = makeCore();
    send(core, streamStart(10, true), relation(1, ['id'], 10), insert(1, 'a', 10), streamStop, streamAbort(10, 10));
    sendKeepalive(core, 99);
    expect([core.waitingTransactions, core.confirmedLsn]).toEqual([0, 99n]);
  });

  it('keep a description of a table that came in a rolled-back subtransaction, and tell it to others only after their commit', async () => {
    const core = makeCore();
    send(core, begin(40), relation(1), insert(1, 'x'), commit(40));
    send(core, streamStart(10, true), relation(1, ['id', 'added'], 11), { type: 'insert', xid: 11, relation: 1, newTuple: ['s', 's'] }, { type: 'insert', xid: 10, relation: 1, newTuple: ['a', 'a'] }, streamStop);
    send(core, streamAbort(10, 11), begin(50), insert(1, 'old form'), commit(50), streamCommit(10, 60));
    send(core, begin(70), { type: 'insert', xid: undefined, relation: 1, newTuple: ['new', 'form'] }, commit(70));
    const batch = await core.read({ maxBytes: 1 << 20 });
    const columns = (batch.kind === 'transactions' ? batch.transactions : []).map((t) => [...t.changes()].map((c) => (c.type === 'insert' ? c.relation.columns.length : 0)));
    expect(columns).toEqual([[1], [1], [2], [2]]);
  });

  it('come again after a reconnect, from their beginning', async () => {
    const core = makeCore();
    send(core, streamStart(10, true), relation(1, ['id'], 10), insert(1, 'a', 10), streamStop);
    core.reset();
    send(core, streamStart(10, true), relation(1, ['id'], 10), insert(1, 'a', 10), insert(1, 'b', 10), streamStop, streamCommit(10, 60));
    expect(await changesOf(core)).toEqual([['insert t1 (a)', 'insert t1 (b)']]);
  });

  it.each([false, true])('go to disk where they need more memory than allowed (prepared: %s)', async (prepared) => {
    const folder = join(spillFolder, `own-${prepared}`);
    const core = makeCore({ heldBytes: 20_000, spillFolder: folder });
    const value = (i: number) => `${'v'.repeat(500)} ${i}`;
    for (let i = 0; i < 300; i += 1) {
      send(core, streamStart(10, i === 0), ...(i === 0 ? [relation(1, ['id'], 10)] : []), insert(1, value(i), i % 3 === 0 ? 12 : 10), streamStop);
      send(core, streamStart(20, i === 0), ...(i === 0 ? [relation(1, ['id'], 20)] : []), insert(1, `small ${i}`, 20), streamStop);
    }
    send(core, streamAbort(10, 12), streamCommit(20, 50));
    if (prepared) send(core, { type: 'stream-prepare', flags: 0, ...prepareFields(10, 60) }, { type: 'commit-prepared', flags: 0, commitLsn: lsn(70), endLsn: lsn(78), commitTime: 1n, xid: 10, gid: 'g10' });
    else send(core, streamCommit(10, 70));
    const read = await drain(core, 10_000_000);
    expect(read.map((t) => [t.xid, t.large, t.changes.length])).toEqual([[20, expect.any(Boolean), 300], [10, true, 200]]);
    expect(read[1]!.gid).toBe(prepared ? 'g10' : undefined);
    expect(read[1]!.changes[0]).toBe('insert t1 (502 bytes)');
    expect(core.waitingBytes).toBe(0);
    // On POSIX the files have no name from the beginning.
    expect(existsSync(folder) && readdirSync(folder)).toEqual([]);
  });

  it('a folder that cannot be written is an error that says so', () => {
    const file = join(spillFolder, 'a-file');
    writeFileSync(file, '');
    const core = makeCore({ heldBytes: 10, spillFolder: join(file, 'below') });
    const frames = [streamStart(10, true), relation(1, ['id'], 10), insert(1, 'abcdefgh', 10), streamStop];
    expect(() => send(core, ...frames)).toThrow(expect.objectContaining({ code: 'spill-failed', hint: expect.stringContaining('Nothing is lost') as string }));
  });
});

describe('prepared transactions', () => {
  const prepare = (xid: number, at: number, ...inside: Encodable[]): Encodable[] => [{ type: 'begin-prepare', ...prepareFields(xid, at) }, ...inside, { type: 'prepare', flags: 0, ...prepareFields(xid, at) }];

  it('come at COMMIT PREPARED, and hold back what is acknowledged until then', async () => {
    const core = makeCore();
    send(core, ...prepare(10, 100, relation(1), insert(1, 'a')), ...prepare(11, 200, insert(1, 'b')), begin(300), insert(1, 'c'), commit(300));
    expect(core.heldBackLsn).toBe(100n);
    send(core, { type: 'commit-prepared', flags: 0, commitLsn: lsn(400), endLsn: lsn(408), commitTime: 1n, xid: 11, gid: 'g11' });
    expect((await drain(core)).map((t) => [t.gid, t.commitLsn, t.changes])).toEqual([[undefined, 300n, ['insert t1 (c)']], ['g11', 400n, ['insert t1 (b)']]]);
    core.confirm(lsn(308));
    send(core, {
      type: 'rollback-prepared', flags: 0, prepareEndLsn: lsn(108), rollbackEndLsn: lsn(508), prepareTime: 1n, rollbackTime: 1n, xid: 10, gid: 'g10',
    });
    // Its COMMIT PREPARED is not confirmed: were the server to begin after its PREPARE, the contents would be missing.
    expect([core.heldBackLsn, core.confirmedLsn]).toEqual([200n, 308n]);
    core.confirm(lsn(408));
    expect([core.heldBackLsn, core.confirmedLsn]).toEqual([undefined, 508n]);
  });

  it('outlive a reconnect, also where they are sent again', async () => {
    const core = makeCore();
    send(core, ...prepare(10, 100, relation(1), insert(1, 'a')));
    core.reset();
    send(core, ...prepare(10, 100, relation(1), insert(1, 'a')), { type: 'commit-prepared', flags: 0, commitLsn: lsn(400), endLsn: lsn(408), commitTime: 1n, xid: 10, gid: 'g10' });
    expect(await changesOf(core)).toEqual([['insert t1 (a)']]);
    core.confirm(lsn(408));
    expect(core.heldBackLsn).toBeUndefined();
  });

  it('whose contents never came are an error; where they were applied before, none', () => {
    const missing: Encodable = { type: 'commit-prepared', flags: 0, commitLsn: lsn(400), endLsn: lsn(408), commitTime: 1n, xid: 10, gid: 'g10' };
    expect(() => send(makeCore(), missing)).toThrow(expect.objectContaining({ code: 'prepared-transaction-missing' }));
    expect(() => send(makeCore({ startLsn: lsn(408) }), missing)).not.toThrow();
  });
});

describe('waiting', () => {
  it('for a position ends when it is confirmed, aborted, or the log fails', async () => {
    let asked = 0;
    const core = makeCore({ ask: () => { asked += 1; } });
    const reached = core.waitUntilConfirmed(lsn(100), undefined);
    const abort = new AbortController();
    const aborted = core.waitUntilConfirmed(lsn(900), abort.signal);
    const failed = core.waitUntilConfirmed(lsn(900), undefined);
    expect(asked).toBeGreaterThan(0);
    sendKeepalive(core, 100);
    await reached;
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'interrupted' });
    core.fail(new Error('lost'));
    await expect(failed).rejects.toThrow('lost');
    await expect(core.read({ maxBytes: 1 })).rejects.toThrow('lost');
  });

  it('for a position behind the header of a WAL page ends at the page', async () => {
    const core = makeCore();
    const reached = [core.waitUntilConfirmed(lsn(8192 + 24), undefined), core.waitUntilConfirmed(lsn(8192 + 40), undefined)];
    sendKeepalive(core, 8192);
    expect(await Promise.all(reached)).toHaveLength(2);
    core.close();
  });

  it('for a transaction ends with the signal and with close', async () => {
    const core = makeCore();
    const abort = new AbortController();
    const aborted = core.read({ maxBytes: 1, signal: abort.signal });
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'interrupted' });
    const closed = core.read({ maxBytes: 1 });
    core.close();
    await expect(closed).rejects.toMatchObject({ code: 'interrupted' });
  });

  it('says when there is room again', async () => {
    let rooms = 0;
    const core = makeCore({ memoryBytes: 300, onRoom: () => { rooms += 1; } });
    send(core, begin(100), relation(1), ...Array.from({ length: 10 }, (_, i) => insert(1, String(i))), commit(100));
    expect([core.full, rooms]).toEqual([true, 0]);
    await drain(core);
    expect([core.full, rooms]).toEqual([false, 1]);
  });
});

it('whatever the history, the cuts and the broken connections, the same transactions come out once', async () => {
  await fc.assert(fc.asyncProperty(fc.array(transactionPlan, { minLength: 1, maxLength: 8 }), fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 5 }), fc.option(fc.nat()), fc.constantFrom(60, 400, 1 << 20), async (plans, cuts, breakAt, largeBytes) => {
    const core = makeCore({ largeBytes, heldBytes: 300 });
    const feed = (frames: readonly Buffer[]) => {
      for (const chunk of chunks(frames, cuts)) core.accept(chunk, 0, chunk.length);
    };
    const whole = streamOf(plans, zeroLsn);
    if (breakAt === null) {
      feed(whole);
    } else {
      // The connection breaks somewhere; the server goes on from what was received in whole.
      feed(whole.slice(0, breakAt % whole.length));
      core.reset();
      feed(streamOf(plans, core.lastEnd < core.receivedLsn ? core.receivedLsn : core.lastEnd));
    }
    const read = await drain(core, 1 << 20);
    expect(read.map((t) => ({ xid: t.xid, endLsn: t.endLsn, changes: t.changes }))).toEqual(expectedOf(plans));
    expect([core.waitingBytes, core.open]).toEqual([0, false]);
  }), { numRuns: 300 });
});
