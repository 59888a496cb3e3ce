import { describe, expect, it } from 'vitest';
import { confirmedFlushLsn, currentLsn, makeSlot, mark, readToMark, receiveFrom } from '../../test/support/change-log.ts';
import { createDatabase, embeddedVersions, sharedServer, waitFor } from '../../test/support/servers.ts';

describe.each(embeddedVersions)('changes received from PostgreSQL %i', (version) => {
  it('come as whole transactions in commit order, with the relation as it was', async () => {
    await using database = await createDatabase(await sharedServer(version), 'rx');
    await database.run(`
      create table t (id int primary key, a text, b text); alter table t alter a set storage external;
      create table f (x int, y text); alter table f replica identity full;
      create table "odd ""name" (id int primary key)`);
    const { lsn } = await makeSlot(database);
    await using log = await receiveFrom(database, { startLsn: lsn });
    await using a = await database.session();
    await using b = await database.session();
    await a.query('begin; insert into t values (1, repeat(\'x\', 100000), null)');
    await b.query(`insert into t values (2, 'two', '2')`);
    await a.query(`update t set b = 'changed' where id = 1; commit`);
    await a.query(`begin; update t set id = 20 where id = 2; delete from t where id = 1; insert into f values (1, 'one'), (1, 'one'); commit`);
    await a.query(`begin; delete from f where ctid = (select min(ctid) from f); update f set y = null; insert into "odd ""name" values (7); commit`);
    await a.query(`alter table t drop column b; alter table t add column c int default 5`);
    await a.query('insert into t values (3, \'three\')');
    await a.query('truncate t, f restart identity cascade');
    await a.query(`select pg_logical_emit_message(true, 'others', 'not ours'); select pg_logical_emit_message(false, 'pgweave', 'not transactional')`);
    await a.query(mark('end'));
    const read = await readToMark(log, 'end');
    expect(read.map((t) => t.changes).filter((c) => c.length > 0)).toEqual([
      ['insert t (2,two,2)'],
      ['insert t (1,100000 bytes,null)', 'update t -> (1,unchanged,changed)'],
      ['update t key (2,null,null) -> (20,two,2)', 'delete t key (1,null,null)', 'insert f (1,one)', 'insert f (1,one)'],
      ['delete f full (1,one)', 'update f full (1,one) -> (1,null)', 'insert odd "name (7)'],
      ['insert t (3,three,5)'],
      ['truncate t,f cascade restart'],
      ['message end'],
    ]);
    for (const [i, t] of read.entries()) {
      expect(t.endLsn).toBeGreaterThan(t.commitLsn);
      expect(t.commitLsn).toBeGreaterThanOrEqual(read[i - 1]?.endLsn ?? lsn);
      expect(t.origin).toBeUndefined();
    }
    await waitFor('the confirmed position at the server', async () => (await confirmedFlushLsn(database)) >= read.at(-1)!.endLsn);
  });

  it('are acknowledged only when confirmed, and come again otherwise', async () => {
    await using database = await createDatabase(await sharedServer(version), 'rx');
    await database.run('create table t (id int primary key)');
    const { lsn } = await makeSlot(database);
    const inserts = Array.from({ length: 20 }, (_, i) => `insert into t values (${i})`);
    {
      await using log = await receiveFrom(database, { startLsn: lsn });
      await using s = await database.session();
      for (const insert of inserts) await s.query(insert);
      await s.query(mark('end'));
      const read = await readToMark(log, 'end', { confirm: false });
      expect(read).toHaveLength(21);
      log.confirm(read[4]!.endLsn);
    }
    const confirmed = await confirmedFlushLsn(database);
    await using log = await receiveFrom(database, { startLsn: lsn });
    const again = await readToMark(log, 'end');
    expect(again.map((t) => t.changes[0])).toEqual([...inserts.slice(5).map((_, i) => `insert t (${i + 5})`), 'message end']);
    expect(again[0]!.commitLsn).toBeGreaterThanOrEqual(confirmed);
  });

  it('advance the slot where nothing concerns us', async () => {
    await using database = await createDatabase(await sharedServer(version), 'rx');
    await database.run('create table t (id int primary key); create table other (id int)');
    await makeSlot(database, { publication: `create publication ${database.name} for table t` });
    await using log = await receiveFrom(database);
    const before = await confirmedFlushLsn(database);
    await database.run('insert into other select generate_series(1, 1000)');
    const written = await currentLsn(database);
    await log.waitUntilConfirmed(written);
    expect(log.position().confirmedLsn).toBeGreaterThanOrEqual(written);
    await waitFor('the slot to advance', async () => (await confirmedFlushLsn(database)) >= written);
    expect(written).toBeGreaterThan(before);
  });
});
