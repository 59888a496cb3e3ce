import { afterEach, describe, expect, it } from 'vitest';
import { armFailpoints } from '../../src/core/failpoints.ts';
import { mergeRules, noRules, parseColumns, parseMap, type SelectionRules } from '../../src/core/selection/rules.ts';
import { clone, planClone } from '../../src/workflows/clone.ts';
import { verify } from '../../src/workflows/verify.ts';
import { runCli, startCli, stateFolder } from '../support/cli.ts';
import { createDatabase, sharedServer, waitFor, type TestDatabase } from '../support/servers.ts';

/** Tables that bear other names on the target, and columns that stay at home, with one of everything that can rest on them. */
const schema = `
  create schema app; create schema shop;
  create type app.mood as enum ('glad', 'sad');
  create table app.customers (id int generated always as identity primary key, name text not null, secret text not null default 'x' check (secret <> ''), born date, mood app.mood, unique (name), check (length(secret) > 0 or name <> ''));
  create table app."Orders" (id serial primary key, customer int not null references app.customers (id) on delete cascade, cents int8 default 0, euro numeric generated always as (cents / 100.0) stored, note text, parent int references app."Orders" (id));
  create table app.lines (id int primary key, "order" int references app."Orders" (id), no serial, kept int default nextval('app.lines_no_seq'));
  alter table app.lines alter column no set default nextval('app.lines_no_seq');
  create table app.days (day date, what text, extra text default 'e') partition by range (day);
  create table app.days_1 partition of app.days for values from ('2026-01-01') to ('2026-07-01');
  create table app.days_2 partition of app.days for values from ('2026-07-01') to ('2027-01-01');
  alter table app.days_1 replica identity full; alter table app.days_2 replica identity full; alter table app.days replica identity full;
  create index days_extra on app.days (extra); create index days_what on app.days (what);
  create index customers_secret on app.customers (lower(secret)); create index customers_part on app.customers (name) where secret is not null; create index customers_born on app.customers (born);
  create unique index orders_note on app."Orders" (note, id);
  create statistics app.customers_stat on name, secret from app.customers; create statistics app.customers_stat2 on name, born from app.customers;
  create view app.who as select id, name from app.customers; create view app.secrets as select c.secret, o.id from app.customers c join app."Orders" o on o.customer = c.id; create view app.of_secrets as select * from app.secrets;
  create view app.sums as select "Orders".customer, sum("Orders".cents) as cents from app."Orders" join app.customers on customers.id = "Orders".customer group by 1;
  create materialized view app.totals as select customer, count(*) as n from app."Orders" group by 1; create unique index on app.totals (customer);
  create function app.touch() returns trigger language plpgsql as $$ begin return new; end $$;
  create trigger on_secret before update of secret on app.customers for each row execute function app.touch();
  create trigger when_secret before update on app.customers for each row when (old.secret is distinct from new.secret) execute function app.touch(); alter table app.customers disable trigger when_secret;
  create trigger on_any before update on app.customers for each row execute function app.touch();
  create policy by_secret on app.customers using (secret = current_user); create policy by_name on app."Orders" using (exists (select from app.customers where customers.id = "Orders".customer));
  create function app.count_orders() returns int8 language sql as 'select count(*) from app."Orders"';
  comment on column app.customers.secret is 'psst'; comment on column app.customers.name is 'who'; comment on index app.customers_secret is 'i'; comment on trigger on_secret on app.customers is 't'; comment on table app."Orders" is 'all of them';
  alter table app.customers alter column secret set statistics 77; grant select (secret), update (name) on app.customers to public; cluster app.customers using customers_secret;
  insert into app.customers (name, secret, born, mood) select 'n' || i, 's' || i, date '1990-01-01' + i, 'glad' from generate_series(1, 500) i;
  insert into app."Orders" (customer, cents, note) select 1 + i % 500, i * 7, 'note' || i from generate_series(1, 2000) i;
  insert into app.lines (id, "order") select i, i from generate_series(1, 300) i;
  insert into app.days select date '2026-01-01' + i % 364, 'w' || i from generate_series(1, 700) i;
  refresh materialized view app.totals;`;

const rules: SelectionRules = mergeRules(
  { ...noRules, excludeColumns: parseColumns('app.customers.secret,app."Orders".note,app.lines.no,app.days.extra') },
  { ...noRules, maps: [parseMap('app."Orders"=shop.orders'), parseMap('app.customers=app."Clients"'), parseMap('app.days=archive.days'), parseMap('app.days_2=app.days')] },
);
const flags = ['--exclude-columns', 'app.customers.secret,app."Orders".note,app.lines.no,app.days.extra', '--map', 'app."Orders"=shop.orders', '--map', 'app.customers=app."Clients"', '--map', 'app.days=archive.days', '--map', 'app.days_2=app.days'];

const job = (target: TestDatabase) => target.name.toLowerCase();
// A run of the command line takes some seconds on a busy machine.
const patience = { timeout: 300_000 };

/** What the target looks like in every respect that the rules speak of. */
async function shape(target: TestDatabase): Promise<Record<string, unknown>> {
  const names = async (sql: string) => (await target.query<{ name: string }>(`${sql} order by 1`)).map((row) => row.name);
  const mine = `n.nspname in ('app', 'shop', 'archive')`;
  return {
    relations: await names(`select n.nspname || '.' || c.relname || ' ' || c.relkind::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace where ${mine} and c.relkind in ('r', 'p', 'v', 'm', 'S')`),
    columns: await names(`select n.nspname || '.' || c.relname || '.' || a.attname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and attnum > 0 and not attisdropped where ${mine} and c.relkind in ('r', 'p')`),
    indexes: await names(`select n.nspname || '.' || c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace where ${mine} and c.relkind in ('i', 'I')`),
    constraints: await names(`select k.conrelid::regclass::text || ' ' || pg_get_constraintdef(k.oid) as name from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace where ${mine} and k.contype in ('c', 'f', 'p', 'u')`),
    others: await names(`select 'trigger ' || tgname as name from pg_trigger where not tgisinternal union all select 'policy ' || polname || ' on ' || polrelid::regclass from pg_policy union all select 'statistics ' || stxname || ' on ' || stxrelid::regclass from pg_statistic_ext`),
    inherits: await names(`select inhrelid::regclass || ' of ' || inhparent::regclass as name from pg_inherits h join pg_class c on c.oid = h.inhrelid where c.relkind = 'r'`),
    comments: await names(`select description as name from pg_description d join pg_class c on c.oid = d.objoid join pg_namespace n on n.oid = c.relnamespace where ${mine}`),
    sequences: await names(`select schemaname || '.' || sequencename || ' ' || coalesce(last_value::text, '-') as name from pg_sequences where schemaname in ('app', 'shop', 'archive')`),
  };
}

const wanted = {
  relations: ['app.Clients r', 'app.customers_id_seq S', 'app.days r', 'app.days_1 r', 'app.lines r', 'app.lines_no_seq S', 'app.sums v', 'app.totals m', 'app.who v', 'archive.days p', 'shop.Orders_id_seq S', 'shop.orders r'],
  columns: [
    'app.Clients.born', 'app.Clients.id', 'app.Clients.mood', 'app.Clients.name', 'app.days.day', 'app.days.what', 'app.days_1.day', 'app.days_1.what', 'app.lines.id', 'app.lines.kept', 'app.lines.order', 'archive.days.day', 'archive.days.what',
    'shop.orders.cents', 'shop.orders.customer', 'shop.orders.euro', 'shop.orders.id', 'shop.orders.parent',
  ],
  indexes: ['app.customers_born', 'app.customers_name_key', 'app.customers_pkey', 'app.days_1_what_idx', 'app.days_2_what_idx', 'app.lines_pkey', 'app.totals_customer_idx', 'archive.days_what', 'shop.Orders_pkey'],
  constraints: [
    'app."Clients" PRIMARY KEY (id)', 'app."Clients" UNIQUE (name)', 'app.lines FOREIGN KEY ("order") REFERENCES shop.orders(id)', 'app.lines PRIMARY KEY (id)', 'shop.orders FOREIGN KEY (customer) REFERENCES app."Clients"(id) ON DELETE CASCADE',
    'shop.orders FOREIGN KEY (parent) REFERENCES shop.orders(id)', 'shop.orders PRIMARY KEY (id)',
  ],
  others: ['policy by_name on shop.orders', 'statistics customers_stat2 on app."Clients"', 'trigger on_any'],
  inherits: ['app.days of archive.days', 'app.days_1 of archive.days'],
  comments: ['all of them', 'who'],
  sequences: ['app.customers_id_seq 500', 'app.lines_no_seq 600', 'shop.Orders_id_seq 2000'],
};

/** Objects that go with the columns, each with its reason. */
const leftOut = [
  'check constraint app."customers.customers_check"', 'check constraint app."customers.customers_secret_check"', 'view app.secrets', 'view app.of_secrets', 'index app.customers_part', 'index app.customers_secret', 'index app.days_extra', 'index app.days_1_extra_idx', 'index app.days_2_extra_idx',
  'index app.orders_note', 'statistics app.customers_stat', 'trigger app."customers.on_secret"', 'trigger app."customers.when_secret"', 'policy app."customers.by_secret"',
].sort();

async function sameRows(source: TestDatabase, target: TestDatabase): Promise<void> {
  const same = async (here: string, there: string) => expect(await target.query(there)).toEqual(await source.query(here));
  await same('select id, name, born, mood::text from app.customers order by id', 'select id, name, born, mood::text from app."Clients" order by id');
  await same('select id, customer, cents, euro, parent from app."Orders" order by id', 'select id, customer, cents, euro, parent from shop.orders order by id');
  await same('select id, "order", kept from app.lines order by id', 'select id, "order", kept from app.lines order by id');
  await same('select day, what from app.days order by day, what', 'select day, what from archive.days order by day, what');
  await same('select * from app.sums order by 1', 'select * from app.sums order by 1');
}

describe('clone with other names and without some columns', () => {
  afterEach(() => armFailpoints(''));

  it.each([[14, 18], [18, 14], [16, 16]] as const)('%i to %i: tables bear their new names, columns stay at home, everything else holds', patience, async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'shaped');
    await using target = await createDatabase(await sharedServer(to), 'shaped');
    await source.run(schema);
    const options = { source: source.spec, target: target.spec, job: job(target), roles: false, rules };
    expect((await planClone(options)).leftOut.map((l) => l.object).sort()).toEqual(leftOut);
    expect(await target.query(`select from pg_namespace where nspname in ('app', 'shop')`)).toEqual([]);
    const result = await clone(options);
    expect(result.leftOut.map((l) => l.object).sort()).toEqual(leftOut);
    expect(result.leftOut.find((l) => l.object === 'view app.of_secrets')!.reason).toBe('depends on app.secrets, which is left out');
    expect(result.warnings).toMatchObject([{ code: 'old-name-in-function', message: expect.stringContaining('app.count_orders') as string }]);
    expect(await shape(target)).toEqual(wanted);
    await sameRows(source, target);
    expect(await target.query('select * from app.totals order by 1')).toEqual(await source.query('select * from app.totals order by 1'));
    expect(await verify({ source: source.spec, target: target.spec, job: job(target), rules })).toMatchObject({ ok: true, totals: { different: 0, notCompared: 0 }, sequences: expect.arrayContaining([expect.objectContaining({ name: 'Orders_id_seq', status: 'equal' })]) as unknown });
    // It works as the source does: keys count on, references hold.
    expect(await target.query(`insert into app."Clients" (name) values ('new') returning id`)).toEqual([{ id: 501 }]);
    expect(await target.query(`insert into shop.orders (customer) values (501) returning id`)).toEqual([{ id: 2001 }]);
    await expect(target.query('insert into shop.orders (customer) values (9999)')).rejects.toThrow(/foreign key/);
    // The same call again finds all done; to begin anew it drops the tables under their new names too.
    expect(await clone(options)).toMatchObject({ alreadyDone: true });
    await expect(clone({ ...options, resume: false })).rejects.toMatchObject({ code: 'target-not-empty' });
    await clone({ ...options, resume: false, dropExisting: true });
    expect(await shape(target)).toEqual(wanted);
    await sameRows(source, target);
  });

  it('goes on from an error at every point, and from kill -9 around the renaming', patience, async () => {
    await using source = await createDatabase(await sharedServer(15), 'shapekill');
    await using target = await createDatabase(await sharedServer(17), 'shapekill');
    await source.run(schema);
    const options = { source: source.spec, target: target.spec, job: job(target), roles: false, rules };
    const points = ['clone.dumped', 'restore-batch', 'clone.pre-data-restored', 'copy.part-committed', 'clone.indexes-built', 'clone.post-data', 'clone.renamed'];
    for (const point of points) {
      armFailpoints(`${point}=error`);
      await expect(clone(options)).rejects.toThrow(point);
    }
    armFailpoints('');
    expect(await clone(options)).toMatchObject({ resumed: true, alreadyDone: false });
    expect(await shape(target)).toEqual(wanted);
    await sameRows(source, target);

    await using killed = await createDatabase(await sharedServer(17), 'shapekill');
    using dir = stateFolder();
    const args = ['clone', '--source', source.uri, '--target', killed.uri, '--dir', dir.path, '--job', job(killed), '--no-roles', '--json', ...flags];
    for (const point of ['clone.pre-data-restored', 'clone.post-data', 'clone.renamed']) expect((await runCli(args, { PGWEAVE_FAILPOINTS: `${point}=kill` })).signal, point).toBe('SIGKILL');
    const last = await runCli(args);
    expect(last.code, last.stderr).toBe(0);
    expect(await shape(killed)).toEqual(wanted);
    await sameRows(source, killed);
  });

  it('streams on under the new names and without the columns', patience, async () => {
    await using source = await createDatabase(await sharedServer(16), 'shapeflow');
    await using target = await createDatabase(await sharedServer(18), 'shapeflow');
    await source.run(schema);
    using dir = stateFolder();
    const ends = ['--source', source.uri, '--target', target.uri, '--dir', dir.path, '--job', job(target)];
    const follow = ['clone', ...ends, '--no-roles', '--follow', '--until-caught-up', '--json'];
    await source.run(`create unlogged table app.scratch (id int primary key, what text, gone text); insert into app.scratch values (1, 'one', 'x'), (2, 'two', 'y')`);
    const first = await runCli([...follow, ...flags, '--map', 'app.scratch=shop.scratch', '--exclude-columns', 'app.scratch.gone', '--table-filter', 'app.scratch:id > 1']);
    expect(first.code, first.stderr).toBe(0);
    await source.run(`
      insert into app.customers (name, secret) values ('late', 'never told'); update app.customers set secret = 'changed' where id = 1; update app.customers set name = 'n0', secret = 'x' where id = 2;
      insert into app."Orders" (customer, cents, note) values (501, 12, 'n'); update app."Orders" set cents = cents + 1, note = null where id < 20; delete from app."Orders" where id between 1900 and 1950;
      insert into app.days values ('2026-12-24', 'eve', 'x'), ('2026-01-02', 'early', 'y'); update app.days set day = '2026-03-03' where what = 'eve'; update app.days set extra = 'other' where what = 'w5'; delete from app.lines where id > 290`);
    const more = await runCli(follow);
    expect(more.code, more.stderr).toBe(0);
    await sameRows(source, target);
    const proof = await runCli(['verify', ...ends, '--json']);
    expect(JSON.parse(proof.stdout)).toMatchObject({ totals: { different: 0, notCompared: 0 } });
    // Another machine has no folder of the job: what it moves stands on the target too.
    using elsewhere = stateFolder();
    const follower = startCli(['follow', ...ends.map((word) => (word === dir.path ? elsewhere.path : word))]);
    await source.run(`insert into app.customers (name) values ('from elsewhere'); insert into app.scratch values (3, 'three', 'no')`);
    await waitFor('the row', async () => (await target.query(`select from app."Clients" where name = 'from elsewhere'`)).length === 1);
    const back = await runCli(['switchover', ...ends, '--reverse', '--yes', '--json']);
    expect(back.code, back.stderr).toBe(2);
    expect(back.stderr).toContain('app.scratch is unlogged, so that a return copies it as a whole, and its "gone" would be lost');
    const switched = await runCli(['switchover', ...ends, '--verify', '--yes', '--json']);
    expect(switched.code, switched.stderr).toBe(0);
    await follower.done;
    await sameRows(source, target);
    expect(await target.query('select * from shop.scratch order by 1')).toEqual([{ id: 2, what: 'two' }, { id: 3, what: 'three' }]);
    expect(await target.query(`select nextval('shop."Orders_id_seq"')::int as n, nextval('app.customers_id_seq')::int as m`)).toEqual([{ n: 2002, m: 503 }]);
    const { code, stderr } = await runCli(['cleanup', ...ends, '--yes']);
    expect(code, stderr).toBe(0);
  });

  it('hands over to a native subscription without the columns', patience, async () => {
    await using source = await createDatabase(await sharedServer(16), 'shapesync');
    await using target = await createDatabase(await sharedServer(17), 'shapesync');
    await source.run(`create table t (id int primary key, kept text, secret text not null); create index on t (secret); insert into t select i, 'k' || i, 's' || i from generate_series(1, 100) i`);
    using dir = stateFolder();
    const ends = ['--source', source.uri, '--target', target.uri, '--dir', dir.path, '--job', job(target)];
    const done = await runCli(['clone', ...ends, '--no-roles', '--sync', '--json', '--exclude-columns', 't.secret']);
    expect(done.code, done.stderr).toBe(0);
    await source.run(`update t set kept = 'changed', secret = 'other' where id < 10; insert into t values (101, 'k101', 's101'); delete from t where id = 50`);
    const rows = 'select id, kept from t order by id';
    const last = await source.query(rows);
    await waitFor('the subscription', async () => JSON.stringify(await target.query(rows)) === JSON.stringify(last));
    expect(await target.query(`select attname::text as name from pg_attribute where attrelid = 't'::regclass and attnum > 0 and not attisdropped order by attnum`)).toEqual([{ name: 'id' }, { name: 'kept' }]);
    const { code, stderr } = await runCli(['cleanup', ...ends, '--yes']);
    expect(code, stderr).toBe(0);
  });

  it('lets tables change places', patience, async () => {
    await using source = await createDatabase(await sharedServer(14), 'places');
    await using target = await createDatabase(await sharedServer(15), 'places');
    await source.run('create table a (x int); create table b (y text); create table c (z date); insert into a values (1); insert into b values (\'two\')');
    await clone({ source: source.spec, target: target.spec, job: job(target), roles: false, rules: { ...noRules, maps: [parseMap('a=b'), parseMap('b=a'), parseMap('c=public.d')] } });
    expect(await target.query('select a.y, b.x, (select count(*)::int from d) as n from a, b')).toEqual([{ y: 'two', x: 1, n: 0 }]);
  });

  it.each<[string, string, Partial<SelectionRules>, RegExp]>([
    ['a generated column needs it', 'create table t (id int primary key, a int, b int generated always as (a * 2) stored)', { excludeColumns: parseColumns('t.a') }, /generated column "b" is computed from it/],
    ['the table is partitioned by it', 'create table t (a int, b int) partition by list (b)', { excludeColumns: parseColumns('t.b') }, /partitioned by it/],
    ['the table is partitioned by an expression of it', 'create table t (a int, b int) partition by range ((a + b))', { excludeColumns: parseColumns('t.b') }, /partitioned by it/],
    ['a function with a parsed body reads it', 'create table t (id int primary key, a int); create function f(n int) returns int begin atomic select sum(a) from t; end', { excludeColumns: parseColumns('t.a') }, /function public.f\(n integer\) uses it/],
    ['a child inherits it', 'create table t (id int, a int); create table u (b int) inherits (t)', { excludeColumns: parseColumns('t.a') }, /public.u inherits it/],
    ['it comes from a parent', 'create table t (id int, a int); create table u (b int) inherits (t)', { excludeColumns: parseColumns('u.a') }, /it comes from public.t/],
    ['the table is made of a type', 'create type ty as (id int, a int); create table t of ty', { excludeColumns: parseColumns('t.a') }, /made OF/],
    ['it is the replica identity', 'create table t (id int not null, a int, unique (id)); alter table t replica identity using index t_id_key', { excludeColumns: parseColumns('t.id') }, /primary key or replica identity/],
    ['an index of that name is there', 'create schema s; create table t (id int primary key, a int); create index taken on t (a); create table s.o (a int); create index taken on s.o (a)', { maps: [parseMap('t=s.t')] }, /index public.taken would become s.taken, and so would s.taken/],
    ['the target has an index of that name', 'create table t (id int primary key, a int); create index theirs on t (a)', { maps: [parseMap('t=kept.t')] }, /index public.theirs would become kept.theirs, and so would one that the target has/],
    ['the target has a table of the new name', 'create table t (id int primary key, a int)', { maps: [parseMap('t=kept.mine')] }, /kept.mine/],
    ['the target has a table of the old name', 'create schema kept; create table kept.mine (a int)', { maps: [parseMap('kept.mine=kept.other')] }, /kept.mine/],
  ])('refuses before anything is done: %s', async (_, sql, more, message) => {
    await using source = await createDatabase(await sharedServer(16), 'refused');
    await using target = await createDatabase(await sharedServer(16), 'refused');
    await source.run(sql);
    await target.run('create schema kept; create table kept.mine (a int); create index theirs on kept.mine (a)');
    const options = { source: source.spec, target: target.spec, job: job(target), roles: false, rules: { ...noRules, ...more } };
    await expect(planClone(options).then((plan) => { if (plan.existing.length > 0) throw new Error(plan.existing.join()); })).rejects.toThrow(message);
    await expect(clone(options)).rejects.toThrow(message);
    expect(await target.query(`select relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where nspname in ('public', 'kept', 's') and relkind = 'r'`)).toEqual([{ relname: 'mine' }]);
  });

  it('refuses other names for a native subscription before anything is done', async () => {
    await using source = await createDatabase(await sharedServer(16), 'refused');
    await using target = await createDatabase(await sharedServer(17), 'refused');
    await source.run('create table t (id int primary key)');
    await expect(clone({ source: source.spec, target: target.spec, job: job(target), mode: 'sync', rules: { ...noRules, maps: [parseMap('t=u')] } })).rejects.toThrow(/by their names on the source/);
    expect(await source.query('select from pg_publication')).toEqual([]);
    expect(await target.query(`select from pg_namespace where nspname = 'pgweave'`)).toEqual([]);
  });
});
