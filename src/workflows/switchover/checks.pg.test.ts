import { describe, expect, it } from 'vitest';
import { cleanupAll } from '../../../test/support/jobs.ts';
import { createDatabase, privateServer, sharedServer, waitFor, type TestDatabase } from '../../../test/support/servers.ts';
import { readTableStates } from '../../changes/table-states.ts';
import { clone } from '../clone.ts';
import { follow } from '../follow.ts';
import { sync } from '../sync.ts';
import { switchoverChecks, type SwitchoverCheck } from './checks.ts';
import { runSwitchover } from '../run-switchover.ts';

let counter = 0;
const jobName = () => `ck${process.pid}_${(counter += 1)}`;

async function following(source: TestDatabase, target: TestDatabase, job: string): Promise<AsyncDisposable & { stop(): Promise<void> }> {
  await clone({ source: source.spec, target: target.spec, job, mode: 'follow', jobs: 2, roles: false });
  const abort = new AbortController();
  const phases: string[] = [];
  const running = follow({ source: source.spec, target: target.spec, job, signal: abort.signal, onEvent: (e) => void (e.type === 'phase' && phases.push(e.phase)) });
  running.catch(() => undefined);
  await waitFor('the follower to stream', () => phases.includes('streaming'));
  const stop = async () => {
    abort.abort();
    await running.catch(() => undefined);
  };
  return { stop, [Symbol.asyncDispose]: stop };
}

const words = (checks: readonly SwitchoverCheck[]) => Object.fromEntries(checks.map((c) => [c.name, c.status]));
const named = (checks: readonly SwitchoverCheck[], name: string) => checks.find((c) => c.name === name)!;
const allOk = { 'Earlier switchover': 'ok', Tables: 'ok', Stream: 'ok', 'Refusing writes': 'ok', 'Other sessions': 'ok', Sequences: 'ok', 'Large objects, unlogged tables': 'ok', 'Way back': 'ok' };

describe('checks before a switchover', () => {
  it('pass on a job that streams, change nothing, and name each thing that stands in the way', async () => {
    await using server = await privateServer(15, { settings: { max_prepared_transactions: '5' } });
    const source = await createDatabase(server, 'checks');
    const target = await createDatabase(await sharedServer(17), 'checks');
    const job = jobName();
    try {
      await source.run('create table orders (id serial primary key, v int); create table keyless (v int); insert into orders (v) values (1)');
      await using follower = await following(source, target, job);
      const options = { source: source.spec, target: target.spec, job, native: false };
      const look = () => switchoverChecks(options);
      const first = await look();
      expect(words(first)).toEqual({ ...allOk, 'Way back': 'warn' });
      expect(named(first, 'Way back').detail).toContain('public.keyless');
      expect(named(first, 'Tables').detail).toBe('2 of 2 are copied, none is paused.');
      expect(named(first, 'Stream').detail).toMatch(/^A marker written to the source was applied on the target .* later/);
      // Nothing was begun: writes go on, no step is kept.
      await source.run('insert into orders (v) values (2)');
      expect(await target.query(`select to_regclass('pgweave.switchover') is null as none`)).toEqual([{ none: true }]);

      await using writer = await source.session();
      await writer.query('begin; update orders set v = v');
      await waitFor('the transaction to be long', async () => words(await look())['Other sessions'] === 'warn', 20_000);
      expect(named(await look(), 'Other sessions').detail).toMatch(/^1 session is ended, and with them 1 transaction in mid-work/);
      await writer.query(`prepare transaction 'left behind'`);
      expect(named(await look(), 'Refusing writes')).toMatchObject({ status: 'failed', fix: `COMMIT PREPARED 'left behind';` });
      await writer.query(`commit prepared 'left behind'`);

      await source.run(`create sequence alone; select lo_from_bytea(0, 'x'); create role ck_app_${process.pid} login`);
      const grown = await look();
      expect(named(grown, 'Sequences')).toMatchObject({ status: 'warn', detail: expect.stringContaining('public.alone') as string });
      expect(named(grown, 'Large objects, unlogged tables').detail).toMatch(/^1 large objects/);

      // A role that may read everything and own nothing.
      await source.run(`grant pg_read_all_data to ck_app_${process.pid}`);
      const weak = await switchoverChecks({ ...options, source: { ...source.spec, user: `ck_app_${process.pid}` } });
      expect(named(weak, 'Refusing writes')).toMatchObject({ status: 'failed', fix: expect.stringMatching(/^ALTER DATABASE .* OWNER TO/) as string });
      await source.run(`alter database "${source.name}" owner to ck_app_${process.pid}`);
      const owner = await switchoverChecks({ ...options, source: { ...source.spec, user: `ck_app_${process.pid}` } });
      expect(named(owner, 'Refusing writes')).toMatchObject({ status: 'failed', fix: expect.stringMatching(/^GRANT UPDATE ON public\.keyless, public\.orders TO/) as string });

      // A table that cannot go on.
      await target.run('alter table orders add constraint small check (v < 100)');
      await source.run('insert into orders (v) values (1000)');
      await using session = await target.session();
      await waitFor('the table to pause', async () => (await readTableStates(session, job)).some((t) => t.state.name === 'paused'));
      expect(named(await look(), 'Tables')).toMatchObject({ status: 'failed', detail: expect.stringContaining('1 of 2 tables are paused: public.orders') as string, fix: expect.stringContaining('--retry') as string });

      await follower.stop();
      const alone = await look();
      expect(named(alone, 'Stream')).toMatchObject({ status: 'failed', detail: expect.stringMatching(/^Nothing follows: slot .* is not in use\.$/) as string, fix: expect.stringContaining(`pgweave follow --job ${job}`) as string });
    } finally {
      await cleanupAll(source.spec, target.spec);
      await target.drop();
    }
  });

  it('tell of an earlier switchover, and of a target from which nothing could come back', async () => {
    const source = await createDatabase(await sharedServer(16), 'checks');
    await using bare = await privateServer(16, { settings: { wal_level: 'replica' } });
    const target = await createDatabase(bare, 'checks');
    const job = jobName();
    try {
      await source.run('create table orders (id serial primary key, v int)');
      await using _follower = await following(source, target, job);
      const options = { source: source.spec, target: target.spec, job, native: false };
      expect(named(await switchoverChecks(options), 'Way back')).toMatchObject({ status: 'warn', detail: expect.stringContaining('wal_level = replica') as string });
      await runSwitchover({ source: source.spec, target: target.spec, job });
      expect(named(await switchoverChecks(options), 'Earlier switchover')).toMatchObject({ status: 'failed', detail: expect.stringMatching(/^This job was switched over at/) as string });
    } finally {
      await cleanupAll(source.spec, target.spec);
      await source.drop();
    }
  });

  it('look at a native subscription', async () => {
    const source = await createDatabase(await sharedServer(15), 'checks');
    const target = await createDatabase(await sharedServer(18), 'checks');
    const job = jobName();
    try {
      for (const side of [source, target]) await side.run('create table orders (id int primary key)');
      await sync({ source: source.spec, target: target.spec, job, wait: true });
      const { Tables: _tables, Stream: _stream, ...rest } = allOk;
      const options = { source: source.spec, target: target.spec, job, native: true };
      expect(words(await switchoverChecks(options))).toEqual({ ...rest, Subscription: 'ok' });
      await target.run(`alter subscription pgweave_${job} disable`);
      expect(named(await switchoverChecks(options), 'Subscription')).toMatchObject({ status: 'failed', detail: expect.stringContaining('is disabled') as string });
    } finally {
      await cleanupAll(source.spec, target.spec);
      await target.drop();
      await source.drop();
    }
  });
});
