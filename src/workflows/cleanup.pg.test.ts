import { describe, expect, it } from 'vitest';
import { createDatabase, sharedServer } from '../../test/support/servers.ts';
import { runCli, stateFolder } from '../../test/support/cli.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { leftoverPattern, planCleanup, runCleanup } from './cleanup.ts';

describe('cleanup', () => {
  it('lists and removes what a job left on both sides, and nothing of others', async () => {
    await using source = await createDatabase(await sharedServer(15), 'src');
    await using target = await createDatabase(await sharedServer(17), 'dst');
    const job = `clean_${process.pid}`;
    await source.run(`create table t (id int primary key); create publication "pgweave_${job}" for table t; create publication "pgweave_${job}_inserts" for table t; create publication "pgweave_${job}x" for table t`);
    await source.query(`select pg_create_logical_replication_slot('pgweave_${job}', 'pgoutput')`);
    await source.query(`select pg_create_logical_replication_slot('pgweave_${job}x', 'pgoutput')`);
    await target.run(`create table t (id int primary key); create schema pgweave; create table pgweave.things (job text, x int); insert into pgweave.things values ('${job}', 1), ('other', 2)`);
    // As a switchover that went there and back leaves it on the source.
    await source.run(`create schema pgweave; create table pgweave.things (job text); insert into pgweave.things values ('${job}_reverse')`);
    await target.run(`create subscription "pgweave_${job}" connection 'host=127.0.0.1 port=1 dbname=gone' publication p with (connect = false, slot_name = 'pgweave_${job}')`);
    await target.query(`select pg_replication_origin_create('pgweave_${job}')`);

    const options = { source: source.spec, target: target.spec, job };
    const plan = await planCleanup(options);
    expect(plan.leftovers.map((l) => `${l.side} ${l.kind} ${l.name}`)).toEqual([
      `target subscription pgweave_${job}`, `target origin pgweave_${job}`, `source slot pgweave_${job}`, `source publication pgweave_${job}`, `source publication pgweave_${job}_inserts`, 'target rows pgweave', 'source schema pgweave',
    ]);
    const result = await runCleanup(plan, options);
    expect(result.failed).toEqual([]);
    expect((await planCleanup(options)).leftovers).toEqual([]);
    expect(await target.query('select job from pgweave.things')).toEqual([{ job: 'other' }]);
    expect(await source.query('select pubname from pg_publication')).toEqual([{ pubname: `pgweave_${job}x` }]);
    expect(await source.query(`select slot_name from pg_replication_slots where database = current_database()`)).toEqual([{ slot_name: `pgweave_${job}x` }]);
  });

  it('works when the source is dead, says so, and exits 1', async () => {
    await using target = await createDatabase(await sharedServer(15), 'dst');
    using state = stateFolder();
    const job = `dead_${process.pid}`;
    await target.run(`create table t (id int); create subscription "pgweave_${job}" connection 'host=127.0.0.1 port=1 dbname=gone' publication p with (connect = false, slot_name = 'pgweave_${job}')`);
    const run = await runCli(['cleanup', '--job', job, '--dir', state.path, '--yes', '--source', 'postgresql://x@127.0.0.1:1/gone', '--target', target.uri]);
    expect(run.stdout).toContain('1 removed.');
    expect(run.stdout).toContain('the source was not looked at');
    expect(run.code).toBe(1);
    expect(await target.query('select 1 from pg_subscription s join pg_database d on d.oid = subdbid where datname = current_database()')).toEqual([]);
  });

  it('refuses to remove a slot in use unless forced, and asks before anything', async () => {
    await using source = await createDatabase(await sharedServer(16), 'src');
    using state = stateFolder();
    const job = `busy_${process.pid}`;
    await using walsender = await Session.open(parseConninfo(source.uri), { role: 'walsender', replication: true });
    await walsender.query(`CREATE_REPLICATION_SLOT pgweave_${job} LOGICAL pgoutput NOEXPORT_SNAPSHOT`);
    const socket = walsender.takeSocket();
    const start = `START_REPLICATION SLOT pgweave_${job} LOGICAL 0/0 (proto_version '1', publication_names 'none')\0`;
    const frame = Buffer.alloc(5 + start.length);
    frame.write('Q');
    frame.writeInt32BE(4 + start.length, 1);
    frame.write(start, 5);
    socket.write(frame);
    await expect.poll(async () => (await source.query<{ active: boolean }>(`select active from pg_replication_slots where slot_name = 'pgweave_${job}'`))[0]?.active, { timeout: 30_000 }).toBe(true);
    const args = ['cleanup', '--job', job, '--dir', state.path, '--source', source.uri];
    const unconfirmed = await runCli(args);
    expect(unconfirmed).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') });
    const refused = await runCli([...args, '--yes']);
    expect(refused).toMatchObject({ code: 1, stdout: expect.stringContaining('--force') });
    const forced = await runCli([...args, '--yes', '--force', '--json']);
    expect(forced.code).toBe(0);
    expect(JSON.parse(forced.stdout)).toMatchObject({ removed: [{ kind: 'slot', name: `pgweave_${job}` }], failed: [] });
    socket.destroy();
  });

  it('tells jobs apart whose names begin alike', () => {
    const pattern = new RegExp(leftoverPattern('shop', false));
    expect(['pgweave_shop', 'pgweave_shop_reverse', 'pgweave_shop_copy_3'].every((n) => pattern.test(n))).toBe(true);
    expect(['pgweave_shop2', 'pgweave_shop_eu', 'xpgweave_shop', 'pgweave_shop_reverses'].some((n) => pattern.test(n))).toBe(false);
  });
});
