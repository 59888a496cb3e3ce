import { describe, expect, it } from 'vitest';
import { createDatabase, sharedServer, waitFor, type TestDatabase } from '../../../test/support/servers.ts';
import { sleep } from '../../core/abort.ts';
import { Session } from '../../pg/session.ts';
import { sync } from '../sync.ts';
import { verify, type VerifyOptions, type VerifyReport } from '../verify.ts';

const schema = `
  create table accounts (id int primary key, balance bigint not null, note text, changed int not null default 0);
  create table journal (id bigint generated always as identity primary key, account int, amount int);
  create table bag (a int, b text); alter table bag replica identity full;
  create table kept (id int primary key, v text)`;

const differing = (report: VerifyReport) => report.tables.filter((t) => t.status !== 'equal').map((t) => `${t.table.name}: ${t.status} ${t.reason ?? ''} ${t.missing}/${t.extra}/${t.changed}`);

async function writer(source: TestDatabase): Promise<{ stop: () => Promise<number> }> {
  const session = await Session.open(source.spec, { role: 'writer' });
  await session.query('set search_path = public');
  let stopping = false;
  let n = 0;
  const done = (async () => {
    for (; !stopping; n += 1) {
      await session.query(`begin; update accounts set balance = balance + ${n % 7}, changed = changed + 1 where id = ${(n * 31) % 150 + 1}; insert into journal (account, amount) values (${n % 200}, ${n}); insert into bag values (${n}, 'new'); delete from bag where a = ${n - 20}; commit`);
      await sleep(3);
    }
  })();
  return {
    async stop() {
      stopping = true;
      await done;
      await session.close();
      return n;
    },
  };
}

describe('verify beside a native subscription', () => {
  it('raises no alarm under writes, finds true differences, and mends them without stopping the subscription', async () => {
    await using source = await createDatabase(await sharedServer(16), 'vsub_src');
    await using target = await createDatabase(await sharedServer(18), 'vsub_dst');
    const job = `vs${process.pid}`;
    await source.run(`${schema}; insert into accounts select g, 0, 'account ' || g from generate_series(1, 200) g; insert into kept select g, 'v' || g from generate_series(1, 100) g; insert into bag select -g, 'old' from generate_series(1, 30) g`);
    await target.run(schema);
    await sync({ source: source.spec, target: target.spec, job, wait: true });
    const subscribed = async () => (await target.query<{ s: string }>(`select string_agg(distinct srsubstate::text, '') as s from pg_subscription_rel r join pg_subscription b on b.oid = r.srsubid where subname = 'pgweave_${job}'`))[0]!.s;
    await waitFor('all tables to stream', async () => (await subscribed()) === 'r');
    const check = (options: Partial<VerifyOptions> = {}) => verify({ source: source.spec, target: target.spec, job, jobs: 2, ...options });
    const writing = await writer(source);
    try {
      for (let run = 0; run < 4; run += 1) {
        const report = await check();
        expect(report.mode).toBe('subscription');
        expect(differing(report)).toEqual([]);
        expect(report.ok).toBe(true);
      }
      await target.run(`update kept set v = 'wrong' where id in (1, 2); delete from kept where id = 3; insert into kept values (500, 'extra'); update accounts set note = null where id = 190; insert into bag values (-1000, 'only here'); delete from bag where a = -29`);
      const found = await check();
      const status = (report: VerifyReport, name: string) => report.tables.find((t) => t.table.name === name)!;
      expect(status(found, 'kept')).toMatchObject({ status: 'different', missing: 1, extra: 1, changed: 2 });
      expect(status(found, 'accounts')).toMatchObject({ status: 'different', missing: 0, extra: 0, changed: 1, shown: [{ key: { id: '190' }, columns: [{ name: 'note', source: 'account 190', target: null }] }] });
      expect(status(found, 'bag')).toMatchObject({ status: 'different', missing: 1, extra: 1 });
      expect(status(found, 'journal').status).toBe('equal');
      const repaired = await check({ repair: true });
      expect(differing(repaired)).toEqual([]);
      expect(status(repaired, 'kept').repaired).toEqual({ inserted: 1, updated: 2, deleted: 1 });
      expect(status(repaired, 'bag').repaired).toEqual({ inserted: 1, updated: 0, deleted: 1 });
    } finally {
      expect(await writing.stop()).toBeGreaterThan(20);
    }
    await waitFor('the target to be equal', async () => (await check()).ok);
    const rows = (db: TestDatabase) => db.query(`select (select json_agg(a order by id) from accounts a)::text as a, (select json_agg(k order by id) from kept k)::text as k, (select json_agg(b order by a) from bag b)::text as b, (select count(*) from journal) as j`);
    await waitFor('the rows to be the same', async () => JSON.stringify(await rows(source), big) === JSON.stringify(await rows(target), big));
  }, 300_000);
});

function big(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
