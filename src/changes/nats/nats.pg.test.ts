import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { confirmedFlushLsn, currentLsn, makeSlot, mark, readToMark, readUntil, type ReadTransaction } from '../../../test/support/change-log.ts';
import { hasNats, NatsServer } from '../../../test/support/nats.ts';
import { createDatabase, sharedServer, waitFor, type TestDatabase } from '../../../test/support/servers.ts';
import { TcpProxy } from '../../../test/support/tcp-proxy.ts';
import { parseLsn, type Lsn } from '../../pg/lsn.ts';
import { connectNats, type NatsSpec } from './connection.ts';
import { logName } from './log-message.ts';
import { NatsLog, type NatsLogOptions } from './nats-log.ts';
import { ChangePublisher, type PublisherOptions } from './publisher.ts';
import { StreamStore } from './stream-store.ts';

const specOf = (server: NatsServer, more: Partial<NatsSpec> = {}): NatsSpec => ({ servers: [server.url], stream: 'changes', replicas: 1, maxBytes: 1024 ** 3, maxAgeMs: 86_400_000, ...more });

async function systemIdOf(database: TestDatabase): Promise<string> {
  return (await database.query<{ id: string }>('select system_identifier::text as id from pg_control_system()'))[0]!.id;
}

/** Publishes a database's slot; what it warns of is gathered. */
async function publish(database: TestDatabase, nats: NatsSpec, options: Partial<PublisherOptions> = {}): Promise<{ publisher: ChangePublisher; warnings: string[] } & AsyncDisposable> {
  const warnings: string[] = [];
  const publisher = await ChangePublisher.open({
    source: database.spec, slot: database.name, publications: [database.name], nats, systemId: await systemIdOf(database), slotLsn: await confirmedFlushLsn(database), healthEveryMs: 0, positionEveryMs: 100,
    emit: (event) => {
      if (event.type === 'warning') warnings.push(event.code);
    },
    ...options,
  });
  return { publisher, warnings, [Symbol.asyncDispose]: () => publisher.close() };
}

async function readerOf(database: TestDatabase, nats: NatsSpec, startLsn: Lsn | undefined, options: Partial<NatsLogOptions> = {}): Promise<NatsLog> {
  return NatsLog.open({ nats, log: logName(await systemIdOf(database), database.name, database.name), startLsn, ...options });
}

const idsOf = (all: readonly ReadTransaction[]) => all.flatMap((t) => t.changes.flatMap((c) => /^insert t \((\d+),/.exec(c)?.[1] ?? []).map(Number));
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe.skipIf(!hasNats())('the log on NATS JetStream', () => {
  it('gives each reader everything once and in order: large transactions, rows larger than a message, altered tables; from any position', async () => {
    await using server = await NatsServer.start();
    await using database = await createDatabase(await sharedServer(16), 'nats');
    await database.run('create table t (id int primary key, v text); create table u (id int primary key)');
    const { lsn } = await makeSlot(database, { publication: `create publication ${database.name} for table t, u` });
    const nats = specOf(server);
    await using _running = await publish(database, nats);
    await using early = await readerOf(database, nats, lsn);
    const writer = await database.session();
    for (let i = 1; i <= 50; i += 1) await writer.query(`insert into t values (${i}, 'v'); insert into u values (${i})`);
    await writer.query(mark('a'));
    const first = await readToMark(early, 'a');
    expect(idsOf(first)).toEqual(range(1, 50));
    const middle = first[24]!.endLsn;

    // 12 MB in one transaction; a row of 3 MB; a table that changes between and inside of transactions.
    await writer.query(`insert into t select i, repeat('x', 20000) from generate_series(1001, 1600) i`);
    await writer.query(`insert into t values (2000, repeat('y', 3000000))`);
    await writer.query(`begin; insert into t values (3000, 'a'); alter table t add column w int; insert into t values (3001, 'b', 7); truncate u; commit`);
    await writer.query('begin; create temp table nothing (i int); commit');
    await writer.query(`insert into t values (3002, 'c', 8)`);
    await writer.query(mark('b'));
    const wanted = [...range(1001, 1600), 2000, 3000, 3001, 3002];
    const second = await readToMark(early, 'b');
    expect(idsOf(second)).toEqual(wanted);
    expect(second.some((t) => t.large)).toBe(true);
    expect(second.flatMap((t) => t.changes).slice(-5, -1)).toEqual(['insert t (3000,a)', 'insert t (3001,b,7)', 'truncate u', 'insert t (3002,c,8)']);

    // From a position in the middle, as a target does that was away: in one reading, however large its messages are.
    const said: string[] = [];
    await using late = await readerOf(database, nats, middle, { emit: (event) => void (event.type === 'log' && said.push(event.message)) });
    const missed = await readToMark(late, 'b');
    expect(idsOf(missed)).toEqual([...range(26, 50), ...wanted]);
    expect(said).toEqual([]);
    // From inside of the second half, where the first message holds parts of a large one.
    await using later = await readerOf(database, nats, second.find((t) => t.large)!.endLsn);
    expect(idsOf(await readToMark(later, 'b'))).toEqual([2000, 3000, 3001, 3002]);

    // Going back gives what was not confirmed.
    await writer.query(`insert into t values (4000, 'd', 1); ${mark('c')}`);
    await readToMark(late, 'c', { confirm: false });
    await late.rewind();
    expect(idsOf(await readToMark(late, 'c'))).toEqual([4000]);

    // An idle source: the slot goes on, and readers know that they have everything.
    await writer.query('create table noise as select i from generate_series(1, 1000) i');
    const now = await currentLsn(database);
    expect(idsOf(await readToMark(early, 'c'))).toEqual([4000]);
    await early.waitUntilConfirmed(now, AbortSignal.timeout(60_000));
    await waitFor('the slot to pass what nobody wants', async () => (await confirmedFlushLsn(database)) >= now);
  });

  it('loses and repeats nothing where NATS is killed, and acknowledges nothing to the source meanwhile; a new publisher goes on', async () => {
    await using server = await NatsServer.start();
    await using database = await createDatabase(await sharedServer(17), 'nats');
    await database.run('create table t (id int primary key, v text)');
    const { lsn } = await makeSlot(database);
    const nats = specOf(server);
    const first = await publish(database, nats);
    await using reader = await readerOf(database, nats, lsn);
    const writer = await database.session();
    let written = 0;
    const write = async (count: number) => {
      for (let i = 0; i < count; i += 1) await writer.query(`insert into t values (${(written += 1)}, repeat('z', 2000))`);
    };
    const read = (to: number) => readUntil(reader, (all) => idsOf(all).at(-1) === to);
    await write(100);
    expect(idsOf(await read(100))).toEqual(range(1, 100));

    const writing = write(300);
    await server.stop('kill');
    await writing;
    // What was stored before it died is told to the source by and by.
    await waitFor('the source to know what is stored', async () => (await confirmedFlushLsn(database)) === first.publisher.position().publishedLsn);
    const before = await confirmedFlushLsn(database);
    await write(20);
    await waitFor('the silence to be told', () => first.warnings.includes('nats-silent'), 60_000);
    expect(await confirmedFlushLsn(database)).toBe(before);
    await server.resume();
    expect(idsOf(await read(420))).toEqual(range(101, 420));
    await waitFor('the slot to go on', async () => (await confirmedFlushLsn(database)) > before);

    // Twice more while a large transaction is under way.
    const large = writer.query(`insert into t select i, repeat('w', 20000) from generate_series(421, 1000) i`);
    await server.stop('kill');
    await server.resume();
    await large;
    expect(idsOf(await read(1000))).toEqual(range(421, 1000));
    written = 1000;

    // Another publisher goes on where the stream ends, not where the slot stands.
    await first.publisher.close();
    await write(10);
    await using second = await publish(database, nats);
    await write(10);
    expect(idsOf(await read(1020))).toEqual(range(1001, 1020));
    expect(second.warnings).toEqual([]);
    expect(second.publisher.failure).toBeUndefined();
  });

  it('loses nothing where a publisher ends between two messages of what had gathered while there was none', async () => {
    await using server = await NatsServer.start();
    await using proxy = await TcpProxy.start(server.port);
    await using database = await createDatabase(await sharedServer(16), 'nats');
    await database.run('create table t (id int primary key, v text)');
    const { lsn } = await makeSlot(database);
    // Two of them are more than a message takes.
    const writer = await database.session();
    for (let i = 1; i <= 20; i += 1) await writer.query(`insert into t values (${i}, repeat(md5('${i}'), 9375))`);
    const first = await publish(database, specOf(server, { servers: [`nats://127.0.0.1:${proxy.port}`] }));
    proxy.refuse(true);
    proxy.cutNext(1_500_000);
    await waitFor('the publisher to lose NATS', () => proxy.cuts === 1);
    await first.publisher.close();
    await using _second = await publish(database, specOf(server));
    await using reader = await readerOf(database, specOf(server), lsn);
    expect(idsOf(await readUntil(reader, (all) => idsOf(all).at(-1) === 20))).toEqual(range(1, 20));
  });

  it('tells a reader that is too far behind that it must begin anew, and never skips', async () => {
    await using server = await NatsServer.start();
    await using database = await createDatabase(await sharedServer(15), 'nats');
    await database.run('create table t (id int primary key, v text)');
    const { lsn } = await makeSlot(database);
    // 3 MB: the oldest messages go.
    const nats = specOf(server, { maxBytes: 3 * 1024 ** 2 });
    // Acknowledges transactions alone, whose messages the reader has read when it has the rows.
    const first = await publish(database, nats, { positionEveryMs: 3_600_000 });
    await using reader = await readerOf(database, nats, lsn);
    await using sleeper = await readerOf(database, nats, lsn, { memoryBytes: 10_000 });
    const writer = await database.session();
    for (let i = 1; i <= 300; i += 1) {
      await writer.query(`insert into t values (${i}, repeat(md5('${i}'), 1250))`);
      if (i % 20 > 0) continue;
      await waitFor('the reader to keep up', () => reader.position().waitingTransactions === i);
    }
    const all = await readUntil(reader, (seen) => idsOf(seen).at(-1) === 300);
    expect(idsOf(all)).toEqual(range(1, 300));
    // A new one at that position, and one that read slowly.
    await expect(readerOf(database, nats, lsn)).rejects.toMatchObject({ code: 'resync-needed', hint: expect.stringContaining('copied anew') as string });
    const slow: ReadTransaction[] = [];
    await expect((async () => {
      for (;;) slow.push(...(await readUntil(sleeper, (seen) => seen.length > 0, { maxBytes: 1 })));
    })()).rejects.toMatchObject({ code: 'resync-needed' });
    expect(idsOf(slow)).toEqual(range(1, slow.length));
    expect(slow.length).toBeLessThan(300);
    // Who has everything goes on, also after a while away.
    const end = all.at(-1)!.endLsn;
    await writer.query(`insert into t values (301, 'x')`);
    await using again = await readerOf(database, nats, end);
    expect(idsOf(await readUntil(again, (seen) => seen.length > 0))).toEqual([301]);

    // NATS lost everything: the log has a gap from here on, told to whoever it concerns.
    expect(idsOf(await readUntil(reader, (seen) => idsOf(seen).at(-1) === 301))).toEqual([301]);
    await waitFor('the slot to be acknowledged', async () => (await confirmedFlushLsn(database)) >= first.publisher.position().publishedLsn && first.publisher.position().waitingBytes === 0);
    await server.stop('kill');
    server.wipe();
    await server.resume();
    await writer.query(`insert into t values (302, 'x')`);
    expect(await first.publisher.ended).toMatchObject({ code: 'log-missing' });
    await first.publisher.close();
    await using second = await publish(database, nats);
    expect(idsOf(await readUntil(reader, (seen) => idsOf(seen).at(-1) === 302))).toEqual([302]);
    await expect(readerOf(database, nats, lsn)).rejects.toMatchObject({ code: 'resync-needed' });
    expect(second.publisher.failure).toBeUndefined();
  });

  it('refuses another source\'s stream, somebody else\'s stream, a wrong password, and a server without JetStream', async () => {
    await using server = await NatsServer.start(['--user', 'weaver', '--pass', 'right-password']);
    await using database = await createDatabase(await sharedServer(16), 'nats');
    await using other = await createDatabase(await sharedServer(16), 'other');
    for (const one of [database, other]) {
      await one.run('create table t (id int primary key, v text)');
      await makeSlot(one);
    }
    const nats = specOf(server, { user: 'weaver', password: 'right-password' });
    await expect(publish(database, { ...nats, password: 'wrong-password' })).rejects.toMatchObject({ code: 'nats-unreachable', message: expect.not.stringContaining('wrong-password') as string });
    await using running = await publish(database, nats);
    await waitFor('the first message', async () => (await readerOf(database, nats, undefined).then((r) => r.close().then(() => true), () => false)));
    await expect(publish(other, nats)).rejects.toMatchObject({ code: 'log-of-another-source' });
    await expect(readerOf(other, nats, parseLsn('0/1'))).rejects.toMatchObject({ code: 'log-of-another-source' });
    await expect(readerOf(database, { ...nats, stream: 'no_such' }, undefined)).rejects.toMatchObject({ code: 'log-missing' });
    const connection = await connectNats(nats, 'test');
    const { jetstreamManager } = await import('@nats-io/jetstream');
    await (await jetstreamManager(connection)).streams.add({ name: 'theirs', subjects: ['orders.*'] });
    await expect(publish(database, { ...nats, stream: 'theirs' })).rejects.toMatchObject({ code: 'stream-not-ours' });
    // A second writer is noticed by the number of its message, before anything is acknowledged.
    const store = await StreamStore.open(connection, nats);
    await store.client.publish(store.subject, new Uint8Array(3), { msgID: 'mine' });
    await database.run(`insert into t values (1, 'x')`);
    expect(await running.publisher.ended).toMatchObject({ code: 'log-shared' });
    await connection.close();
  });

  it('is reached over TLS, with a token, and not where the certificate is another\'s', async () => {
    const file = (name: string) => join(import.meta.dirname, '../../../test/support/tls', name);
    await using server = await NatsServer.start(['--tls', '--tlscert', file('server.crt'), '--tlskey', file('server.key'), '--auth', 'a-long-token']);
    const nats = specOf(server, { servers: [`tls://localhost:${server.port}`], token: 'a-long-token', tlsCaFile: file('ca.crt') });
    const connection = await connectNats(nats, 'test');
    expect(await (await StreamStore.open(connection, nats)).ensure()).toMatchObject({ lastSeq: 0 });
    await connection.close();
    await expect(connectNats({ ...nats, tlsCaFile: file('other-ca.crt') }, 'test')).rejects.toMatchObject({ code: 'nats-unreachable', hint: expect.any(String) as string });
    await expect(connectNats({ ...nats, token: 'another-token' }, 'test')).rejects.toMatchObject({ code: 'nats-unreachable', message: expect.not.stringContaining('another-token') as string });
    await expect(connectNats({ ...nats, tlsCaFile: file('no-such.crt') }, 'test')).rejects.toMatchObject({ code: 'nats-unreachable', message: expect.stringContaining('no-such.crt') as string });
  });
});
