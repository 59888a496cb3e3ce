import { expect, it } from 'vitest';
import { makePair } from '../../../test/support/follow.ts';
import { privateServer, sharedServer, waitFor } from '../../../test/support/servers.ts';
import { recopyTable } from './recopy.ts';

it('copies a table while another copy of the job makes the origin that both mark their rows with', async () => {
  await using pair = await makePair(await sharedServer(16), await sharedServer(15), 'create table t (id int primary key)');
  await pair.source.run('insert into t select generate_series(1, 10)');
  await using other = await pair.target.session();
  await other.query(`begin; select pg_replication_origin_create('${pair.slot}_copy')`);
  const rules = { mapTable: (table: { schema: string; name: string }) => table, excludedColumns: () => [], rowCondition: () => undefined, filtered: false };
  const copied = recopyTable({ source: pair.source.spec, target: pair.target.spec, job: pair.job, emit: () => undefined, rules }, { schema: 'public', name: 't' }).then(() => 'copied', (error: unknown) => error);
  await waitFor('the copy to wait for the other one', async () => (await pair.target.query(`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%pg_replication_origin_create%'`)).length > 0);
  await other.query('commit');
  expect(await copied).toBe('copied');
  expect(await pair.rows('t')).toMatchObject({ target: { length: 10 } });
});

it('is made once more where the target went away in the middle of it, and its table is not paused for that', async () => {
  await using to = await privateServer(17);
  await using pair = await makePair(await sharedServer(14), to, 'create table t (id int primary key, v text)');
  const one = await pair.follow();
  await pair.write(one, `insert into t select g, 'a' from generate_series(1, 50) g`);
  // The copy waits for this lock where it empties the table.
  const blocking = await pair.target.session();
  await blocking.query('begin; select from t');
  one.follower.copyAgain({ schema: 'public', name: 't' });
  await waitFor('the copy to wait', async () => (await pair.target.query(`select from pg_stat_activity where application_name like '%copy%' and wait_event_type = 'Lock'`)).length > 0);
  await to.restart('immediate');
  await pair.write(one, `update t set v = 'b' where id <= 25; delete from t where id > 40`);
  await waitFor('the table to stream again', async () => (await pair.target.query(`select from pgweave.table_state where job = '${pair.job}' and state = 'streaming'`)).length === 1, 60_000);
  expect(one.events.filter((e) => e.type === 'table-state' && e.state.name === 'paused')).toEqual([]);
  await pair.caughtUp(one);
  const { source, target } = await pair.rows('t');
  expect(target).toEqual(source);
  expect(target).toHaveLength(40);
});
