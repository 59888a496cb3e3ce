import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { makePair, type Pair } from '../../test/support/follow.ts';
import { createDatabase, privateServer, sharedServer, waitFor, type Cluster } from '../../test/support/servers.ts';
import { JobFolder } from '../core/job-folder.ts';
import { parseLsn, type Lsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { follow } from './follow.ts';
import { AppliedRecord } from './follow/applied-record.ts';

const parent = mkdtempSync(join(tmpdir(), 'pgweave-set-back-'));
afterAll(() => rmSync(parent, { recursive: true, force: true }));
/** Each attempt at a test has its own. */
const newFolder = () => mkdtempSync(join(parent, 'attempt-'));

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
  it('is refused where the slot has let go of what it lacks, and goes on once it has it', async () => {
    await using target = await privateServer(17);
    await using pair = await makePair(await sharedServer(15), target, 'create table t (id int primary key, v text)');
    const here = newFolder();
    const folder = new JobFolder(pair.job, join(here, 'job'));
    const ends = { source: pair.source.spec, target: pair.target.spec, job: pair.job, folder };
    const upTo = async (sql: string) => {
      const one = await pair.follow({ folder });
      await pair.write(one, sql);
      await one.stop();
      await slotFree(pair);
    };
    await upTo(`insert into t select g, 'before the backup' from generate_series(1, 100) g`);
    await backUp(target, join(here, 'early'));

    // Idle, the slot moves on beyond what was applied: no sign of anything.
    await pair.source.run('create table unrelated (x int); drop table unrelated');
    await upTo('select 1');
    expect(parseLsn((await slotIs(pair)).lsn)).toBeGreaterThan(0n);
    await upTo(`update t set v = 'after the backup' where id <= 50`);
    await backUp(target, join(here, 'late'));

    await restore(target, join(here, 'early'));
    await expect(follow({ ...ends, untilCaughtUp: true })).rejects.toMatchObject({ code: 'target-went-back', hint: expect.stringContaining('pgweave cleanup') as string });
    // Nothing was applied on top of the gap.
    expect((await pair.target.query<{ n: number }>(`select count(*)::int as n from t where v = 'before the backup'`))[0]!.n).toBe(100);

    await restore(target, join(here, 'late'));
    await upTo(`insert into t values (1000, 'goes on')`);
    const both = await pair.rows('t');
    expect(both.target).toEqual(both.source);
  });

  it('is none where nothing that the slot has let go of can be missing', async () => {
    await using database = await createDatabase(await sharedServer(17), 'record');
    await using source = await Session.open(database.spec, { role: 'test' });
    const folder = new JobFolder('record', join(newFolder(), 'job'));
    const at = (n: number) => BigInt(n) as Lsn;
    const first = await AppliedRecord.open(folder, source);
    // Nothing is known yet.
    first.check('record', { progress: at(1), slotLsn: at(9), copiedLsn: undefined });
    first.note(at(500));
    first.note(at(70));
    first.close();
    const record = await AppliedRecord.open(folder, source);
    const check = (progress: number | undefined, slotLsn: number, copiedLsn?: number) => () =>
      record.check('record', { progress: progress === undefined ? undefined : at(progress), slotLsn: at(slotLsn), copiedLsn: copiedLsn === undefined ? undefined : at(copiedLsn) });
    const went = expect.objectContaining({ code: 'target-went-back' }) as Error;
    expect(check(69, 90)).toThrow(went);
    // Set back to before the first change of the stream.
    expect(check(undefined, 90, 60)).toThrow(went);
    // As far as it was, and further; an idle slot is always ahead.
    expect(check(70, 90)).not.toThrow();
    expect(check(80, 90)).not.toThrow();
    // The slot sends all of it again.
    expect(check(69, 69)).not.toThrow();
    // Copied anew since, or begun without a copy.
    expect(check(undefined, 90, 71)).not.toThrow();
    expect(check(undefined, 90)).not.toThrow();
    record.close();
    // Another system's.
    writeFileSync(folder.file('applied'), '1 0/46\n');
    const other = await AppliedRecord.open(folder, source);
    expect(() => other.check('record', { progress: at(69), slotLsn: at(90), copiedLsn: undefined })).not.toThrow();
    other.close();
  });

  it('is noticed while the stream runs, too', async () => {
    await using target = await privateServer(16);
    await using pair = await makePair(await sharedServer(18), target, 'create table t (id int primary key, v text)');
    const backup = join(newFolder(), 'backup');
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
