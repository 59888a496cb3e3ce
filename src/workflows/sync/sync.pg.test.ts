import { chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createDatabase, privateServer, sharedServer, waitFor, type TestDatabase } from '../../../test/support/servers.ts';
import { recordTableEvent } from '../../changes/table-states.ts';
import { ensureChangesSchema } from '../../changes/target-schema.ts';
import { openSlotSnapshot } from '../../copy/snapshot.ts';
import type { JobEvent } from '../../core/events.ts';
import { armFailpoints } from '../../core/failpoints.ts';
import { noRules, parseColumns, parseMap, parseTableFilter, parseTables, parseTimeFilter } from '../../core/selection/rules.ts';
import { parseConninfo } from '../../pg/conninfo.ts';
import { quoteIdent } from '../../pg/identifiers.ts';
import { publishSelection, sync, type SyncOptions } from '../sync.ts';
import { wayBackConnection } from '../switchover/native-steps.ts';
import { subscriptionConnection } from './connection.ts';

let jobs = 0;
const newJob = () => `sy${process.pid}_${(jobs += 1)}`;

async function pair(from: 14 | 15 | 16 | 17 | 18, to: 14 | 15 | 16 | 17 | 18) {
  const source = await createDatabase(await sharedServer(from), 'sync_src');
  const target = await createDatabase(await sharedServer(to), 'sync_dst');
  return { source, target, [Symbol.asyncDispose]: async () => { await target.drop(); await source.drop(); } };
}

async function rowsOf(database: TestDatabase, table: string): Promise<string> {
  return (await database.query<{ all: string }>(`select coalesce(json_agg(to_jsonb(t) order by to_jsonb(t)), '[]')::text as all from ${table} t`))[0]!.all;
}

/** Both hold the same rows, once the target has caught up. */
async function equal(source: TestDatabase, target: TestDatabase, ...tables: string[]): Promise<void> {
  for (const table of tables) {
    const wanted = await rowsOf(source, table);
    await waitFor(`${table} to be equal`, async () => (await rowsOf(target, table)) === wanted);
  }
}

const states = (database: TestDatabase, job: string) => database.query<{ t: string; s: string }>(`select srrelid::regclass::text as t, srsubstate::text as s from pg_subscription_rel r join pg_subscription b on b.oid = r.srsubid where subname = 'pgweave_${job}' order by 1`);

describe('sync with PostgreSQL\'s own copy', () => {
  it.each([[14, 18], [18, 14], [16, 16]] as const)('%i to %i: copies, follows, and changes nothing when run again', async (from, to) => {
    await using dbs = await pair(from, to);
    const { source, target } = dbs;
    const schema = `create schema "Odd.S"; create table "Odd.S"."T""ä b" (id int primary key, "V 1" text); create table orders (id int primary key, v text); create schema audit; create table audit.orders (id int primary key, v text);
      create table events (id int, v text, primary key (id)) partition by range (id); create table events_1 partition of events for values from (0) to (10); create table events_2 partition of events for values from (10) to (100)`;
    await source.run(`${schema}; insert into "Odd.S"."T""ä b" select i, 'x' from generate_series(1, 100) i; insert into orders select i, 'public' from generate_series(1, 50) i; insert into audit.orders select i, 'audit' from generate_series(1, 7) i; insert into events select i, 'e' from generate_series(1, 20) i`);
    await target.run(schema);
    const job = newJob();
    const events: JobEvent[] = [];
    const options: SyncOptions = { source: source.spec, target: target.spec, job, wait: true, onEvent: (e) => void events.push(e) };
    const first = await sync(options);
    expect(first).toMatchObject({ outcome: 'copying', subscription: `pgweave_${job}`, missing: [], storesPassword: false, settings: { binary: true } });
    expect(first.tables.map((t) => [t.schema, t.name, t.state])).toEqual([['Odd.S', 'T"ä b', 'r'], ['audit', 'orders', 'r'], ['public', 'events', 'r'], ['public', 'orders', 'r']]);
    await source.run(`update "Odd.S"."T""ä b" set "V 1" = 'ü' where id < 5; delete from orders where id < 9; insert into audit.orders values (100, 'late'); update events set id = id + 50 where id = 3`);
    await equal(source, target, '"Odd.S"."T""ä b"', 'orders', 'audit.orders', 'events');
    expect((await sync(options)).outcome).toBe('reconciled');
    // A table that came since is taken up and copied.
    await source.run(`create table more (id int primary key); insert into more values (1)`);
    await target.run('create table more (id int primary key)');
    expect((await sync(options)).outcome).toBe('copying');
    await equal(source, target, 'more', 'orders');
  });

  it('takes settings: two-phase, origin, streaming, text; says which of them cannot be changed later', async () => {
    await using dbs = await pair(16, 18);
    const { source, target } = dbs;
    await source.run('create table t (id int primary key); insert into t values (1)');
    await target.run('create table t (id int primary key)');
    const job = newJob();
    const options: SyncOptions = { source: source.spec, target: target.spec, job, wait: true };
    const settings = () => target.query(`select subtwophasestate::text as two_phase, suborigin as origin, substream::text as streaming, subbinary as binary from pg_subscription where subname = 'pgweave_${job}'`);
    await sync({ ...options, twoPhase: true, origin: 'none', binary: false });
    await waitFor('two-phase to be on', async () => JSON.stringify(await settings()) === JSON.stringify([{ two_phase: 'e', origin: 'none', streaming: 'p', binary: false }]));
    const gid = `sync ${job}`;
    await source.run(`begin; insert into t values (2); prepare transaction '${gid}'`);
    await waitFor('the prepared transaction', async () => (await target.query('select 1 from pg_prepared_xacts where database = current_database()')).length === 1);
    await source.run(`commit prepared '${gid}'`);
    await equal(source, target, 't');
    expect((await sync({ ...options, twoPhase: true, streaming: 'off' })).outcome).toBe('reconciled');
    expect(await settings()).toMatchObject([{ origin: 'any', streaming: 'f', binary: true }]);

    await source.run('create table u (id int primary key)');
    await target.run('create table u (id int primary key)');
    const plain = { ...options, job: newJob(), rules: { ...noRules, includeTables: parseTables('u') } };
    await sync(plain);
    await expect(sync({ ...plain, twoPhase: true })).rejects.toMatchObject({ code: 'two-phase-is-fixed', exitCode: 2, hint: expect.stringContaining('cleanup') });
  });

  it('takes up a run that failed at any step', async () => {
    await using dbs = await pair(15, 17);
    const { source, target } = dbs;
    for (const [i, point] of ['sync.after-publication', 'sync.before-subscription', 'sync.before-enable'].entries()) {
      await source.run(`create table t${i} (id int primary key); insert into t${i} values (1)`);
      await target.run(`create table t${i} (id int primary key)`);
      const options: SyncOptions = { source: source.spec, target: target.spec, job: newJob(), rules: { ...noRules, includeTables: parseTables(`t${i}`) } };
      armFailpoints(`${point}=error`);
      try {
        await expect(sync(options)).rejects.toThrow(`failpoint ${point}`);
      } finally {
        armFailpoints('');
      }
      await source.run(`insert into t${i} values (2)`);
      await sync({ ...options, wait: true });
      await equal(source, target, `t${i}`);
    }
    // While a subscription that is there is brought to what is asked for: a table that came since is copied all the same, once.
    const job = newJob();
    const named = (tables: string): SyncOptions => ({ source: source.spec, target: target.spec, job, rules: { ...noRules, includeTables: parseTables(tables) }, wait: true });
    for (const name of ['r0', 'r1', 'r2']) {
      await source.run(`create table ${name} (id int primary key); insert into ${name} values (1)`);
      await target.run(`create table ${name} (id int primary key)`);
    }
    await sync(named('r0'));
    for (const [point, tables] of [['sync.after-publication', 'r0,r1'], ['sync.before-refresh', 'r0,r1,r2']] as const) {
      armFailpoints(`${point}=error`);
      try {
        await expect(sync(named(tables))).rejects.toThrow(`failpoint ${point}`);
      } finally {
        armFailpoints('');
      }
      await source.run('insert into r1 values (2 + (select count(*) from r1)); insert into r0 values (2 + (select count(*) from r0))');
      expect((await sync(named(tables))).outcome).toBe('copying');
      await equal(source, target, ...tables.split(','));
    }
  });

  it('--ignore-missing limits the publication to what the target has', async () => {
    await using dbs = await pair(17, 15);
    const { source, target } = dbs;
    await source.run('create table a (id int primary key); create table b (id int primary key); insert into a values (1); insert into b values (1)');
    await target.run('create table a (id int primary key)');
    const options: SyncOptions = { source: source.spec, target: target.spec, job: newJob() };
    await expect(sync(options)).rejects.toMatchObject({ code: 'target-table-missing', message: expect.stringContaining('public.b'), hint: expect.stringContaining('--ignore-missing') });
    expect(await source.query('select 1 from pg_publication')).toEqual([]);
    expect(await sync({ ...options, ignoreMissing: true, wait: true })).toMatchObject({ missing: [{ schema: 'public', name: 'b' }], tables: [{ name: 'a', state: 'r' }] });
    await equal(source, target, 'a');
  });

  it('--defer-copy copies nothing until --copy-now, which really copies; also tables that were subscribed without', async () => {
    await using dbs = await pair(16, 18);
    const { source, target } = dbs;
    await source.run('create table a (id int primary key); create table b (id int primary key); insert into a values (1); insert into b values (1)');
    await target.run('create table a (id int primary key); create table b (id int primary key)');
    const job = newJob();
    const options: SyncOptions = { source: source.spec, target: target.spec, job };
    expect((await sync({ ...options, copy: 'defer' })).outcome).toBe('deferred');
    expect((await sync({ ...options, copy: 'defer' })).outcome).toBe('deferred');
    expect(await states(target, job)).toEqual([]);
    await source.run('insert into a values (2)');
    expect((await sync({ ...options, copy: 'now', wait: true })).outcome).toBe('copying');
    await equal(source, target, 'a', 'b');
    await expect(sync({ ...options, copy: 'defer' })).rejects.toMatchObject({ code: 'already-subscribed' });

    const second = newJob();
    await source.run('create table c (id int primary key, v int); create table d (id int primary key); insert into c values (1, 1); insert into d values (1)');
    await target.run('create table c (id int primary key, v int); create table d (id int primary key)');
    const rules = { ...noRules, includeTables: parseTables('c,d') };
    expect((await sync({ ...options, job: second, rules, copy: 'none' })).outcome).toBe('from-now');
    await source.run('insert into d values (2)');
    await waitFor('the insert', async () => (await target.query('select * from d')).length === 1);
    expect(await target.query('select * from c')).toEqual([]);
    // PostgreSQL's own way does nothing here.
    await target.run(`alter subscription pgweave_${second} refresh publication with (copy_data = true)`);
    expect(await states(target, second)).toEqual([{ t: 'c', s: 'r' }, { t: 'd', s: 'r' }]);
    armFailpoints('sync.tables-removed=error');
    await expect(sync({ ...options, job: second, rules, copy: 'now' })).rejects.toThrow('failpoint');
    armFailpoints('');
    await source.run('update c set v = 2');
    const copied = await sync({ ...options, job: second, rules, copy: 'now', wait: true });
    expect(copied).toMatchObject({ outcome: 'copying', notEmpty: [{ name: 'd' }] });
    await equal(source, target, 'c');
  });
});

describe('sync after our own copy', () => {
  it.each([[15, 16], [14, 17], [18, 18]] as const)('%i to %i: begins exactly where the copy ended, under a writer', async (from, to) => {
    await using dbs = await pair(from, to);
    const { source, target } = dbs;
    const schema = 'create table acct (id int primary key, v int, note text); create table log (id bigint generated always as identity primary key, acct int)';
    await source.run(`${schema}; insert into acct select i, 0, null from generate_series(1, 200) i`);
    await target.run(schema);
    const job = newJob();
    const writer = await source.session();
    let stop = false;
    const writing = (async () => {
      for (let n = 1; !stop; n += 1) await writer.query(`begin; update acct set v = v + 1 where id = ${1 + (n % 200)}; insert into log (acct) values (${n}); ${n % 10 === 0 ? `delete from acct where id = ${200 - (n % 50)}; insert into acct values (${1000 + n}, 0, 'new');` : ''} commit`);
    })();
    try {
      await using session = await source.session();
      await publishSelection(session, { job });
      await using snapshot = await openSlotSnapshot(source.spec, { job, slot: `pgweave_${job}`, temporary: false });
      await waitFor('writes after the snapshot', async () => (await snapshot.session.query<{ n: bigint }>('select count(*) as n from public.log'))[0]!.n < (await source.query<{ n: bigint }>('select count(*) as n from log'))[0]!.n);
      await using into = await target.session();
      await ensureChangesSchema(into);
      for (const table of ['acct', 'log']) {
        const { rows } = await snapshot.session.one<{ rows: string }>(`select coalesce(pg_catalog.json_agg(t), '[]')::text as rows from public.${table} t`);
        await into.query(`insert into ${table} overriding system value select * from json_populate_recordset(null::${table}, $1)`, [rows]);
        await recordTableEvent(into, job, { schema: 'public', name: table }, { type: 'copied', lsn: snapshot.lsn });
      }
      await snapshot.close();
      const done = await sync({ source: source.spec, target: target.spec, job });
      expect(done).toMatchObject({ outcome: 'handed-over', tables: [{ name: 'acct', state: 'r' }, { name: 'log', state: 'r' }] });
      const at = (await source.query<{ n: bigint }>('select count(*) as n from log'))[0]!.n;
      await waitFor('the subscription to follow', async () => (await target.query<{ n: bigint }>('select count(*) as n from log'))[0]!.n > at);
    } finally {
      stop = true;
      await writing;
    }
    await equal(source, target, 'acct', 'log');
  });

  it('refuses a copy that is not whole, and one made without a slot; brings tables of several moments to one first', async () => {
    await using dbs = await pair(16, 15);
    const { source, target } = dbs;
    const schema = 'create table a (id int primary key); create table b (id int primary key)';
    await source.run(`${schema}; insert into a values (1)`);
    await target.run(schema);
    const job = newJob();
    await using session = await source.session();
    await using into = await target.session();
    await ensureChangesSchema(into);
    const options: SyncOptions = { source: source.spec, target: target.spec, job };
    const table = (name: string) => ({ schema: 'public', name });
    await recordTableEvent(into, job, table('a'), { type: 'copy-started' });
    await expect(sync(options)).rejects.toMatchObject({ code: 'slot-missing' });
    await publishSelection(session, { job });
    await using one = await openSlotSnapshot(source.spec, { job, slot: `pgweave_${job}`, temporary: false });
    await expect(sync(options)).rejects.toMatchObject({ code: 'copy-not-finished', message: expect.stringContaining('public.a') });
    await into.query('insert into a values (1)');
    await recordTableEvent(into, job, table('a'), { type: 'copied', lsn: one.lsn });
    await source.run('insert into a values (2); insert into b values (1)');
    await using two = await openSlotSnapshot(source.spec, { job, slot: `pgweave_${job}_copy`, temporary: true });
    await into.query('insert into b values (1)');
    await recordTableEvent(into, job, table('b'), { type: 'copied', lsn: two.lsn });
    await expect(sync(options)).rejects.toMatchObject({ code: 'copied-at-several-moments', hint: expect.stringContaining('--until-caught-up') });
    const bridged: bigint[] = [];
    await sync({
      ...options,
      bridge: async (upTo) => {
        bridged.push(upTo);
        // What our own stream does: applies to each table what it lacks, and says how far it came.
        await into.query('insert into a values (2)');
        return upTo;
      },
    });
    expect(bridged).toEqual([two.lsn]);
    await source.run('insert into a values (3); insert into b values (3)');
    await equal(source, target, 'a', 'b');
  });
});

describe('what would harm the source or cannot be is refused, and nothing is changed', () => {
  it('filters, windows and column lists: inside the identity they work on 15 and later, else the fix is told', async () => {
    await using dbs = await pair(15, 18);
    const { source, target } = dbs;
    const schema = 'create table f (id int primary key, v int, secret text); create table full_one (id int primary key, at timestamptz not null, v int); alter table full_one replica identity full';
    await source.run(`${schema}; insert into f select i, i, 's' from generate_series(1, 20) i; insert into full_one select i, now() - (i * 30 || ' days')::interval, i from generate_series(0, 9) i`);
    await target.run(schema);
    const job = newJob();
    const filter = (text: string) => ({ ...noRules, tableFilters: [parseTableFilter(text)] });
    const options: SyncOptions = { source: source.spec, target: target.spec, job };
    await expect(sync({ ...options, rules: filter('f:v > 10') })).rejects.toMatchObject({ code: 'cannot-publish', message: expect.stringContaining('reads v'), hint: expect.stringContaining('REPLICA IDENTITY FULL') });
    await expect(sync({ ...options, rules: filter(`full_one:at > now() - interval '1 day'`) })).rejects.toMatchObject({ code: 'usage', hint: expect.stringContaining('--time-filter') });
    await expect(sync({ ...options, rules: { ...noRules, maps: [parseMap('f=g')] } })).rejects.toMatchObject({ message: expect.stringContaining('native subscription cannot') });
    // What only PostgreSQL knows of publications: none of users' functions, and no built-in one that depends on a setting.
    await source.run('create function twice(int) returns int language sql immutable as \'select $1 * 2\'');
    for (const text of ['full_one:public.twice(id) > 2', `full_one:at::date > '2026-01-01'`]) await expect(sync({ ...options, rules: filter(text) })).rejects.toMatchObject({ code: 'cannot-publish', exitCode: 3, message: expect.stringContaining('public.full_one: ('), hint: expect.stringContaining('--follow') });
    await expect(sync({ ...options, rules: { ...noRules, excludeColumns: parseColumns('full_one.v') } })).rejects.toMatchObject({ message: expect.stringContaining('replica identity') });
    expect(await source.query('select 1 from pg_publication union all select 1 from pg_replication_slots where database = current_database()')).toEqual([]);
    // The source's own writes were never in danger.
    await source.run('update f set v = v + 1; delete from f where id = 1; insert into f values (1, 2, \'s\')');

    const rules = { ...noRules, tableFilters: [parseTableFilter('f:id > 10')], timeFilters: [parseTimeFilter('full_one:at:100 days')], excludeColumns: parseColumns('f.secret') };
    expect(await sync({ ...options, rules, wait: true })).toMatchObject({ outcome: 'copying' });
    expect(await target.query('select count(*)::int as n, count(secret)::int as secrets from f')).toEqual([{ n: 10, secrets: 0 }]);
    expect(await target.query('select id from full_one order by 1')).toEqual([0, 1, 2, 3].map((id) => ({ id })));
    // A row that moves out of the filter leaves, one that moves in comes (PG 028).
    await source.run(`update full_one set at = now() - interval '1 year' where id = 1; update full_one set at = now() where id = 9; update f set id = 5 + 100 where id = 5; update f set id = 2 + 1000 where id = 12`);
    await waitFor('the moved rows', async () => JSON.stringify(await target.query('select id from full_one order by 1')) === JSON.stringify([0, 2, 3, 9].map((id) => ({ id }))));
    await waitFor('the moved keys', async () => JSON.stringify((await target.query<{ id: number }>('select id from f where id > 20 order by 1')).map((r) => r.id)) === '[105,1002]');
    // The same windows, counted later, are the same filters.
    expect((await sync({ ...options, rules })).outcome).toBe('reconciled');
  });

  it('on 14 there are no row filters; without an identity only inserts, on request', async () => {
    await using dbs = await pair(14, 15);
    const { source, target } = dbs;
    const schema = 'create table f (id int primary key, v int); create table bare (v int)';
    await source.run(`${schema}; insert into bare values (1)`);
    await target.run(schema);
    const options: SyncOptions = { source: source.spec, target: target.spec, job: newJob() };
    await expect(sync({ ...options, rules: { ...noRules, includeTables: parseTables('f'), tableFilters: [parseTableFilter('f:id > 10')] } })).rejects.toMatchObject({ message: expect.stringContaining('from PostgreSQL 15 on'), hint: expect.stringContaining('--follow') });
    await expect(sync(options)).rejects.toMatchObject({ code: 'cannot-publish', message: expect.stringContaining('public.bare has no replica identity'), exitCode: 3 });
    await expect(sync({ ...options, twoPhase: true })).rejects.toMatchObject({ code: 'not-supported' });
    await expect(sync({ ...options, origin: 'none' })).rejects.toMatchObject({ code: 'not-supported' });
    expect(await sync({ ...options, insertOnly: (t) => t.name === 'bare', wait: true })).toMatchObject({ insertsOnly: [{ name: 'bare' }] });
    await source.run('update bare set v = 2; insert into bare values (3)');
    await waitFor('the insert', async () => (await target.query('select * from bare')).length === 2);
    expect(await target.query('select v from bare order by 1')).toEqual([{ v: 1 }, { v: 3 }]);
  });

  it('objects of the same name that are somebody else\'s, rows that are there, a lost way to the source', async () => {
    await using dbs = await pair(17, 16);
    const { source, target } = dbs;
    await source.run('create table t (id int primary key); insert into t values (1)');
    await target.run('create table t (id int primary key)');
    const job = newJob();
    const options: SyncOptions = { source: source.spec, target: target.spec, job };
    await source.run(`create publication pgweave_${job}`);
    await expect(sync(options)).rejects.toMatchObject({ code: 'publication-not-ours', exitCode: 2 });
    await source.run(`drop publication pgweave_${job}; select pg_create_physical_replication_slot('pgweave_${job}')`);
    await expect(sync(options)).rejects.toMatchObject({ code: 'slot-not-ours' });
    await source.run(`select pg_drop_replication_slot('pgweave_${job}')`);
    await target.run(`create subscription pgweave_${job} connection 'dbname=nowhere' publication p with (connect = false)`);
    await expect(sync(options)).rejects.toMatchObject({ code: 'subscription-not-ours' });
    await target.run(`alter subscription pgweave_${job} set (slot_name = none); drop subscription pgweave_${job}; insert into t values (7)`);
    await expect(sync(options)).rejects.toMatchObject({ code: 'target-not-empty', hint: expect.stringContaining('--no-copy') });
    await target.run('truncate t');
    await expect(sync({ ...options, sourceForTarget: parseConninfo('postgresql://postgres@127.0.0.1:1/x') })).rejects.toMatchObject({ code: 'target-cannot-reach-source', hint: expect.stringContaining('--source-for-target') });
    // Another database of the source's server answers, and has no such publication.
    await expect(sync({ ...options, sourceForTarget: { ...source.spec, database: 'postgres' } })).rejects.toMatchObject({ code: 'target-reached-another-server' });
    expect(await target.query(`select 1 from pg_subscription where subname = 'pgweave_${job}'`)).toEqual([]);
    // A slot that nobody reads would fill the source's disk.
    expect(await source.query(`select 1 from pg_replication_slots where slot_name = 'pgweave_${job}'`)).toEqual([]);
    expect((await sync({ ...options, wait: true })).outcome).toBe('copying');
    await equal(source, target, 't');
  });
});

describe('roles that may do just what is documented', () => {
  it('works with the grants of docs/sync.md, and names each that is missing', async () => {
    // A subscription of a role that is no superuser insists on a password that is really asked for.
    await using from = await privateServer(16, { hba: 'host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n' });
    const to = await sharedServer(17);
    await using source = await createDatabase(from, 'sync_src');
    await using target = await createDatabase(to, 'sync_dst');
    const role = `Sync "R" ${process.pid}`;
    const quoted = quoteIdent(role);
    const job = newJob();
    try {
      await source.run(`create role ${quoted} login password 'geheim-9'; create schema app; create table app.t (id int primary key); insert into app.t values (1)`);
      await target.run(`create role ${quoted} login password 'geheim-9'; create schema app; create table app.t (id int primary key)`);
      const events: JobEvent[] = [];
      const options: SyncOptions = { source: parseConninfo(from.uri(source.name, role, 'geheim-9')), target: parseConninfo(to.uri(target.name, role, 'geheim-9')), job, wait: true, onEvent: (e) => void events.push(e) };
      const grant = async (database: TestDatabase, code: string, sql: string) => {
        await expect(sync(options)).rejects.toMatchObject({ code });
        await database.run(sql);
      };
      await source.run(`grant usage on schema app to ${quoted}; grant select on app.t to ${quoted}`);
      await target.run(`grant usage on schema app to ${quoted}; grant select, insert, update, delete, truncate on app.t to ${quoted}`);
      await grant(source, 'may-not-publish', `alter table app.t owner to ${quoted}; grant create on database ${quoteIdent(source.name)} to ${quoted}`);
      await grant(source, 'no-replication-right', `alter role ${quoted} replication`);
      await grant(target, 'may-not-subscribe', `grant pg_create_subscription to ${quoted}; grant create on database ${quoteIdent(target.name)} to ${quoted}; alter table app.t owner to ${quoted}`);
      await expect(sync({ ...options, passfile: '/nowhere/.pgpass' })).rejects.toMatchObject({ code: 'subscription-needs-password' });
      expect(await sync(options)).toMatchObject({ outcome: 'copying', storesPassword: true, tables: [{ name: 't', state: 'r' }] });
      expect(events).toContainEqual(expect.objectContaining({ type: 'warning', code: 'password-stored', hint: expect.stringContaining('--subscription-passfile') }));
      expect(JSON.stringify(events)).not.toContain('geheim-9');
      await source.run('insert into app.t values (2)');
      await equal(source, target, 'app.t');
    } finally {
      for (const { name } of await target.query<{ name: string }>(`select subname as name from pg_subscription where subname = 'pgweave_${job}'`)) {
        for (const part of ['disable', 'set (slot_name = none)']) await target.run(`alter subscription ${name} ${part}`);
        await target.run(`drop subscription ${name}`);
      }
      await target.run(`reassign owned by ${quoted} to postgres; drop owned by ${quoted}; drop role ${quoted}`);
    }
  });
});

describe('the address that the target uses', () => {
  const spec = (uri: string) => parseConninfo(uri, {});
  it('refuses a source that the target would take for itself', () => {
    expect(() => subscriptionConnection(spec('postgresql://a@localhost:5433/shop'), spec('postgresql://a@db.example/shop'))).toThrow(expect.objectContaining({ hint: expect.stringContaining('--source-for-target postgresql://a@HOST:5433/shop') }));
    expect(subscriptionConnection(spec('postgresql://a@localhost:5433/shop'), spec('postgresql://a@127.0.0.1/shop')).conninfo).toBe(`host='localhost' port='5433' dbname='shop' user='a'`);
    expect(subscriptionConnection(spec('postgresql://a@localhost:5433/shop'), spec('postgresql://a@db.example/shop'), { sourceForTarget: spec('postgresql://a@old.example/shop') }).conninfo).toContain(`host='old.example'`);
  });

  it('refuses a target that the old source would take for itself on the way back', () => {
    const ends = { source: spec('postgresql://a@old.example/shop'), target: spec('postgresql://a@localhost:5433/shop') };
    expect(() => wayBackConnection(ends)).toThrow(expect.objectContaining({ exitCode: 2, hint: expect.stringContaining('--target-for-source postgresql://a@HOST:5433/shop') }));
    expect(wayBackConnection({ ...ends, targetForSource: spec('postgresql://a@new.example/shop') }).conninfo).toContain(`host='new.example'`);
  });

  it('reads a password file on the target\'s machine, and stores no password', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'pgweave-pass-'));
    await using from = await privateServer(17, { hba: 'host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n' });
    const to = await sharedServer(16);
    await using source = await createDatabase(from, 'sync_src');
    await using target = await createDatabase(to, 'sync_dst');
    try {
      await source.run(`create role follower login replication superuser password 'geheim:7'; create table t (id int primary key); insert into t values (1)`);
      await target.run('create table t (id int primary key)');
      const file = join(folder, 'pass');
      writeFileSync(file, `*:*:*:follower:geheim\\:7\n`, { mode: 0o600 });
      // The servers of tests run as nobody where root runs the tests.
      if (process.getuid?.() === 0) for (const path of [folder, file]) chownSync(path, 65_534, 65_534);
      const job = newJob();
      expect(await sync({ source: parseConninfo(from.uri(source.name, 'follower', 'geheim:7')), target: target.spec, job, passfile: file, wait: true })).toMatchObject({ storesPassword: false, tables: [{ name: 't', state: 'r' }] });
      expect(await target.query(`select subconninfo like '%geheim%' as stored from pg_subscription where subname = 'pgweave_${job}'`)).toEqual([{ stored: false }]);
      await equal(source, target, 't');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('stores a password only where it must, quoted', () => {
    expect(subscriptionConnection(spec(`host=a user='o''x' password='it\\'s' dbname=d sslmode=require`.replace("o''x", 'ox')), spec('host=b'))).toEqual({ conninfo: `host='a' port='5432' dbname='d' user='ox' password='it\\'s' sslmode='require'`, storesPassword: true });
    expect(subscriptionConnection(spec('postgresql://u:geheim@a/d'), spec('host=b'), { passfile: '/etc/pass file' })).toEqual({ conninfo: `host='a' port='5432' dbname='d' user='u' passfile='/etc/pass file'`, storesPassword: false });
  });
});
