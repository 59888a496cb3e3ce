import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli, stateFolder } from '../../test/support/cli.ts';
import { dropSinkRoles, kitchenSink, oddSchema, oddTable } from '../../test/support/kitchen-sink.ts';
import { createDatabase, embeddedVersions, sharedServer, type TestDatabase } from '../../test/support/servers.ts';
import { renderDifferences } from '../cli/render/differences.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import { Session } from '../pg/session.ts';
import { compare, type ComparedObject } from './compare.ts';

const prefix = `compare${process.pid}`;
const newest = embeddedVersions.at(-1)!;

async function dropRoles(): Promise<void> {
  for (const version of embeddedVersions) {
    await using session = await Session.open(parseConninfo((await sharedServer(version)).uri()), { role: 'test' });
    for (const own of [prefix, `${prefix}s`]) await session.query(dropSinkRoles(own));
  }
}
afterAll(dropRoles);

describe('equal schemas', () => {
  it('have no differences, whatever the versions of the servers', async () => {
    const oldest = embeddedVersions[0];
    const databases: TestDatabase[] = [];
    try {
      for (const version of embeddedVersions) {
        const database = await createDatabase(await sharedServer(version), 'compare');
        databases.push(database);
        // The same statements everywhere: what the oldest of them knows.
        await database.run(kitchenSink({ version: oldest, rolePrefix: prefix }));
      }
      const [first, ...rest] = databases as [TestDatabase, ...TestDatabase[]];
      for (const other of rest) {
        const result = await compare({ source: first.spec, target: other.spec });
        expect(result.differences).toEqual([]);
        expect(result).toMatchObject({ equal: true, missing: 0, extra: 0, different: 0, source: { objects: result.target.objects } });
        expect(result.source.objects).toBeGreaterThan(800);
        for (const note of result.notes) expect(note).toMatchObject({ kind: 'extension', attributes: [{ name: 'version' }] });
        expect((await compare({ source: other.spec, target: first.spec })).differences).toEqual([]);
      }
      // Fresh databases of different versions are equal too, though their public schemas are not.
      await using empty = await createDatabase(await sharedServer(oldest), 'compare');
      await using alsoEmpty = await createDatabase(await sharedServer(newest), 'compare');
      expect((await compare({ source: empty.spec, target: alsoEmpty.spec })).differences).toEqual([]);
    } finally {
      for (const database of databases) await database.drop();
    }
  });
});

/** One change a line, made on the target; and what compare must say of it. */
const seeds: readonly [sql: string, expected: string][] = [
  ['create table shop.extra_table (a int primary key, b text)', 'extra table shop.extra_table with column, column, primary key, index'],
  ['drop table bulk.t_07', 'missing table bulk.t_07 with column, column, column, primary key, index, index'],
  ['alter table shop.params set unlogged', 'table shop.params: persistence'],
  ['alter table shop.params set (fillfactor = 72)', 'table shop.params: options'],
  ['alter table shop.params reset (toast.autovacuum_enabled)', 'table shop.params: toast options'],
  ['alter table shop.bookings replica identity default', 'table shop.bookings: replica identity'],
  ['alter table shop.customers disable row level security', 'table shop.customers: row security'],
  ['alter table shop.orders no force row level security', 'table shop.orders: row security forced'],
  ['alter table shop.child no inherit shop.parent', 'table shop.child: parents; column shop.child.id: inherited; column shop.child.kind: inherited; check constraint parent_positive on shop.child: inherited'],
  ['delete from shop.refers_to_partitioned; alter table shop.events detach partition shop.events_old', 'table shop.events_old: parents, partition bound; column shop.events_old.kind: inherited; column shop.events_old.payload: inherited; column shop.events_old.at: inherited; column shop.events_old.id: inherited; check constraint events_kind on shop.events_old: inherited; primary key events_old_pkey on shop.events_old: inherited; index events_old_kind_at_idx on shop.events_old: attached to'],
  ['alter table shop.twin owner to {owner}', 'table shop.twin: owner'],
  ['revoke select on shop.customers from {reader}', 'table shop.customers: privileges'],
  [`comment on table shop.customers is 'other words'`, 'table shop.customers: comment'],
  ['alter table bulk.t_08 drop column at, drop column v; alter table bulk.t_08 add column at timestamptz default now(), add column v text default \'v8\'; create index on bulk.t_08 (v)', 'table bulk.t_08: column order'],
  ['alter table bulk.t_01 alter column v type varchar(10)', 'column bulk.t_01.v: type'],
  ['alter table bulk.t_02 alter column v set not null', 'column bulk.t_02.v: not null, not null constraint'],
  [`alter table bulk.t_03 alter column v set default 'else'`, 'column bulk.t_03.v: default'],
  ['alter table bulk.t_04 alter column at drop default', 'column bulk.t_04.at: default'],
  ['alter table shop.customers alter column id set generated by default', 'column shop.customers.id: identity'],
  ['alter table shop.customers alter column full_name drop expression', 'column shop.customers.full_name: generated as, generated'],
  ['alter table bulk.t_05 alter column v type text collate "C"', 'column bulk.t_05.v: collation'],
  ['alter table bulk.t_06 alter column v set storage external', 'column bulk.t_06.v: storage'],
  ['alter table shop.params alter column c set compression default', 'column shop.params.c: compression'],
  ['alter table shop.params alter column b set statistics 372', 'column shop.params.b: statistics target'],
  ['alter table shop.params alter column a reset (n_distinct)', 'column shop.params.a: options'],
  ['revoke update (balance) on shop.customers from {writer}', 'column shop.customers.balance: privileges'],
  ['alter table bulk.t_09 add column one_more int', 'extra column bulk.t_09.one_more'],
  ['alter table bulk.t_10 rename column v to w', 'missing column bulk.t_10.v; extra column bulk.t_10.w; index t_10_v_idx on bulk.t_10: definition'],
  ['alter sequence shop.standalone increment 6', 'sequence shop.standalone: increment'],
  ['alter sequence shop.downwards cycle', 'sequence shop.downwards: cycle'],
  ['alter sequence shop.tiny owned by none', 'sequence shop.tiny: owned by'],
  ['drop sequence shop.never_used', 'missing sequence shop.never_used'],
  ['alter table shop.cycle_b drop constraint b_to_a', 'missing foreign key b_to_a on shop.cycle_b'],
  ['alter table shop.order_items alter constraint items_order not deferrable', 'foreign key items_order on shop.order_items: constraint'],
  ['alter table shop.params validate constraint late_fk', 'foreign key late_fk on shop.params: constraint'],
  ['alter table shop.events_2024 drop constraint if exists nothing; alter table bulk.t_11 drop constraint t_11_pkey', 'missing primary key t_11_pkey on bulk.t_11; column bulk.t_11.id: not null constraint?'],
  ['alter table shop.products drop constraint products_sku_key; alter table shop.products add constraint products_sku_key unique (sku) deferrable', 'unique constraint products_sku_key on shop.products: constraint; index products_sku_key on shop.products?'],
  ['alter table bulk.t_12 add constraint positive check (id > 0)', 'extra check constraint positive on bulk.t_12'],
  ['alter table shop.bookings drop constraint no_overlap', 'missing exclusion constraint no_overlap on shop.bookings'],
  ['drop index shop.orders_placed', 'missing index orders_placed on shop.orders'],
  ['drop index shop.customers_partial; create index customers_partial on shop.customers (born) where balance > 1', 'index customers_partial on shop.customers: definition'],
  ['alter table shop.customers set without cluster', 'index customers_name on shop.customers: clustered'],
  ['alter index shop.orders_expression alter column 1 set statistics 433', 'index orders_expression on shop.orders: statistics targets'],
  ['drop statistics shop.customers_ndistinct', 'missing statistics shop.customers_ndistinct on shop.customers'],
  ['alter statistics shop.customers_all set statistics 124', 'statistics shop.customers_all on shop.customers: statistics target'],
  ['drop trigger stamp_after on shop.orders', 'missing trigger stamp_after on shop.orders'],
  ['alter table shop.products enable trigger always_one', 'trigger always_one on shop.products: fires'],
  ['alter table shop.events_2024 enable trigger stamp_events', 'missing trigger stamp_events on shop.events_2024'],
  ['create or replace rule protect as on delete to shop.products where old.id < 11 do instead nothing', 'rule protect on shop.products: definition'],
  ['alter table shop.twin enable rule log_update', 'rule log_update on shop.twin: fires'],
  ['alter policy readers on shop.customers to {reader}', 'policy readers on shop.customers: roles'],
  ['alter policy everything on shop.orders with check (customer_id > 1)', 'policy everything on shop.orders: with check'],
  ['create or replace view shop.local_checked as select id, note from shop.orders where id > 1 with local check option', 'view shop.local_checked: query'],
  ['alter view shop.barrier reset (security_barrier)', 'view shop.barrier: options'],
  ['refresh materialized view shop.not_populated', 'materialized view shop.not_populated: populated'],
  ['create function kinds.another() returns int language sql as \'select 1\'', 'extra function kinds.another()'],
  [`create or replace function kinds.add(a integer, b integer default 3) returns integer language sql immutable parallel safe leakproof cost 3 as 'select a + b'`, 'function kinds.add(integer, integer): arguments'],
  ['alter function kinds.definer() security invoker', 'function kinds.definer(): security definer'],
  ['alter function kinds.definer() reset work_mem', 'function kinds.definer(): settings'],
  ['alter function kinds.as_table(integer) rows 18', 'function kinds.as_table(integer): rows'],
  [`create or replace function kinds.poly(a anyelement, b anyarray) returns anyelement language sql as 'select $1'`, 'function kinds.poly(anyelement, anyarray): source'],
  ['create or replace function kinds.atomic(a integer) returns integer language sql begin atomic select a + 2; end', 'function kinds.atomic(integer): body'],
  ['drop procedure kinds.do_atomic()', 'missing procedure kinds.do_atomic()'],
  [`create or replace aggregate kinds.my_sum(integer) (sfunc = kinds.sum_state, stype = bigint, initcond = '1', combinefunc = kinds.sum_combine, msfunc = kinds.sum_state, minvfunc = kinds.sum_back, mstype = bigint, minitcond = '0', parallel = safe)`, 'aggregate kinds.my_sum(integer): initial state'],
  ['drop operator kinds.@- (none, kinds.pair)', 'missing operator kinds.@- (none, kinds.pair)'],
  ['alter operator kinds.=== (kinds.pair, kinds.pair) set (restrict = none)', 'operator kinds.=== (kinds.pair, kinds.pair): restrict'],
  ['drop operator class kinds.int_plain using hash', 'missing operator class kinds.int_plain using hash; operator family kinds.int_plain using hash: operators, functions'],
  ['alter operator family kinds.int_back_family using btree add function 1 (bigint, bigint) btint8cmp(bigint, bigint)', 'operator family kinds.int_back_family using btree: functions'],
  ['drop cast (kinds.mood as kinds.upper_text)', 'missing cast kinds.mood as kinds.upper_text'],
  ['drop conversion kinds.latin', 'missing conversion kinds.latin'],
  [`alter type kinds.mood add value 'new' after 'sad'`, 'enum kinds.mood: labels'],
  ['alter domain kinds.codes drop constraint codes_check', 'missing domain constraint codes_check of kinds.codes'],
  ['alter domain kinds.german_text set default \'x\'', 'domain kinds.german_text: default'],
  ['alter type kinds.empty_composite add attribute x int', 'extra attribute kinds.empty_composite.x'],
  ['drop type kinds.mood_range', 'missing range kinds.mood_range'],
  ['drop type kinds.left_a_shell', 'missing shell type kinds.left_a_shell'],
  ['alter type kinds.upper_text set (storage = main)', 'type kinds.upper_text: storage'],
  ['drop collation kinds.no_case', 'missing collation kinds.no_case'],
  ['alter text search configuration kinds.search drop mapping for numword', 'text search configuration kinds.search: mappings'],
  ['alter text search dictionary kinds.german_stem_of_ours (stopwords = english)', 'text search dictionary kinds.german_stem_of_ours: options'],
  ['alter foreign data wrapper sink_wrapper options (drop debug)', 'foreign data wrapper sink_wrapper: foreign options'],
  [`alter server sink_server version '10'`, 'server sink_server: version of the far side'],
  [`alter user mapping for {writer} server sink_server options (set password 'anotherSecret5')`, 'user mapping {writer} on sink_server: options (values hashed)'],
  [`alter foreign table kinds.far_away options (set table_name 'NEAR')`, 'foreign table kinds.far_away: foreign options'],
  ['alter foreign table kinds.far_away alter column id options (drop column_name)', 'column kinds.far_away.id: foreign options'],
  ['alter event trigger sink_event_off enable', 'event trigger sink_event_off: fires'],
  ['alter default privileges in schema bulk revoke usage on sequences from {writer}', 'missing default privileges of postgres in schema bulk on sequences'],
  ['alter schema kinds owner to {owner}', 'schema kinds: owner'],
  ['create schema one_more', 'extra schema one_more'],
  ['drop extension "uuid-ossp"', 'missing extension "uuid-ossp"'],
  ['alter extension pg_trgm set schema public', 'extension pg_trgm: schema of its objects; index customers_trgm on shop.customers: definition'],
  ['drop transform for integer language sql cascade', 'missing transform integer language sql; missing function kinds.uses_transform(integer)'],
  ['create trusted language other_language handler kinds.sink_handler', 'extra language other_language'],
  ['create access method heap_third type table handler heap_tableam_handler', 'extra access method heap_third'],
  ['do $$ begin execute format(\'alter database %I reset datestyle\', current_database()); end $$', 'database: settings'],
  [`alter table ${quoteIdent(oddSchema)}.${quoteIdent(oddTable)} alter column "%s" drop default`, `column ${quoteIdent(oddSchema)}.${quoteIdent(oddTable)}."%s": default`],
];

describe('a difference of each kind of object', () => {
  let source: TestDatabase;
  let target: TestDatabase;
  let before: readonly ComparedObject[];
  const named = (text: string) => text.replace(/\{(\w+)\}/g, (_, role: string) => `${prefix}s_${role}`);
  beforeAll(async () => {
    const server = await sharedServer(newest);
    source = await createDatabase(server, 'compare');
    target = await createDatabase(server, 'compare');
    const sql = kitchenSink({ version: newest, rolePrefix: `${prefix}s` });
    await source.run(sql);
    await target.run(sql.slice(sql.indexOf('do $do$ begin')));
    before = (await compare({ source: source.spec, target: target.spec })).differences;
    await using session = await Session.open(target.spec, { role: 'test' });
    for (const [change] of seeds) await session.query(named(change));
  });
  afterAll(async () => {
    await source.drop();
    await target.drop();
  });

  it('is found, and nothing else', async () => {
    expect(before).toEqual([]);
    const result = await compare({ source: source.spec, target: target.spec });
    const found = new Map(result.differences.map((difference) => {
      const attributes = difference.attributes.map((attribute) => attribute.name).join(', ');
      const parts = difference.parts.length === 0 ? '' : ` with ${difference.parts.map((part) => part.kind).join(', ')}`;
      return [`${difference.change === 'different' ? '' : `${difference.change} `}${difference.object}${parts}`, attributes];
    }));
    const wanted = new Map<string, Set<string>>();
    const optional = new Set<string>();
    for (const item of seeds.flatMap(([, expected]) => named(expected).split('; '))) {
      const match = /^(.*?)(?:: ([a-zA-Z (), ]+))?(\?)?$/s.exec(item)!;
      const [, object, attributes, maybe] = match as unknown as [string, string, string | undefined, string | undefined];
      if (maybe) optional.add(object);
      else wanted.set(object, new Set([...(wanted.get(object) ?? []), ...(attributes?.split(', ') ?? [])]));
    }
    const missed = [...wanted].filter(([object, attributes]) => !found.has(object) || [...attributes].some((name) => !found.get(object)!.split(', ').includes(name)));
    expect(missed.map(([object, attributes]) => `${object}: ${[...attributes].join(', ')} (found: ${found.get(object) ?? 'nothing'})`)).toEqual([]);
    const unexpected = [...found].filter(([object, attributes]) => !optional.has(object) && (!wanted.has(object) || attributes.split(', ').some((name) => name !== '' && !wanted.get(object)!.has(name))));
    expect(unexpected).toEqual([]);
    expect(JSON.stringify(result)).not.toContain('anotherSecret5');
    expect(renderDifferences(result).join('\n')).not.toContain('Secret5');
  });

  it('does not count where owners, privileges and comments are left out', async () => {
    const result = await compare({ source: source.spec, target: target.spec, owners: false, privileges: false, comments: false });
    const names = new Set(result.differences.flatMap((difference) => difference.attributes.map((attribute) => attribute.name)));
    for (const name of ['owner', 'privileges', 'comment']) expect(names).not.toContain(name);
    expect(result.differences.filter((difference) => difference.kind === 'default privileges')).toEqual([]);
  });

  it('shows on the command line: exit code 3, a report or one JSON document', async () => {
    using state = stateFolder();
    const connect = ['--source', source.uri, '--target', target.uri, '--dir', state.path];
    const report = await runCli(['compare', ...connect]);
    expect(report.code).toBe(3);
    for (const line of ['only on the source', '  table bulk.t_07   with 3 columns, 1 primary key, 2 indexes', 'only on the target', 'different', '  column bulk.t_01.v', '        source  text', '        target  character varying(10)']) expect(report.stdout.split('\n')).toContain(line);
    const json = await runCli(['compare', ...connect, '--json']);
    expect(json.code).toBe(3);
    expect(JSON.parse(json.stdout)).toMatchObject({ format: 1, equal: false, source: { version: expect.stringMatching(/^\d+\.\d+$/) }, differences: expect.arrayContaining([expect.objectContaining({ change: 'different', kind: 'column', object: 'column bulk.t_01.v', table: { schema: 'bulk', name: 't_01' }, attributes: [{ name: 'type', source: 'text', target: 'character varying(10)' }] })]) });
    const equal = await runCli(['compare', '--source', source.uri, '--target', source.uri, '--dir', state.path]);
    expect(equal).toMatchObject({ code: 0, stdout: expect.stringContaining('The schemas are equal') });
  });

  it('is an error where a side cannot be read', async () => {
    await expect(compare({ source: source.spec, target: { ...target.spec, database: 'no_such_database' } })).rejects.toMatchObject({ code: 'no-such-database', message: expect.stringContaining('the target') });
  });
});
