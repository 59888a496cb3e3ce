import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { confirmedFlushLsn, currentLsn, describeBatch, makeSlot, mark, readToMark, readUntil, receiveFrom } from '../../test/support/change-log.ts';
import { createDatabase, embeddedVersions, privateServer, sharedServer, waitFor } from '../../test/support/servers.ts';
import { TcpProxy } from '../../test/support/tcp-proxy.ts';
import type { JobEvent } from '../core/events.ts';
import { armFailpoints } from '../core/failpoints.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import type { Lsn } from '../pg/lsn.ts';

const newest = embeddedVersions.at(-1)!;
const oldest = embeddedVersions[0]!;
const insertsOf = (read: readonly { changes: string[] }[]) => read.flatMap((t) => t.changes).filter((c) => c.startsWith('insert'));
const rows = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => `insert t (${from + i})`);

describe.each([oldest, newest])('a broken connection to PostgreSQL %i', (version) => {
  it('is made again wherever it is cut, and nothing is lost or comes twice', async () => {
    await using database = await createDatabase(await sharedServer(version), 'rc');
    await database.run('create table t (id int primary key)');
    const { lsn } = await makeSlot(database);
    await using proxy = await TcpProxy.start(database.spec.hosts[0]!.port);
    const events: JobEvent[] = [];
    await using log = await receiveFrom(database, { startLsn: lsn, source: parseConninfo(proxy.uri(database.uri)), emit: (e) => events.push(e), largeBytes: 8 * 1024 });
    await using writer = await database.session();
    // Cuts fall inside frames, inside transactions and, some, inside the connection's first exchange.
    const cuts = [10, 400, 2500, 9000, 700, 20_000];
    let written = 0;
    const insert = async (count: number) => {
      await writer.query(`insert into t select generate_series(${written + 1}, ${written + count})`);
      written += count;
    };
    const writing = (async () => {
      for (const cut of cuts) {
        await insert(3);
        proxy.dropAfter(cut);
        await insert(300);
        await waitFor('the cut', async () => {
          if (!proxy.armed) return true;
          await insert(20);
          return false;
        });
      }
      await writer.query(mark('end'));
    })();
    const read: string[] = [];
    for (let end = false; !end;) {
      const batch = await log.read({ maxBytes: 64 * 1024, signal: AbortSignal.timeout(100_000) });
      // A large transaction that breaks off is given up and read again, as the applier does.
      const some = await describeBatch(batch).catch((error: unknown) => {
        if ((error as { code: string }).code === 'transaction-interrupted') return [];
        throw error;
      });
      read.push(...some.flatMap((t) => t.changes));
      for (const t of some) log.confirm(t.endLsn);
      end = read.at(-1) === 'message end';
    }
    await writing;
    expect(read.filter((c) => c.startsWith('insert'))).toEqual(rows(1, written));
    expect(events.filter((e) => e.type === 'counter' && e.name === 'reconnects').length).toBeGreaterThanOrEqual(2);
  });

  it('that swallows everything is given up in time, although nothing is closed', async () => {
    await using database = await createDatabase(await sharedServer(version), 'rc');
    await database.run('create table t (id int primary key)');
    const { lsn } = await makeSlot(database);
    await using proxy = await TcpProxy.start(database.spec.hosts[0]!.port);
    await using log = await receiveFrom(database, { startLsn: lsn, source: parseConninfo(proxy.uri(database.uri)), walSenderTimeoutMs: 1000 });
    await database.run('insert into t values (1)');
    expect(insertsOf(await readUntil(log, (all) => insertsOf(all).length === 1))).toEqual(rows(1, 1));
    const before = proxy.connections;
    proxy.stall();
    await database.run('insert into t values (2)');
    await waitFor('the connection to be given up', () => !log.position().connected);
    proxy.resume();
    proxy.drop();
    expect(insertsOf(await readUntil(log, (all) => insertsOf(all).length === 1))).toEqual(rows(2, 2));
    expect(proxy.connections).toBeGreaterThan(before);
  });

  it('of a server that restarts and crashes is made again', async () => {
    await using server = await privateServer(version);
    await using database = await createDatabase(server, 'rs');
    await database.run('create table t (id int primary key)');
    const { lsn } = await makeSlot(database);
    await using log = await receiveFrom(database, { startLsn: lsn });
    await database.run('set synchronous_commit = on; insert into t select generate_series(1, 50)');
    expect(insertsOf(await readUntil(log, (all) => insertsOf(all).length >= 50))).toEqual(rows(1, 50));
    await server.restart('fast');
    await database.run('set synchronous_commit = on; insert into t select generate_series(51, 60)');
    expect(insertsOf(await readUntil(log, (all) => insertsOf(all).length >= 10))).toEqual(rows(51, 60));
    await server.kill();
    await waitFor('the loss to be noticed', () => !log.position().connected);
    await server.start();
    await database.run('set synchronous_commit = on; insert into t select generate_series(61, 70)');
    expect(insertsOf(await readUntil(log, (all) => insertsOf(all).length >= 10))).toEqual(rows(61, 70));
    await log.close();
  });
});

describe('a slot', () => {
  const server = () => sharedServer(newest);

  it('that somebody holds is waited for, and then its holder is named', async () => {
    await using database = await createDatabase(await server(), 'in_use');
    await makeSlot(database);
    const first = await receiveFrom(database, { job: 'first' });
    await expect(receiveFrom(database, { slotInUseMs: 500 })).rejects.toMatchObject({ code: 'slot-in-use', message: expect.stringMatching(/in use by "pgweave first replication", process \d+, role postgres/) as string });
    const waiting = receiveFrom(database, { slotInUseMs: 30_000 });
    await first.close();
    await using second = await waiting;
    expect(second.position().connected).toBe(true);
  });

  it.each([
    ['slot-missing', 'select 1'],
    ['slot-of-another-plugin', `select pg_create_logical_replication_slot(current_database()::name, 'test_decoding')`],
    ['slot-of-another-plugin', `select pg_create_physical_replication_slot(current_database()::name)`],
  ])('%s is refused', async (code, sql) => {
    await using database = await createDatabase(await server(), 'slot');
    await database.run(sql);
    await expect(receiveFrom(database)).rejects.toMatchObject({ code, hint: expect.any(String) as string });
    await database.run(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = current_database()`);
  });

  it('of another database is refused, as is another system behind the address', async () => {
    await using database = await createDatabase(await server(), 'a');
    await using other = await createDatabase(await server(), 'b');
    await makeSlot(database);
    await expect(receiveFrom(other, { slot: database.name })).rejects.toMatchObject({ code: 'slot-of-another-database' });
    await expect(receiveFrom(database, { systemId: '1' })).rejects.toMatchObject({ code: 'another-system' });
  });

  it('whose publication is missing says so', async () => {
    await using database = await createDatabase(await server(), 'pub');
    await database.run('create table t (id int)');
    await makeSlot(database);
    await database.run(`drop publication ${database.name}`);
    await database.run('insert into t values (1)');
    await expect(receiveFrom(database)).rejects.toMatchObject({ code: 'publication-missing' });
  });

  it('that is dropped while the connection is broken ends the log with a reason, never with a new slot', async () => {
    await using database = await createDatabase(await server(), 'dropped');
    await database.run('create table t (id int)');
    await makeSlot(database);
    await using proxy = await TcpProxy.start(database.spec.hosts[0]!.port);
    await using log = await receiveFrom(database, { source: parseConninfo(proxy.uri(database.uri)) });
    const reading = log.read({ maxBytes: 1000 });
    reading.catch(() => undefined);
    proxy.refuse(true);
    proxy.drop();
    await waitFor('the slot to be free', async () => (await database.query('select from pg_replication_slots where slot_name = $1 and not active', [database.name])).length === 1);
    await database.run(`select pg_drop_replication_slot('${database.name}')`);
    proxy.refuse(false);
    await expect(reading).rejects.toMatchObject({ code: 'slot-missing' });
    await expect(log.waitUntilConfirmed(await currentLsn(database))).rejects.toMatchObject({ code: 'slot-missing' });
  });

  it('that somebody else moved forward ends the log', async () => {
    await using database = await createDatabase(await server(), 'moved');
    await database.run('create table t (id int)');
    await makeSlot(database);
    await using proxy = await TcpProxy.start(database.spec.hosts[0]!.port);
    await using log = await receiveFrom(database, { source: parseConninfo(proxy.uri(database.uri)) });
    await log.waitUntilConfirmed(await currentLsn(database));
    const reading = log.read({ maxBytes: 1000 });
    reading.catch(() => undefined);
    proxy.refuse(true);
    proxy.drop();
    await waitFor('the slot to be free', async () => (await database.query('select from pg_replication_slots where slot_name = $1 and not active', [database.name])).length === 1);
    await database.run('set synchronous_commit = on; insert into t values (1)');
    await database.run(`select pg_replication_slot_advance('${database.name}', pg_current_wal_lsn())`);
    proxy.refuse(false);
    await expect(reading).rejects.toMatchObject({ code: 'slot-advanced' });
  });

  it('that runs out of WAL is warned about, then told as lost', async () => {
    await using small = await privateServer(newest, { settings: { max_slot_wal_keep_size: '64MB', min_wal_size: '32MB', max_wal_size: '48MB', wal_keep_size: '0' } });
    await using database = await createDatabase(small, 'wal');
    await database.run('create table t (id int, filler text)');
    await makeSlot(database);
    const events: JobEvent[] = [];
    await using log = await receiveFrom(database, { healthEveryMs: 50, emit: (e) => events.push(e), memoryBytes: 1024 * 1024, largeBytes: 128 * 1024 });
    await waitFor('the first report', () => events.find((e) => e.type === 'slot-health'));
    expect(events.find((e) => e.type === 'slot-health')).toMatchObject({ slot: database.name, walStatus: 'reserved', safeBytes: expect.any(Number) as number });
    // The reader stands still; WAL is written until the slot is lost. The checkpoint that ends it must not have to wait for us.
    const reading = log.waitUntilConfirmed(((await currentLsn(database)) + 1_000_000_000n) as Lsn);
    reading.catch(() => undefined);
    await using writer = await database.session();
    await waitFor('the slot to be lost', async () => {
      await writer.query(`insert into t select i, repeat('x', 1000) from generate_series(1, 8000) i`);
      await writer.query('checkpoint');
      return (await writer.query(`select from pg_replication_slots where wal_status = 'lost'`)).length === 1;
    });
    await expect(reading).rejects.toMatchObject({ code: 'slot-lost' });
    expect(events.filter((e) => e.type === 'warning').map((e) => e.code)).toEqual(expect.arrayContaining([expect.stringMatching(/^slot-(at-risk|urgent)$/) as string]));
  });

  it('whose reader stands still does not keep the source from shutting down', async () => {
    await using server_ = await privateServer(newest);
    await using database = await createDatabase(server_, 'stop');
    await database.run('create table t (id int primary key, filler text)');
    const { lsn } = await makeSlot(database);
    await database.run(`set synchronous_commit = on; insert into t select i, repeat('x', 1000) from generate_series(1, 20000) i`);
    await using log = await receiveFrom(database, { startLsn: lsn, healthEveryMs: 50, memoryBytes: 1024 * 1024, largeBytes: 128 * 1024 });
    await waitFor('backpressure', () => log.full);
    await server_.stop('fast');
    expect(readFileSync(server_.logFile, 'utf8')).toContain('database system is shut down');
    await server_.start();
    const read = await readUntil(log, (all) => insertsOf(all).length >= 20_000).catch((error: unknown) => error);
    // What had begun to arrive breaks off; read again it comes whole.
    const again = (read as { code?: string }).code === 'transaction-interrupted' ? await readUntil(log, (all) => insertsOf(all).length >= 20_000) : (read as Awaited<ReturnType<typeof readUntil>>);
    expect(insertsOf(again)).toHaveLength(20_000);
    await log.close();
  });
});

describe('the reader', () => {
  it('may go back to what it has not confirmed', async () => {
    await using database = await createDatabase(await sharedServer(newest), 'rw');
    await database.run('create table t (id int primary key, filler text)');
    const { lsn } = await makeSlot(database);
    await using log = await receiveFrom(database, { startLsn: lsn, largeBytes: 16 * 1024 });
    await using s = await database.session();
    for (let i = 1; i <= 5; i += 1) await s.query('insert into t values ($1)', [i]);
    await s.query(`insert into t select i, repeat('x', 100) from generate_series(1001, 4000) i`);
    await s.query(mark('end'));
    const first = await readUntil(log, (all) => insertsOf(all).length >= 5, { confirm: false, maxBytes: 500 });
    log.confirm(first[1]!.endLsn);
    await log.rewind();
    const batch = await log.read({ maxBytes: 1, maxTransactions: 1 });
    expect(batch.kind).toBe('large');
    // Once more, in the middle of a transaction that is read in parts.
    await log.rewind();
    const again = await readToMark(log, 'end');
    expect(insertsOf(again).slice(0, 3)).toEqual(['insert t (3,null)', 'insert t (4,null)', 'insert t (5,null)']);
    expect(insertsOf(again)).toHaveLength(3003);
    await waitFor('the slot', async () => (await confirmedFlushLsn(database)) >= again.at(-1)!.endLsn);
  });

  it.each(['receive.frames', 'receive.before-ack', 'receive.after-ack', 'receive.before-start'])('misses nothing when something fails at %s', async (point) => {
    await using database = await createDatabase(await sharedServer(newest), 'fp');
    await database.run('create table t (id int primary key)');
    const { lsn } = await makeSlot(database);
    await using log = await receiveFrom(database, { startLsn: lsn });
    await using s = await database.session();
    try {
      for (let i = 1; i <= 30; i += 1) {
        if (i % 10 === 5) {
          armFailpoints(`${point}=error`);
          if (point === 'receive.before-start') log.receiver.restart();
        }
        await s.query('insert into t values ($1)', [i]);
      }
      await s.query(mark('end'));
      expect(insertsOf(await readToMark(log, 'end'))).toEqual(rows(1, 30));
    } finally {
      armFailpoints('');
    }
  });
});
