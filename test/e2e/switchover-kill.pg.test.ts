import { describe, expect, it } from 'vitest';
import { clone } from '../../src/workflows/clone.ts';
import { follow } from '../../src/workflows/follow.ts';
import { runCli, stateFolder } from '../support/cli.ts';
import { cleanupAll } from '../support/jobs.ts';
import { createDatabase, sharedServer, waitFor } from '../support/servers.ts';

describe('switchover killed', () => {
  it('switchover-kill: whatever the step, the source can be opened again, and a later run hands over exactly', async () => {
    const job = `swk${process.pid}`;
    await using source = await createDatabase(await sharedServer(15), 'src');
    await using target = await createDatabase(await sharedServer(17), 'dst');
    using state = stateFolder();
    await source.run('create table t (id int primary key, v text); create sequence s; insert into t select i, md5(i::text) from generate_series(1, 200) i');
    await clone({ source: source.spec, target: target.spec, job, mode: 'follow', jobs: 2 });
    const abort = new AbortController();
    const phases: string[] = [];
    const following = follow({ source: source.spec, target: target.spec, job, signal: abort.signal, onEvent: (event) => void (event.type === 'phase' && phases.push(event.phase)) });
    following.catch(() => undefined);
    await waitFor('the follower to stream', () => phases.includes('streaming'));
    const args = ['switchover', '--job', job, '--dir', state.path, '--source', source.uri, '--target', target.uri];
    let n = 1000;
    for (const point of ['lock.before-read-only', 'lock.after-read-only', 'lock.after-tables', 'switchover.locked', 'switchover.marker', 'switchover.drained', 'switchover.sequences', 'switchover.before-hand-over']) {
      const killed = await runCli(args, { PGWEAVE_FAILPOINTS: `${point}=kill` });
      expect(killed.signal, `${point}: ${killed.stderr}`).toBe('SIGKILL');
      // Every second time somebody opens the source by hand; else the next run goes on from what is there.
      if (n % 2 !== 0) {
        n += 1;
        continue;
      }
      const unlocked = await runCli([...args, '--unlock']);
      expect(unlocked.code, unlocked.stderr).toBe(0);
      await source.run(`insert into t values (${n}, 'written after ${point}'); select nextval('s')`);
      n += 1;
    }
    // The lock of a killed session goes with its backend, a moment later.
    const done = await runCli([...args, '--json']);
    expect(done.code, done.stderr).toBe(0);
    expect((await following).switchedOver).toEqual({ wayBack: null });
    expect(await target.query('select * from t order by id')).toEqual(await source.query('select * from t order by id'));
    expect(await target.query('select last_value from s')).toEqual(await source.query('select last_value from s'));
    await expect(source.query('insert into t values (1, null)')).rejects.toMatchObject({ code: '25006' });
    const again = await runCli(args);
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('was switched over at') });
    abort.abort();
    await cleanupAll(source.spec, target.spec);
  });
});
