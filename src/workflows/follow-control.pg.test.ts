import { describe, expect, it } from 'vitest';
import { makePair, type Pair } from '../../test/support/follow.ts';
import { privateServer, sharedServer, waitFor } from '../../test/support/servers.ts';
import { controlFollower, extendHold, requestControl, waitForAnswer } from '../changes/control.ts';
import { emitMarker, waitForMarker } from '../changes/sentinel.ts';
import { openSlotSnapshot } from '../copy/snapshot.ts';
import { formatLsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { follow } from './follow.ts';

async function equal(pair: Pair, ...tables: string[]): Promise<void> {
  for (const table of tables) {
    const { source, target } = await pair.rows(table);
    expect(target, table).toEqual(source);
    expect(source.length, table).toBeGreaterThan(0);
  }
}

describe('a follower', () => {
  it('has answered where it ends right after its answer, however late that is read', async () => {
    const server = await sharedServer(16);
    await using pair = await makePair(server, server, 'create table t (id int primary key)');
    await using target = await Session.open(pair.target.spec, { role: 'test' });
    const id = await requestControl(target, pair.job, { action: 'stop' });
    // The answer of one that has gone already, not committed yet: whoever waits finds the follower gone first.
    await using answering = await pair.target.session();
    await answering.query('begin');
    await answering.query(`update pgweave.control set status = 'done', answer = '{}' where id = $1`, [id]);
    const answer = waitForAnswer(target, pair.job, id, { timeoutMs: 60_000 }).then(() => 'answered', (error: unknown) => error);
    await waitFor('the missing follower to be noticed', async () => (await pair.target.query(`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like 'delete from pgweave.control%'`)).length > 0);
    await answering.query('commit');
    expect(await answer).toBe('answered');
    // Where there is no answer there is no follower.
    const unheard = await requestControl(target, pair.job, { action: 'stop' });
    await expect(waitForAnswer(target, pair.job, unheard, { timeoutMs: 60_000 })).rejects.toMatchObject({ code: 'no-follower' });
  });

  it('can be held exactly at one LSN under load, by a request in the target', async () => {
    const server = await sharedServer(16);
    await using pair = await makePair(server, server, 'create table t (id int primary key, v int)');
    const one = await pair.follow();
    let writing = true;
    const writer = (async () => {
      await using session = await pair.source.session();
      for (let i = 0; writing; i += 1) await session.query(`begin; insert into t values (${i}, 0); update t set v = v + 1 where id > ${i} - 10; commit`);
      return true;
    })();
    await using target = await Session.open(pair.target.spec, { role: 'test' });
    for (let round = 0; round < 3; round += 1) {
      const hold = await controlFollower(target, pair.job, { action: 'hold' });
      await using snapshot = await openSlotSnapshot(pair.source.spec, { job: pair.job, slot: `pgweave_${pair.job}_verify_${round}`, temporary: true });
      expect(snapshot.lsn! >= hold.appliedLsn!).toBe(true);
      await extendHold(target, hold.id, 60_000);
      const reached = await controlFollower(target, pair.job, { action: 'run-to', lsn: snapshot.lsn! });
      const there = await pair.target.query('select count(*)::int as n, sum(v)::int as s from t');
      const here = await snapshot.session.query('select count(*)::int as n, sum(v)::int as s from public.t');
      expect(there).toEqual(here);
      expect(formatLsn(reached.appliedLsn!)).not.toBe('0/0');
      await controlFollower(target, pair.job, { action: 'release' });
      await waitFor('applying to go on', async () => (await pair.target.query<{ n: number }>('select count(*)::int as n from t'))[0]!.n > (there[0] as { n: number }).n);
    }
    writing = false;
    await writer;
    await pair.caughtUp(one);
    await equal(pair, 't');
    // On an idle source too; and a hold whose requester has gone ends by itself.
    const hold = await controlFollower(target, pair.job, { action: 'hold', holdMs: 100 });
    expect(hold.appliedLsn).toBeDefined();
    await waitFor('the hold to end', () => one.events.some((e) => e.type === 'warning' && e.code === 'hold-expired'));
    await pair.write(one, 'insert into t values (-1, 0)');
    await controlFollower(target, pair.job, { action: 'hold' });
    await using idle = await openSlotSnapshot(pair.source.spec, { job: pair.job, slot: `pgweave_${pair.job}_verify_idle`, temporary: true });
    await controlFollower(target, pair.job, { action: 'run-to', lsn: idle.lsn! });
    await controlFollower(target, pair.job, { action: 'release' });
    // Markers, pause, resume, stop.
    await using source = await pair.source.session();
    const marker = await emitMarker(source, 'test:1');
    expect(await waitForMarker(target, pair.job, marker, 30_000)).toBeDefined();
    await controlFollower(target, pair.job, { action: 'pause' });
    await pair.source.run('insert into t values (-2, 0)');
    const answer = requestControl(target, pair.job, { action: 'resume' });
    await waitForAnswer(target, pair.job, await answer, { timeoutMs: 30_000 });
    await pair.caughtUp(one);
    await equal(pair, 't');
    await controlFollower(target, pair.job, { action: 'stop' });
    await one.done;
    await one.stop();
    await expect(controlFollower(target, pair.job, { action: 'hold' })).rejects.toMatchObject({ code: 'no-follower' });
  });

  it('has caught up only with what was committed and not yet flushed when it began', async () => {
    await using server = await privateServer(16, { settings: { synchronous_commit: 'off', wal_writer_delay: `'1s'` } });
    await using pair = await makePair(server, server, 'create table t (id int primary key)');
    await pair.source.run('insert into t values (1)');
    expect(await follow({ source: pair.source.spec, target: pair.target.spec, job: pair.job, untilCaughtUp: true })).toMatchObject({ caughtUp: true, rows: 1 });
  });

  it('refuses a second one, an unknown job, a missing slot, another plugin, a lost publication; ends when caught up', async () => {
    const server = await sharedServer(15);
    await using pair = await makePair(server, server, 'create table t (id int primary key)');
    await pair.source.run('insert into t select generate_series(1, 1000)');
    const ends = { source: pair.source.spec, target: pair.target.spec, job: pair.job };
    const result = await follow({ ...ends, untilCaughtUp: true });
    expect(result).toMatchObject({ caughtUp: true, rows: 1000, paused: [] });
    await equal(pair, 't');
    const one = await pair.follow();
    await expect(follow(ends)).rejects.toMatchObject({ code: 'another-follower', message: expect.stringMatching(/process \d+/) as string });
    await one.stop();
    await expect(follow({ ...ends, job: 'never_cloned' })).rejects.toMatchObject({ code: 'publication-missing' });
    await expect(follow({ ...ends, job: 'never_cloned', publications: [pair.slot], slot: pair.slot })).rejects.toMatchObject({ code: 'job-not-cloned', hint: expect.stringContaining('clone --follow') as string });
    await pair.source.run(`select pg_drop_replication_slot('${pair.slot}')`);
    await expect(follow(ends)).rejects.toMatchObject({ code: 'slot-missing' });
    await pair.source.run(`select pg_create_logical_replication_slot('${pair.slot}', 'test_decoding')`).catch(() => pair.source.run(`select pg_create_physical_replication_slot('${pair.slot}')`));
    await expect(follow(ends)).rejects.toMatchObject({ code: 'slot-of-another-plugin' });
    await pair.source.run(`drop publication ${pair.slot}`);
    await expect(follow(ends)).rejects.toMatchObject({ code: 'publication-missing' });
    const abort = new AbortController();
    abort.abort();
    await expect(follow({ ...ends, signal: abort.signal })).rejects.toMatchObject({ exitCode: 130 });
  });

  it('applies prepared transactions at their commit, and a huge one in bounded memory with a bad table set apart', async () => {
    const server = await sharedServer(15);
    await using pair = await makePair(server, server, 'create table t (id int primary key, v text); create table bad (id int primary key, v text); create table swap (id int primary key, u int unique)', { targetSchema: 'create table t (id int primary key, v text); create table bad (id int primary key, v text check (id < 5000)); create table swap (id int primary key, u int unique)' });
    const one = await pair.follow();
    await pair.write(one, `insert into swap select g, g from generate_series(1, 10) g`);
    await pair.write(one, `begin; insert into t values (-1, 'prepared'); prepare transaction '${pair.job}'`);
    expect((await pair.rows('t')).target).toEqual([]);
    await pair.write(one, `commit prepared '${pair.job}'`);
    await equal(pair, 't');
    await pair.write(one, `begin; insert into t select g, repeat('x', 200) from generate_series(1, 20000) g; insert into bad select g, 'y' from generate_series(1, 5005) g; update t set v = 'u' where id % 2 = 0; delete from t where id % 5 = 0; savepoint s; delete from t; rollback to s;
      update swap set u = -u; update swap set u = 11 + u; insert into t values (100000, 'last'); commit`);
    await pair.write(one, `insert into t values (100001, 'after'); insert into bad values (1000000, 'waits')`);
    await equal(pair, 't', 'swap');
    expect((await pair.rows('bad')).target).toEqual([]);
    expect(one.events.filter((e) => e.type === 'table-state' && e.state.name === 'paused')).toHaveLength(1);
    await one.stop();
  });

  it('streams in both directions at once without loops', async () => {
    const [left, right] = [await sharedServer(14), await sharedServer(16)];
    const schema = 'create table t (id int primary key, side text, v int)';
    await using there = await makePair(left, right, schema);
    // The way back: a slot on the target, states on the source.
    const slot = `pgweave_${there.job}_back`;
    await there.target.run(`create publication ${slot} for table t`);
    await there.target.run(`select pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
    const forth = await there.follow({ origin: 'none' });
    const back = follow({ source: there.target.spec, target: there.source.spec, job: `${there.job}_back`, origin: 'none', unknownTables: 'apply', signal: AbortSignal.any([]), untilCaughtUp: false });
    const stopped = back.catch((error: unknown) => error);
    try {
      await there.source.run(`insert into t select g, 'left', 0 from generate_series(1, 50) g`);
      await there.target.run(`insert into t select 1000 + g, 'right', 0 from generate_series(1, 50) g`);
      await waitFor('both sides to have all rows', async () => {
        const { source, target } = await there.rows('t');
        return source.length === 100 && target.length === 100;
      });
      await there.source.run(`update t set v = v + 1 where side = 'left'; delete from t where id = 1001`);
      await there.target.run(`update t set v = v + 1 where side = 'right'; delete from t where id = 1`);
      await waitFor('both sides to be equal', async () => {
        const { source, target } = await there.rows('t');
        return source.length === 98 && JSON.stringify(source) === JSON.stringify(target) && source.every((row) => row.endsWith(',1)'));
      });
    } finally {
      await using session = await Session.open(there.source.spec, { role: 'test' });
      await controlFollower(session, `${there.job}_back`, { action: 'stop' });
      expect(await stopped).toMatchObject({ paused: [] });
      await forth.stop();
      await waitFor('the origin to be free', () => there.source.run(`select pg_replication_origin_drop('${slot}')`).then(() => true, () => false));
    }
  });

  it('goes on through deadlocks, statement timeouts, ended backends and a restart of the target', async () => {
    await using to = await privateServer(15);
    const from = await sharedServer(17);
    await using pair = await makePair(from, to, 'create table t (id int primary key, v int)');
    const one = await pair.follow();
    await pair.write(one, 'insert into t select g, 0 from generate_series(1, 100) g');
    let writing = true;
    const writer = (async () => {
      await using session = await pair.source.session();
      for (let i = 0; writing; i += 1) {
        await session.query(`begin; update t set v = v + 1 where id in (${(i % 100) + 1}, ${((i * 7) % 100) + 1}); insert into t values (${1000 + i}, 0); commit`);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();
    const applying = `select pid from pg_stat_activity where application_name like 'pgweave ${pair.job} apply'`;
    // Cancelled, as by a statement timeout.
    for (let i = 0; i < 20; i += 1) await pair.target.run(`select pg_cancel_backend(pid) from (${applying}) a`);
    // Locked out for a while, and a deadlock.
    await pair.target.run(`begin; lock table t in access exclusive mode; select pg_sleep(0.3); commit`);
    for (let i = 0; i < 3; i += 1) {
      const before = await pair.target.query<{ n: number }>('select count(*)::int as n from t');
      await pair.target.run(`select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'pgweave ${pair.job}%'`);
      await waitFor('the stream to go on', async () => (await pair.target.query<{ n: number }>('select count(*)::int as n from t'))[0]!.n > before[0]!.n);
    }
    await to.restart('immediate');
    await waitFor('the stream to go on after the restart', async () => {
      const [row] = await pair.target.query<{ n: number }>('select count(*)::int as n from t');
      return row!.n > 150;
    });
    writing = false;
    await writer;
    await pair.caughtUp(one);
    await equal(pair, 't');
    expect(one.events.some((e) => e.type === 'counter' && e.name === 'reconnects')).toBe(true);
    await one.stop();
  });

  it('without the right to be a replica or to have an origin it keeps a progress row, in source order', async () => {
    const server = await sharedServer(15);
    await using pair = await makePair(server, server, 'create table parent (id int primary key); create table child (id int primary key, parent int references parent)');
    const role = `limited_${pair.job}`;
    await pair.target.run(`create role ${role} login; grant create, temporary on database "${pair.target.name}" to ${role}; alter schema pgweave owner to ${role}; grant all on all tables in schema public to ${role}; do $$ declare t text; begin for t in select tablename from pg_tables where schemaname = 'pgweave' loop execute 'alter table pgweave.' || t || ' owner to ${role}'; end loop; end $$`);
    try {
      const target = { ...pair.target.spec, user: role };
      const one = await pair.follow({ target });
      await pair.write(one, `begin; insert into parent select generate_series(1, 100); insert into child select g, g from generate_series(1, 100) g; commit; delete from child where id > 50; delete from parent where id > 50`);
      await equal(pair, 'parent', 'child');
      expect(one.events.some((e) => e.type === 'warning' && e.code === 'no-replica-role')).toBe(true);
      await one.stop();
      expect(await pair.target.query(`select count(*)::int as n from pgweave.progress where job = '${pair.job}' and lsn > '0/0'`)).toEqual([{ n: 1 }]);
      const again = await pair.follow({ target });
      await pair.write(again, 'insert into parent values (1000)');
      await equal(pair, 'parent');
      await again.stop();
    } finally {
      await pair.target.run(`reassign owned by ${role} to postgres; drop owned by ${role}; drop role ${role}`);
    }
  });
});
