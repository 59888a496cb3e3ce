import { describe, expect, it } from 'vitest';
import { runCli, stateFolder } from '../../test/support/cli.ts';
import { createDatabase, sharedServer, type EmbeddedVersion, type TestDatabase } from '../../test/support/servers.ts';
import { mergeRules, noRules, parseColumns, parseMap, parseTables, type SelectionRules } from '../core/selection/rules.ts';
import { clone } from './clone.ts';
import { compare, type CompareResult } from './compare.ts';

/** Tables that bear other names on the target, and columns that stay at home, with one of everything that can name or rest on them. */
const schema = `
  create schema app; create schema shop;
  create table app.customers (id int generated always as identity primary key, name text not null, secret text not null default 'x' check (secret <> ''), born date, unique (name), check (length(secret) > 0 or name <> ''));
  create table app."Orders" (id serial primary key, customer int not null references app.customers (id) on delete cascade, cents int8 default 0, euro numeric generated always as (cents / 100.0) stored, note text, parent int references app."Orders" (id), check (cents >= 0));
  create table shop."Orders" (id int constraint other_key primary key, of_order int references app."Orders" (id));
  create table app.lines (id int primary key, "order" int references app."Orders" (id), no serial, kept int default nextval('app.lines_no_seq'), shown text default 'app."Orders"'::regclass::text);
  create table app.days (day date, what text, extra text default 'e') partition by range (day);
  create table app.days_1 partition of app.days for values from ('2026-01-01') to ('2026-07-01');
  create table app.days_2 partition of app.days for values from ('2026-07-01') to ('2027-01-01');
  create index days_extra on app.days (extra); create index days_what on app.days (what);
  create index customers_secret on app.customers (lower(secret)); create index customers_part on app.customers (name) where secret is not null; create index customers_born on app.customers (born);
  create unique index orders_note on app."Orders" (note, id); create index orders_cents on app."Orders" ((cents + 1), customer) where cents > 5;
  create statistics app.customers_stat on name, secret from app.customers; create statistics app.customers_stat2 on name, born from app.customers;
  create view app.who as select id, name from app.customers; create view app.secrets as select c.secret, o.id from app.customers c join app."Orders" o on o.customer = c.id; create view app.of_secrets as select * from app.secrets;
  create view app.sums as select "Orders".customer, sum("Orders".cents) as cents, (select max(i.id) from app."Orders" i where i.customer = "Orders".customer) as last from app."Orders" join app.customers on customers.id = "Orders".customer group by 1;
  create view app.both as select "Orders".cents, b.id, ("Orders".*)::app."Orders" as whole from app."Orders" join shop."Orders" b on b.of_order = "Orders".id;
  create view app.twice as select count(*) from app."Orders", shop."Orders" where app."Orders".id < shop."Orders".id and exists (select from app."Orders", app.lines where lines."order" = "Orders".id);
  create view app.naturally as select of_order from app."Orders" cross join (select x.of_order from shop."Orders" x) s;
  create materialized view app.totals as select customer, count(*) as n from app."Orders" group by 1; create unique index on app.totals (customer);
  create function app.touch() returns trigger language plpgsql as $$ begin return new; end $$;
  create trigger on_secret before update of secret on app.customers for each row execute function app.touch();
  create trigger when_secret before update on app.customers for each row when (old.secret is distinct from new.secret) execute function app.touch(); alter table app.customers disable trigger when_secret;
  create trigger on_any before update on app.customers for each row when (old.name <> new.name) execute function app.touch();
  create constraint trigger late after insert on app."Orders" from app.customers deferrable initially deferred for each row execute function app.touch();
  create policy by_secret on app.customers using (secret = current_user); create policy by_name on app."Orders" using (exists (select from app.customers where customers.id = "Orders".customer));
  create policy by_lines on app.lines using (exists (select from app."Orders" where "Orders".id = lines."order" and "Orders".cents > lines.id));
  create rule log as on delete to app."Orders" where old.cents > 100 do also update app.lines set kept = 0 where "order" = old.id;
  create function app.count_orders() returns int8 language sql as 'select count(*) from app."Orders"';
  create function app.cents_of(o app."Orders", n int8 default 0) returns int8 language sql as 'select o.cents + n';
  create function app.first() returns int8 language sql begin atomic select o.cents + "Orders".id from app."Orders" o join app."Orders" on true order by o.id limit 1; end;
  create function app.first_secret() returns text language sql begin atomic select secret from app.secrets limit 1; end;
  create table app.holder (id int primary key, o app."Orders", many app."Orders"[]);
  comment on column app.customers.secret is 'psst'; comment on column app.customers.name is 'of app."Orders"'; comment on table app."Orders" is 'all of them';
  alter table app.customers alter column secret set statistics 77; grant select (secret), update (name) on app.customers to public; cluster app.customers using customers_secret;
  alter table app."Orders" enable row level security;
  create table app.left_out (id serial primary key, what text); create view app.of_left_out as select what from app.left_out;`;

const columns = ['app.customers.secret', 'app."Orders".note', 'app.lines.no', 'app.days.extra'];
const maps = ['app."Orders"=shop.orders', 'app.customers=app."Clients"', 'app.days=archive.days', 'app.days_2=app.days'];
const rules: SelectionRules = { ...mergeRules({ ...noRules, excludeColumns: parseColumns(columns.join(',')) }, { ...noRules, maps: maps.map(parseMap) }), excludeTables: parseTables('app.left_out') };
const flags = ['--exclude-tables', 'app.left_out', '--exclude-columns', columns.join(','), ...maps.flatMap((map) => ['--map', map])];
const told = ['without table app.left_out', ...columns.map((column) => `without column ${column}`), 'app."Orders" becomes shop.orders', 'app.customers becomes app.Clients', 'app.days becomes archive.days', 'app.days_2 becomes app.days'];

/** Changes on the target, and what compare must say of each. */
const changes: readonly [sql: string, expected: string][] = [
  ['alter table shop.orders alter column cents drop default', 'different column app."Orders".cents (shop.orders.cents): default'],
  ['alter table app."Clients" alter column born type timestamp', 'different column app.customers.born (app."Clients".born): type'],
  ['drop index app.customers_born', 'missing index customers_born on app.customers'],
  ['drop index shop.orders_cents; create index orders_cents on shop.orders ((cents + 2), customer) where cents > 5', 'different index orders_cents on app."Orders" (orders_cents on shop.orders): definition'],
  ['alter table shop.orders drop constraint "Orders_customer_fkey"; alter table shop.orders add constraint "Orders_customer_fkey" foreign key (customer) references app."Clients" (id)', 'different foreign key "Orders_customer_fkey" on app."Orders" ("Orders_customer_fkey" on shop.orders): constraint'],
  ['alter table app.lines drop constraint lines_order_fkey; alter table app.lines add constraint lines_order_fkey foreign key ("order") references shop."Orders" (id)', 'different foreign key lines_order_fkey on app.lines: constraint'],
  ['alter sequence shop."Orders_id_seq" increment 7', 'different sequence app."Orders_id_seq" (shop."Orders_id_seq"): increment'],
  ['create or replace view app.twice as select count(*) from shop.orders, shop."Orders" where "Orders".id < orders.id and exists (select from shop.orders, app.lines where lines."order" = orders.id)', 'different view app.twice: query'],
  ['alter policy by_name on shop.orders using (exists (select from app."Clients" where "Clients".id = orders.id))', 'different policy by_name on app."Orders" (by_name on shop.orders): using'],
  ['create index more on archive.days (day)', 'extra index more on archive.days; extra index days_1_day_idx on app.days_1; extra index days_day_idx on app.days'],
  ['alter table app."Clients" add column secret text', 'extra column app."Clients".secret'],
  ['comment on table shop.orders is \'some of them\'', 'different table app."Orders" (shop.orders): comment'],
];

function found({ differences }: CompareResult): string[] {
  const other = (object: string, kind: string) => object.slice(kind.length + 1);
  return differences.map(({ change, object, kind, onTarget, attributes }) => `${change} ${object}${onTarget ? ` (${other(onTarget.object, kind)})` : ''}${attributes.length > 0 ? `: ${attributes.map((a) => a.name).join(', ')}` : ''}`).sort();
}

async function cloned(from: EmbeddedVersion, to: EmbeddedVersion): Promise<AsyncDisposable & { source: TestDatabase; target: TestDatabase; job: string }> {
  const source = await createDatabase(await sharedServer(from), 'comparerules');
  const target = await createDatabase(await sharedServer(to), 'comparerules');
  await source.run(schema);
  const job = target.name.toLowerCase();
  await clone({ source: source.spec, target: target.spec, job, roles: false, rules });
  return { source, target, job, async [Symbol.asyncDispose]() { await source.drop(); await target.drop(); } };
}

describe('compare under the rules of a job', () => {
  it.each([[14, 18], [18, 14], [16, 16]] as const)('%i to %i: what a clone made by them is equal, and what was changed since is found', { timeout: 120_000 }, async (from, to) => {
    await using both = await cloned(from, to);
    const { source, target, job } = both;
    const ends = { source: source.spec, target: target.spec };
    const equal = await compare({ ...ends, rules });
    expect(found(equal)).toEqual([]);
    expect(equal).toMatchObject({ equal: true, rules: told, source: { objects: equal.target.objects } });
    // Of what the clone wrote down on the target, another machine knows the same, but for tables that were left out.
    expect(found(await compare({ ...ends, job }))).toEqual(['missing table app.left_out', 'missing view app.of_left_out', 'missing sequence app.left_out_id_seq'].sort());
    // Without rules all of it is different.
    expect((await compare(ends)).differences.length).toBeGreaterThan(40);
    for (const [sql] of changes) await target.run(sql);
    const result = await compare({ ...ends, rules });
    expect(found(result)).toEqual(changes.flatMap(([, expected]) => expected.split('; ')).sort());
    expect(result.differences.find((d) => d.object === 'column app.customers.born')).toMatchObject({
      table: { schema: 'app', name: 'customers' }, onTarget: { object: 'column app."Clients".born', table: { schema: 'app', name: 'Clients' } }, attributes: [{ name: 'type', source: 'date', target: 'timestamp without time zone' }],
    });
  });

  it('a table of the old name that took the place of one with another is no counterpart', { timeout: 60_000 }, async () => {
    await using source = await createDatabase(await sharedServer(16), 'comparerules');
    await using target = await createDatabase(await sharedServer(16), 'comparerules');
    const sql = 'create table a (id int primary key); create table b (id int primary key, x text); create view v as select id from a';
    await source.run(sql);
    const swapped = { ...noRules, maps: [parseMap('a=b'), parseMap('b=a')] };
    await clone({ source: source.spec, target: target.spec, job: target.name.toLowerCase(), roles: false, rules: swapped });
    expect(found(await compare({ source: source.spec, target: target.spec, rules: swapped }))).toEqual([]);
    // The same words as on the source, which speak of another table here.
    await target.run('create or replace view v as select id from a');
    expect(found(await compare({ source: source.spec, target: target.spec, rules: swapped }))).toEqual(['different view public.v: query']);
  });

  it('on the command line: flags, and the rules that the job remembers', { timeout: 120_000 }, async () => {
    await using source = await createDatabase(await sharedServer(15), 'comparerules');
    await using target = await createDatabase(await sharedServer(17), 'comparerules');
    await source.run(schema);
    using dir = stateFolder();
    using elsewhere = stateFolder();
    const ends = ['--source', source.uri, '--target', target.uri];
    const job = ['--job', target.name.toLowerCase()];
    const made = await runCli(['clone', ...ends, ...job, '--dir', dir.path, '--no-roles', '--json', ...flags]);
    expect(made.code, made.stderr).toBe(0);
    for (const args of [[...job, '--dir', dir.path], [...ends, '--dir', elsewhere.path, ...flags]]) {
      const equal = await runCli(['compare', ...args]);
      expect(equal, equal.stdout).toMatchObject({ code: 0, stdout: expect.stringMatching(/rules applied\n(.*\n)*\nThe schemas are equal: \d+ objects compared/) });
      for (const rule of told) expect(equal.stdout.split('\n').filter((line) => line.trim() === rule), rule).toHaveLength(1);
    }
    for (const [sql] of changes) await target.run(sql);
    const different = await runCli(['compare', ...job, '--dir', dir.path]);
    expect(different.code).toBe(3);
    for (const line of ['  index customers_born on app.customers', '  column app.customers.born, on the target app."Clients".born', '  column app."Orders".cents, on the target shop.orders.cents']) expect(different.stdout.split('\n')).toContain(line);
    const json = await runCli(['compare', ...ends, '--dir', elsewhere.path, '--json', ...flags]);
    expect(json.code).toBe(3);
    expect(JSON.parse(json.stdout)).toMatchObject({ equal: false, rules: told, differences: expect.arrayContaining([expect.objectContaining({ change: 'different', object: 'column app."Orders".cents', onTarget: expect.objectContaining({ object: 'column shop.orders.cents' }) })]) });
    const typo = await runCli(['compare', ...ends, '--dir', elsewhere.path, '--map', 'app.custmers=app.x']);
    expect(typo).toMatchObject({ code: 2, stderr: expect.stringContaining('app.customers') });
  });
});
