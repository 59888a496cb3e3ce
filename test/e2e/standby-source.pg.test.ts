import { describe, expect, it } from 'vitest';
import { JobFolder } from '../../src/core/job-folder.ts';
import { parseConninfo, type ConnectionSpec } from '../../src/pg/conninfo.ts';
import { Session } from '../../src/pg/session.ts';
import { clone } from '../../src/workflows/clone.ts';
import { follow } from '../../src/workflows/follow.ts';
import { rowDigests } from '../support/database-contents.ts';
import { stateFolder } from '../support/cli.ts';
import { createDatabase, privateServer, sharedServer, waitFor, type TestDatabase } from '../support/servers.ts';
import { standbyOf } from '../support/standby.ts';

const rows = `create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 100) i; create table bare (v int); insert into bare values (1); create sequence q; select nextval('q')`;

/** Waits until the standby has replayed what the primary has written. */
async function caughtUp(primary: TestDatabase, standby: ConnectionSpec): Promise<void> {
  const [at] = await primary.query<{ lsn: string }>('select pg_switch_wal()::text as lsn');
  await waitFor('the standby to have it all', async () => {
    await using session = await Session.open(standby, { role: 'test' });
    return (await session.one<{ there: boolean }>('select pg_catalog.pg_last_wal_replay_lsn() >= $1::pg_catalog.pg_lsn as there', [at!.lsn])).there;
  });
}

describe('a standby as the source', () => {
  it('standby: of 15 it is copied, and nothing begins that would have to decode there', async () => {
    await using server = await privateServer(15);
    await using primary = await createDatabase(server, 'standby');
    await primary.run(rows);
    await using behind = await standbyOf(server, 15);
    const source = parseConninfo(behind.uri(primary.name));
    await caughtUp(primary, source);
    await using target = await createDatabase(await sharedServer(17), 'standby');
    await expect(clone({ source, target: target.spec, roles: false, mode: 'follow' })).rejects.toMatchObject({ code: 'standby-cannot-decode', hint: expect.stringContaining('primary'), exitCode: 2 });
    expect(await target.query(`select from pg_namespace where nspname = 'pgweave'`)).toEqual([]);
    expect(await clone({ source, target: target.spec, roles: false })).toMatchObject({ tables: 2, rows: 101, warnings: [] });
    expect(await rowDigests(target)).toEqual(await rowDigests(primary));
    await behind.stop('immediate');
  });

  it('standby: of 16 it is followed too, once its primary publishes', async () => {
    await using server = await privateServer(16);
    await using primary = await createDatabase(server, 'standby');
    await primary.run(rows);
    await using behind = await standbyOf(server, 16);
    const source = parseConninfo(behind.uri(primary.name));
    await caughtUp(primary, source);
    await using target = await createDatabase(await sharedServer(18), 'standby');
    using dir = stateFolder();
    const ends = { source, target: target.spec, job: 'standby' };
    const begin = () => clone({ ...ends, roles: false, mode: 'follow' });
    const refused = await begin().catch((error: unknown) => error as { hint: string });
    expect(refused).toMatchObject({ code: 'publish-on-primary', hint: expect.stringContaining('primary') });
    // As the hint says.
    await primary.run((refused as { hint: string }).hint.split('\n').slice(1).join('\n'));
    await caughtUp(primary, source);
    // The primary is idle: what a slot on its standby waits for is written by hand.
    const ended = new AbortController();
    const awake = (async () => {
      while (!ended.signal.aborted) {
        await primary.query('select pg_log_standby_snapshot()');
        await caughtUp(primary, source);
      }
    })();
    try {
      expect(await begin()).toMatchObject({ rows: 101, stream: { slot: 'pgweave_standby', publications: { names: ['pgweave_standby', 'pgweave_standby_inserts'], insertsOnly: [{ schema: 'public', name: 'bare' }] } } });
      await primary.run(`insert into t values (101, 'new'); update t set v = 'other' where id = 1; delete from t where id = 2; insert into bare values (2)`);
      await caughtUp(primary, source);
      expect(await follow({ ...ends, folder: new JobFolder('standby', dir.path), untilCaughtUp: true })).toMatchObject({ caughtUp: true, rows: 4, paused: [] });
      expect(await rowDigests(target)).toEqual(await rowDigests(primary));
    } finally {
      ended.abort();
      await awake;
    }
    await behind.stop('immediate');
  });
});
