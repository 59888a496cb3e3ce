import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cleanupAll } from '../../test/support/jobs.ts';
import { createDatabase, privateServer, sharedServer, waitFor, type TestDatabase } from '../../test/support/servers.ts';
import { parseConfig } from '../core/config.ts';
import { createLog } from '../core/log.ts';
import { resolveFanoutConfig, type FanoutConfig } from './config.ts';
import { startHealthServer } from './health-server.ts';
import { FanoutService } from './service.ts';

const state = mkdtempSync(join(tmpdir(), 'pgwfs-'));
beforeAll(() => {
  process.env['XDG_STATE_HOME'] = state;
});
afterAll(() => {
  delete process.env['XDG_STATE_HOME'];
  rmSync(state, { recursive: true, force: true });
});

const schema = `
  create table orders (id int primary key, customer text not null, total numeric(10,2), note text);
  create schema sales; create table sales.lines (id bigint primary key, v text); create table sales.more (id int primary key, v int);
  create table bare (v int);`;

let counter = 0;
interface Shape { readonly tables: readonly string[]; readonly targets: readonly Record<string, unknown>[]; readonly settings?: Record<string, unknown> }

function configOf(publication: string, source: TestDatabase, shape: Shape): FanoutConfig {
  return resolveFanoutConfig(parseConfig(JSON.stringify({ replication: {
    publication_name: publication, source: { uri: source.uri }, targets: shape.targets, tables: shape.tables, settings: { wait_interval_seconds: 0.2, reconcile_interval: '1s', health_port: 0, ...shape.settings },
  } }), 'test.json', 'json'));
}

const rows = async (database: TestDatabase, table: string) => (await database.query<{ d: string }>(`select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) as d from ${table} t`))[0]!.d;

async function equal(source: TestDatabase, target: TestDatabase, table: string, there = table): Promise<void> {
  await waitFor(`${there} to be equal`, async () => (await rows(source, table)) === (await rows(target, there)).valueOf());
}

const allHealthy = (service: FanoutService) => waitFor('all targets to stream', () => service.health().targets.every((t) => t.state === 'streaming'), 90_000);

describe('fan-out service', () => {
  it('keeps native and stream targets of several versions, takes tables in and out under load, and removes a target', async () => {
    const publication = `fan_${process.pid}_${(counter += 1)}`;
    await using source = await createDatabase(await sharedServer(15), 'src');
    await using one = await createDatabase(await sharedServer(16), 'one');
    await using two = await createDatabase(await sharedServer(18), 'two');
    await using three = await createDatabase(await sharedServer(14), 'three');
    await using four = await createDatabase(await sharedServer(17), 'four');
    await source.run(`${schema} insert into orders select i, 'c' || i, i, repeat('x', 50) from generate_series(1, 500) i; insert into sales.lines select i, 'v' from generate_series(1, 100) i; insert into bare values (1)`);
    await two.run(schema);
    await three.run('create schema shop; create table shop.purchases (note text, id int primary key, customer text not null)');
    const targets = [
      { name: 'one', uri: one.uri }, { name: 'two', uri: two.uri, engine: 'stream' },
      { name: 'three', uri: three.uri, engine: 'stream', tables: ['orders'], renames: { orders: 'shop.purchases' }, exclude_columns: { orders: ['total'] } }, { name: 'four', uri: four.uri, tables: ['orders', 'bare'] },
    ];
    const shape: Shape = { tables: ['orders', 'sales.*'], targets, settings: { create_schema: true } };
    const log = await createLog({ level: 'error', format: 'json', stream: { write: () => undefined } });
    await using service = new FanoutService(configOf(publication, source, shape), log);
    await using http = await startHealthServer(service, '127.0.0.1', 0);
    service.start();
    const writing = await source.session();
    await allHealthy(service);
    await writing.query(`insert into orders values (1000, 'live', 1, null); update orders set customer = 'changed' where id <= 10; delete from orders where id = 20; insert into sales.lines values (1000, 'live'); insert into bare values (2)`);
    for (const target of [one, two]) for (const table of ['orders', 'sales.lines']) await equal(source, target, table);
    await equal(source, four, 'bare');
    await waitFor('the renamed table', async () => (await three.query<{ n: bigint }>(`select count(*) as n from shop.purchases where customer = 'changed'`))[0]!.n === 10n);

    const answer = await fetch(`${http.url}/health`);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ status: 'healthy', targets: [{ name: 'one', state: 'streaming', tables: 3 }, { name: 'two' }, { name: 'three', tables: 1 }, { name: 'four', tables: 2 }] });
    expect(await (await fetch(`${http.url}/metrics`)).text()).toContain('pgweave_fanout_target_healthy{target="two",engine="stream"} 1');

    // A table comes, another goes, a target goes; the rest streams on.
    await source.run('create table late (id int primary key, v text); insert into late values (1, $$before$$)');
    await service.replace(configOf(publication, source, { ...shape, tables: ['orders', 'sales.lines', 'late'], targets: targets.slice(0, 3) }));
    // The schema of a target that is there already is not touched: the table is made by hand.
    for (const target of [one, two]) await target.run('create table late (id int primary key, v text)');
    // Tables that go leave before those that come are copied: with the rows of the one the other is gone.
    for (const target of [one, two]) await equal(source, target, 'late');
    await writing.query(`insert into late values (2, 'after'); insert into sales.more values (1, 1); insert into orders values (1001, 'x', 1, null)`);
    for (const target of [one, two]) for (const table of ['late', 'orders']) await equal(source, target, table);
    for (const target of [one, two]) expect(await target.query('select * from sales.more')).toEqual([]);
    expect(await four.query('select 1 from pg_subscription s join pg_database d on d.oid = subdbid where datname = current_database()')).toEqual([]);
    expect((await four.query<{ n: bigint }>('select count(*) as n from bare'))[0]!.n).toBe(2n);
    expect(await source.query(`select slot_name from pg_replication_slots where slot_name = '${publication}_four'`)).toEqual([]);

    // A configuration that is wrong changes nothing and is told.
    service.refuse(new Error('broken'));
    expect((await fetch(`${http.url}/health`)).status).toBe(503);
    expect(service.health().config.error).toBe('broken');
    await writing.query(`insert into orders values (1002, 'still', 1, null)`);
    await equal(source, one, 'orders');
    const mended = configOf(publication, source, { ...shape, tables: ['orders', 'sales.lines', 'late'], targets: targets.slice(0, 3) });
    await service.replace(mended);
    expect(service.health().config.error).toBeNull();
    await service.stop();
    for (const target of [one, two, three]) await cleanupAll(source.spec, target.spec);
  });

  it('heals a target that was down, and begins it anew when its WAL budget is spent', async () => {
    const publication = `fan_${process.pid}_${(counter += 1)}`;
    await using source = await createDatabase(await sharedServer(16), 'src');
    await using server = await privateServer(16);
    const down = await createDatabase(server, 'down');
    await using up = await createDatabase(await sharedServer(17), 'up');
    for (const database of [source, down, up]) await database.run(schema);
    await source.run(`insert into orders values (1, 'a', 1, null)`);
    const log = await createLog({ level: 'error', format: 'json', stream: { write: () => undefined } });
    const shape: Shape = { tables: ['orders'], targets: [{ name: 'down', uri: down.uri }, { name: 'up', uri: up.uri, engine: 'stream' }], settings: { max_retained_wal: '16MB', when_wal_budget_is_spent: 'drop-and-resync' } };
    await using service = new FanoutService(configOf(publication, source, shape), log);
    service.start();
    await allHealthy(service);
    await server.stop();
    await waitFor('the target to be told as failing', () => service.health().targets[0]!.healthy === false, 90_000);
    const writing = await source.session();
    await writing.query(`insert into orders select i, 'b', i, null from generate_series(2, 100) i`);
    await equal(source, up, 'orders');
    // WAL that is none of the target's, until its budget is spent.
    for (let i = 0; i < 6; i += 1) await writing.query(`create table waste_${i} as select repeat(md5(i::text), 20) from generate_series(1, 8000) i`);
    await waitFor('the slot to be given up', () => service.health().targets[0]!.state === 'resync-needed', 90_000);
    expect(await source.query(`select 1 from pg_replication_slots where slot_name = '${publication}_down'`)).toEqual([]);
    await writing.query(`delete from orders where id = 1`);
    await server.start();
    await waitFor('the target to stream again', () => service.health().targets[0]!.state === 'streaming', 90_000);
    await equal(source, down, 'orders');
    await service.stop();
    await cleanupAll(source.spec, up.spec);
    await down.run(`alter subscription ${publication}_down disable; alter subscription ${publication}_down set (slot_name = none); drop subscription ${publication}_down`);
  });

  it('names what a target\'s schema lacks', async () => {
    const publication = `fan_${process.pid}_${(counter += 1)}`;
    await using source = await createDatabase(await sharedServer(17), 'src');
    await using wrong = await createDatabase(await sharedServer(17), 'wrong');
    await source.run(schema);
    await wrong.run('create table orders (id int primary key, customer text)');
    const log = await createLog({ level: 'error', format: 'json', stream: { write: () => undefined } });
    await using service = new FanoutService(configOf(publication, source, { tables: ['orders', 'bare'], targets: [{ name: 'wrong', uri: wrong.uri }] }), log);
    service.start();
    const error = await waitFor('the fault', () => service.health().targets[0]!.lastError);
    expect(error).toMatchObject({ code: 'target-schema-differs', message: expect.stringMatching(/table public\.bare.*|column public\.orders\.total/) });
    expect(error.message).toContain('public.orders.total');
    expect(error.message).toContain('table public.bare');
    expect(await source.query('select 1 from pg_publication')).toEqual([]);
  });
});
