import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makePair, type Pair, type Running } from '../../../test/support/follow.ts';
import { privateServer, waitFor, type Cluster } from '../../../test/support/servers.ts';
import { recordTableEvent } from '../../changes/table-states.ts';
import { Session } from '../../pg/session.ts';
import { verify, type VerifyOptions, type VerifyReport } from '../verify.ts';

const schema = `
  create table accounts (id int primary key, balance bigint not null, note text, at timestamptz not null default now());
  create table journal (id bigint generated always as identity primary key, account int, amount int, body jsonb);
  create table bag (a int, b text); alter table bag replica identity full;
  create table still (id int primary key, v text);
  create unlogged table fast (id int primary key);
  insert into accounts select g, 0, 'account ' || g, '2026-01-01' from generate_series(1, 500) g; insert into still select g, 'v' from generate_series(1, 200) g; insert into bag select g % 5, 'b' from generate_series(1, 50) g`;

const differing = (report: VerifyReport) => report.tables.filter((t) => t.status !== 'equal' && t.status !== 'left-out').map((t) => `${t.table.name}: ${t.status} ${t.reason ?? ''} ${t.missing}/${t.extra}/${t.changed} ${JSON.stringify(t.shown.slice(0, 3))}`);

/** Writes on the source in many small transactions until stopped. */
async function writer(pair: Pair, seed: number): Promise<{ stop: () => Promise<number> }> {
  const session = await Session.open(pair.source.spec, { role: 'writer' });
  await session.query('set search_path = public');
  let stopping = false;
  let transactions = 0;
  const done = (async () => {
    for (let n = seed; !stopping; n += 7) {
      const a = (n * 31) % 500 + 1;
      const b = (n * 17) % 500 + 1;
      await session.query(`begin; update accounts set balance = balance - ${n % 9}, at = clock_timestamp() where id = ${a}; update accounts set balance = balance + ${n % 9} where id = ${b}; insert into journal (account, amount, body) values (${a}, ${n}, '{"n": ${n}}'); commit`);
      if (n % 3 === 0) await session.query(`delete from journal where id in (select id from journal order by id limit 1)`);
      if (n % 5 === 0) await session.query(`begin; insert into bag values (${n % 5}, 'n${n % 50}'); delete from bag where ctid = (select min(ctid) from bag); commit`);
      if (n % 11 === 0) await session.query(`begin; delete from accounts where id = ${a}; insert into accounts values (${a}, ${n}, 'again'); commit`);
      transactions += 1;
    }
  })();
  return {
    async stop() {
      stopping = true;
      await done;
      await session.close();
      return transactions;
    },
  };
}

describe('verify beside a follower', () => {
  let from: Cluster;
  let to: Cluster;
  let pair: Pair;
  let running: Running;
  const check = (options: Partial<VerifyOptions> = {}) => verify({ source: pair.source.spec, target: pair.target.spec, job: pair.job, jobs: 2, ...options });
  beforeAll(async () => {
    [from, to] = await Promise.all([privateServer(15), privateServer(17)]);
    pair = await makePair(from, to, schema);
    running = await pair.follow();
  });
  afterAll(async () => {
    await pair?.[Symbol.asyncDispose]();
    await Promise.all([from?.destroy(), to?.destroy()]);
  });

  it('raises no false alarm in fifty runs under heavy writes', async () => {
    const writers = await Promise.all([writer(pair, 1), writer(pair, 2)]);
    const alarms: string[] = [];
    const lsns = new Set<string>();
    let changed = 0;
    try {
      for (let run = 0; run < 50; run += 1) {
        const report = await check();
        if (!report.ok) alarms.push(`run ${run} at ${report.lsn}: ${differing(report).join('; ')} ${report.notes.join('; ')}`);
        expect(report).toMatchObject({ mode: 'running', pausedMs: expect.any(Number), lsn: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) });
        lsns.add(report.lsn!);
        changed = Math.max(changed, report.totals.rows);
      }
    } finally {
      const counts = await Promise.all(writers.map((w) => w.stop()));
      expect(Math.min(...counts)).toBeGreaterThan(20);
    }
    expect(alarms).toEqual([]);
    // Each run was at a moment of its own, and the source went on between.
    expect(lsns.size).toBe(50);
    expect(changed).toBeGreaterThan(800);
  }, 600_000);

  it('finds seeded differences under writes and mends them so that both sides end equal', async () => {
    await pair.target.run(`update accounts set note = 'wrong' where id in (3, 4); delete from accounts where id = 5; insert into accounts values (9001, 1, 'extra'); update still set v = 'other' where id = 77; delete from still where id > 190; insert into bag values (100, 'only here'), (100, 'only here')`);
    const writers = await Promise.all([writer(pair, 3), writer(pair, 5)]);
    let found: VerifyReport;
    let repaired: VerifyReport;
    try {
      found = await check();
      repaired = await check({ repair: true });
    } finally {
      await Promise.all(writers.map((w) => w.stop()));
    }
    const status = (report: VerifyReport, name: string) => report.tables.find((t) => t.table.name === name)!;
    expect(status(found, 'still')).toMatchObject({ status: 'different', missing: 10, extra: 0, changed: 1 });
    expect(status(found, 'bag')).toMatchObject({ status: 'different', extra: 2 });
    expect(status(found, 'accounts').extra).toBe(1);
    expect(status(found, 'journal').status).toBe('equal');
    expect(status(found, 'fast').status).toBe('left-out');
    expect(found.ok).toBe(false);
    expect(differing(repaired)).toEqual([]);
    expect(status(repaired, 'still').repaired).toEqual({ inserted: 10, updated: 1, deleted: 0 });
    expect(status(repaired, 'bag').repaired).toMatchObject({ deleted: 2 });
    await pair.caughtUp(running);
    const after = await check();
    expect(differing(after)).toEqual([]);
    for (const table of ['accounts', 'journal', 'bag', 'still']) {
      const { source, target } = await pair.rows(table);
      expect(target).toEqual(source);
    }
    // Nothing is left behind on either side, and the follower goes on.
    expect(await pair.source.query(`select slot_name from pg_replication_slots where slot_name like '%verify%'`)).toEqual([]);
    expect(await pair.target.query(`select roname from pg_replication_origin where roname like '%verify%'`)).toEqual([]);
    await pair.write(running, `insert into still values (999, 'after')`);
    expect((await pair.rows('still')).target).toHaveLength(201);
  });

  it('says of a paused table that it is not compared, and of a stopped follower that it does not run', async () => {
    await pair.target.run(`alter table still add constraint no_more check (id < 5000)`);
    await pair.source.run(`insert into still values (6000, 'refused there')`);
    await waitFor('the table to be paused', async () => (await pair.target.query(`select 1 from pgweave.table_state where table_name = 'still' and state = 'paused'`)).length > 0);
    const report = await check();
    expect(report.tables.find((t) => t.table.name === 'still')).toMatchObject({ status: 'not-compared', reason: expect.stringContaining('paused at') });
    expect(report.ok).toBe(false);
    expect(report.totals).toMatchObject({ notCompared: 1, different: 0 });
    await running.stop();
    await pair.source.run(`update accounts set note = 'after the stop' where id = 1`);
    const stopped = await check();
    expect(stopped).toMatchObject({ mode: 'stopped', lsn: null, ok: false });
    expect(stopped.notes[0]).toContain('does not run');
    expect(stopped.tables.find((t) => t.table.name === 'accounts')).toMatchObject({ status: 'different', changed: 1 });
    await using session = await Session.open(pair.target.spec, { role: 'test' });
    await session.query('alter table public.still drop constraint no_more');
    await recordTableEvent(session, pair.job, { schema: 'public', name: 'still' }, { type: 'resumed' });
  });
});
