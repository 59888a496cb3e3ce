import { afterAll, beforeAll, expect, it } from 'vitest';
import { labTables, MeshLab } from '../../test/support/mesh-lab.ts';
import { openNode } from './connect.ts';

/** A type, and values as SQL writes them. */
const types: readonly (readonly [type: string, ...values: string[]])[] = [
  ['smallint', '-32768'], ['bigint', '9223372036854775807', '-9223372036854775808'], ['numeric', `'NaN'`, `'Infinity'`, '1.00', '0.000000000000000000001', '1e1000'], ['numeric(10,2)', '1.5'],
  ['real', '0.1', `'-0'`, `'NaN'`, '1.17549435e-38'], ['double precision', '0.1', `'-Infinity'`, '5e-324', '0.30000000000000004'], ['text', `''`, `E'a\\nb\\\\c"d''e{},'`, `'NULL'`, `'é😀'`], ['varchar(5)', `'ab   '`], ['char(5)', `'ab'`], ['"char"', `'x'`],
  ['boolean', 'true'], ['bytea', `'\\x00ff5c27'`, `''`], ['date', `'infinity'`, `'0044-03-15 BC'`], ['timestamp', `'-infinity'`, `'2024-02-29 23:59:59.999999'`], ['timestamptz', `'2024-07-01 12:00:00.123456+05:45'`], ['time', `'24:00:00'`], ['timetz', `'04:05:06.789-08'`],
  ['interval', `'1 year -2 mons +3 days -04:05:06.7'`], ['uuid', `'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'`], ['json', `'{"a" : 1, "a": 2}'`], ['jsonb', `'{"n": 1.000, "s": "\\u00e9"}'`], ['xml', `'<a b="c">&amp;</a>'`], ['inet', `'10.0.0.1/32'`, `'::1/64'`], ['cidr', `'10.0.0.0/8'`], ['macaddr', `'08:00:2b:01:02:03'`],
  ['money', `'12.34'`], ['bit(3)', `B'101'`], ['bit varying', `B'0011'`], ['point', `'(0.1,-0)'`], ['box', `'(2,2),(1,1)'`], ['int4range', `'[1,5)'`, `'empty'`], ['tstzrange', `'[2024-01-01,)'`], ['int[]', `'{1,NULL,-3}'`, `'[0:1]={1,2}'`, `'{{1,2},{3,4}}'`], ['text[]', `array['a,b', '"', '', null, 'NULL']`],
  ['tsvector', `'fat:2,4 cat:3'`], ['int4multirange', `'{[1,2),[5,6)}'`], ['mood', `'so, so'`], ['pair', `row('a,"b', null)`, `row(null, null)`], ['positive', '7'], ['mood[]', `array['sad', null]::mood[]`], ['pg_lsn', `'16/B374D848'`], ['oid', '4294967295'], ['regclass', `'keys'`, `'pg_class'`], ['regtype', `'mood'`],
];
const prepare = `create type mood as enum ('sad', 'so, so'); create type pair as (a text, b int); create domain positive as int check (value > 0);`;

let lab: MeshLab;

beforeAll(async () => {
  const columns = (merge: 'row' | 'col') => Object.fromEntries([['id', { data_type: 'int' }], ...types.map(([type], i) => [`c${i}`, { data_type: type }]), ...(merge === 'col' ? [['n', { data_type: 'bigint' }]] : []), ['twice', { data_type: 'int', generated: 'id * 2' }]] as [string, { data_type: string }][]);
  lab = new MeshLab(labTables({
    types_row: { columns: columns('row'), constraints: { primary: ['id'] } },
    types_col: { columns: columns('col'), constraints: { primary: ['id'] }, crdt: { columns: { n: { type: 'pn_counter' }, c0: { type: 'lww_field' } } } },
    keys: { columns: { id: { data_type: 'timestamptz' }, k: { data_type: 'bytea' }, e: { data_type: 'mood' }, b: { data_type: 'text' } }, constraints: { primary: ['id', 'k', 'e'], unique: [['e', 'b']] } },
  }), { patch: (sql) => `${prepare}\n${sql}` });
  await lab.start([16, 18]);
});
afterAll(async () => {
  await lab?.[Symbol.asyncDispose]();
});

it('every type travels byte for byte, whatever the writer\'s settings, inserted and updated, by row and by column', async () => {
  await using writer = await openNode(lab.nodes[0]!.node);
  await writer.query(`set datestyle = 'SQL, DMY'; set intervalstyle = 'iso_8601'; set extra_float_digits = -15; set bytea_output = 'escape'; set timezone = 'America/St_Johns'; set xmloption = document`);
  let id = 0;
  for (const table of ['types_row', 'types_col']) {
    for (const [i, [type, ...values]] of types.entries()) {
      for (const value of values) {
        id += 1;
        await writer.query(`insert into ${table} (id, c${i}) values (${id}, (${value})::${type})`);
        await writer.query(`insert into ${table} (id) values (${-id}); update ${table} set c${i} = (${value})::${type} where id = ${-id}`);
      }
    }
  }
  await writer.query(`insert into keys values ('2024-07-01 12:00+05:45', '\\x00ff', 'so, so', 'x')`);
  await writer.query(`update keys set b = 'y'; update keys set k = '\\x01'`);
  await lab.settle();
  const read = async (index: number) => {
    await using session = await openNode(lab.nodes[index]!.node);
    await session.query(`set datestyle = 'ISO'; set timezone = 'UTC'; set bytea_output = 'hex'; set intervalstyle = 'postgres'`);
    const rows = [];
    for (const table of ['types_row', 'types_col', 'keys']) rows.push(...(await session.query<{ row: string }>(`select (x)::text as row from ${table} x order by 1`)));
    return rows.map((r) => r.row);
  };
  const [here, there] = [await read(0), await read(1)];
  expect(there).toEqual(here);
  expect(here.length).toBe(id * 2 + 1);
  expect(await lab.applyErrors()).toBe('');
});

it('a change in spelling alone counts as a change', async () => {
  await lab.on(0, `insert into types_col (id, c2, c19) values (500, 1.0, '{"a":1}')`);
  await lab.on(0, `update types_col set c2 = 1.000, c19 = '{"a": 1}' where id = 500`);
  await lab.settle();
  expect(await lab.on(1, `select c2::text as n, c19::text as j from types_col where id = 500`)).toEqual([{ n: '1.000', j: '{"a": 1}' }]);
});
