import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { makePair, type Pair } from '../../test/support/follow.ts';
import { runCli, startCli, stateFolder } from '../../test/support/cli.ts';
import { createDatabase, sharedServer, waitFor } from '../../test/support/servers.ts';
import { listSegments } from '../changes/spool/segments.ts';
import { follow } from './follow.ts';

const parent = mkdtempSync(join(tmpdir(), 'pgweave-spool-'));
const child = new URL('../../test/support/follow-child.ts', import.meta.url).pathname;
const children: (() => void)[] = [];
afterAll(() => {
  for (const end of children) end();
  rmSync(parent, { recursive: true, force: true });
});

function start(pair: Pair, folder: string, failpoints: string) {
  const running = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), child, JSON.stringify({ source: pair.source.uri, target: pair.target.uri, job: pair.job, spool: { folder } })], { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, PGWEAVE_FAILPOINTS: failpoints } });
  children.push(() => running.kill('SIGKILL'));
  return { running, ended: once(running, 'exit').then(([, signal]) => signal as NodeJS.Signals | null) };
}

const count = async (pair: Pair, side: 'source' | 'target') => (await pair[side].query<{ n: number }>('select count(*)::int as n from t'))[0]!.n;

describe('a follower with a spool', () => {
  it('lets the source go on while the target cannot take anything, and goes on from the files after kill -9', async () => {
    await using pair = await makePair(await sharedServer(14), await sharedServer(17), 'create table t (id int primary key, v text)');
    const folder = join(parent, 'blocked');
    const session = await pair.target.session();
    await session.query('begin; lock table t in access exclusive mode');
    const { running, ended } = start(pair, folder, '');
    await pair.source.run(`insert into t select g, repeat('x', 200) from generate_series(1, 5000) g`);
    await pair.source.run(`update t set v = 'changed' where id <= 100; delete from t where id > 4900`);
    const [written] = await pair.source.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
    // The source is told that it may forget what no target has yet.
    await waitFor('the slot to pass what was written', async () => (await pair.source.query<{ past: boolean }>(`select confirmed_flush_lsn >= '${written!.lsn}'::pg_lsn as past from pg_replication_slots where slot_name = '${pair.slot}'`))[0]!.past, 60_000);
    expect(listSegments(join(folder, pair.slot)).length).toBeGreaterThan(0);
    running.kill('SIGKILL');
    expect(await ended).toBe('SIGKILL');
    await session.query('rollback');
    await session.close();
    expect(await count(pair, 'target')).toBe(0);

    // Without that spool the changes would be gone: refused, with any other folder too.
    const ends = { source: pair.source.spec, target: pair.target.spec, job: pair.job };
    const required = { code: 'spool-required', hint: expect.stringContaining(folder) as string };
    await waitFor('the killed follower\'s sessions to end', async () => (await pair.source.query(`select from pg_replication_slots where slot_name = '${pair.slot}' and active`)).length === 0);
    await expect(follow(ends)).rejects.toMatchObject(required);
    await expect(follow({ ...ends, spool: { folder: join(parent, 'other') } })).rejects.toMatchObject(required);

    const one = await pair.follow({ spool: { folder } });
    await pair.caughtUp(one);
    const { source, target } = await pair.rows('t');
    expect(target).toEqual(source);
    await one.stop();
    // Drained: from now on it goes without.
    expect(listSegments(join(folder, pair.slot))).toEqual([]);
    const two = await pair.follow();
    await pair.write(two, 'insert into t values (-1, null)');
    expect(await count(pair, 'target')).toBe(4901);
  });

  it('loses nothing and applies nothing twice, wherever it dies', async () => {
    await using pair = await makePair(await sharedServer(15), await sharedServer(18), 'create table t (id int primary key, v int); create table log (at int, v text); alter table log replica identity full');
    const folder = join(parent, 'killed');
    let writing = true;
    let written = 0;
    const writer = (async () => {
      await using session = await pair.source.session();
      for (let i = 0; writing; i += 1) {
        // Of the newest rows only: else each transaction is larger than the one before, until nobody can keep up.
        await session.query(`begin; insert into t values (${i}, 0); update t set v = v + 1 where id > ${i - 200} and id % 7 = ${i % 7}; insert into log values (${i}, repeat('y', ${(i % 50) * 40})); delete from log where at = ${i - 20}; commit`);
        written = i + 1;
        await new Promise((resolve) => setTimeout(resolve, 4));
      }
    })();
    try {
      for (const failpoint of ['spool.before-write=kill@2', 'spool.after-write=kill@5', 'spool.before-sync=kill@3', 'spool.after-sync=kill@4', 'receive.after-ack=kill@3', 'apply.sent=kill@4', 'apply.committed=kill@3']) {
        expect(await start(pair, folder, failpoint).ended, failpoint).toBe('SIGKILL');
      }
      const { running, ended } = start(pair, folder, '');
      await waitFor('the target to come near', async () => (await count(pair, 'target')) > written - 50, 60_000);
      running.kill('SIGKILL');
      await ended;
    } finally {
      writing = false;
      await writer;
    }
    const one = await pair.follow({ spool: { folder } });
    await pair.caughtUp(one);
    for (const table of ['t', 'log']) {
      const { source, target } = await pair.rows(table);
      expect(target, table).toEqual(source);
    }
    expect(await count(pair, 'target')).toBe(written);
    await one.stop();
  });

  it('stops at its limit, clearly, and goes on with a larger one', async () => {
    await using pair = await makePair(await sharedServer(16), await sharedServer(16), 'create table t (id int primary key, v text)');
    const folder = join(parent, 'limited');
    const session = await pair.target.session();
    await session.query('begin; lock table t in access exclusive mode');
    const limited = await pair.follow({ spool: { folder, maxBytes: 3 * 1024 * 1024 } });
    const failed = limited.done.then(() => undefined, (error: unknown) => error);
    for (let i = 0; i < 20; i += 1) await pair.source.run(`insert into t select g, md5(g::text) || repeat('z', 400) from generate_series(${i * 1000}, ${i * 1000 + 999}) g`);
    await waitFor('the spool to be full', () => listSegments(join(folder, pair.slot)).reduce((sum, segment) => sum + segment.bytes, 0) >= 3 * 1024 * 1024);
    await session.query('rollback');
    await session.close();
    expect(await failed).toMatchObject({ code: 'spool-full', hint: expect.stringContaining('--spool-limit') as string });
    await limited.stop().catch(() => undefined);
    const one = await pair.follow({ spool: { folder } });
    await pair.caughtUp(one);
    const { source, target } = await pair.rows('t');
    expect(target).toEqual(source);
    await one.stop();
    expect(existsSync(join(folder, pair.slot, 'lock'))).toBe(false);
  });

  it('receives while the rows are copied, and goes on after kill -9 in the middle of the copy', async () => {
    await using source = await createDatabase(await sharedServer(15), 'src');
    await using target = await createDatabase(await sharedServer(17), 'dst');
    await source.run(`create table t (id int primary key, v text); insert into t select g, 'old' from generate_series(1, 2000) g`);
    const job = target.name.toLowerCase();
    const slot = `pgweave_${job}`;
    using dir = stateFolder();
    const folder = join(parent, 'copy');
    const args = ['clone', '--follow', '--until-caught-up', '--source', source.uri, '--target', target.uri, '--dir', dir.path, '--job', job, '--no-roles', '--spool', folder];
    const passed = async (what: string) => {
      const [at] = await source.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
      await waitFor(what, async () => (await source.query<{ past: boolean }>(`select confirmed_flush_lsn >= '${at!.lsn}' as past from pg_replication_slots where slot_name = '${slot}'`))[0]?.past ?? false, 60_000);
    };
    const stalled = startCli(args, { PGWEAVE_FAILPOINTS: 'clone.rows-copied=stall' });
    await waitFor('the copy', async () => (await source.query(`select from pg_replication_slots where slot_name = '${slot}' and active`)).length > 0, 60_000);
    await source.run(`update t set v = 'first' where id <= 10; insert into t values (-1, 'first')`);
    await passed('the source to be free of the first changes');
    stalled.child.kill('SIGKILL');
    expect((await stalled.done).signal).toBe('SIGKILL');
    await source.run(`update t set v = 'second' where id between 5 and 15; delete from t where id = 2000`);
    const done = await runCli(args);
    expect(done, done.stderr).toMatchObject({ code: 0 });
    const rows = `select string_agg(id || ':' || v, ',' order by id) as rows from t`;
    expect(await target.query(rows)).toEqual(await source.query(rows));
    await runCli(['cleanup', '--yes', '--source', source.uri, '--target', target.uri, '--dir', dir.path, '--job', job]);
    expect(await source.query('select from pg_replication_slots where slot_name = $1', [slot])).toEqual([]);
  });
});
