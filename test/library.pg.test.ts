import { describe, expect, it } from 'vitest';
import * as pgweave from '../src/index.ts';
import { cleanupAll } from './support/jobs.ts';
import { createDatabase, sharedServer } from './support/servers.ts';

describe('library', () => {
  it('runs two jobs at once in one process, tells of them by events, and prints nothing', async () => {
    const written: unknown[] = [];
    const write = process.stdout.write.bind(process.stdout);
    await using a = await createDatabase(await sharedServer(16), 'lib_a');
    await using b = await createDatabase(await sharedServer(17), 'lib_b');
    await using c = await createDatabase(await sharedServer(15), 'lib_c');
    await a.run('create table t (id int primary key, v text); insert into t select i, md5(i::text) from generate_series(1, 500) i');
    const phases: string[] = [];
    const job = (name: string, target: typeof b) => ({ source: a.spec, target: target.spec, job: `lib${process.pid}${name}`, onEvent: (event: pgweave.JobEvent) => void (event.type === 'phase' && phases.push(`${name} ${event.phase}`)) });
    process.stdout.write = ((text: unknown) => {
      written.push(text);
      return true;
    }) as typeof process.stdout.write;
    try {
      const [toB, toC] = await Promise.all([pgweave.clone({ ...job('b', b), mode: 'follow' }), pgweave.clone({ ...job('c', c) })]);
      expect([toB.rows, toC.rows]).toEqual([500, 500]);
      const stop = new AbortController();
      const following = pgweave.follow({ ...job('b', b), signal: stop.signal });
      await a.run(`update t set v = 'x' where id = 7`);
      await expect.poll(async () => (await b.query(`select v from t where id = 7`))[0], { timeout: 60_000 }).toEqual({ v: 'x' });
      const report = await pgweave.verify(job('b', b));
      expect(report).toMatchObject({ ok: true, mode: 'running', totals: { tables: 1, rows: 500 } });
      expect(await pgweave.compare(job('c', c))).toMatchObject({ equal: true });
      stop.abort();
      expect((await following).rows).toBe(1);
    } finally {
      process.stdout.write = write;
    }
    expect(written).toEqual([]);
    expect(phases).toContain('b streaming');
    expect(phases).toContain('c done');
    await expect(pgweave.clone({ source: pgweave.parseConninfo('host=127.0.0.1 port=1 dbname=x'), target: b.spec })).rejects.toMatchObject({ code: 'connection-refused' });
    await cleanupAll(a.spec, b.spec);
    await cleanupAll(a.spec, c.spec);
  });
});
