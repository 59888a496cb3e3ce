import { describe, expect, it } from 'vitest';
import { createDatabase, embeddedVersions, sharedServer, type TestDatabase } from '../../test/support/servers.ts';
import { noRules, parseColumns, parseMap, parseTableFilter, parseTables, parseTimeFilter, type SelectionRules } from '../core/selection/rules.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { verify, type TableReport, type VerifyOptions, type VerifyReport } from './verify.ts';

const check = (source: TestDatabase, target: TestDatabase, options: Partial<VerifyOptions> = {}) => verify({ source: source.spec, target: target.spec, jobs: 2, ...options });
const table = (report: VerifyReport, name: string): TableReport => {
  const found = report.tables.find((t) => `${t.table.schema}.${t.table.name}` === (name.includes('.') ? name : `public.${name}`));
  if (!found) throw new Error(`no table ${name} among ${report.tables.map((t) => t.table.name).join(', ')}`);
  return found;
};
const differing = (report: VerifyReport) => report.tables.filter((t) => t.status !== 'equal').map((t) => `${t.table.name}: ${t.status} ${t.reason ?? ''} ${t.missing}/${t.extra}/${t.changed}`);
const rules = (more: Partial<SelectionRules>): SelectionRules => ({ ...noRules, ...more });

/** Every type whose values could look different while they are equal, or the same while they are not. */
const types = `
  create schema odd; create type odd."Mood" as enum ('ok', 'so so', 'öde'); create type odd.pair as (a int, b text, c "char"); create domain odd.mail as text check (value like '%@%'); create type odd.span as range (subtype = float8);
  create table everything (id bigint primary key, f8 float8, f4 float4, n numeric, n2 numeric(12,4), t text, c5 char(5), v varchar(9), j json, jb jsonb, x xml, b bytea, tz timestamptz, ts timestamp, ttz timetz, d date, i interval, ip inet, mac macaddr, u uuid, bits bit(7), m money,
    r int4range, s odd.span, mood odd."Mood", p odd.pair, mail odd.mail, ia int[], ta text[][], pa odd.pair[], ma odd."Mood"[], ch "char", nm name, rc regclass, pt point, bx box, tsv tsvector, tsq tsquery, l text collate "C", o oid, bo bool);`;
const oneRow = `1, -0.0::float8, 'NaN', 1.00, 1.5, E'tab\\there\\nnew "quoted" \\\\ (x, y) ü', 'ab', 'v', '{"b": 1, "a": [1.0, null]}', '{"b": 1, "a": 1.0}', '<a b="1"> x </a>', '\\x00ff10', '2026-03-01 02:00:00.123456+02', 'infinity', '12:00:00+02', '0044-03-15 BC', '1 mon -3 days 04:05:06.7', '10.0.0.1/8', '08:00:2b:01:02:03', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', B'0101010', '12.34',
    '[1,5)', '[0.1,0.30000000000000004)', 'öde', row(1, null, 'x'), 'a@b', '[0:2]={1,null,3}', '{{a,"b,c"},{"",NULL}}', array[row(1,'a b','y')::odd.pair], '{ok,"so so"}', 'q', 'name', 'pg_catalog.pg_class', '(1.1,-0)', '((0,0),(1,1))', to_tsvector('simple', 'b a b'), 'a & b', 'x', 4294967295, true`;
const nulls = `2, ${Array.from({ length: 40 }, () => 'null').join(', ')}`;

describe('verify on two databases', () => {
  it.each(embeddedVersions.map((v, i) => [v, embeddedVersions[(i + 2) % embeddedVersions.length]!] as const))('%i and %i: equal rows of all types are equal, whatever the settings and the physical order', async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'verify');
    await using target = await createDatabase(await sharedServer(to), 'verify');
    const fill = (order: string) => `insert into everything values (${oneRow}), (${nulls}); create table many (k text primary key, n int); insert into many select 'Key ' || g, g from generate_series(1, 3000) g order by ${order}; create table bag (a int, b text); insert into bag select g % 7, 'x' || g % 3 from generate_series(1, 500) g order by ${order};
      create table "Odd ""T""" ("A b" int, "c.d" text, primary key ("c.d", "A b")); insert into "Odd ""T""" values (1, ''), (2, 'x'); create table nothing (); create table wide (id int primary key${Array.from({ length: 300 }, (_, i) => `, c${i} int default ${i}`).join('')}); insert into wide (id) values (1)`;
    await source.run(`${types} ${fill('g')}`);
    await target.run(`${types} ${fill('-g')}; alter table many add column gone int; alter table many drop column gone; update many set n = n where n % 2 = 0; alter database "${target.name}" set datestyle = 'German'; alter database "${target.name}" set extra_float_digits = -3; alter database "${target.name}" set timezone = 'Asia/Tokyo'; alter database "${target.name}" set bytea_output = 'escape'; alter database "${target.name}" set intervalstyle = 'iso_8601'`);
    const report = await check(source, target);
    expect(differing(report)).toEqual([]);
    expect(report).toMatchObject({ ok: true, mode: 'plain', lsn: null, totals: { tables: 6, equal: 6, rows: 2 + 3000 + 500 + 2 + 1 } });
  });

  it('finds seeded differences of every kind, and says in which columns', async () => {
    await using source = await createDatabase(await sharedServer(15), 'seeded');
    await using target = await createDatabase(await sharedServer(17), 'seeded');
    const changes: [string, string][] = [
      ['f8', `0.0`], ['f4', `'-Infinity'`], ['n', '1.0'], ['n2', '1.5001'], ['t', `t || ' '`], ['c5', `'abc'`], ['v', `'v '`], ['j', `'{"a": [1.0, null], "b": 1}'`], ['jb', `'{"b": 1, "a": 1.00}'`], ['x', `'<a b="1"> x</a>'`], ['b', `'\\x00ff11'`],
      ['tz', `tz + interval '1 microsecond'`], ['ts', `'-infinity'`], ['ttz', `'10:00:00+00'`], ['d', `'0044-03-15'`], ['i', `'27 days 04:05:06.7'`], ['ip', `'10.0.0.1'`], ['bits', `B'0101011'`], ['m', `'12.35'`], ['r', `'[1,4)'`], ['s', `'[0.1,0.3)'`], ['mood', `'ok'`],
      ['p', `row(1, '', 'x')`], ['mail', `'b@b'`], ['ia', `'{1,null,3}'`], ['ta', `'{{a,"b,c"},{NULL,""}}'`], ['pa', `array[row(1,'a  b','y')::odd.pair]`], ['ma', `'{"so so",ok}'`], ['ch', `'r'`], ['pt', `'(1.1,0)'`], ['tsv', `to_tsvector('simple', 'a b b')`], ['l', 'null'], ['o', '4294967294'], ['bo', 'null'],
    ];
    await source.run(`${types} insert into everything values (${oneRow}); insert into everything (id, t) select g, 'filler ' || g from generate_series(100, 5000) g; insert into everything (id, t) values (7, ''), (8, 'eight')`);
    await source.run(`create temporary table one as select * from everything where id = 1; ${changes.map((_, i) => `update one set id = ${1000000 + i}; insert into everything select * from one`).join('; ')}`);
    const rows = await source.query<{ row: string }>(`select id::text || chr(1) as row from everything`);
    expect(rows.length).toBe(changes.length + 1 + 4901 + 2);
    await target.run(types);
    await copyAll(source, target, 'everything');
    expect(differing(await check(source, target))).toEqual([]);
    await target.run(changes.map(([column, value], i) => `update everything set ${column} = ${value} where id = ${1000000 + i}`).join('; '));
    await target.run(`delete from everything where id = 7; update everything set t = null where id = 101; insert into everything (id, t) values (9, 'extra'); update everything set t = '' where id = 8`);
    const report = await check(source, target, { show: 1000 });
    const found = table(report, 'everything');
    expect(found).toMatchObject({ status: 'different', missing: 1, extra: 1, changed: changes.length + 2 });
    const byKey = new Map(found.shown.map((s) => [s.key!['id'], s]));
    expect(changes.map(([column], i) => [column, byKey.get(String(1000000 + i))?.columns.map((c) => c.name).join()])).toEqual(changes.map(([column]) => [column, column]));
    expect(byKey.get('7')).toMatchObject({ kind: 'missing' });
    expect(byKey.get('9')).toMatchObject({ kind: 'extra' });
    expect(byKey.get('101')!.columns).toEqual([{ name: 't', source: 'filler 101', target: null }]);
    expect(byKey.get('8')!.columns).toEqual([{ name: 't', source: 'eight', target: '' }]);
    expect(byKey.get('1000000')!.columns).toEqual([{ name: 'f8', source: '-0', target: '0' }]);
    expect(byKey.get('1000002')!.columns).toEqual([{ name: 'n', source: '1.00', target: '1.0' }]);
    const hidden = table(await check(source, target, { values: false }), 'everything');
    expect(hidden.shown.flatMap((s) => s.columns).every((c) => c.source === null && c.target === null)).toBe(true);
    // The same run mends them all.
    const repaired = await check(source, target, { repair: true });
    expect(differing(repaired)).toEqual([]);
    expect(table(repaired, 'everything').repaired).toEqual({ inserted: 1, updated: changes.length + 2, deleted: 1 });
    expect(repaired.ok).toBe(true);
  });

  it('compares tables without a key as multisets, and mends them', async () => {
    await using source = await createDatabase(await sharedServer(16), 'bag');
    await using target = await createDatabase(await sharedServer(14), 'bag');
    await source.run(`create table bag (a int, b text, g int generated always as (a * 2) stored); insert into bag select i % 5, null from generate_series(1, 100) i; insert into bag values (9, 'once'), (9, 'once')`);
    await target.run(`create table bag (b text, a int, g int generated always as (a * 2) stored); insert into bag (a, b) select i % 5, null from generate_series(1, 100) i order by -i; insert into bag (a, b) values (9, 'once'), (9, 'once')`);
    expect(differing(await check(source, target))).toEqual([]);
    await target.run(`delete from bag where ctid in (select ctid from bag where a = 3 limit 2); insert into bag (a, b) values (4, null), (4, ''); update bag set b = 'twice' where ctid = (select max(ctid) from bag where a = 9)`);
    const found = table(await check(source, target), 'bag');
    expect(found).toMatchObject({ status: 'different', missing: 3, extra: 3, changed: 0, rows: { source: 102, target: 102 } });
    expect(found.shown.find((s) => s.kind === 'missing' && s.count === 2)?.columns.map((c) => c.source)).toEqual(['3', null, '6']);
    const repaired = await check(source, target, { repair: true });
    expect(differing(repaired)).toEqual([]);
    expect(table(repaired, 'bag').repaired).toEqual({ inserted: 3, updated: 0, deleted: 3 });
  });

  it('compares partitioned tables by root where the layouts differ, and only what the selection takes', async () => {
    await using source = await createDatabase(await sharedServer(17), 'parts');
    await using target = await createDatabase(await sharedServer(15), 'parts');
    await source.run(`create table ev (id int, at date, v text, primary key (id, at)) partition by range (at); create table ev_1 partition of ev for values from ('2020-01-01') to ('2021-01-01'); create table ev_2 (v text, at date not null, id int not null, gone int); alter table ev_2 drop column gone; alter table ev attach partition ev_2 for values from ('2021-01-01') to ('2022-01-01');
      insert into ev select g, date '2020-01-01' + g, 'v' || g from generate_series(0, 700) g; create table plain (id int primary key, v text, secret text); insert into plain select g, 'x', 's' from generate_series(1, 10) g; create table bare (id int primary key); insert into bare values (1);
      create table recent (id int primary key, at timestamptz); insert into recent values (1, now() - interval '1 year'), (2, now()); create table parent (id int primary key, v text); create table child (extra int, primary key (id)) inherits (parent); insert into parent values (1, 'p'); insert into child values (2, 'c', 3)`);
    await target.run(`create table ev (at date, id int, v text, primary key (id, at)) partition by hash (id); create table ev_a partition of ev for values with (modulus 2, remainder 0); create table ev_b partition of ev for values with (modulus 2, remainder 1); insert into ev (id, at, v) select g, date '2020-01-01' + g, 'v' || g from generate_series(0, 700) g;
      create schema other; create table other.plain (id bigint primary key, v text); insert into other.plain select g, 'x' from generate_series(1, 5) g; create table bare (id int primary key); create table recent (id int primary key, at timestamptz); create table parent (id int primary key, v text); create table child (extra int, primary key (id)) inherits (parent); insert into parent values (1, 'p'); insert into child values (2, 'c', 3)`);
    const [row] = await source.query<{ at: string }>('select at::text as at from recent where id = 2');
    await target.query('insert into recent values (2, $1)', [row!.at]);
    const selection = rules({ schemaOnlyTables: parseTables('bare'), tableFilters: [parseTableFilter('plain:id <= 5')], timeFilters: [parseTimeFilter('recent:at:6 months')], maps: [parseMap('plain=other.plain')], excludeColumns: parseColumns('plain.secret') });
    const report = await check(source, target, { rules: selection });
    expect(differing(report)).toEqual([]);
    expect(report.tables.map((t) => t.table.name)).toEqual(['child', 'ev', 'parent', 'plain', 'recent']);
    expect(table(report, 'ev').rows).toEqual({ source: 701, target: 701 });
    expect(table(report, 'plain').notes).toEqual(['column id is integer here, bigint there']);
    await target.run(`update ev set v = 'other' where id = 300; delete from ev where id = 1; insert into ev (id, at, v) values (9999, '2020-05-05', 'x'); update child set extra = 4`);
    const bad = await check(source, target, { rules: selection });
    expect(table(bad, 'ev')).toMatchObject({ status: 'different', reason: null, missing: 1, extra: 1, changed: 1 });
    expect(table(bad, 'child')).toMatchObject({ changed: 1 });
    expect(table(bad, 'parent').status).toBe('equal');
    expect(differing(await check(source, target, { rules: selection, repair: true }))).toEqual([]);
    // Without the selection everything counts.
    const whole = await check(source, target);
    expect(table(whole, 'bare')).toMatchObject({ status: 'different', missing: 1 });
    expect(table(whole, 'plain')).toMatchObject({ status: 'different', reason: 'public.plain is missing on the target' });
    expect(whole.ok).toBe(false);
  });

  it('compares databases of different encodings and collations', async () => {
    await using source = await createDatabase(await sharedServer(16), 'latin', `template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'`);
    await using target = await createDatabase(await sharedServer(18), 'utf', `template template0 locale_provider icu icu_locale 'sv-SE' encoding 'UTF8' lc_collate 'C' lc_ctype 'C'`);
    const schema = `create table t (k text primary key, v text); insert into t select chr(192 + g % 60) || 'k' || g, 'Zäö' || g from generate_series(1, 2000) g; create table bag (v text); insert into bag values ('é'), ('é'), ('z')`;
    for (const db of [source, target]) await db.run(schema);
    expect(differing(await check(source, target))).toEqual([]);
    await target.run(`update t set v = 'Zaö5' where v = 'Zäö5'; update bag set v = 'è' where ctid = (select min(ctid) from bag)`);
    const report = await check(source, target);
    expect(table(report, 't')).toMatchObject({ changed: 1, shown: [{ columns: [{ name: 'v', source: 'Zäö5', target: 'Zaö5' }] }] });
    expect(table(report, 'bag')).toMatchObject({ missing: 1, extra: 1 });
    expect(differing(await check(source, target, { repair: true }))).toEqual([]);
  });

  it('compares sequences and large objects', async () => {
    await using source = await createDatabase(await sharedServer(15), 'seq');
    await using target = await createDatabase(await sharedServer(16), 'seq');
    const schema = `create sequence up; create sequence down increment -2 maxvalue 100 start 100; create sequence fresh; create table t (id serial primary key)`;
    for (const db of [source, target]) await db.run(schema);
    await source.run(`select setval('up', 10), setval('down', 50); select lo_from_bytea(5001, '\\x0102'), lo_from_bytea(5002, decode(repeat('ab', 600000), 'hex')), lo_create(5003), lo_from_bytea(5004, '\\x01')`);
    await target.run(`select setval('up', 11), setval('down', 52); select lo_from_bytea(5001, '\\x0102'), lo_from_bytea(5002, decode(repeat('ab', 600000), 'hex')), lo_create(5003), lo_create(5005)`);
    // A hole reads as zeros: the same content in other pages.
    await source.run(`select lo_put(5003, 5000, '\\x09')`);
    await target.run(`select lo_put(5003, 0, decode(repeat('00', 5000) || '09', 'hex'))`);
    const report = await check(source, target);
    expect(report.sequences.filter((s) => s.status !== 'equal').map((s) => `${s.name} ${s.status} ${s.source} ${s.target}`)).toEqual(['down behind 48 50', 'up ahead 11 12']);
    expect(report.largeObjects).toMatchObject({ compared: 5, missing: 1, extra: 1, changed: 0, shown: [{ oid: 5004, kind: 'missing' }, { oid: 5005, kind: 'extra' }] });
    expect(report.ok).toBe(false);
    await target.run(`select setval('down', 50), lo_unlink(5005), lo_from_bytea(5004, '\\x01'), lo_put(5002, 500000, '\\xac')`);
    expect((await check(source, target)).largeObjects).toMatchObject({ changed: 1, shown: [{ oid: 5002 }] });
    await target.run(`select lo_put(5002, 500000, '\\xab')`);
    expect((await check(source, target)).ok).toBe(true);
  });

  it('takes a sample, known tables, and goes on with tables that it cannot read', async () => {
    await using source = await createDatabase(await sharedServer(15), 'some');
    await using target = await createDatabase(await sharedServer(18), 'some');
    const schema = `create table a (id int primary key); insert into a select generate_series(1, 10000); create table b (id int primary key); create table fails (id int primary key, v int, bad int generated always as (10 / v) stored)`;
    for (const db of [source, target]) await db.run(schema);
    const sampled = table(await check(source, target, { sample: 10 }), 'a');
    expect(sampled.status).toBe('equal');
    expect(sampled.rows.source).toBeGreaterThan(700);
    expect(sampled.rows.source).toBeLessThan(1300);
    await target.run('delete from a where id % 100 = 0');
    expect(table(await check(source, target, { sample: 50 }), 'a')).toMatchObject({ status: 'different' });
    const known = { ...table(await check(source, target), 'b') };
    const seen: string[] = [];
    const report = await check(source, target, { known: [known], onTable: (t) => void seen.push(t.table.name) });
    expect(seen).toEqual(['fails']);
    expect(report.totals).toMatchObject({ tables: 3, equal: 2, different: 1 });
    const role = `blind_${process.pid}`;
    await source.run(`create role ${role} login; grant select on a to ${role}`);
    try {
      const blind = await verify({ source: parseConninfo((await sharedServer(15)).uri(source.name, role)), target: target.spec });
      expect(table(blind, 'b')).toMatchObject({ status: 'not-compared', reason: expect.stringContaining('permission denied') });
      expect(table(blind, 'a')).toMatchObject({ status: 'different', missing: 100 });
      expect(blind.ok).toBe(false);
    } finally {
      await source.run(`drop owned by ${role}; drop role ${role}`);
    }
    await expect(check(source, target, { sample: 0 })).rejects.toMatchObject({ exitCode: 2 });
    await expect(check(source, target, { sample: 5, repair: true })).rejects.toMatchObject({ exitCode: 2 });
  });
});

/** The rows of a table from one side to the other, as COPY would. */
async function copyAll(source: TestDatabase, target: TestDatabase, name: string): Promise<void> {
  const rows = await source.query<{ row: string }>(`select whole::text as row from ${name} whole`);
  await target.query(`insert into ${name} select (r::${name}).* from unnest($1::text[]) r`, [rows.map((r) => r.row)]);
}
