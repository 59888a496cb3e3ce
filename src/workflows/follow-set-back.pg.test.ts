import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { makePair, type Pair } from '../../test/support/follow.ts';
import { privateServer, sharedServer, waitFor, type Cluster } from '../../test/support/servers.ts';
import { JobFolder } from '../core/job-folder.ts';
import { parseLsn } from '../pg/lsn.ts';
import { follow } from './follow.ts';

const parent = mkdtempSync(join(tmpdir(), 'pgweave-set-back-'));
afterAll(() => rmSync(parent, { recursive: true, force: true }));

/** A backup of a server's files, and the server set back to one. Files keep their owner: the server refuses those of somebody else. */
async function whileStopped(cluster: Cluster, work: (data: string) => void): Promise<void> {
  await cluster.stop();
  work(cluster.dataFolder);
  await cluster.start();
}
const backUp = (cluster: Cluster, to: string) => whileStopped(cluster, (data) => void execFileSync('cp', ['-a', data, to]));
const restore = (cluster: Cluster, from: string) =>
  whileStopped(cluster, (data) => {
    rmSync(data, { recursive: true });
    execFileSync('cp', ['-a', from, data]);
  });

const slotIs = async (pair: Pair) => (await pair.source.query<{ lsn: string; active: boolean }>(`select confirmed_flush_lsn::text as lsn, active from pg_replication_slots where slot_name = '${pair.slot}'`))[0]!;
const slotFree = (pair: Pair) => waitFor('the slot to be free', async () => !(await slotIs(pair)).active);

describe('a target that was set back', () => {
  it('is refused where the slot has let go of what it lacks, and goes on where the slot sends it again', async () => {
    await using target = await privateServer(17);
    await using pair = await makePair(await sharedServer(15), target, 'create table t (id int primary key, v text)');
    const folder = new JobFolder(pair.job, join(parent, 'job'));
    const ends = { source: pair.source.spec, target: pair.target.spec, job: pair.job, folder };
    const upTo = async (sql: string) => {
      const one = await pair.follow({ folder });
      await pair.write(one, sql);
      await one.stop();
      await slotFree(pair);
    };
    await upTo(`insert into t select g, 'before the backup' from generate_series(1, 100) g`);
    await backUp(target, join(parent, 'early'));

    // Idle, the slot moves on beyond what was applied: no sign of anything.
    await pair.source.run('create table unrelated (x int); drop table unrelated');
    await upTo('select 1');
    expect(parseLsn((await slotIs(pair)).lsn)).toBeGreaterThan(0n);
    await upTo(`update t set v = 'after the backup' where id <= 50`);
    await backUp(target, join(parent, 'late'));

    await restore(target, join(parent, 'early'));
    await expect(follow({ ...ends, untilCaughtUp: true })).rejects.toMatchObject({ code: 'target-went-back', hint: expect.stringContaining('pgweave cleanup') as string });
    // Nothing was applied on top of the gap.
    expect((await pair.target.query<{ n: number }>(`select count(*)::int as n from t where v = 'before the backup'`))[0]!.n).toBe(100);

    await restore(target, join(parent, 'late'));
    await upTo(`insert into t values (1000, 'goes on')`);
    let both = await pair.rows('t');
    expect(both.target).toEqual(both.source);

    // Applied, recorded, and never told to the source: the slot has all of it, and the older target gets it once more.
    const before = (await slotIs(pair)).lsn;
    await pair.source.run(`set synchronous_commit = on; insert into t values (1001, 'sent once more')`);
    const [now] = await pair.source.query<{ line: string }>(`select system_identifier || ' ' || pg_current_wal_lsn() as line from pg_control_system()`);
    writeFileSync(folder.file('applied'), `${now!.line}\n`);
    expect((await slotIs(pair)).lsn).toBe(before);
    await follow({ ...ends, untilCaughtUp: true });
    both = await pair.rows('t');
    expect(both.target).toEqual(both.source);
    expect(both.target).toContain('(1001,"sent once more")');
  });

  it('is noticed while the stream runs, too', async () => {
    await using target = await privateServer(16);
    await using pair = await makePair(await sharedServer(18), target, 'create table t (id int primary key, v text)');
    const backup = join(parent, 'while-running');
    const first = await pair.follow();
    await pair.write(first, `insert into t values (1, 'before the backup')`);
    await first.stop();
    await slotFree(pair);
    await backUp(target, backup);
    const one = await pair.follow();
    await pair.write(one, `insert into t values (2, 'after the backup')`);
    await restore(target, backup);
    await expect(one.done).rejects.toMatchObject({ code: 'target-went-back' });
    expect((await pair.target.query<{ id: number }>('select id from t')).map((row) => row.id)).toEqual([1]);
  });

  it('that is away keeps nobody from stopping', async () => {
    await using target = await privateServer(15);
    await using pair = await makePair(await sharedServer(16), target, 'create table t (id int primary key, v text)');
    const one = await pair.follow();
    await pair.write(one, `insert into t values (1, 'there')`);
    await target.stop();
    await waitFor('the loss to be noticed', () => one.events.some((e) => e.type === 'counter' && e.name === 'reconnects'));
    await one.stop();
    await target.start();
    const again = await pair.follow();
    await pair.write(again, `insert into t values (2, 'there again')`);
    const { source, target: there } = await pair.rows('t');
    expect(there).toEqual(source);
  });
});
