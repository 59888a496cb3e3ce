import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { describeBatch, type ReadTransaction } from '../../../test/support/change-log.ts';
import { chunks, expectedOf, streamOf, transactionPlan, type TransactionPlan } from '../../../test/support/stream-history.ts';
import { maxLsn, zeroLsn, type Lsn } from '../../pg/lsn.ts';
import { LogCore } from '../log-core.ts';
import { listSegments, recoverSegments, segmentPath } from './segments.ts';
import { SpoolFolder } from './spool-folder.ts';
import { SpoolLog, type SpoolLogOptions } from './spool-log.ts';

// In memory where there is such a folder: what counts here is the order of writes, not that they reach a disk.
const parent = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'pgweave-spool-'));
afterAll(() => rmSync(parent, { recursive: true, force: true }));
let counter = 0;
const newFolder = () => join(parent, `s${(counter += 1)}`);

/** A receiver that never connects: tests play its part and call the log themselves. */
class NoReceiver {
  rooms = 0;
  readonly connected = false;
  readonly systemId = undefined;
  readonly serverLsn = zeroLsn;
  start = () => Promise.resolve();
  room = () => {
    this.rooms += 1;
  };
  ask = () => undefined;
  close = () => Promise.resolve();
}

interface Opened {
  readonly log: SpoolLog;
  readonly receiver: NoReceiver;
  /** Stops everything without the tidying of a close, as a crash does. */
  crash(): Promise<void>;
}

async function open(path: string, options: Partial<SpoolLogOptions> & { readonly memoryBytes?: number; readonly largeBytes?: number } = {}): Promise<Opened> {
  const startLsn = options.startLsn ?? zeroLsn;
  const folder = SpoolFolder.open(path, 'slot');
  const receiver = new NoReceiver();
  const core: LogCore = new LogCore({ startLsn, memoryBytes: options.memoryBytes ?? 64 << 20, largeBytes: options.largeBytes ?? 4 << 20, heldBytes: 1 << 20, spillFolder: join(path, 'spill'), leaveOut: () => false, onRoom: () => log.coreRoom(), ask: () => undefined });
  const log: SpoolLog = new SpoolLog({ folder, recovered: recoverSegments(path), core, startLsn, segmentBytes: 1500, maxBytes: 1 << 30, whenFull: 'stop', keepaliveEveryMs: 0, emit: () => undefined, ...options });
  await log.start(receiver as unknown as Parameters<SpoolLog['start']>[0], () => undefined);
  return {
    log, receiver,
    async crash() {
      log.fail(new Error('crashed'));
      await log.close();
    },
  };
}

const feed = (log: SpoolLog, frames: readonly Buffer[], sizes: readonly number[]) => {
  for (const chunk of chunks(frames, sizes)) log.accept(chunk, 0, chunk.length);
};

async function settled(log: SpoolLog, lsn: Lsn): Promise<void> {
  const end = Date.now() + 30_000;
  while (log.durableLsn < lsn) {
    if (Date.now() > end) throw new Error('the spool does not sync');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

async function readAll(log: SpoolLog, count: number, confirm: boolean): Promise<ReadTransaction[]> {
  const out: ReadTransaction[] = [];
  while (out.length < count) {
    const batch = await log.read({ maxBytes: 600, maxTransactions: Math.min(3, count - out.length), signal: AbortSignal.timeout(20_000) });
    // A large transaction that breaks off with the connection is read again.
    const some = await describeBatch(batch).catch((error: unknown) => {
      if ((error as { code?: string }).code === 'transaction-interrupted') return [];
      throw error;
    });
    out.push(...some);
    for (const t of confirm ? some : []) log.confirm(t.endLsn);
  }
  return out;
}

const plain = (text: string): TransactionPlan => ({ kind: 'plain', rows: [{ table: 1, sub: 0, text }], abortedSubs: [], blocks: 1, keepaliveAfter: false });
const words = (read: readonly ReadTransaction[]) => read.map((t) => ({ xid: t.xid, endLsn: t.endLsn, changes: t.changes }));

describe('a spool', () => {
  it('gives a reader that keeps up what arrives at once, and acknowledges only what is on disk', async () => {
    const { log } = await open(newFolder());
    log.connected();
    const frames = streamOf([plain('a'), plain('b')], zeroLsn);
    feed(log, frames, [2]);
    expect(log.durableLsn).toBe(0n);
    expect(words(await readAll(log, 2, false))).toEqual(expectedOf([plain('a'), plain('b')]));
    await settled(log, 208n as Lsn);
    expect([log.durableLsn, log.receivedLsn, log.position().confirmedLsn]).toEqual([208n, 208n, 0n]);
    log.confirm(208n as Lsn);
    expect(log.position()).toMatchObject({ confirmedLsn: 208n, spoolBytes: expect.any(Number) as number });
    await log.close();
  });

  it('serves a reader that is far behind from disk, in bounded memory', async () => {
    const { log } = await open(newFolder(), { memoryBytes: 2000, segmentBytes: 20_000 });
    log.connected();
    const plans = Array.from({ length: 2000 }, (_, i) => plain(String(i)));
    feed(log, streamOf(plans, zeroLsn), [7]);
    expect(log.caughtUp).toBe(false);
    expect(log.position().waitingBytes).toBeLessThan(5000);
    await settled(log, 200_008n as Lsn);
    expect(words(await readAll(log, 2000, true))).toEqual(expectedOf(plans));
    expect(log.position().spoolBytes).toBeLessThan(25_000);
    await log.close();
  });

  it('is empty after a close when everything was applied, and kept otherwise', async () => {
    const path = newFolder();
    const first = await open(path);
    first.log.connected();
    feed(first.log, streamOf([plain('a'), plain('b')], zeroLsn), [3]);
    await readAll(first.log, 1, true);
    await first.log.close();
    expect(listSegments(path).length).toBeGreaterThan(0);
    const second = await open(path, { startLsn: 108n as Lsn });
    expect(words(await readAll(second.log, 1, true))).toEqual(expectedOf([plain('a'), plain('b')]).slice(1));
    await second.log.close();
    expect(readdirSync(path).sort()).toEqual(['spool.json']);
  });

  it('goes back to what was not confirmed', async () => {
    const { log } = await open(newFolder(), { segmentBytes: 400 });
    log.connected();
    const plans = Array.from({ length: 30 }, (_, i) => plain(String(i)));
    feed(log, streamOf(plans, zeroLsn), [5]);
    const read = await readAll(log, 20, false);
    log.confirm(read[9]!.endLsn);
    await log.rewind();
    await log.rewind();
    expect(words(await readAll(log, 20, true))).toEqual(expectedOf(plans).slice(10));
    feed(log, streamOf([...plans, plain('more')], 3008n as Lsn), [2]);
    expect((await readAll(log, 1, true))[0]!.changes).toEqual(['insert t1 (more)']);
    await log.close();
  });

  it('stops at its limit with an error that says what to do; the next run drains it before it receives more', async () => {
    const path = newFolder();
    const { log } = await open(path, { maxBytes: 4000, segmentBytes: 500 });
    log.connected();
    const plans = Array.from({ length: 100 }, (_, i) => plain(String(i)));
    expect(() => feed(log, streamOf(plans, zeroLsn), [4])).toThrow(expect.objectContaining({ code: 'spool-full', hint: expect.stringContaining('--spool-limit') as string }));
    await expect(log.read({ maxBytes: 1000 })).rejects.toMatchObject({ code: 'spool-full' });
    await log.close();
    const next = await open(path, { maxBytes: 4000, segmentBytes: 500 });
    expect(next.log.full).toBe(true);
    const whole = expectedOf(plans).filter((t) => t.endLsn <= next.log.startLsn);
    expect(whole.length).toBeGreaterThan(5);
    expect(words(await readAll(next.log, whole.length, true))).toEqual(whole);
    expect([next.log.full, next.receiver.rooms]).toEqual([false, 1]);
    await next.log.close();
  });

  it('waits at its limit where that is asked for', async () => {
    const { log, receiver } = await open(newFolder(), { maxBytes: 4000, segmentBytes: 500, whenFull: 'wait' });
    log.connected();
    const plans = Array.from({ length: 30 }, (_, i) => plain(String(i)));
    feed(log, streamOf(plans, zeroLsn), [4]);
    expect(log.full).toBe(true);
    await settled(log, 3008n as Lsn);
    expect(words(await readAll(log, 30, true))).toEqual(expectedOf(plans));
    expect([log.full, receiver.rooms]).toEqual([false, 1]);
    await log.close();
  });

  it('belongs to one slot, and to one process at a time', async () => {
    const path = newFolder();
    const { log } = await open(path);
    expect(() => SpoolFolder.open(path, 'slot')).toThrow(expect.objectContaining({ code: 'spool-in-use' }));
    await log.close();
    expect(() => SpoolFolder.open(path, 'another')).toThrow(expect.objectContaining({ code: 'spool-of-another-job', exitCode: 2 }));
    // The lock of a process that is gone, or of another that got its id, does not count.
    for (const stale of ['{', JSON.stringify({ host: 'elsewhere', pid: 1, started: '1' }), JSON.stringify({ host: (await import('node:os')).hostname(), pid: process.pid, started: '1' })]) {
      writeFileSync(join(path, 'lock'), stale);
      SpoolFolder.open(path, 'slot').close();
    }
    expect(existsSync(join(path, 'lock'))).toBe(false);
  });

  it('whose folder is a file says so', () => {
    const path = newFolder();
    writeFileSync(path, '');
    expect(() => SpoolFolder.open(path, 'slot')).toThrow(expect.objectContaining({ code: 'spool-failed' }));
  });

  it('that cannot be written any more fails, and acknowledges nothing from then on', async () => {
    const path = newFolder();
    const { log } = await open(path, { segmentBytes: 400 });
    log.connected();
    feed(log, streamOf([plain('a')], zeroLsn), [9]);
    await settled(log, 108n as Lsn);
    const reading = readAll(log, 100, false);
    rmSync(path, { recursive: true });
    feed(log, streamOf(Array.from({ length: 10 }, (_, i) => plain(String(i))), 108n as Lsn), [1]);
    await expect(reading).rejects.toMatchObject({ code: 'spool-failed' });
    expect(log.durableLsn).toBeLessThan(1008n);
    await log.close();
  });
});

describe('a damaged spool', () => {
  const plans = Array.from({ length: 40 }, (_, i) => plain(`row ${i}`));

  async function written(path: string): Promise<number[]> {
    const opened = await open(path, { segmentBytes: 900 });
    opened.log.connected();
    feed(opened.log, streamOf(plans, zeroLsn), [6]);
    await settled(opened.log, 4008n as Lsn);
    await opened.crash();
    return listSegments(path).map((s) => s.number);
  }

  it('is refused where a byte in the middle is not what was written', async () => {
    const path = newFolder();
    const segments = await written(path);
    const file = segmentPath(path, segments[1]!);
    const bytes = readFileSync(file);
    bytes[bytes.length >> 1]! ^= 0x40;
    writeFileSync(file, bytes);
    const { log } = await open(path);
    await expect(readAll(log, 40, true)).rejects.toMatchObject({ code: 'spool-damaged', details: { path: file } });
    await log.close();
  });

  it('is refused where a segment in the middle is cut', async () => {
    const path = newFolder();
    const segments = await written(path);
    truncateSync(segmentPath(path, segments[1]!), 700);
    const { log } = await open(path);
    await expect(readAll(log, 40, true)).rejects.toMatchObject({ code: 'spool-damaged' });
    await log.close();
  });

  it('loses a torn end, wherever it is torn, and goes on behind it', async () => {
    const path = newFolder();
    const segments = await written(path);
    const last = segmentPath(path, segments.at(-1)!);
    const whole = readFileSync(last);
    for (let size = whole.length; size >= 0; size -= size > 60 ? 17 : 1) {
      for (const number of listSegments(path).map((s) => s.number)) if (number > segments.at(-1)!) rmSync(segmentPath(path, number));
      writeFileSync(last, whole.subarray(0, size));
      if (size % 2 === 1) appendFileSync(last, Buffer.from([0x46, 0, 0, 0, 99, 1, 2, 3, 4, 5, 6]));
      const recovered = recoverSegments(path);
      const opened = await open(path);
      const { log } = opened;
      expect(log.startLsn).toBe(recovered.ackLsn);
      log.connected();
      feed(log, streamOf(plans, log.startLsn), [3]);
      expect(words(await readAll(log, 40, false))).toEqual(expectedOf(plans));
      await settled(log, 4008n as Lsn);
      expect(existsSync(last) ? statSync(last).size : 0).toBe(recovered.segments.find((s) => s.number === segments.at(-1))?.bytes ?? 0);
      await opened.crash();
    }
  }, 60_000);
});

it('whatever the history, crashes, cuts and confirmations, the same transactions come out, none twice after it was confirmed', async () => {
  await fc.assert(fc.asyncProperty(
    fc.array(transactionPlan, { minLength: 1, maxLength: 14 }), fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }), fc.array(fc.record({ at: fc.nat(), tear: fc.nat(), read: fc.nat({ max: 6 }), crash: fc.boolean() }), { maxLength: 4 }),
    fc.constantFrom(150, 400, 1500), fc.constantFrom(60, 400, 1 << 20), fc.constantFrom(300, 1 << 20),
    async (plans, sizes, breaks, segmentBytes, largeBytes, memoryBytes) => {
      const path = newFolder();
      const options = { segmentBytes, largeBytes, memoryBytes };
      const expected = expectedOf(plans);
      let applied: ReadTransaction[] = [];
      let progress = zeroLsn;
      let acknowledged = zeroLsn;
      let opened = await open(path, { ...options, startLsn: progress });
      const read = async (count: number) => {
        // Only what was received in whole can be waited for.
        const there = expected.filter((t) => t.endLsn <= opened.log.receivedLsn && t.endLsn > progress).length;
        const some = await readAll(opened.log, Math.min(count, there), true);
        applied.push(...some);
        progress = maxLsn(progress, some.at(-1)?.endLsn ?? zeroLsn);
      };
      for (const one of breaks) {
        const { log } = opened;
        log.connected();
        const frames = streamOf(plans, log.startLsn);
        feed(log, frames.slice(0, one.at % (frames.length + 1)), sizes);
        await read(one.read);
        if (!one.crash) {
          log.disconnected();
          continue;
        }
        await opened.crash();
        acknowledged = maxLsn(acknowledged, log.durableLsn);
        // A torn end: bytes of a record that was not synced yet.
        const last = listSegments(path).at(-1);
        if (last && one.tear % 3 === 0) appendFileSync(segmentPath(path, last.number), Buffer.from([0x46, 0, 0, 4, 0, 7, 7, 7, 7]));
        opened = await open(path, { ...options, startLsn: progress });
        // What was acknowledged does not come again from the source.
        expect(opened.log.startLsn >= acknowledged).toBe(true);
      }
      opened.log.connected();
      feed(opened.log, streamOf(plans, opened.log.startLsn), sizes);
      await read(expected.length);
      expect(words(applied)).toEqual(expected);
      await opened.log.close();
      applied = [];
    },
  ), { numRuns: 100 });
}, 120_000);
