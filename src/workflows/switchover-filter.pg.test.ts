import { describe, expect, it } from 'vitest';
import { cleanupAll } from '../../test/support/jobs.ts';
import { createDatabase, sharedServer, waitFor, type TestDatabase } from '../../test/support/servers.ts';
import { noRules, parseTableFilter } from '../core/selection/rules.ts';
import { clone } from './clone.ts';
import { follow } from './follow.ts';
import { switchover } from './switchover.ts';

/** A follower that ends with the switchover, or with the test. */
async function following(source: TestDatabase, target: TestDatabase, job: string): Promise<AsyncDisposable> {
  const abort = new AbortController();
  const phases: string[] = [];
  const running = follow({ source: source.spec, target: target.spec, job, origin: 'none', signal: abort.signal, onEvent: (e) => { if (e.type === 'phase') phases.push(e.phase); } });
  running.catch(() => undefined);
  await waitFor(`job ${job} to stream`, () => phases.includes('streaming'));
  return {
    async [Symbol.asyncDispose]() {
      abort.abort();
      await running.catch(() => undefined);
    },
  };
}

describe('switchover of a job with row filters', () => {
  it.each([[14, 17], [17, 16]] as const)('%i to %i: everything goes back, and on the return the filter holds again', async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'sf');
    await using target = await createDatabase(await sharedServer(to), 'sf');
    const job = `sf${process.pid}_${from}`;
    await source.run(`create table t (id int primary key, status text, v int default 0); insert into t select i, case when i % 2 = 0 then 'open' else 'closed' end from generate_series(1, 20) i; create table k (id int primary key, v int); insert into k select i, 0 from generate_series(1, 20) i`);
    await clone({ source: source.spec, target: target.spec, job, mode: 'follow', roles: false, rules: { ...noRules, tableFilters: [`t:status = 'open'`, 'k:id > 10'].map(parseTableFilter) } });
    try {
      const rows = (database: TestDatabase, query: string) => async () => JSON.stringify(await database.query(query));
      const same = (what: string, one: () => Promise<string>, other: () => Promise<string>) => waitFor(what, async () => (await one()) === (await other()));
      {
        await using _forward = await following(source, target, job);
        await source.run(`update t set status = 'closed' where id = 2; update t set status = 'open' where id = 1; insert into k values (30, 1)`);
        await switchover({ source: source.spec, target: target.spec, job, reverse: true });
      }
      {
        await using _back = await following(target, source, `${job}_reverse`);
        const outside = await rows(source, `select * from t where status = 'closed' order by id`)();
        // On the new primary rows leave the filter, and come into being outside of it: they are rows of the old source like any other.
        await target.run(`update t set status = 'shut' where id = 4; update t set v = 9 where id = 6; insert into t values (101, 'new', 1), (102, 'open', 1); delete from t where id = 8; insert into k values (-5, 1)`);
        await same('what the new primary wrote', rows(source, `select * from t where status <> 'closed' order by id`), rows(target, 'select * from t order by id'));
        await same('the row outside of the other filter', rows(source, 'select * from k where id < 0 or id > 10 order by id'), rows(target, 'select * from k order by id'));
        expect(await rows(source, `select * from t where status = 'closed' order by id`)()).toBe(outside);
        await switchover({ source: target.spec, target: source.spec, job: `${job}_reverse`, reverse: true });
      }
      {
        await using _again = await following(source, target, job);
        await source.run(`update t set status = 'open' where id in (101, 3); update t set v = 5 where id = 4; update t set status = 'closed' where id = 10; insert into t values (103, 'closed', 1), (104, 'open', 1); insert into k values (5000, 2), (-6, 2); update k set v = 3 where id = 1; update k set id = 40 where id = -5`);
        await same('the rows of the filter', rows(source, `select * from t where status = 'open' order by id`), rows(target, 'select * from t order by id'));
        await same('the rows of the other filter', rows(source, 'select * from k where id > 10 order by id'), rows(target, 'select * from k order by id'));
        expect(await target.query(`select table_name, reason from pgweave.table_state where job = '${job}' and state <> 'streaming'`)).toEqual([]);
      }
    } finally {
      await cleanupAll(source.spec, target.spec);
    }
  });
});
