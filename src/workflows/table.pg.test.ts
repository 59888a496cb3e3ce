import { describe, expect, it } from 'vitest';
import { makePair, type Pair, type Running } from '../../test/support/follow.ts';
import { createDatabase, sharedServer, waitFor } from '../../test/support/servers.ts';
import { readTableState } from '../changes/table-states.ts';
import { Session } from '../pg/session.ts';
import { planCleanup, runCleanup } from './cleanup.ts';
import { clone } from './clone.ts';
import { Follower } from './follow.ts';
import { tableCommand, type TableAction } from './table.ts';

const schema = `create table a (id int primary key, v text); create table b (id int primary key, u int, v text)`;
const b = { schema: 'public', name: 'b' };

async function equal(pair: Pair, ...tables: string[]): Promise<void> {
  for (const table of tables) {
    // By name: the order of columns may differ.
    const rows = async (side: Pair['source']) => (await side.query<{ row: Record<string, unknown> }>(`select to_json(t) as row from ${table} t order by id`)).map((r) => r.row);
    expect(await rows(pair.target), table).toEqual(await rows(pair.source));
  }
}

function act(pair: Pair, action?: TableAction) {
  return tableCommand({ source: pair.source.spec, target: pair.target.spec, job: pair.job, table: b, action });
}

async function stateOf(pair: Pair) {
  await using session = await Session.open(pair.target.spec, { role: 'test' });
  return (await readTableState(session, pair.job, b))!;
}

/** A pair whose table b has failed on the target while a streams. */
async function failing(options: { setWiseFrom?: number } = {}): Promise<{ pair: Pair; one: Running }> {
  const server = await sharedServer(15);
  const pair = await makePair(server, server, schema, { targetSchema: `${schema}; create unique index b_u on b (u)`, publication: 'for table a, b' });
  const one = await pair.follow(options);
  await pair.write(one, `insert into a select g, 'a' from generate_series(1, 100) g; insert into b select g, g, 'b' from generate_series(1, 100) g`);
  // The third transaction violates the target's own unique key; the first two must be in, later ones wait.
  for (const sql of [`update b set v = 'one' where id <= 50; update a set v = 'one'`, `insert into b values (101, 101, 'good')`, `insert into b values (102, 7, 'bad'); insert into a values (102, 'with the bad one')`, `insert into b values (103, 103, 'later'); update b set v = 'later' where id = 102; delete from b where id = 1`, `insert into a values (103, 'later')`]) await pair.source.run(`begin; ${sql}; commit`);
  await pair.caughtUp(one);
  return { pair, one };
}

describe('a table that fails', () => {
  it.each([undefined, 1])('is paused with reason, LSN and key; the rest goes on; retried after the cause is gone (set-wise from %s rows)', async (setWiseFrom) => {
    const { pair, one } = await failing(setWiseFrom === undefined ? {} : { setWiseFrom });
    await using _ = pair;
    await equal(pair, 'a');
    const paused = await stateOf(pair);
    expect(paused.state).toMatchObject({ name: 'paused', reason: expect.stringContaining('b_u') as string });
    expect(paused).toMatchObject({ rowKey: 'id=102', sqlstate: '23505' });
    expect(await pair.target.query('select v, count(*)::int as n from b group by 1 order by 1')).toEqual([{ v: 'b', n: 50 }, { v: 'good', n: 1 }, { v: 'one', n: 50 }]);
    expect(one.events.filter((e) => e.type === 'warning' && e.code === 'table-paused')).toHaveLength(1);
    // Still failing: it stays paused and says so.
    expect(await act(pair, 'retry')).toMatchObject({ by: 'follower', state: { name: 'paused' }, waiting: 4 });
    await pair.target.run('drop index b_u');
    expect(await act(pair, 'retry')).toMatchObject({ by: 'follower', state: { name: 'streaming' }, waiting: 0 });
    await pair.write(one, `insert into b values (200, 200, 'live again')`);
    await equal(pair, 'a', 'b');
    await one.stop();
  });

  it('can leave out one transaction, from another terminal or while nothing runs', async () => {
    const { pair, one } = await failing();
    await using _ = pair;
    await one.stop();
    expect(await act(pair, 'retry')).toMatchObject({ by: 'here', state: { name: 'paused' } });
    expect(await act(pair, 'skip-transaction')).toMatchObject({ by: 'here', state: { name: 'streaming' }, skippedLsn: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) as string });
    // The update of the row that was left out finds nothing; the rest is there.
    expect(await pair.target.query('select count(*)::int as n, bool_or(id = 102) as bad, bool_or(id = 103) as later, bool_or(id = 1) as deleted from b')).toEqual([{ n: 101, bad: false, later: true, deleted: false }]);
    await expect(act(pair, 'skip-transaction')).rejects.toMatchObject({ code: 'nothing-to-skip' });
    const again = await pair.follow();
    await pair.write(again, `insert into b values (300, 300, 'streams')`);
    expect(await pair.target.query('select v from b where id = 300')).toEqual([{ v: 'streams' }]);
    await again.stop();
  });

  it('can be copied again under load, each change exactly once; another can join and leave', async () => {
    const { pair, one } = await failing();
    await using _ = pair;
    await pair.target.run('drop index b_u; delete from b where id > 40');
    const writer = (async () => {
      await using session = await pair.source.session();
      for (let i = 0; i < 150; i += 1) {
        await session.query(`begin; insert into b values (${1000 + i}, ${1000 + i}, 'w'); update b set v = v || '.' where id in (${i}, ${900 + i}); delete from b where id = ${1000 + i - 20}; insert into a values (${1000 + i}, 'w'); commit`);
      }
    })();
    expect(await act(pair, 'copy-again')).toMatchObject({ by: 'follower', state: { name: 'streaming' } });
    await writer;
    await pair.caughtUp(one);
    await equal(pair, 'a', 'b');
    // A new table, unknown to the job until it is added.
    await pair.source.run(`create table c (id int primary key, v text); alter publication ${pair.slot} add table c; insert into c select g, 'old' from generate_series(1, 10) g`);
    await pair.target.run('create table c (id int primary key, v text)');
    await pair.write(one, `insert into c values (11, 'streamed')`);
    expect((await pair.rows('c')).target).toEqual([]);
    const c = { source: pair.source.spec, target: pair.target.spec, job: pair.job, table: { schema: 'public', name: 'c' } };
    expect(await tableCommand(c)).toMatchObject({ state: { name: 'paused' }, waiting: 11 });
    await expect(tableCommand({ ...c, action: 'retry' })).rejects.toMatchObject({ code: 'table-not-copied' });
    expect(await tableCommand({ ...c, action: 'add' })).toMatchObject({ state: { name: 'streaming' }, waiting: 0 });
    await pair.write(one, `update c set v = 'new'; insert into c values (12, 'x')`);
    await equal(pair, 'c');
    expect(await tableCommand({ ...c, action: 'drop' })).toMatchObject({ state: null });
    await pair.write(one, `insert into c values (13, 'not ours'), (14, 'nor this'); insert into a values (9999, 'still')`);
    expect((await pair.rows('c')).target).toHaveLength(12);
    await equal(pair, 'a');
    await expect(tableCommand({ ...c, action: 'retry' })).rejects.toMatchObject({ code: 'unknown-table' });
    await one.stop();
  });

  it('is paused where the schema changed, and the DDL is named; columns are added on request', async () => {
    const server = await sharedServer(15);
    await using pair = await makePair(server, server, `${schema}; create table late (id int primary key)`);
    const one = await pair.follow();
    await pair.write(one, `insert into b values (1, 1, 'x')`);
    await pair.write(one, `alter table b add column note varchar(30) default 'it''s', add column "Odd" int; insert into b values (2, 2, 'y', 'n', 5); insert into a values (1, 'goes on')`);
    const { state } = await stateOf(pair);
    expect(state).toMatchObject({ name: 'paused', reason: expect.stringContaining('"note", "Odd"') as string });
    const warning = one.events.find((e) => e.type === 'warning' && e.code === 'table-paused');
    expect(warning).toMatchObject({ hint: expect.stringContaining(`alter table "public"."b" add column "note" character varying(30) default 'it''s'::character varying; alter table "public"."b" add column "Odd" integer;`) as string });
    await equal(pair, 'a');
    await pair.target.run(`alter table b add column note varchar(30) default 'it''s', add column "Odd" int`);
    expect(await act(pair, 'retry')).toMatchObject({ state: { name: 'streaming' } });
    await equal(pair, 'b');
    // The target is altered under prepared statements; a column that only the target dropped is missed.
    await pair.target.run('alter table b alter column v type varchar(100); alter table a add column extra int default 3');
    await pair.write(one, `update b set v = 'changed'; insert into a values (2, 'z')`);
    await equal(pair, 'b');
    await pair.target.run('alter table b drop column u');
    await pair.write(one, `update b set u = 77; insert into a values (3, 'goes on')`);
    expect((await stateOf(pair)).state.name).toBe('paused');
    expect(await pair.target.query('select count(*)::int as n from a')).toEqual([{ n: 3 }]);
    await one.stop();
    // A missing table, and additive changes made by themselves.
    await pair.target.run('alter table b add column u int; drop table late');
    const two = await pair.follow({ addColumns: true });
    await act(pair, 'retry');
    await pair.write(two, `alter table b add column more numeric(8, 2) not null default 1.5; insert into b (id, u, v, note, more) values (50, 50, 'a', 'b', 2.25); insert into late values (1)`);
    await equal(pair, 'b');
    await waitFor('late to be paused', async () => (await tableCommand({ source: pair.source.spec, target: pair.target.spec, job: pair.job, table: { schema: 'public', name: 'late' } })).state?.name === 'paused');
    await two.stop();
  });
});

it('a table without a key can be added later to a job that was cloned: its inserts are published and streamed', async () => {
  await using source = await createDatabase(await sharedServer(16), 'src');
  await using target = await createDatabase(await sharedServer(17), 'dst');
  const ends = { source: source.spec, target: target.spec, job: target.name.toLowerCase() };
  await source.run('create table a (id int primary key)');
  await clone({ ...ends, mode: 'follow', roles: false });
  await using follower = await Follower.open(ends);
  const running = follower.run();
  running.catch(() => undefined);
  await source.run(`create table bare (v text); insert into bare values ('old')`);
  await target.run('create table bare (v text)');
  const bare = { ...ends, table: { schema: 'public', name: 'bare' } };
  expect(await tableCommand({ ...bare, action: 'add' })).toMatchObject({ state: { name: 'streaming' } });
  await source.run(`insert into bare values ('new'); insert into a values (1)`);
  await waitFor('both rows', async () => (await target.query('select v from bare order by v')).length === 2);
  // The source's own writes are as free as before.
  await source.run(`update bare set v = 'changed'; delete from bare`);
  expect(await target.query('select v from bare order by v')).toEqual([{ v: 'new' }, { v: 'old' }]);
  follower.stop();
  await running;
  await follower[Symbol.asyncDispose]();
  const plan = await planCleanup(ends);
  expect((await runCleanup(plan, ends)).failed).toEqual([]);
});
