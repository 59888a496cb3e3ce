import { describe, expect, it } from 'vitest';
import { startCli, stateFolder, type CliRun } from '../support/cli.ts';
import { cleanupAll } from '../support/jobs.ts';
import { createDatabase, sharedServer, waitFor } from '../support/servers.ts';

interface Step { readonly name: string; readonly status: string }
interface Status {
  readonly server: { readonly canAct: boolean; readonly switchover: { readonly status: string; readonly error: { readonly code: string; readonly message: string } | null } };
  readonly job: {
    readonly phase: string; readonly stream: { readonly rows: number } | null; readonly slot: { readonly slot: string } | null; readonly steps: readonly Step[]; readonly source: { readonly port: number } | null;
    readonly wayBack?: { readonly open: boolean; readonly slot: string }; readonly verified?: { readonly tables: number; readonly rows: number; readonly differing: number; readonly lsn: string | null }; readonly writesRefused?: { readonly until: string | null };
    readonly totals: { readonly bytes: number; readonly bytesDone: number };
  };
}

/** The API of a running command, whose address it prints. */
async function apiOf(run: CliRun): Promise<{ get<T>(path: string): Promise<T>; post(path: string, body?: unknown): Promise<{ status: number; answer: { error?: { code: string } } }>; status(): Promise<Status> }> {
  const url = await waitFor('the address of the API', () => /dashboard and API: (\S+)/.exec(run.output().stderr)?.[1]);
  const get = async <T>(path: string) => {
    const response = await fetch(`${url}/api/v1${path}`).catch(async (error: unknown) => {
      await run.done;
      throw new Error(`the API is gone; the command wrote:\n${run.output().stderr}`, { cause: error });
    });
    return (await response.json()) as T;
  };
  return {
    get, status: () => get<Status>('/status'),
    async post(path, body) {
      const response = await fetch(`${url}/api/v1${path}`, { method: 'POST', ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }) });
      return { status: response.status, answer: (await response.json()) as { error?: { code: string } } };
    },
  };
}

describe('a job that is steered over its API', () => {
  it('is checked, switched over with proof, started again on the way back, and returned; its charts go on', async () => {
    using folder = stateFolder();
    const source = await createDatabase(await sharedServer(16), 'steer');
    const target = await createDatabase(await sharedServer(18), 'steer');
    const job = `steer_${process.pid}`;
    const command = ['clone', '--follow', '--yes', '--no-roles', '--job', job, '--dir', folder.path, '--source', source.uri, '--target', target.uri, '--api-port', '0', '--jobs', '2'];
    const runs: CliRun[] = [];
    const start = async () => {
      const run = startCli(command);
      runs.push(run);
      return { run, api: await apiOf(run) };
    };
    try {
      await source.run(`create table orders (id serial primary key, v text); insert into orders (v) select repeat('x', 200) from generate_series(1, 5000)`);
      const first = await start();
      // The slot is watched while rows are copied, before anything streams.
      await waitFor('the slot to be told of', async () => (await first.api.status()).job.slot?.slot === `pgweave_${job}`);
      await waitFor('the job to stream', async () => { const s = await first.api.status(); return s.job.phase === 'streaming' && s.server.canAct; });
      const { checks } = await first.api.get<{ checks: { name: string; status: string; detail: string }[] }>('/switchover/checks');
      expect(checks.filter((c) => c.status !== 'ok')).toEqual([]);
      expect(checks.map((c) => c.name)).toEqual(['Earlier switchover', 'Tables', 'Stream', 'Refusing writes', 'Other sessions', 'Sequences', 'Large objects, unlogged tables', 'Way back']);

      // There is no way back before there was a switchover.
      expect((await first.api.post('/switchover', { back: true })).status).toBe(202);
      await waitFor('the refusal', async () => (await first.api.status()).server.switchover.error?.code === 'no-way-back');
      await source.run(`insert into orders (v) values ('still open')`);

      await first.api.post('/switchover', { verify: true, reverse: true });
      const after = await waitFor('the way back to stream', async () => {
        const s = await first.api.status();
        if (s.server.switchover.status === 'failed') throw new Error(JSON.stringify(s.server.switchover.error));
        return s.server.switchover.status === 'done' && s.job.phase === 'streaming' && s.job.slot?.slot === `pgweave_${job}_reverse` ? s : undefined;
      });
      expect(after.job.steps.filter((s) => s.status !== 'ok')).toEqual([]);
      expect(after.job.verified).toMatchObject({ tables: 1, rows: 5001, differing: 0, lsn: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) as string });
      expect(after.job.wayBack).toMatchObject({ open: true, slot: `pgweave_${job}_reverse` });
      expect(after.job.writesRefused!.until).not.toBeNull();
      expect(after.job.source!.port).toBe((await sharedServer(18)).port);
      await target.run(`insert into orders (v) values ('on the new primary')`);
      await waitFor('the old source to follow', async () => (await source.query(`select from orders where v = 'on the new primary'`)).length === 1);
      // Another switchover the same way is not what anybody means.
      await first.api.post('/switchover', {});
      await waitFor('the second refusal', async () => (await first.api.status()).server.switchover.error?.code === 'switched-over-already');

      const before = await first.api.get<{ at: number[] }>('/history?range=15m');
      first.run.child.kill('SIGINT');
      expect((await first.run.done).code).toBe(130);
      const second = await start();
      const again = await waitFor('the way back to stream again', async () => { const s = await second.api.status(); return s.job.phase === 'streaming' && s.server.canAct ? s : undefined; });
      expect(again.job.wayBack).toMatchObject({ open: true, slot: `pgweave_${job}_reverse` });
      expect(again.job.totals.bytes).toBeGreaterThan(0);
      expect(again.job.totals.bytesDone).toBe(again.job.totals.bytes);
      expect((await second.api.get<{ at: number[] }>('/history?range=15m')).at[0]).toBe(before.at[0]);

      await second.api.post('/switchover', { back: true });
      expect((await second.run.done).stdout).toMatch(/Switched over; this job is done/);
      await source.run(`insert into orders (v) values ('back again')`);
      await expect(target.run(`insert into orders (v) values ('too late')`)).rejects.toMatchObject({ code: '25006' });
      expect(await source.query('select count(*)::int as n from orders')).toEqual([{ n: 5003 }]);
    } finally {
      for (const run of runs) {
        run.child.kill('SIGKILL');
        await run.done;
      }
      await cleanupAll(source.spec, target.spec);
      await target.run(`alter database "${target.name}" reset default_transaction_read_only`).catch(() => undefined);
      await target.drop();
      await source.drop();
    }
  }, 240_000);
});
