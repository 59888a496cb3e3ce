import { describe, expect, it } from 'vitest';
import { createDatabase, sharedServer, waitFor, type EmbeddedVersion, type TestDatabase } from '../../test/support/servers.ts';
import type { JobEvent } from '../core/events.ts';
import { Session } from '../pg/session.ts';
import { cleanupAll } from '../../test/support/jobs.ts';
import { clone } from './clone.ts';
import { generateShop } from './demo/shop.ts';
import { ShopWriter } from './demo/writer.ts';
import { follow, type FollowResult } from './follow.ts';
import { switchover, undoSwitchover } from './switchover.ts';

let counter = 0;
const jobName = () => `sw${process.pid}_${(counter += 1)}`;

/** The rows of each table as one digest, so that two databases can be compared. */
async function digests(database: TestDatabase): Promise<Record<string, string>> {
  const session = await database.session();
  const tables = await session.query<{ name: string }>(`select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = relnamespace where n.nspname = 'shop' and relkind in ('r') order by 1`);
  const out: Record<string, string> = {};
  for (const { name } of tables) out[name] = (await session.one<{ d: string }>(`select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) as d from ${name} t`)).d;
  await session.close();
  return out;
}

interface Running {
  readonly job: string;
  readonly source: TestDatabase;
  readonly target: TestDatabase;
  readonly writer: ShopWriter;
  readonly following: Promise<FollowResult>;
  /** Where applications write. */
  primary: TestDatabase;
  stop(): Promise<void>;
}

/** A shop that is cloned, followed and written to. */
async function migrating(from: EmbeddedVersion, to: EmbeddedVersion): Promise<Running & AsyncDisposable> {
  const job = jobName();
  const source = await createDatabase(await sharedServer(from), 'shop');
  const target = await createDatabase(await sharedServer(to), 'shop');
  const session = await source.session();
  await generateShop(session, 0.01, () => undefined);
  await session.query('create unlogged table shop.cache (k int primary key, v text); insert into shop.cache values (1, $$old$$); select lo_from_bytea(0, $$first$$)');
  await session.close();
  const running = { primary: source };
  const writer = new ShopWriter(1, () => running.primary.spec);
  writer.start();
  await clone({ source: source.spec, target: target.spec, job, mode: 'follow', jobs: 2 });
  const abort = new AbortController();
  const phases: string[] = [];
  const following = follow({ source: source.spec, target: target.spec, job, signal: abort.signal, onEvent: (e: JobEvent) => { if (e.type === 'phase') phases.push(e.phase); } });
  following.catch(() => undefined);
  await waitFor('the follower to stream', () => phases.includes('streaming'));
  const stop = async () => {
    abort.abort();
    await following.catch(() => undefined);
    await writer.stop().catch(() => undefined);
  };
  return Object.assign(running, {
    job, source, target, writer, following, stop,
    async [Symbol.asyncDispose]() {
      await stop();
      await cleanupAll(source.spec, target.spec);
      await source.drop();
      await target.drop();
    },
  });
}

describe('switchover', () => {
  it('hands over under a live writer, keeps the way back, and goes back: no acknowledged write is missing', async () => {
    await using m = await migrating(15, 17);
    await m.source.run(`update shop.cache set v = 'new'; select lo_from_bytea(0, 'second'); select setval('shop.invoice_number', 99999)`);
    await waitFor('some writes', () => m.writer.count > 50);
    const result = await switchover({ source: m.source.spec, target: m.target.spec, job: m.job, reverse: true });
    m.primary = m.target;
    expect(result.steps.map((s) => `${s.name} ${s.status}`)).toEqual([
      'checks ok', expect.stringMatching(/way back (ok|warn)/), 'new writes refused ok', 'marker in the WAL ok', 'drained ok', 'sequences ok', 'large objects, unlogged ok', 'nothing came after the marker ok', 'forward stream closed ok',
    ]);
    expect(result.wayBack).toEqual({ job: `${m.job}_reverse`, slot: `pgweave_${m.job}_reverse` });
    const ended = await m.following;
    expect(ended.switchedOver).toEqual({ wayBack: `${m.job}_reverse` });
    // Both hold still only on the source now: what the target got since comes from the writer.
    expect(await m.target.query('select v from shop.cache')).toEqual([{ v: 'new' }]);
    expect(await m.target.query(`select convert_from(lo_get(oid), 'UTF8') as t from pg_largeobject_metadata order by 1`)).toEqual([{ t: 'first' }, { t: 'second' }]);
    expect(await m.target.query(`select nextval('shop.invoice_number') as n`)).toEqual([{ n: 100006n }]);
    await expect(m.source.query(`insert into shop.acknowledged values (99, 1)`)).rejects.toMatchObject({ code: '25006' });
    await expect(switchover({ source: m.source.spec, target: m.target.spec, job: m.job })).rejects.toMatchObject({ code: 'switched-over-already' });
    // Copying once more would lose what was written since, whatever is asked for.
    await expect(clone({ source: m.source.spec, target: m.target.spec, job: m.job, mode: 'follow', resume: false, dropExisting: true })).rejects.toMatchObject({ code: 'switched-over-already', hint: expect.stringContaining('--back') });

    // The old source follows the new one from its first write on.
    const abort = new AbortController();
    const phases: string[] = [];
    const back = follow({ source: m.target.spec, target: m.source.spec, job: result.wayBack!.job, origin: 'none', signal: abort.signal, onEvent: (e: JobEvent) => { if (e.type === 'phase') phases.push(e.phase); } });
    // Where the test fails before it is awaited.
    back.catch(() => undefined);
    const before = m.writer.count;
    await waitFor('writes on the new primary', () => m.writer.count > before + 50);
    await waitFor('the way back to stream', () => phases.includes('streaming'));
    const returned = await switchover({ source: m.target.spec, target: m.source.spec, job: result.wayBack!.job });
    m.primary = m.source;
    expect(returned.steps.map((s) => s.name)).toContain('target takes writes');
    expect((await back).switchedOver).toEqual({ wayBack: null });
    expect(returned.refusedMs).toBeLessThan(30_000);
    const after = m.writer.count;
    await waitFor('writes on the old primary', () => m.writer.count > after + 10);
    const wrote = await m.writer.stop();
    await using session = await Session.open(m.source.spec, { role: 'test' });
    expect(await m.writer.missingIn(session)).toBe(0);
    expect(wrote.acknowledged).toBeGreaterThan(before);
    abort.abort();
  });

  it('gives writes back when the target does not drain in time', async () => {
    await using m = await migrating(16, 16);
    await m.writer.stop();
    // The target holds a lock that the applier needs: the probe of the checks gets through before it, the marker behind a change does not.
    const blocker = await m.target.session();
    const events: string[] = [];
    // The lock is taken and the row written while the lock step ends other sessions: it waits for the writer's own transaction.
    const late = await m.source.session();
    await late.query(`begin; insert into shop.customers (name, email) values ('late', 'late@x.example')`);
    const failed = switchover({
      source: m.source.spec, target: m.target.spec, job: m.job, timeoutMs: 3000, lock: 'tables',
      onEvent: (e) => {
        if (e.type !== 'step') return;
        events.push(`${e.name} ${e.status}`);
        if (e.name === 'new writes refused' && e.status === 'running') void blocker.query('begin; lock table shop.customers in access exclusive mode').then(() => late.query('commit'));
      },
    });
    const error: unknown = await failed.then(() => undefined, (e: unknown) => e);
    await blocker.query('rollback');
    await late.close();
    expect(error).toMatchObject({ code: 'not-drained', hint: expect.stringContaining('takes writes as before') });
    expect(events).toContain('new writes refused undone');
    await m.source.run(`insert into shop.acknowledged values (98, 1)`);
    await blocker.close();
  });

  it('can be undone from elsewhere after it died under the lock', async () => {
    await using m = await migrating(14, 18);
    await m.writer.stop();
    const abort = new AbortController();
    const { armFailpoints } = await import('../core/failpoints.ts');
    armFailpoints('switchover.marker=error');
    try {
      await expect(switchover({ source: m.source.spec, target: m.target.spec, job: m.job, signal: abort.signal })).rejects.toThrow('failpoint switchover.marker');
    } finally {
      armFailpoints('');
    }
    await m.source.run(`insert into shop.acknowledged values (97, 1)`);
    expect(await undoSwitchover({ source: m.source.spec, target: m.target.spec, job: m.job })).toBe(false);
    const result = await switchover({ source: m.source.spec, target: m.target.spec, job: m.job });
    expect(result.markerLsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
    expect(await digests(m.target)).toEqual(await digests(m.source));
  });

  it('refuses where nothing follows, and an unknown job', async () => {
    await using m = await migrating(17, 15);
    await m.stop();
    await expect(switchover({ source: m.source.spec, target: m.target.spec, job: m.job })).rejects.toMatchObject({ code: 'no-follower' });
    await expect(switchover({ source: m.source.spec, target: m.target.spec, job: 'unheard_of' })).rejects.toMatchObject({ code: 'no-such-job' });
    await m.source.run(`insert into shop.acknowledged values (96, 1)`);
  });
});
