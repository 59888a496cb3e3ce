import { describe, expect, it } from 'vitest';
import { createDatabase, privateServer, sharedServer, waitFor } from '../../test/support/servers.ts';
import { startPooler } from '../../test/support/pooler.ts';
import { standbyOf } from '../../test/support/standby.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { verify } from '../workflows/verify.ts';
import type { Check } from './check.ts';
import type { JobKind } from './context.ts';
import { runPreflight } from './run.ts';

const kind = (mode: JobKind['mode'], more: Partial<JobKind> = {}): JobKind => ({ job: 'shop', mode, jobs: 4, dropExisting: false, roles: true, owner: true, ...more });
const one = (checks: readonly Check[], id: string): Check => {
  const found = checks.find((c) => c.id === id);
  if (!found) throw new Error(`no check ${id} among ${checks.map((c) => c.id).join(', ')}`);
  return found;
};
const fixes = (check: Check): string => [...check.fix, ...check.items.flatMap((i) => i.fix ?? [])].map((f) => f.text).join('\n');

describe('preflight on servers with settings of their own', () => {
  it('finds wal_level, slots, senders, connections and time limits that do not do; writes nothing', async () => {
    await using server = await privateServer(14, { settings: { autovacuum: 'off', wal_level: 'replica', max_wal_senders: '2', max_replication_slots: '1', max_connections: '12', max_slot_wal_keep_size: "'32MB'", wal_sender_timeout: "'4s'", max_logical_replication_workers: '0' } });
    await using database = await createDatabase(server, 'tight');
    await using target = await createDatabase(await sharedServer(18), 'tight');
    await database.query(`select pg_create_physical_replication_slot('taken')`);
    const xid = async () => (await database.query<{ x: bigint }>('select pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) as x'))[0]!.x;
    const before = await xid();
    const { checks } = await runPreflight({ source: database.spec, target: target.spec, kind: kind('follow') });
    expect(await xid()).toBe(before);
    expect(one(checks, 'wal-level')).toMatchObject({ status: 'fail', facts: { walLevel: 'replica' } });
    expect(fixes(one(checks, 'wal-level'))).toContain(`alter system set wal_level = 'logical';`);
    expect(one(checks, 'replication-slots')).toMatchObject({ status: 'fail', facts: { max: 1, used: 1, free: 0 } });
    expect(one(checks, 'wal-senders').status).toBe('ok');
    expect(one(checks, 'source-connections')).toMatchObject({ facts: { max: 12, needed: 8 } });
    expect(one(checks, 'wal-keep-size').status).toBe('warn');
    expect(one(checks, 'wal-sender-timeout')).toMatchObject({ status: 'warn', facts: { ms: 4000 } });
    // Long and prepared transactions would block the slot.
    await using writer = await database.session();
    await writer.query('create table t (a int)');
    await writer.query(`begin; insert into t values (1); prepare transaction 'it''s open'`);
    await writer.query('begin; insert into t values (2)');
    const blocked = await runPreflight({ source: database.spec, target: target.spec, kind: kind('follow'), oldTransactionSeconds: 0 });
    expect(one(blocked.checks, 'prepared-transactions')).toMatchObject({ status: 'fail', items: [{ subject: `it's open` }] });
    expect(fixes(one(blocked.checks, 'prepared-transactions'))).toContain(`commit prepared 'it''s open';`);
    expect(one(blocked.checks, 'long-transactions').items.map((i) => i.subject)).toEqual([`process ${writer.pid}`]);
    expect(one((await runPreflight({ source: database.spec, target: target.spec, kind: kind('clone') })).checks, 'prepared-transactions').status).toBe('warn');
    await writer.query('rollback');
    await writer.query(`rollback prepared 'it''s open'`);
    const many = await runPreflight({ source: database.spec, target: target.spec, kind: kind('clone', { jobs: 20 }) });
    expect(one(many.checks, 'source-connections').status).toBe('warn');
    expect(one(many.checks, 'wal-level').status).toBe('warn');
    expect(one(many.checks, 'replication-slots').status).toBe('warn');
    // The same server as the target of a subscription.
    const sync = await runPreflight({ source: target.spec, target: database.spec, kind: kind('sync') });
    expect(one(sync.checks, 'subscription-workers').status).toBe('fail');
    expect(one(sync.checks, 'replication-origins').status).toBe('ok');
    const unlimited = await runPreflight({ source: target.spec, target: database.spec, kind: kind('follow') });
    expect(one(unlimited.checks, 'wal-keep-size')).toMatchObject({ status: 'warn', facts: { bytes: -1 } });
  });

  it('tells managed services by their roles, settings and functions, and gives their own fixes', async () => {
    await using server = await privateServer(16, { settings: { wal_level: 'replica' } });
    await using database = await createDatabase(server, 'managed');
    await using target = await createDatabase(await sharedServer(16), 'managed');
    await database.run('create role app login; create table t (id int primary key)');
    const cases = [
      { make: 'create role rds_superuser; create role rds_replication', drop: 'drop role rds_superuser; drop role rds_replication', provider: 'rds', wal: 'rds.logical_replication = 1', replication: 'grant rds_replication to app;', grant: 'grant rds_replication to app' },
      { make: `create role rds_superuser; create role rds_replication; create function pg_catalog.aurora_version() returns text language sql as $$ select 'x' $$`, drop: 'drop role rds_superuser; drop role rds_replication; drop function pg_catalog.aurora_version()', provider: 'aurora', wal: 'DB cluster parameter group', replication: 'grant rds_replication to app;', grant: 'grant rds_replication to app' },
      { make: 'create role cloudsqlsuperuser', drop: 'drop role cloudsqlsuperuser', provider: 'cloud-sql', wal: '--database-flags=cloudsql.logical_decoding=on', replication: 'alter role app with replication;', grant: 'alter role app replication' },
      { make: 'create role alloydbsuperuser', drop: 'drop role alloydbsuperuser', provider: 'alloydb', wal: 'alloydb.logical_decoding=on', replication: 'alter role app with replication;', grant: 'alter role app replication' },
      { make: 'create role azure_pg_admin', drop: 'drop role azure_pg_admin', provider: 'azure', wal: '--name wal_level --value logical', replication: 'alter role app with replication;', grant: 'alter role app replication' },
      { make: 'create role neon_superuser', drop: 'drop role neon_superuser', provider: 'neon', wal: 'Neon Console', replication: 'Neon Console', grant: 'alter role app replication' },
      { make: 'create role supabase_admin', drop: 'drop role supabase_admin', provider: 'supabase', wal: 'postgres-config update', replication: 'connect as postgres', grant: 'alter role app replication' },
      { make: 'select 1', drop: 'select 1', provider: 'self-hosted', wal: 'alter system set wal_level', replication: 'alter role app with replication;', grant: 'alter role app replication' },
    ] as const;
    const app = parseConninfo(server.uri(database.name, 'app'));
    await using admin = await database.session();
    await admin.query('set allow_system_table_mods = on');
    for (const c of cases) {
      await admin.query(c.make);
      const result = await runPreflight({ source: app, target: target.spec, kind: kind('follow') });
      expect(result.source?.provider).toBe(c.provider);
      expect(fixes(one(result.checks, 'wal-level'))).toContain(c.wal);
      expect(one(result.checks, 'replication-role').status).toBe('fail');
      expect(fixes(one(result.checks, 'replication-role'))).toContain(c.replication);
      await admin.query(c.grant);
      expect(one((await runPreflight({ source: app, target: target.spec, kind: kind('follow') })).checks, 'replication-role').status).toBe('ok');
      await admin.query('alter role app noreplication');
      await admin.query(c.drop);
    }
  });

  it.each([15, 16] as const)('takes a standby of %i as the source for what that version can do', async (version) => {
    await using primary = await privateServer(version, { settings: { hot_standby: 'on' } });
    await using database = await createDatabase(primary, 'replicated');
    await database.run('create table t (id int primary key)');
    await using standby = await standbyOf(primary, version);
    const spec = parseConninfo(standby.uri(database.name));
    await using target = await createDatabase(await sharedServer(17), 'replicated');
    await waitFor('the standby to have the table', async () => {
      await using session = await Session.open(spec, { role: 'test' });
      return (await session.query(`select 1 from pg_catalog.pg_class where relname = 't'`)).length > 0;
    });
    const follow = await runPreflight({ source: spec, target: target.spec, kind: kind('follow') });
    const check = one(follow.checks, 'source-standby');
    expect(check.status).toBe(version >= 16 ? 'warn' : 'fail');
    expect(fixes(check)).toContain(version >= 16 ? 'create publication "pgweave_shop"' : 'name the primary');
    expect(one((await runPreflight({ source: spec, target: target.spec, kind: kind('clone') })).checks, 'source-standby').status).toBe('warn');
    expect(one((await runPreflight({ source: target.spec, target: spec, kind: kind('clone') })).checks, 'target-writable').status).toBe('fail');
    // A standby and its primary are the same database.
    expect(one((await runPreflight({ source: spec, target: database.spec, kind: kind('clone') })).checks, 'same-database').status).toBe('fail');
    // Comparing rows only reads, so a standby will do.
    await target.run('create table t (id int primary key)');
    expect(await verify({ source: spec, target: target.spec })).toMatchObject({ ok: true, totals: { equal: 1 } });
    await standby.stop('immediate');
  });

  it('names a refused replication connection, and a lost slot of the same name', async () => {
    await using server = await privateServer(17, { settings: { max_slot_wal_keep_size: "'1MB'", min_wal_size: "'32MB'", max_wal_size: "'32MB'" } });
    await using database = await createDatabase(server, 'walled');
    await using target = await createDatabase(await sharedServer(17), 'walled');
    await database.run('create role app login replication; create table t (id int primary key)');
    const app = parseConninfo(server.uri(database.name, 'app'));
    const replication = async () => one((await runPreflight({ source: app, target: target.spec, kind: kind('follow') })).checks, 'replication-connection');
    expect((await replication()).status).toBe('ok');
    await database.run('alter role app noreplication');
    expect(await replication()).toMatchObject({ status: 'fail', facts: { sqlstate: '42501' } });
    await database.query(`select pg_create_logical_replication_slot('pgweave_shop', 'pgoutput')`);
    const slot = async (source = database.spec) => one((await runPreflight({ source, target: target.spec, kind: kind('follow') })).checks, 'slot-name');
    expect(await slot()).toMatchObject({ status: 'warn', facts: { exists: true } });
    expect((await slot(parseConninfo(server.uri('postgres')))).status).toBe('fail');
    for (let i = 0; i < 4; i += 1) await database.run(`select pg_logical_emit_message(false, 'x', 'y'), pg_switch_wal()`);
    await database.run('checkpoint');
    await waitFor('the slot to be lost', async () => (await database.query(`select 1 from pg_replication_slots where wal_status = 'lost'`)).length > 0);
    expect((await slot()).status).toBe('fail');
  });

  it('notices poolers of both kinds and refused startup options', async () => {
    await using database = await createDatabase(await sharedServer(16), 'pooled');
    await using target = await createDatabase(await sharedServer(17), 'pooled');
    const through = async (mode: 'transaction' | 'session', refuseOptions = false, jobMode: JobKind['mode'] = 'clone') => {
      await using pooler = await startPooler({ port: database.spec.hosts[0]!.port, user: 'postgres', database: database.name, mode, refuseOptions });
      const spec = parseConninfo(`postgresql://postgres@127.0.0.1:${pooler.port}/${database.name}`);
      return one((await runPreflight({ source: spec, target: target.spec, kind: kind(jobMode) })).checks, 'source-pooler');
    };
    expect(await through('transaction')).toMatchObject({ status: 'fail', facts: { transactionPooling: true } });
    expect(await through('session')).toMatchObject({ status: 'warn', facts: { transactionPooling: false, startupOptions: true } });
    expect(await through('session', true)).toMatchObject({ status: 'warn', facts: { startupOptions: false } });
    expect((await through('session', false, 'follow')).status).toBe('fail');
    expect(one((await runPreflight({ source: database.spec, target: target.spec, kind: kind('clone') })).checks, 'source-pooler').status).toBe('ok');
  });
});
