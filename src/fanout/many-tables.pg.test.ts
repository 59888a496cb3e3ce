import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allStream, fanoutConfig, silentLog, type FanoutShape } from '../../test/support/fanout.ts';
import { createDatabase, privateServer, waitFor, type TestDatabase } from '../../test/support/servers.ts';
import { FanoutService } from './service.ts';

const state = mkdtempSync(join(tmpdir(), 'pgwfm-'));
beforeAll(() => {
  process.env['XDG_STATE_HOME'] = state;
});
afterAll(() => {
  delete process.env['XDG_STATE_HOME'];
  rmSync(state, { recursive: true, force: true });
});

const tables = 200;
/** Tables of the targets that copy what they get. */
const copied = 40;
const name = (i: number) => `many.t${String(i).padStart(3, '0')}`;
const each = (sql: (table: string, i: number) => string) => Array.from({ length: tables }, (_, i) => sql(name(i), i)).join('; ');
const create = `create schema many; ${each((t) => `create table ${t} (id int primary key, v int)`)}`;
/** The first tables of a database as one text. */
const allRows = async (database: TestDatabase, count: number) => JSON.stringify(await database.query(Array.from({ length: count }, (_, i) => `(select ${i} as t, count(*)::int as n, coalesce(sum(id * 1000 + v), 0)::text as s from ${name(i)})`).join(' union all ') + ' order by 1'));

describe('200 tables to ten targets', () => {
  it('are brought in, go on, and leave, with both engines and few slots', async () => {
    const publication = `many_${process.pid}`;
    // Six slots are taken for good; the copies make do with what is left.
    await using origin = await privateServer(16, { settings: { max_replication_slots: '10', max_wal_senders: '10' } });
    await using there = await privateServer(17, { settings: { max_worker_processes: '40', max_logical_replication_workers: '24', max_sync_workers_per_subscription: '1' } });
    const source = await createDatabase(origin, 'src');
    await source.run(`${create}; ${each((t, i) => `insert into ${t} values (1, ${i}), (2, ${i})`)}`);
    const databases = await Promise.all(Array.from({ length: 10 }, (_, i) => createDatabase(there, `t${i}`)));
    await Promise.all(databases.map((d) => d.run(`${create}${d === databases[9] || d === databases[4] ? '' : `; ${each((t, i) => `insert into ${t} values (1, ${i}), (2, ${i})`)}`}`)));
    // Eight targets hold the rows already, so that it is the reconciling that takes its time; one of each engine copies some tables.
    const copies = (i: number) => i === 4 || i === 9;
    const shape = (list: readonly string[], some: readonly string[]): FanoutShape => ({
      tables: list, settings: { reconcile_interval: '30s' },
      targets: databases.map((d, i) => ({ name: `t${i}`, uri: d.uri, engine: i < 5 ? 'native' : 'stream', settings: { enable_initial_sync: copies(i) }, ...(copies(i) ? { tables: some } : {}) })),
    });
    await using service = new FanoutService(fanoutConfig(publication, source.uri, shape(['many.*'], Array.from({ length: copied }, (_, i) => name(i)))), await silentLog());
    service.start();
    await allStream(service, undefined, 180_000);
    expect(service.health().targets.map((t) => t.tables)).toEqual(databases.map((_, i) => (copies(i) ? copied : tables)));
    await source.run(each((t, i) => `insert into ${t} values (3, ${i}); update ${t} set v = v + 1 where id = 1; delete from ${t} where id = 2`));
    for (const [i, database] of databases.entries()) {
      const count = copies(i) ? copied : tables;
      const want = await allRows(source, count);
      await waitFor('all rows to be equal', async () => (await allRows(database, count)) === want);
    }

    // All but ten leave.
    const kept = Array.from({ length: 10 }, (_, i) => name(i));
    await service.replace(fanoutConfig(publication, source.uri, shape(kept, kept)));
    await allStream(service, kept.length, 120_000);
    await source.run(each((t) => `insert into ${t} values (4, 4)`));
    for (const database of databases) await waitFor('what stays to go on', async () => (await database.query(`select 1 from ${kept[9]} where id = 4`)).length === 1);
    for (const database of databases) expect(await database.query(`select 1 from ${name(20)} where id = 4`)).toEqual([]);
    await service.stop();
  });
});
