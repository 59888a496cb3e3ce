import { describe, expect, it } from 'vitest';
import { noRules, parseColumns, parseMap } from '../../src/core/selection/rules.ts';
import { clone } from '../../src/workflows/clone.ts';
import { runSwitchover } from '../../src/workflows/run-switchover.ts';
import { switchoverChecks } from '../../src/workflows/switchover/checks.ts';
import { runCli, startCli, stateFolder, type CliRun } from '../support/cli.ts';
import { cleanupAll } from '../support/jobs.ts';
import { createDatabase, sharedServer, waitFor, type EmbeddedVersion, type TestDatabase } from '../support/servers.ts';

/** Tables with other names on the target, and columns that stay on the source: with a key, partitioned, without a key, under their own name. */
const schema = `
  create schema app; create schema shop;
  create table app.customers (id int generated always as identity primary key, name text not null, secret text not null default 'none', token text unique default md5(random()::text));
  create table app."Orders" (id serial primary key, customer int not null references app.customers (id), cents int8 default 0, note text not null default 'fresh', copied text generated always as (note || '!') stored);
  create table app.days (id int, day date, what text, extra text default 'e', primary key (id, day)) partition by range (day);
  create table app.days_1 partition of app.days for values from ('2026-01-01') to ('2026-07-01');
  create table app.days_2 partition of app.days for values from ('2026-07-01') to ('2027-01-01');
  create table app.log (what text, at int, who text default 'nobody'); alter table app.log replica identity full;
  create table app.plain (id int primary key, kept text, gone int);
  create table app.beats (n int primary key, own text default 'b');
  insert into app.customers (name, secret) select 'n' || i, 's' || i from generate_series(1, 200) i;
  insert into app."Orders" (customer, cents, note) select 1 + i % 200, i * 7, 'note' || i from generate_series(1, 1000) i;
  insert into app.days select i, date '2026-01-01' + i % 364, 'w' || i, 'x' || i from generate_series(1, 300) i;
  insert into app.log select 'l' || i % 50, i % 7, 'who' || i from generate_series(1, 200) i;
  insert into app.plain select i, 'k' || i, i from generate_series(1, 100) i;`;
const columns = 'app.customers.secret,app.customers.token,app."Orders".note,app."Orders".copied,app.days.extra,app.log.who,app.plain.gone,app.beats.own';
const maps = ['app."Orders"=shop.orders', 'app.customers=app."Clients"', 'app.days=archive.days', 'app.log=shop.journal', 'app.beats=shop.pulse'];
const flags = ['--exclude-columns', columns, ...maps.flatMap((map) => ['--map', map])];

/** What both sides have, as queries for the source and the target. */
const shared: readonly (readonly [here: string, there: string])[] = [
  ['select id, name from app.customers order by id', 'select id, name from app."Clients" order by id'],
  ['select id, customer, cents::text from app."Orders" order by id', 'select id, customer, cents::text from shop.orders order by id'],
  ['select id, day::text, what from app.days order by id, day', 'select id, day::text, what from archive.days order by id, day'],
  ['select what, at from app.log order by what, at', 'select what, at from shop.journal order by what, at'],
  ['select id, kept from app.plain order by id', 'select id, kept from app.plain order by id'],
];
/** What only the old source has, by row. */
const own = [
  `select 'customer ' || id as row, secret || ' ' || token as value from app.customers`, `select 'order ' || id as row, note || copied as value from app."Orders"`,
  `select 'day ' || id as row, extra as value from app.days`, `select 'plain ' || id as row, gone::text as value from app.plain`,
].join(' union all ');

const ownValues = async (source: TestDatabase) => new Map((await source.query<{ row: string; value: string | null }>(own)).map(({ row, value }) => [row, value]));

async function same(source: TestDatabase, target: TestDatabase): Promise<void> {
  for (const [here, there] of shared) {
    const texts = async () => JSON.stringify(await source.query(here)) === JSON.stringify(await target.query(there));
    await waitFor(`the same rows: ${here}`, texts);
  }
}

/** An application that goes on writing to where it is pointed; what was acknowledged must be on both sides in the end. */
class Beats {
  /** Which side takes writes: the application is pointed there once a switchover is through. */
  primary: 0 | 1 = 0;
  readonly acknowledged: number[] = [];
  readonly #sides: readonly { readonly database: TestDatabase; readonly table: string }[];
  #n = 0;
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(source: TestDatabase, target: TestDatabase) {
    this.#sides = [{ database: source, table: 'app.beats' }, { database: target, table: 'shop.pulse' }];
  }

  start(): void {
    this.#stopped = false;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async more(): Promise<void> {
    const before = this.acknowledged.length;
    await waitFor('more writes', () => this.acknowledged.length > before + 20);
  }

  /** Every acknowledged write is on both sides. */
  async arrived(): Promise<void> {
    for (const { database, table } of this.#sides) {
      await waitFor(`all writes in ${table}`, async () => {
        const there = new Set((await database.query<{ n: number }>(`select n from ${table}`)).map((row) => row.n));
        return this.acknowledged.every((n) => there.has(n));
      });
    }
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const { database, table } = this.#sides[this.primary]!;
      this.#n += 1;
      // Refused or cut off: tried again with another number, where the application is pointed by then.
      await database.run(`insert into ${table} (n) values (${this.#n})`).then(() => this.acknowledged.push(this.#n), () => undefined);
    }
  }
}

async function ok(args: readonly string[]): Promise<Record<string, unknown>> {
  const done = await runCli(args);
  expect(done.code, `${args.join(' ')}\n${done.stderr}`).toBe(0);
  return JSON.parse(done.stdout) as Record<string, unknown>;
}

const patience = { timeout: 300_000 };

describe('the way back of a job with other names and without some columns', () => {
  it.each<[EmbeddedVersion, EmbeddedVersion]>([[14, 18], [17, 15]])('%i and %i: the old source gets every change under its own names and keeps what is its own', patience, async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'wayback');
    await using target = await createDatabase(await sharedServer(to), 'wayback');
    await source.run(schema);
    using dir = stateFolder();
    using elsewhere = stateFolder();
    const job = target.name.toLowerCase();
    const ends = ['--source', source.uri, '--target', target.uri, '--job', job, '--dir', dir.path];
    const back = ['--source', target.uri, '--target', source.uri, '--job', `${job}_reverse`, '--dir', elsewhere.path];
    let follower: CliRun | undefined;
    const beats = new Beats(source, target);
    try {
      beats.start();
      await ok(['clone', ...ends, '--no-roles', '--follow', '--until-caught-up', '--json', ...flags]);
      follower = startCli(['follow', ...ends]);
      await source.run(`update app.customers set secret = secret || ' told', name = name || '.' where id < 10; insert into app."Orders" (customer, cents, note) values (1, 5, 'late'); update app.days set what = 'new' where id < 5; delete from app.log where at = 3`);
      await same(source, target);
      const dry = await ok(['switchover', ...ends, '--reverse', '--dry-run', '--json']);
      expect(dry['steps']).toContainEqual(expect.objectContaining({ name: 'way back', detail: expect.stringContaining(`pgweave_${job}_reverse`) as string }));
      const before = await ownValues(source);
      expect(await ok(['switchover', ...ends, '--reverse', '--verify', '--yes', '--json'])).toMatchObject({ wayBack: { job: `${job}_reverse` }, sequences: 2 });
      beats.primary = 1;
      await beats.more();

      // What applications do on the new primary: new rows, changed rows, a changed key, rows of either partition, equal rows without a key, one transaction over all of them.
      await target.run(`
        begin; insert into app."Clients" (name) select 'new' || i from generate_series(1, 30) i; update app."Clients" set name = name || ' here' where id between 50 and 120;
        insert into shop.orders (customer, cents) select 201, i from generate_series(1, 40) i; update shop.orders set cents = -cents where id % 3 = 0; delete from shop.orders where id between 900 and 950; update shop.orders set id = 100000 + id where id between 10 and 15; commit;
        update archive.days set what = what || '!' where id % 2 = 0; insert into archive.days values (9001, '2026-02-02', 'in one'), (9002, '2026-09-09', 'in two'); delete from archive.days where id between 20 and 30;
        insert into shop.journal values ('added', 1), ('added', 1); update shop.journal set at = at + 10 where at = 5; delete from shop.journal where what = 'l4';
        update app.plain set kept = 'changed'; insert into app.plain values (1000, 'thousand'); update app.plain set id = 2000 where id = 7; delete from app.plain where id = 8`);
      await same(source, target);
      await beats.stop();
      await beats.arrived();
      const after = await ownValues(source);
      // Rows that were there keep what only the old source has, rows whose key changed too.
      const moved = new Map<string, string>([...Array.from({ length: 6 }, (_, i) => [`order ${10 + i}`, `order ${100_010 + i}`] as const), ['plain 7', 'plain 2000'] as const]);
      for (const [row, value] of before) {
        const now = moved.get(row) ?? row;
        if (after.has(now)) expect([now, after.get(now)]).toEqual([now, value]);
        else expect(row).toMatch(/^(order 9[0-5]\d|day (2\d|30)|plain 8)$/);
      }
      // New ones get the column's default there.
      const fresh = [...after].filter(([row]) => !before.has(row) && ![...moved.values()].includes(row));
      expect(fresh.filter(([row]) => row.startsWith('customer ')).map(([, value]) => value)).toEqual(Array.from({ length: 30 }, () => expect.stringMatching(/^none [0-9a-f]{32}$/) as string));
      expect(fresh.filter(([row]) => row.startsWith('order ')).map(([, value]) => value)).toEqual(Array.from({ length: 40 }, () => 'freshfresh!'));
      expect(fresh.filter(([row]) => /^(day|plain) /.test(row)).map(([row, value]) => `${row} ${value ?? '-'}`).sort()).toEqual(['day 9001 e', 'day 9002 e', 'plain 1000 -']);
      expect(await source.query(`select count(*)::int as n from app.log where who = 'nobody'`)).toEqual([{ n: 2 }]);
      expect(await source.query(`select schema_name || '.' || table_name as name, state from pgweave.table_state where job = $1 order by 1`.replace('$1', `'${job}_reverse'`))).toEqual(['app.Clients', 'app.days_1', 'app.days_2', 'app.plain', 'shop.journal', 'shop.orders', 'shop.pulse'].map((name) => ({ name, state: 'streaming' })));

      // Both directions can be verified; a repair of the old source leaves its own values alone, and a table is not copied anew over them.
      expect(await ok(['verify', ...ends, '--json'])).toMatchObject({ ok: true, totals: { different: 0, notCompared: 0 } });
      await source.run(`begin read write; update app.customers set name = 'broken' where id = 60; delete from app.plain where id = 9; insert into app."Orders" (id, customer) values (77777, 1); commit`);
      const broken = await runCli(['verify', ...back, '--json']);
      expect(broken.code).toBe(3);
      expect(JSON.parse(broken.stdout)).toMatchObject({ mode: 'running', totals: { different: 3 } });
      await ok(['verify', ...back, '--repair', '--json']);
      await same(source, target);
      const repaired = await ownValues(source);
      expect([...repaired].filter(([row, value]) => row !== 'plain 9' && after.get(row) !== value)).toEqual([]);
      expect(repaired.get('plain 9')).toBeNull();
      const again = await runCli(['table', 'shop.orders', ...back, '--copy-again']);
      expect(again.code).toBe(1);
      expect(again.stderr).toContain('"copied", "note" of the old source would be lost');

      // Back, with the new one following once more.
      beats.start();
      await beats.more();
      expect(await ok(['switchover', ...ends, '--back', '--verify', '--reverse', '--yes', '--json'])).toMatchObject({ wayBack: { job }, sequences: 2 });
      beats.primary = 0;
      await beats.more();
      expect(await source.query(`select nextval('app."Orders_id_seq"') - max(id) as ahead from app."Orders" where id < 77777`)).toEqual([{ ahead: 1n }]);
      expect([...(await ownValues(source))]).toEqual([...repaired]);
      await source.run(`insert into app.customers (name, secret) values ('again', 'mine'); update app.customers set secret = 'still mine', name = 'renamed' where id = 61; insert into app."Orders" (customer, note) values (1, 'kept here'); update app.days set extra = 'own', what = 'back' where id = 200; delete from app.log where what = 'added'`);
      await same(source, target);
      expect(await target.query(`select count(*)::int as n from information_schema.columns where column_name in ('secret', 'token', 'note', 'copied', 'extra', 'who', 'gone') and table_schema in ('app', 'shop', 'archive')`)).toEqual([{ n: 0 }]);
      // And forward for good.
      await beats.stop();
      await ok(['switchover', ...ends, '--verify', '--yes', '--json']);
      expect((await follower.done).code).toBe(0);
      await same(source, target);
      await beats.arrived();
    } finally {
      await beats.stop();
      follower?.child.kill('SIGKILL');
      await follower?.done;
      await cleanupAll(source.spec, target.spec);
    }
  });

  it('is refused, before anything is changed, where rows could not come back', patience, async () => {
    await using source = await createDatabase(await sharedServer(16), 'wayback');
    await using target = await createDatabase(await sharedServer(16), 'wayback');
    await source.run(`create domain code as text not null; create table t (id int primary key, v text, secret text not null, c code, fine text not null default 'x'); create table u (id int primary key, own text); create unlogged table scratch (id int primary key, own text); insert into t values (1, 'v', 's', 'c'); create table plain (id int primary key)`);
    using dir = stateFolder();
    const job = target.name.toLowerCase();
    const ends = ['--source', source.uri, '--target', target.uri, '--job', job, '--dir', dir.path];
    let follower: CliRun | undefined;
    try {
      await ok(['clone', ...ends, '--no-roles', '--follow', '--until-caught-up', '--json', '--map', 't=moved.t', '--exclude-columns', 't.secret,t.c,t.fine,u.own,scratch.own']);
      follower = startCli(['follow', ...ends]);
      await source.run(`insert into t values (2, 'v', 's', 'c')`);
      await waitFor('the row', async () => (await target.query('select from moved.t')).length === 2);
      for (const more of [['--yes'], ['--dry-run']]) {
        const refused = await runCli(['switchover', ...ends, '--reverse', ...more]);
        expect(refused.code).toBe(2);
        for (const text of ['public.t."secret" is NOT NULL without a default', 'public.t."c" is NOT NULL without a default', 'public.scratch is unlogged', 'ALTER TABLE "public"."t" ALTER COLUMN "secret" SET DEFAULT', 'leave --reverse out']) expect(refused.stderr).toContain(text);
        expect(refused.stderr).not.toContain('"fine"');
      }
      const checks = await switchoverChecks({ source: source.spec, target: target.spec, job, native: false });
      expect(checks.find((check) => check.name === 'Way back')).toMatchObject({ status: 'warn', detail: expect.stringContaining('public.t."secret" is NOT NULL without a default') as string, fix: expect.stringContaining('SET DEFAULT') as string });
      expect(await target.query(`select (select count(*)::int from pg_replication_slots where database = current_database()) as slots, (select count(*)::int from pg_publication) as publications, to_regclass('pgweave.switchover') is null as untouched`)).toEqual([{ slots: 0, publications: 0, untouched: true }]);
      await source.run(`insert into t values (3, 'v', 's', 'c')`);
      // The fix that it names makes it possible.
      await source.run(`alter table t alter column secret set default 'unknown', alter column c set default 'none'; drop table scratch`);
      await ok(['switchover', ...ends, '--reverse', '--yes', '--json']);
      await target.run(`insert into moved.t values (4, 'there'); update moved.t set v = 'changed' where id = 1`);
      await waitFor('the rows to come back', async () => JSON.stringify(await source.query('select id, v, secret, c from t where id in (1, 4) order by id')) === JSON.stringify([{ id: 1, v: 'changed', secret: 's', c: 'c' }, { id: 4, v: 'there', secret: 'unknown', c: 'none' }]));
    } finally {
      follower?.child.kill('SIGKILL');
      await follower?.done;
      await cleanupAll(source.spec, target.spec);
    }
  });

  it('of a native subscription: columns of the old source are kept, or it is refused', patience, async () => {
    await using source = await createDatabase(await sharedServer(16), 'wayback');
    await using target = await createDatabase(await sharedServer(17), 'wayback');
    await source.run(`create table t (id int primary key, v text, secret text not null); create table f (id int primary key, v text, own text); insert into t values (1, 'v', 's'); insert into f values (1, 'v', 'o')`);
    const job = target.name.toLowerCase();
    const options = { source: source.spec, target: target.spec, job };
    try {
      await expect(clone({ ...options, mode: 'sync', roles: false, rules: { ...noRules, maps: [parseMap('t=u')] } })).rejects.toThrow(/by their names on the source/);
      const rules = { ...noRules, excludeColumns: parseColumns('t.secret,f.own') };
      using dir = stateFolder();
      await ok(['clone', '--source', source.uri, '--target', target.uri, '--job', job, '--dir', dir.path, '--no-roles', '--sync', '--json', '--exclude-columns', 't.secret,f.own']);
      await waitFor('the subscription to stream', async () => (await target.query(`select from pg_subscription_rel where srsubstate <> 'r'`)).length === 0);
      // As somebody may have made it there: the source could not have published such a table without the column.
      await target.run('alter table f replica identity full');
      const refusal = expect.stringMatching(/public\.t\."secret" is NOT NULL without a default(.|\n)*|public\.f has REPLICA IDENTITY FULL/) as string;
      await expect(runSwitchover({ ...options, reverse: true, rules })).rejects.toMatchObject({ exitCode: 2, message: refusal });
      await expect(runSwitchover({ ...options, reverse: true, rules })).rejects.toThrow(/public\.f has REPLICA IDENTITY FULL on the target/);
      expect(await source.query('select from pg_subscription where subdbid = (select oid from pg_database where datname = current_database())')).toEqual([]);
      await source.run(`alter table t alter column secret drop not null`);
      await target.run('alter table f replica identity default');
      expect(await runSwitchover({ ...options, reverse: true, verify: true, rules })).toMatchObject({ wayBack: { job: `${job}_reverse` } });
      await target.run(`update t set v = 'there' where id = 1; insert into t values (2, 'new'); update f set v = 'there'`);
      await waitFor('the rows to come back', async () => (await source.query(`select from t where v = 'new'`)).length === 1 && (await source.query(`select from f where v = 'there'`)).length === 1);
      expect(await source.query('select id, v, secret from t order by id')).toEqual([{ id: 1, v: 'there', secret: 's' }, { id: 2, v: 'new', secret: null }]);
      expect(await source.query('select id, v, own from f')).toEqual([{ id: 1, v: 'there', own: 'o' }]);
      expect(await runSwitchover({ source: target.spec, target: source.spec, job: `${job}_reverse`, verify: true, rules })).toMatchObject({ wayBack: null });
      await source.run(`insert into t values (3, 'home', 'x')`);
    } finally {
      await cleanupAll(source.spec, target.spec);
    }
  });
});
