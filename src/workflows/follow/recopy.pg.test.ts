import { expect, it } from 'vitest';
import { makePair } from '../../../test/support/follow.ts';
import { sharedServer, waitFor } from '../../../test/support/servers.ts';
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
