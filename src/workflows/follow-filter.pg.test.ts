import { describe, expect, it } from 'vitest';
import { createDatabase, sharedServer } from '../../test/support/servers.ts';
import { fixTimeWindows, noRules, parseTableFilter, parseTimeFilter, type SelectionRules } from '../core/selection/rules.ts';
import { clone } from './clone.ts';
import { follow } from './follow.ts';

let jobs = 0;
const newJob = () => `ff${process.pid}_${(jobs += 1)}`;
const filters = (...texts: string[]): SelectionRules => ({ ...noRules, tableFilters: texts.map(parseTableFilter) });

describe('pgweave\'s own stream under row filters', () => {
  it.each([[15, 18], [18, 14]] as const)('%i to %i: brings what moves in, takes away what moves out, and nothing else', async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'ff_src');
    await using target = await createDatabase(await sharedServer(to), 'ff_dst');
    await source.run(`create table "Or ders" (id int primary key, status text, big text); alter table "Or ders" alter big set storage external, replica identity full;
      insert into "Or ders" select i, case when i % 2 = 0 then 'open' else 'closed' end, repeat('x', 9000) from generate_series(1, 20) i;
      create table keyed (id int primary key, v int); insert into keyed select i, 0 from generate_series(1, 20) i;
      create table seen (id int primary key, at timestamptz); alter table seen replica identity full; insert into seen select i, now() - i * interval '20 days' from generate_series(1, 10) i;
      create table parts (id int, v int, primary key (id)) partition by range (id); create table parts_1 partition of parts for values from (0) to (10); create table parts_2 partition of parts for values from (10) to (100); insert into parts select i, 0 from generate_series(1, 20) i;
      create table bare (v int, note text); insert into bare values (1, 'no'), (9, 'yes'); create table free (id int primary key)`);
    const rules = fixTimeWindows({ ...filters(`"Or ders":status = 'open'`, 'keyed:id > 10', 'parts:id % 2 = 0', 'bare:v > 5'), timeFilters: [parseTimeFilter('seen:at:100 days')] }, new Date());
    const job = newJob();
    const options = { source: source.spec, target: target.spec, job };
    await clone({ ...options, rules, roles: false, mode: 'follow' });
    await source.run(`update "Or ders" set status = 'closed' where id = 2; update "Or ders" set status = 'open' where id = 3; update "Or ders" set id = 104 where id = 4; delete from "Or ders" where id in (5, 6); insert into "Or ders" values (201, 'open', 'n'), (202, 'closed', 'n');
      update keyed set id = 5 + 100 where id = 5; update keyed set id = -15 where id = 15; update keyed set v = 1; delete from keyed where id in (1, 20);
      update seen set at = now() - interval '1 year' where id = 1; update seen set at = now() where id = 9; update parts set id = id + 1 where id in (20); update parts set id = 40 where id = 19; insert into parts values (50, 1), (51, 1);
      insert into bare values (2, 'no'), (8, 'yes'); insert into free values (1)`);
    await follow({ ...options, untilCaughtUp: true });
    const since = rules.timeFilters[0]!.since!;
    for (const [table, where] of [['"Or ders"', `status = 'open'`], ['keyed', 'id > 10'], ['seen', `at >= '${since}'`], ['parts', 'id % 2 = 0'], ['bare', 'v > 5'], ['free', 'true']]) {
      const rows = await source.query(`select * from ${table} where ${where} order by 1`);
      expect(rows.length, table).toBeGreaterThan(0);
      expect(await target.query(`select * from ${table} order by 1`), table).toEqual(rows);
    }
  });

  it('refuses filters that the source cannot apply, before anything is made', async () => {
    for (const [version, said, fix] of [[14, 'from PostgreSQL 15 on', 'Leave the filter out'], [16, 'reads v, which is not in its replica identity', 'REPLICA IDENTITY FULL']] as const) {
      await using source = await createDatabase(await sharedServer(version), 'ff_src');
      await using target = await createDatabase(await sharedServer(17), 'ff_dst');
      await source.run('create table f (id int primary key, v int)');
      const options = { source: source.spec, target: target.spec, job: newJob(), rules: filters('f:v > 1'), roles: false };
      await expect(clone({ ...options, mode: 'follow' })).rejects.toMatchObject({ code: 'cannot-publish', exitCode: 3, message: expect.stringContaining(said), hint: expect.stringContaining(fix) });
      expect(await target.query(`select 1 from pg_namespace where nspname = 'pgweave'`)).toEqual([]);
      expect(await source.query('select 1 from pg_publication')).toEqual([]);
      // Without a stream any filter will do.
      expect(await clone(options)).toMatchObject({ tables: 1 });
    }
  });
});
