import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cleanupAll } from '../../test/support/jobs.ts';
import { hasNats, NatsServer } from '../../test/support/nats.ts';
import { createDatabase, sharedServer, waitFor, type TestDatabase } from '../../test/support/servers.ts';
import { sleep } from '../core/abort.ts';
import { parseConfig } from '../core/config.ts';
import { createLog } from '../core/log.ts';
import { resolveFanoutConfig, type FanoutConfig } from './config.ts';
import { startHealthServer } from './health-server.ts';
import { PublishService } from './publish-service.ts';
import { FanoutService } from './service.ts';

const state = mkdtempSync(join(tmpdir(), 'pgwps-'));
beforeAll(() => {
  process.env['XDG_STATE_HOME'] = state;
});
afterAll(() => {
  delete process.env['XDG_STATE_HOME'];
  rmSync(state, { recursive: true, force: true });
});

const rows = async (database: TestDatabase, table: string, where = 'true') => (await database.query<{ d: string }>(`select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) as d from ${table} t where ${where}`))[0]!.d;

describe.skipIf(!hasNats())('targets behind a log on NATS', () => {
  it('share it beside one that filters rows by itself; who was away for longer than the log reaches says so, and begins anew where it may', async () => {
    await using server = await NatsServer.start();
    await using source = await createDatabase(await sharedServer(17), 'src');
    await using plain = await createDatabase(await sharedServer(16), 'plain');
    await using filtered = await createDatabase(await sharedServer(17), 'filtered');
    const schema = 'create table orders (id int primary key, v text); create table extra (id int)';
    for (const database of [source, plain, filtered]) await database.run(schema);
    await source.run(`insert into orders select i, 'a' from generate_series(1, 100) i`);
    const publication = `ps_${process.pid}`;
    const configOf = (targets: readonly Record<string, unknown>[], tables: readonly string[], settings: Record<string, unknown> = {}): FanoutConfig => resolveFanoutConfig(parseConfig(JSON.stringify({ replication: {
      publication_name: publication, engine: 'stream', source: { uri: source.uri }, targets, tables, log: { nats: { servers: server.url, stream: publication, max_bytes: '2MB' } }, settings: { wait_interval_seconds: 0.2, reconcile_interval: '1s', health_port: 0, ...settings },
    } }), 'test.json', 'json'));
    const targets = [{ name: 'plain', uri: plain.uri }, { name: 'filtered', uri: filtered.uri, filters: { orders: 'id <= 1000' } }];
    const log = await createLog({ level: 'error', format: 'json', stream: { write: () => undefined } });
    // The publisher's file names no targets.
    await using publisher = new PublishService(configOf([], ['orders']), log);
    await using http = await startHealthServer(publisher, '127.0.0.1', 0);
    publisher.start();
    const first = new FanoutService(configOf(targets, ['orders']), log);
    try {
      first.start();
      await waitFor('both to stream', () => first.health().targets.every((t) => t.state === 'streaming'), 90_000);
      await source.run(`insert into orders values (101, 'b'), (2000, 'b'); delete from orders where id = 1`);
      await waitFor('the plain target', async () => (await rows(source, 'orders')) === (await rows(plain, 'orders')));
      await waitFor('the filtered target', async () => (await rows(source, 'orders', 'id <= 1000')) === (await rows(filtered, 'orders')));
      expect(await source.query('select count(*)::int as n from pg_replication_slots where database = current_database() and not temporary')).toEqual([{ n: 2 }]);
      await waitFor('health', async () => (await fetch(`${http.url}/health`)).status === 200);
      expect(await (await fetch(`${http.url}/metrics`)).text()).toContain('pgweave_fanout_log_publishing 1');
      expect(first.health().targets[0]).toMatchObject({ connected: true, retainedBytes: 0 });

      // A table that the publisher does not have; a log that changes.
      await first.replace(configOf(targets, ['orders', 'extra']));
      await waitFor('the missing table to be told', () => first.health().targets[0]!.lastError?.code === 'not-published');
      // One without a key comes under load, and nothing of it is missed.
      const busy = await source.session();
      let stop = false;
      const writing = (async () => {
        for (let i = 0; !stop; i += 1) {
          await busy.query(`insert into extra values (${i})`);
          await sleep(5);
        }
      })();
      await publisher.replace(configOf([], ['orders', 'extra']));
      await waitFor('the table to be published', () => first.health().targets[0]!.state === 'streaming' && first.health().targets[0]!.tables === 2, 60_000).finally(() => {
        stop = true;
      });
      await writing;
      await waitFor('extra to be equal', async () => (await rows(source, 'extra')) === (await rows(plain, 'extra')), 60_000);
      const other = configOf(targets, ['orders']);
      await first.replace({ ...other, log: { ...other.log!, stream: 'another' } });
      expect(first.health().config.error).toContain('log was changed');
    } finally {
      await first.stop();
    }

    // Away while 8 MB go through a log of 2 MB.
    const writer = await source.session();
    for (let i = 0; i < 40; i += 1) await writer.query(`insert into orders values (${3000 + i}, repeat(md5('${i}'), 6000))`);
    await waitFor('all to be published', () => publisher.health().log!.lagBytes === 0 && publisher.health().log!.waitingBytes === 0, 60_000);
    const extra = await rows(plain, 'extra');
    await source.run('insert into extra values (-1)');
    const kept = new FanoutService(configOf(targets, ['orders', 'extra']), log);
    kept.start();
    try {
      const told = await waitFor('the gap to be told', () => (kept.health().targets[0]!.lastError?.code === 'resync-needed' ? kept.health().targets[0] : undefined), 60_000);
      expect(told).toMatchObject({ healthy: false, state: 'failing', lastError: { hint: expect.stringContaining('drop-and-resync') as string } });
      expect(await rows(plain, 'extra')).toBe(extra);
    } finally {
      await kept.stop();
    }
    const again = new FanoutService(configOf(targets, ['orders', 'extra'], { when_wal_budget_is_spent: 'drop-and-resync' }), log);
    again.start();
    try {
      await waitFor('the target to stream again', () => again.health().targets.every((t) => t.state === 'streaming'), 90_000);
      await source.run(`insert into orders values (9000, 'c'); insert into extra values (2)`);
      for (const table of ['orders', 'extra']) await waitFor(`${table} to be equal`, async () => (await rows(source, table)) === (await rows(plain, table)), 60_000);

      // NATS is gone with all that it held: who had everything goes on, others begin anew.
      await waitFor('all to be published', () => publisher.health().log!.lagBytes === 0 && publisher.health().log!.waitingBytes === 0, 60_000);
      await server.stop('kill');
      server.wipe();
      await server.resume();
      await source.run(`insert into orders values (9001, 'd')`);
      await waitFor('the publisher to go on', () => publisher.health().status === 'healthy', 90_000);
      await source.run(`insert into orders values (9002, 'd')`);
      await waitFor('orders to be equal', async () => (await rows(source, 'orders')) === (await rows(plain, 'orders')), 90_000);
    } finally {
      await again.stop();
      await publisher.stop();
      for (const target of [plain, filtered]) await cleanupAll(source.spec, target.spec);
    }
  });
});
