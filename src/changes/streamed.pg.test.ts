import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { confirmedFlushLsn, currentLsn, makeSlot, mark, readToMark, readUntil, receiveFrom } from '../../test/support/change-log.ts';
import { createDatabase, embeddedVersions, privateServer, sharedServer, waitFor, type Cluster } from '../../test/support/servers.ts';
import { livenessFor } from './liveness.ts';

/** Makes the server stream a transaction after few rows. */
const streaming = { decodingMemory: '64kB', largeBytes: 256 * 1024, heldBytes: 64 * 1024 } as const;

describe.each(embeddedVersions)('transactions in progress, streamed by PostgreSQL %i', (version) => {
  it.each(version >= 16 ? (['on', 'parallel'] as const) : (['on'] as const))('come whole, in commit order, without what was rolled back (streaming = %s)', async (mode) => {
    await using database = await createDatabase(await sharedServer(version), 'st');
    await database.run(`create table big (id int primary key, filler text); create table small (id int primary key)`);
    const { lsn } = await makeSlot(database);
    await using log = await receiveFrom(database, { startLsn: lsn, streaming: mode, ...streaming });
    await using a = await database.session();
    await using b = await database.session();
    const fill = (from: number, count: number) => `insert into big select i, repeat('x', 200) from generate_series(${from}, ${from + count - 1}) i`;
    await a.query(`begin; ${fill(1, 2000)}`);
    await b.query(`insert into small values (1)`);
    await a.query(`savepoint one; ${fill(10_001, 2000)}; rollback to one; savepoint two; ${fill(20_001, 2000)}; savepoint three; ${fill(30_001, 2000)}; release three; rollback to two`);
    await b.query(`begin; ${fill(40_001, 2000)}; rollback`);
    await a.query(`update big set filler = 'changed' where id <= 10; commit`);
    await b.query(mark('end'));
    const read = await readToMark(log, 'end');
    const wanted = read.filter((t) => t.changes.length > 0);
    expect(wanted.map((t) => t.changes.length)).toEqual([1, 2010, 1]);
    expect(wanted[1]!.changes.slice(0, 2000)).toEqual(Array.from({ length: 2000 }, (_, i) => `insert big (${i + 1},200 bytes)`));
    expect(wanted[1]!.changes.slice(2000)).toEqual(Array.from({ length: 10 }, (_, i) => `update big -> (${i + 1},changed)`));
    // It was streamed in truth: the server counts it (view pg_stat_replication_slots, 14 and newer).
    const [stats] = await waitFor('the slot\'s counters', async () => {
      const rows = await database.query<{ stream_txns: bigint }>('select stream_txns from pg_catalog.pg_stat_replication_slots where slot_name = $1', [database.name]);
      return (rows[0]?.stream_txns ?? 0n) > 0n && rows;
    });
    expect(stats!.stream_txns).toBeGreaterThan(0n);
    expect(log.position().waitingBytes).toBe(0);
  });

  it('come whole where the table changes inside of them', async () => {
    await using database = await createDatabase(await sharedServer(version), 'st');
    await database.run('create table big (id int primary key, filler text)');
    const { lsn } = await makeSlot(database);
    await using log = await receiveFrom(database, { startLsn: lsn, streaming: 'on', ...streaming });
    await using s = await database.session();
    await s.query(`begin; insert into big select i, repeat('x', 200) from generate_series(1, 1000) i; savepoint a; alter table big add column gone int; insert into big select i, 'g', 1 from generate_series(5001, 5010) i;
      rollback to a; alter table big add column more int default 7; insert into big select i, repeat('y', 200) from generate_series(1001, 2000) i; commit`);
    await s.query(mark('end'));
    const read = (await readToMark(log, 'end')).filter((t) => t.changes.length > 0);
    expect(read.map((t) => t.changes.length)).toEqual([2000, 1]);
    expect(read[0]!.changes[999]).toBe('insert big (1000,200 bytes)');
    expect(read[0]!.changes[1000]).toBe('insert big (1001,200 bytes,7)');
  });

  it('that are large and committed are read while they arrive, within the memory allowed', async () => {
    await using database = await createDatabase(await sharedServer(version), 'st');
    await database.run('create table big (id int primary key, filler text)');
    const { lsn } = await makeSlot(database);
    await database.run(`insert into big select i, repeat('x', 1000) from generate_series(1, 20000) i`);
    await database.run(mark('end'));
    await using log = await receiveFrom(database, { startLsn: lsn, largeBytes: 256 * 1024, memoryBytes: 2 * 1024 * 1024 });
    await waitFor('backpressure', () => log.full);
    // One read of the socket may go over the limit, not more.
    expect(log.position().waitingBytes).toBeLessThan(8 * 1024 * 1024);
    const read = await readToMark(log, 'end');
    expect(read.map((t) => [t.large, t.changes.length]).filter(([, n]) => n !== 0)).toEqual([[true, 20_000], [false, 1]]);
    expect(log.position().waitingBytes).toBe(0);
  });

  it('keep the origin they were replicated from, and are left out by it', async () => {
    const server = await sharedServer(version);
    await using database = await createDatabase(server, 'or');
    const origin = `origin_${database.name}`;
    await database.run('create table t (id int primary key)');
    const { lsn } = await makeSlot(database);
    await using s = await database.session();
    await s.query(`select pg_replication_origin_create('${origin}')`);
    await s.query(`select pg_replication_origin_session_setup('${origin}'); insert into t values (1)`);
    await s.query(`select pg_replication_origin_session_reset(); insert into t values (2)`);
    await s.query(mark('end'));
    {
      await using log = await receiveFrom(database, { startLsn: lsn });
      const read = (await readToMark(log, 'end', { confirm: false })).filter((t) => t.changes.length > 0);
      expect(read.map((t) => [t.origin, t.changes])).toEqual([[origin, ['insert t (1)']], [undefined, ['insert t (2)']], [undefined, ['message end']]]);
    }
    {
      await using log = await receiveFrom(database, { startLsn: lsn, origin: 'none', streaming: 'on' });
      const read = (await readToMark(log, 'end', { confirm: false })).filter((t) => t.changes.length > 0);
      expect(read.map((t) => t.changes)).toEqual([['insert t (2)'], ['message end']]);
    }
    await using log = await receiveFrom(database, { startLsn: lsn, leaveOutOrigin: (name) => name === origin });
    expect((await readToMark(log, 'end')).flatMap((t) => t.changes)).toEqual(['insert t (2)', 'message end']);
    await s.query(`select pg_replication_origin_drop('${origin}')`);
  });

  it('outlast wal_sender_timeout while the reader stands still', async () => {
    await using database = await createDatabase(await sharedServer(version), 'wt');
    await database.run('create table big (id int primary key, filler text)');
    const { lsn } = await makeSlot(database);
    await database.run(`insert into big select i, repeat('x', 1000) from generate_series(1, 20000) i`);
    await database.run(mark('end'));
    const timeout = 1500;
    await using log = await receiveFrom(database, { startLsn: lsn, memoryBytes: 1024 * 1024, largeBytes: 128 * 1024, walSenderTimeoutMs: timeout });
    await waitFor('backpressure', () => log.full);
    const pid = log.receiver.link!.backendPid;
    const began = performance.now();
    expect(livenessFor(timeout).statusEveryMs).toBeLessThan(timeout / 3);
    // The walsender is stuck in a write all the while, and must be heard of no less.
    await waitFor('three timeouts to pass', () => performance.now() - began > timeout * 3);
    const [walsender] = await database.query<{ pid: number }>('select active_pid as pid from pg_catalog.pg_replication_slots where slot_name = $1', [database.name]);
    expect(walsender?.pid).toBe(pid);
    expect((await readToMark(log, 'end')).map((t) => t.changes.length).filter((n) => n > 0)).toEqual([20_000, 1]);
    expect(log.receiver.link?.backendPid).toBe(pid);
  });
});

describe.each(embeddedVersions)('prepared transactions of PostgreSQL %i', (version) => {
  // A prepared transaction keeps everybody else on the server from making a slot: hence a server of its own.
  let server: Cluster;
  beforeAll(async () => {
    server = await privateServer(version);
  });
  afterAll(() => server.destroy());

  it.each(version >= 15 ? ['off', 'two-phase', 'two-phase streamed'] : ['off'])('come at COMMIT PREPARED (%s), also after a new connection', async (mode) => {
    await using database = await createDatabase(server, 'pp');
    await database.run('create table t (id int primary key, filler text)');
    const twoPhase = mode !== 'off';
    const { lsn } = await makeSlot(database, { twoPhase });
    const options = { twoPhase, ...(mode === 'two-phase streamed' ? { streaming: 'on' as const, ...streaming } : {}) };
    const name = (gid: string) => `${database.name}_${gid}`;
    const rows = mode === 'two-phase streamed' ? 2000 : 2;
    const fill = (from: number) => `insert into t select i, repeat('x', 200) from generate_series(${from}, ${from + rows - 1}) i`;
    await using s = await database.session();
    await s.query(`begin; ${fill(1)}; prepare transaction '${name('a')}'`);
    await s.query(`begin; ${fill(10_001)}; prepare transaction '${name('b')}'`);
    await s.query(`begin; ${fill(20_001)}; prepare transaction '${name('c')}'`);
    await s.query(`rollback prepared '${name('b')}'`);
    await s.query(`commit prepared '${name('a')}'`);
    await s.query('insert into t values (-1, null)');
    const first = await currentLsn(database);
    await s.query(mark('first'));
    const gid = (g: string) => (twoPhase ? name(g) : undefined);
    let progress = lsn;
    {
      await using log = await receiveFrom(database, { ...options, startLsn: lsn });
      const read = (await readToMark(log, 'first')).filter((t) => t.changes.length > 0);
      progress = read.at(-1)!.endLsn;
      expect(read.map((t) => [t.gid, t.changes.length, t.changes[0]])).toEqual([[gid('a'), rows, 'insert t (1,200 bytes)'], [undefined, 1, 'insert t (-1,null)'], [undefined, 1, 'message first']]);
      await log.waitUntilConfirmed(await currentLsn(database));
    }
    // What is prepared and undecided must come again: the slot has stayed before it.
    expect((await confirmedFlushLsn(database)) < first).toBe(twoPhase);
    await using log = await receiveFrom(database, { ...options, startLsn: progress });
    await s.query(`commit prepared '${name('c')}'`);
    const again = (await readUntil(log, (all) => all.some((t) => t.changes.includes('insert t (20001,200 bytes)')))).find((t) => t.changes[0] === 'insert t (20001,200 bytes)');
    expect([again?.gid, again?.changes.length]).toEqual([gid('c'), rows]);
  });
});
