import { describe, expect, it } from 'vitest';
import { createDatabase, sharedServer } from '../../test/support/servers.ts';
import { fixTimeWindows, noRules, parseColumns, parseTableFilter, parseTimeFilter, type SelectionRules } from '../core/selection/rules.ts';
import { clone, planClone } from './clone.ts';
import { follow } from './follow.ts';
import { tableCommand } from './table.ts';

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

  it.each([[14, 17], [16, 15]] as const)('%i to %i: tells the rows apart itself where the source cannot', async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'ff_src');
    await using target = await createDatabase(await sharedServer(to), 'ff_dst');
    // None of these filters can be published by either source: columns outside of the identity, or an expression that is not one for a publication.
    await source.run(`create schema app; create function app.is_open(text) returns boolean language sql immutable as $$select $1 like 'op%'$$;
      create table orders (id int primary key, status text, n numeric(8,2), code varchar(4), fixed char(4), tags text[], at timestamptz, big text); alter table orders alter big set storage external;
      insert into orders select i, case i % 3 when 0 then 'open' when 1 then 'closed' end, i, 'c' || i, 'f', array['a', 'b'], now(), repeat('x', 9000) from generate_series(1, 30) i;
      create table seen (id int primary key, at timestamptz, note text); insert into seen select i, now() - i * interval '20 days', 'n' from generate_series(1, 10) i;
      create table parts (id int, v int, status text, primary key (id)) partition by range (id); create table parts_1 partition of parts for values from (0) to (10); create table parts_2 partition of parts for values from (10) to (100);
      insert into parts select i, i, 'open' from generate_series(1, 20) i;
      create table whole (id int primary key, status text, big text); alter table whole replica identity full; alter table whole alter big set storage external; insert into whole select i, case when i % 2 = 0 then 'open' else 'no' end, repeat('y', 9000) from generate_series(1, 10) i;
      create table folded (id int primary key, word text collate "C"); insert into folded values (1, 'a'), (2, 'Z');
      create table bare (v int, status text); insert into bare values (1, 'open'), (2, 'no'); create table free (id int primary key)`);
    const rules = fixTimeWindows({ ...filters(`orders:status = 'open'`, 'parts:v % 2 = 0', 'whole:app.is_open(status)', `folded:word < 'a'`, 'bare:app.is_open(status)'), timeFilters: [parseTimeFilter('seen:at:100 days')] }, new Date());
    const options = { source: source.spec, target: target.spec, job: newJob() };
    const plan = await planClone({ ...options, rules, mode: 'follow' });
    expect(plan.rowFilters.find((f) => f.table === 'public.orders')).toEqual({ table: 'public.orders', by: 'pgweave', because: from < 15 ? expect.stringContaining('the source is 14') : 'status is outside the replica identity' });
    await clone({ ...options, rules, roles: false, mode: 'follow' });
    if (from >= 15) expect(await source.query('select tablename from pg_publication_tables where rowfilter is not null')).toEqual([]);
    await target.run(`alter table orders add own text default 'target'; update orders set own = 'kept' where id = 9`);
    await source.run(`update orders set status = 'closed' where id = 3; update orders set n = 0.5 where id = 9; update orders set id = 106 where id = 6; update orders set id = 112, status = 'closed' where id = 12; update orders set status = null where id = 15;
      update orders set id = 101, status = 'open', big = 'sent' where id = 1; update orders set status = 'open', big = null where id = 2; update orders set n = 7 where id in (4, 5); delete from orders where id in (18, 7);
      insert into orders values (201, 'open', 1, 'abcd', 'xy', '{}', null, 'n'), (202, 'closed', 1, null, null, null, null, null), (203, null, 1, null, null, null, null, null); update orders set status = 'open' where id = 202; delete from orders where id = 201; insert into orders values (201, 'open', 2.25);
      update seen set at = now() - interval '1 year' where id = 1; update seen set at = now() where id = 9; update seen set at = null where id = 2; update seen set note = 'm'; insert into seen values (11, now(), 'new'), (12, null, 'no');
      update parts set v = v + 1 where id in (2, 3, 12, 13); update parts set id = id + 50 where id in (4, 5); delete from parts where id in (6, 7); insert into parts values (90, 2, 'x'), (91, 3, 'x');
      update whole set status = 'open' where id = 1; update whole set status = 'no' where id = 2; update whole set id = 103, status = 'opened' where id = 3; update whole set status = 'opening' where id = 4; delete from whole where id in (5, 6);
      insert into folded values (3, 'B'), (4, 'b'); update folded set word = 'x' where id = 2; insert into bare values (3, 'open'), (4, 'no'), (5, null); insert into free values (1)`);
    await follow({ ...options, untilCaughtUp: true });
    const where: [string, string][] = [['orders', `status = 'open'`], ['seen', `at >= '${rules.timeFilters[0]!.since!}'`], ['parts', 'v % 2 = 0'], ['whole', 'app.is_open(status)'], ['folded', `word < 'a'`], ['bare', 'app.is_open(status)'], ['free', 'true']];
    const same = async () => {
      expect(await target.query(`select table_name, state, reason from pgweave.table_state where state <> 'streaming'`)).toEqual([]);
      for (const [table, condition] of where) {
        const rows = await source.query(`select * from ${table} where ${condition} order by 1`);
        expect(rows.length, table).toBeGreaterThan(0);
        expect((await target.query<Record<string, unknown>>(`select * from ${table} order by 1`)).map(({ own: _own, ...row }) => row), table).toEqual(rows);
      }
    };
    await same();
    // What the target has of its own stays where a row stays, and comes new where a row moves in.
    expect(await target.query('select id, own from orders where id in (9, 101, 106) order by 1')).toEqual([{ id: 9, own: 'kept' }, { id: 101, own: 'target' }, { id: 106, own: 'target' }]);

    // A large value that was not sent is there where the row stays or leaves; of one that moves in it is nowhere.
    await source.run(`update orders set status = 'open' where id = 8`);
    await follow({ ...options, untilCaughtUp: true });
    expect(await target.query(`select table_name, reason, row_key from pgweave.table_state where state = 'paused'`)).toEqual([
      { table_name: 'orders', reason: 'a row moves into the row filter of public.orders, and the source did not send its value of big, which is large and unchanged: copy the table again', row_key: 'id=8' },
    ]);
    await source.run(`update orders set status = 'open' where id = 10; update free set id = 2`);
    await tableCommand({ ...options, table: { schema: 'public', name: 'orders' }, action: 'copy-again' });
    await source.run(`update orders set status = 'closed' where id = 10; update orders set n = 3 where id = 8`);
    await follow({ ...options, untilCaughtUp: true });
    await same();

    // A partition that comes later has the filter of its root.
    const later = 'create table parts_3 partition of parts for values from (100) to (200)';
    await source.run(`${later}; insert into parts values (100, 1, 'x'), (101, 2, 'x')`);
    await target.run(later);
    await tableCommand({ ...options, table: { schema: 'public', name: 'parts_3' }, action: 'add' });
    await source.run(`update parts set v = v + 1 where id >= 100; insert into parts values (102, 1, 'x'), (103, 2, 'x'); update parts set id = 104 where id = 90`);
    await follow({ ...options, untilCaughtUp: true });
    await same();

    // A table that leaves the job and comes again is published as before: as a whole.
    const seen = { schema: 'public', name: 'seen' };
    await tableCommand({ ...options, table: seen, action: 'drop' });
    await source.run('update seen set at = now() where id = 10; delete from seen where id = 9');
    await tableCommand({ ...options, table: seen, action: 'add' });
    await source.run(`update seen set at = now() where id = 8; update seen set at = null where id = 10; update seen set note = 'last'`);
    await follow({ ...options, untilCaughtUp: true });
    await same();
  });

  it.each([[14, 16], [17, 18]] as const)('%i to %i: 600 random changes leave what the filter says', async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'ff_src');
    await using target = await createDatabase(await sharedServer(to), 'ff_dst');
    await source.run(`create table r (a int, b text, v int, word text, big text, primary key (a, b)); alter table r alter big set storage external; create table f (id int primary key, v int, word text, big text); alter table f replica identity full; alter table f alter big set storage external;
      insert into r select i, 'k', i % 7, 'w' || i, case when i % 2 = 0 then repeat('b', 5000) end from generate_series(1, 40) i; insert into f select i, i % 7, 'w' || i, repeat('b', 5000) from generate_series(1, 40) i`);
    const condition = `(v > 2 or word like '%x')`;
    const options = { source: source.spec, target: target.spec, job: newJob() };
    await clone({ ...options, rules: filters(`r:${condition}`, `f:${condition} and lower(word) <> 'q' and md5(word) > '0'`), roles: false, mode: 'follow' });
    const seed = Date.now();
    let state = seed;
    const random = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % below;
    };
    const word = () => ['null', `'x'`, `'ax'`, `'n'`, `'m'`][random(5)];
    const v = () => (random(6) === 0 ? 'null' : String(random(7)));
    const change = (): string => {
      const id = random(60) + 1;
      const kind = random(9);
      const big = random(2) === 0 ? 'null' : `'s'`;
      // A large value goes with a row that may move in: not sent, it would pause the table.
      if (kind < 2) return `insert into r values (${id}, 'k', ${v()}, ${word()}, ${big}) on conflict do nothing; insert into f values (${id}, ${v()}, ${word()}, repeat('c', 5000)) on conflict do nothing`;
      if (kind < 5) return `update r set v = ${v()}, word = ${word()}, big = ${big} where a = ${id}; update f set v = ${v()}, word = ${word()} where id = ${id}`;
      if (kind === 5) return `update r set a = a + 100, v = ${v()}, big = ${big} where a = ${id} and not exists (select from r where a = ${id} + 100); update f set id = id + 100, v = ${v()} where id = ${id} and not exists (select from f where id = ${id} + 100)`;
      if (kind === 6) return `update r set b = b where a = ${id}; update f set v = v where id = ${id}`;
      if (kind === 7) return `update r set a = a - 100, word = ${word()}, big = ${big} where a > 100 and a % 60 = ${id} % 60 and not exists (select from r as o where o.a = r.a - 100)`;
      return `delete from r where a = ${id}; delete from f where id in (${id}, ${id} + 100)`;
    };
    for (let round = 0; round < 6; round += 1) {
      for (let i = 0; i < 20; i += 1) await source.run(`begin; ${Array.from({ length: 5 }, change).join('; ')}; commit`);
      await follow({ ...options, untilCaughtUp: true });
      expect(await target.query(`select table_name, state, reason from pgweave.table_state where state <> 'streaming'`), `seed ${seed}`).toEqual([]);
      for (const table of ['r', 'f']) expect(await target.query(`select * from ${table} order by 1`), `${table}, seed ${seed}`).toEqual(await source.query(`select * from ${table} where ${condition} ${table === 'f' ? `and lower(word) <> 'q' and md5(word) > '0'` : ''} order by 1`));
    }
  });

  it('refuses filters that neither side can apply, before anything is made', async () => {
    for (const [version, ddl, text, exclude, said, fix] of [
      [14, 'create table f (id int, v int); alter table f replica identity full', 'f:v > 1', '', 'no key', 'give public.f a primary key'],
      [14, 'create table f (id int primary key, v int, w int generated always as (v * 2) stored)', 'f:w > 1', '', 'w is generated', 'generated from'],
      [16, 'create table f (id int primary key, v int)', 'f:v > 1', 'f.v', 'v is left out', 'Take v along'],
      [16, 'create table f (id int, v text); alter table f replica identity full; create function twice(text) returns text language sql immutable as $$select $1 || $1$$', `f:public.twice(v) <> 'aa'`, '', 'a publication does not take it', 'give public.f a primary key'],
    ] as const) {
      await using source = await createDatabase(await sharedServer(version), 'ff_src');
      await using target = await createDatabase(await sharedServer(17), 'ff_dst');
      await source.run(ddl);
      const options = { source: source.spec, target: target.spec, job: newJob(), rules: { ...filters(text), excludeColumns: exclude === '' ? [] : parseColumns(exclude) }, roles: false };
      await expect(clone({ ...options, mode: 'follow' })).rejects.toMatchObject({ code: 'cannot-publish', exitCode: 3, message: expect.stringContaining(said), hint: expect.stringContaining(fix) });
      expect(await target.query(`select 1 from pg_namespace where nspname = 'pgweave'`)).toEqual([]);
      expect(await source.query('select 1 from pg_publication')).toEqual([]);
      // Without a stream any filter will do.
      expect(await clone(options)).toMatchObject({ tables: 1 });
    }
  });
});
