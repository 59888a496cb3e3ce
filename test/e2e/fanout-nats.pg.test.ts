import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runCli, startCli, type CliRun } from '../support/cli.ts';
import { cleanupAll } from '../support/jobs.ts';
import { hasNats, NatsServer } from '../support/nats.ts';
import { createDatabase, sharedServer, waitFor, type TestDatabase } from '../support/servers.ts';

const tables = ['orders', 'bare', 'sales.lines'];
const rows = async (database: TestDatabase, table: string) => (await database.query<{ d: string }>(`select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) as d from ${table} t`))[0]!.d;

async function equal(source: TestDatabase, target: TestDatabase, table: string): Promise<void> {
  await waitFor(`${table} to be equal`, async () => (await rows(source, table)) === (await rows(target, table)).valueOf(), 90_000);
}

describe.skipIf(!hasNats())('pgweave fanout over NATS', () => {
  it('publisher and targets in processes of their own: nothing lost and nothing twice where any of them, or NATS, is killed', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'pgwfn-'));
    await using nats = await NatsServer.start(['--user', 'weaver', '--pass', 'nats-password']);
    await using source = await createDatabase(await sharedServer(16), 'src');
    await using one = await createDatabase(await sharedServer(17), 'one');
    await using two = await createDatabase(await sharedServer(15), 'two');
    const schema = 'create table orders (id int primary key, v text); create table bare (v int); create schema sales; create table sales.lines (id bigint primary key, n int)';
    for (const database of [source, one, two]) await database.run(schema);
    // A table without a key has inserts alone, and shows what comes twice.
    await source.run(`insert into orders select i, 'first' from generate_series(1, 200) i; insert into bare select generate_series(1, 200); insert into sales.lines values (1, 0)`);
    const publication = `fn_${process.pid}`;
    const file = join(folder, 'replication-config.yml');
    const write = (more: string) => writeFileSync(file, `replication:\n  publication_name: ${publication}\n  engine: stream\n  source: { uri: "${source.uri}" }\n  log:\n    nats: { servers: ["${nats.url}"], stream: ${publication}, user: weaver, password: "\${NATS_PASSWORD}" }\n  targets:\n    - { name: one, uri: "${one.uri}" }\n    - { name: two, uri: "${two.uri}", tables: [orders, bare] }\n  tables: [orders, bare, sales.*${more}]\n  settings: { wait_interval_seconds: 0.2, reconcile_interval: 1s, health_port: 0 }\n`);
    write('');
    const env = { CONFIG_FILE: file, NATS_PASSWORD: 'nats-password' };
    const runs: CliRun[] = [];
    const start = (args: string[], more: Record<string, string> = {}) => {
      const run = startCli(['fanout', ...args, '--log-format', 'json'], { ...env, XDG_STATE_HOME: join(folder, args.at(-1)!), ...more });
      runs.push(run);
      return run;
    };
    const health = async (run: CliRun) => {
      const url = await waitFor('the health address', () => /health at (http:\/\/[^/]+)\/health/.exec(run.output().stderr)?.[1], 60_000);
      return async () => (await (await fetch(`${url}/health`)).json()) as { status: string; log?: { publishing: boolean }; targets: { state: string; lastError: { code: string } | null }[] };
    };
    const writer = await source.session();
    let next = 1000;
    const work = async (transactions: number) => {
      for (let i = 0; i < transactions; i += 1) {
        const id = (next += 1);
        await writer.query(`begin; insert into orders values (${id}, 'w'); update orders set v = v || '.' where id = ${id % 200}; insert into bare values (${id}); update sales.lines set n = n + 1; commit`);
      }
    };
    /** Works until a process has died of its failpoint, or of our SIGKILL. */
    const workUntilKilled = async (run: CliRun) => {
      const ended = { yet: false };
      const done = run.done.then((result) => {
        ended.yet = true;
        return result.signal;
      });
      while (!ended.yet) await work(5);
      expect(await done).toBe('SIGKILL');
    };
    const publishing = async (run: CliRun) => {
      const read = await health(run);
      await waitFor('the publisher to publish', async () => (await read()).log?.publishing === true, 60_000);
    };
    try {
      // Without a publisher a target says what it waits for.
      const early = await health(start(['run', '--targets', 'one']));
      await waitFor('the lack of a publisher to be told', async () => (await early()).targets[0]?.lastError?.code === 'no-publisher', 60_000);
      let publisher = start(['publish'], { PGWEAVE_FAILPOINTS: 'nats.before-ack=kill@40' });
      const first = await health(start(['run', '--targets', 'two']));
      await waitFor('both targets to stream', async () => (await early()).targets[0]?.state === 'streaming' && (await first()).targets[0]?.state === 'streaming', 90_000);

      // Killed between JetStream's storing a message and its knowing so.
      await workUntilKilled(publisher);
      publisher = start(['publish'], { PGWEAVE_FAILPOINTS: 'nats.before-publish=kill@10' });
      await workUntilKilled(publisher);
      publisher = start(['publish']);
      await publishing(publisher);
      await work(20);
      for (const table of tables) await equal(source, one, table);
      for (const table of tables.slice(0, 2)) await equal(source, two, table);

      // A target's process, NATS itself, and the publisher by somebody's hand, while transactions of all sizes go through.
      const large = source.run(`insert into orders select i, repeat('x', 4000) from generate_series(100001, 103000) i`);
      runs[0]!.child.kill('SIGKILL');
      await nats.stop('kill');
      await work(50);
      await nats.resume();
      publisher.child.kill('SIGKILL');
      await Promise.all([large, workUntilKilled(publisher)]);
      await work(50);
      publisher = start(['publish']);
      const again = start(['run', '--targets', 'one']);
      const second = await health(again);
      await work(50);
      for (const table of tables) await equal(source, one, table);
      for (const table of tables.slice(0, 2)) await equal(source, two, table);
      await waitFor('the target to stream again', async () => (await second()).targets[0]?.state === 'streaming', 60_000);
      expect(await one.query('select count(*) = count(distinct v) as once from bare')).toEqual([{ once: true }]);

      // Another table, taken by all that run.
      for (const database of [source, one]) await database.run('create table late (id int primary key)');
      await source.run('insert into late values (1)');
      write(', late');
      await waitFor('the late table', async () => (await rows(one, 'late')) === (await rows(source, 'late')), 60_000);
      await source.run('insert into late values (2)');
      await equal(source, one, 'late');

      expect(await runCli(['fanout', 'check'], env)).toMatchObject({ code: 0, stdout: expect.stringMatching(/ok {4}log on NATS +stream fn_\d+: \d+ messages/) as string });
      publisher.child.kill('SIGTERM');
      expect(await publisher.done).toMatchObject({ code: 0, signal: null });
      for (const run of runs) expect(run.output().stderr + run.output().stdout).not.toContain('nats-password');
    } finally {
      for (const run of runs) run.child.kill('SIGTERM');
      await Promise.all(runs.map((run) => run.done));
      await cleanupAll(source.spec, one.spec);
      await cleanupAll(source.spec, two.spec);
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
