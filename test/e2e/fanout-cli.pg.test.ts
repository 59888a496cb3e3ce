import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runCli, startCli } from '../support/cli.ts';
import { cleanupAll } from '../support/jobs.ts';
import { createDatabase, sharedServer, waitFor } from '../support/servers.ts';

describe('pgweave fanout', () => {
  it('fanout-service: checks, sets up, runs, takes a changed file, keeps the last good one, ends on SIGTERM with nothing dropped', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'pgwfan-'));
    await using source = await createDatabase(await sharedServer(16), 'src');
    await using target = await createDatabase(await sharedServer(17), 'dst');
    await source.run('create table a (id int primary key); create table b (id int primary key); insert into a values (1); insert into b values (1)');
    const publication = `fc_${process.pid}`;
    const file = join(folder, 'replication-config.yml');
    const write = (tables: string) => writeFileSync(file, `replication:\n  publication_name: ${publication}\n  source: { uri: "${source.uri}" }\n  targets:\n    - { name: one, uri: "\${TARGET_URI}" }\n  tables: ${tables}\n  settings: { wait_interval_seconds: 0.2, reconcile_interval: 1s, health_port: 0 }\n`);
    write('[a]');
    const env = { CONFIG_FILE: file, TARGET_URI: target.uri, XDG_STATE_HOME: folder };
    try {
      expect(await runCli(['fanout', 'check'], env)).toMatchObject({ code: 3, stdout: expect.stringContaining('table public.a is missing') });
      expect(await runCli(['fanout', 'setup-schema'], env)).toMatchObject({ code: 0, stdout: 'one: 1 tables made\n' });
      expect(await runCli(['fanout', 'check', '--json'], env)).toMatchObject({ code: 0 });
      const service = startCli(['fanout', 'run', '--log-format', 'json'], env);
      const url = await waitFor('the health address', () => /health at (http:\/\/[^/]+)\/health/.exec(service.output().stderr)?.[1]);
      const health = async () => {
        const answer = await fetch(`${url}/health`);
        return { status: answer.status, body: (await answer.json()) as { config: { error: string | null }; targets: { state: string; tables: number }[] } };
      };
      await waitFor('the target to stream', async () => (await health()).body.targets[0]?.state === 'streaming');
      expect(await target.query('select * from a')).toEqual([{ id: 1 }]);
      expect(await runCli(['fanout', 'status', '--url', url], env)).toMatchObject({ code: 0, stdout: expect.stringContaining('streaming') });

      write('[a, b');
      await waitFor('the fault to be told', async () => (await health()).body.config.error !== null);
      expect((await health()).status).toBe(503);
      await source.run('insert into a values (2)');
      await waitFor('the last good one to stay', async () => (await target.query('select * from a where id = 2')).length === 1);
      await target.run('create table b (id int primary key)');
      write('[a, b]');
      service.child.kill('SIGHUP');
      await waitFor('the new table', async () => (await health()).body.targets[0]?.tables === 2);
      await waitFor('its rows', async () => (await target.query('select * from b')).length === 1);

      service.child.kill('SIGTERM');
      expect(await service.done).toMatchObject({ code: 0, signal: null });
      expect(service.output().stderr + service.output().stdout).not.toContain('password');
      expect(await target.query('select subenabled from pg_subscription s join pg_database d on d.oid = subdbid where datname = current_database()')).toEqual([{ subenabled: true }]);
      expect(await runCli(['fanout', 'status', '--url', url], env)).toMatchObject({ code: 1, stderr: expect.stringContaining('no fan-out service answers') });
    } finally {
      await cleanupAll(source.spec, target.spec);
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
