import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitFor } from '../../test/support/servers.ts';
import { labTables, MeshLab } from '../../test/support/mesh-lab.ts';
import { openNode } from './connect.ts';
import { repairMesh } from './repair.ts';

const int = { data_type: 'int' };
const text = { data_type: 'text' };
const tables = labTables({
  row: { columns: { id: int, a: int, b: text }, constraints: { primary: ['id'] } },
  col: { columns: { id: int, a: int, b: text, n: { data_type: 'int' } }, constraints: { primary: ['id'] }, crdt: { columns: { a: { type: 'lww_field' }, n: { type: 'pn_counter' } } } },
  uni: { columns: { id: int, email: text, two: int, three: { data_type: 'numeric' } }, constraints: { primary: ['id'], unique: [['email'], ['two', 'three']] } },
  chk: { columns: { id: int, lo: int, hi: int }, constraints: { primary: ['id'], checks: ['lo <= hi'] }, crdt: { columns: { lo: { type: 'lww_field' }, hi: { type: 'lww_field' } } } },
  pairs: { columns: { id: int, email: text, lo: int, hi: int, n: int }, constraints: { primary: ['id'], unique: [['email']], checks: ['lo <= hi'] }, crdt: { columns: { email: { type: 'lww_field' }, lo: { type: 'lww_field' }, hi: { type: 'lww_field' }, n: { type: 'pn_counter' } } } },
  parent: { columns: { id: int, b: text }, constraints: { primary: ['id'] } },
  child: { columns: { id: int, pid: int }, constraints: { primary: ['id'], foreign_keys: [{ columns: ['pid'], references: { table: 'parent', columns: ['id'] }, on_delete: 'cascade' }] } },
  num: { columns: { id: { data_type: 'numeric' }, b: text }, constraints: { primary: ['id'] } },
}, { chk: (v) => !(Number(v['lo']) > Number(v['hi'])), pairs: (v) => !(Number(v['lo']) > Number(v['hi'])) });

interface Conflict {
  readonly name: string;
  /** What all nodes know before they are cut off. `K` stands for a number of the case's own. */
  readonly before?: string;
  /** Run on the first node, then on the second, whose stamps are later. */
  readonly first: string;
  readonly second: string;
  /** A query, and what it gives on every node in the end. */
  readonly show: string;
  readonly want: readonly Record<string, unknown>[];
}

const conflicts: readonly Conflict[] = [
  { name: 'insert/insert', first: `insert into row values (K, 1, 'first')`, second: `insert into row values (K, 2, 'second')`, show: 'select a, b, origin_node from row where id = K', want: [{ a: 2, b: 'second', origin_node: 'n2' }] },
  { name: 'update/update of whole rows', before: `insert into row values (K, 0, 'before')`, first: `update row set a = 1 where id = K`, second: `update row set b = 'second' where id = K`, show: 'select a, b from row where id = K', want: [{ a: 0, b: 'second' }] },
  { name: 'update/update by column', before: `insert into col values (K, 0, 'before', 0)`, first: `update col set a = 1, b = 'first' where id = K`, second: `update col set b = 'second' where id = K`, show: 'select a, b from col where id = K', want: [{ a: 1, b: 'second' }] },
  { name: 'counters add up', before: `insert into col values (K, 0, '', 10)`, first: `update col set n = n + 5 where id = K`, second: `update col set n = n - 2 where id = K`, show: 'select n from col where id = K', want: [{ n: 13 }] },
  { name: 'counters of two inserts add up', first: `insert into col (id, n) values (K, 5)`, second: `insert into col (id, n) values (K, 7)`, show: 'select n from col where id = K', want: [{ n: 12 }] },
  { name: 'update, then a later delete', before: `insert into row values (K, 0, '')`, first: `update row set a = 1 where id = K`, second: `delete from row where id = K`, show: 'select a from row where id = K', want: [] },
  { name: 'delete, then a later update: the row lives', before: `insert into row values (K, 0, 'kept')`, first: `delete from row where id = K`, second: `update row set a = 1 where id = K`, show: 'select a, b from row where id = K', want: [{ a: 1, b: 'kept' }] },
  { name: 'delete, then a later update by column', before: `insert into col values (K, 1, 'kept', 4)`, first: `update col set n = n + 1 where id = K; delete from col where id = K`, second: `update col set a = 2 where id = K`, show: 'select a, b, n from col where id = K', want: [{ a: 2, b: 'kept', n: 5 }] },
  { name: 'delete/delete', before: `insert into row values (K, 0, '')`, first: `delete from row where id = K`, second: `delete from row where id = K`, show: 'select a from row where id = K', want: [] },
  { name: 'delete and insert again, against an update', before: `insert into col values (K, 1, '', 5)`, first: `delete from col where id = K; insert into col (id, a, n) values (K, 9, 1)`, second: `update col set a = 3 where id = K`, show: 'select a, n from col where id = K', want: [{ a: 3, n: 1 }] },
  { name: 'key change against an update', before: `insert into row values (K, 1, 'x')`, first: `update row set id = K + 1 where id = K`, second: `update row set a = 7 where id = K`, show: 'select id - K as at, a from row where id in (K, K + 1) order by id', want: [{ at: 0, a: 7 }, { at: 1, a: 1 }] },
  { name: 'key change onto a key that is inserted elsewhere', before: `insert into row values (K, 1, 'moved')`, first: `update row set id = K + 1 where id = K`, second: `insert into row values (K + 1, 2, 'inserted')`, show: 'select id - K as at, b from row where id in (K, K + 1)', want: [{ at: 1, b: 'inserted' }] },
  { name: 'keys shifted in one statement', before: `insert into row values (K, 1, 'a'), (K + 1, 2, 'b')`, first: `update row r set id = r.id + 1 from (select id from row where id in (K, K + 1) order by id desc) s where r.id = s.id`, second: `select 1`, show: 'select id - K as at, b from row where id between K and K + 2 order by id', want: [{ at: 1, b: 'a' }, { at: 2, b: 'b' }] },
  { name: 'a unique key taken twice: the later row stays, the other hides', first: `insert into uni values (K, 'mK', K, 1)`, second: `insert into uni values (K + 1, 'mK', K, 2)`, show: `select id - K as at from uni where email = 'mK'`, want: [{ at: 1 }] },
  { name: 'the winner leaves: the hidden row returns', first: `insert into uni values (K, 'mK', K, 1)`, second: `insert into uni values (K + 1, 'mK', K, 2); delete from uni where id = K + 1`, show: `select id - K as at from uni where email = 'mK'`, want: [{ at: 0 }] },
  { name: 'a unique key over two columns, equal as numbers, not as text', first: `insert into uni values (K, 'aK', K, 1.0)`, second: `insert into uni values (K + 1, 'bK', K, 1.00)`, show: `select id - K as at, three::text from uni where two = K`, want: [{ at: 1, three: '1.00' }] },
  { name: 'one key in two spellings', first: `insert into num values (K.0, 'first')`, second: `insert into num values (K.00, 'second')`, show: 'select id::text as id, b from num where id = K', want: [{ id: 'K.00', b: 'second' }] },
  { name: 'each change passes the check, both together do not: hidden everywhere', before: `insert into chk values (K, 10, 20)`, first: `update chk set hi = 11 where id = K`, second: `update chk set lo = 15 where id = K`, show: `select lo from chk where id = K`, want: [] },
  { name: 'hidden for two reasons, which nodes notice in different order: its sum is the same everywhere', before: `insert into pairs values (K, 'xK', 10, 20, 5)`, first: `update pairs set hi = 11, email = 'zK' where id = K`, second: `update pairs set lo = 15 where id = K; insert into pairs values (K + 1, 'zK', 1, 2, 0)`, show: `select id - K as at from pairs where id in (K, K + 1)`, want: [{ at: 1 }] },
  { name: 'a truncated table against an insert', before: `insert into parent values (K, 'x')`, first: `delete from parent where id = K`, second: `insert into child values (K, K)`, show: `select (select count(*)::int from parent where id = K) as parents, (select count(*)::int from child where id = K) as children`, want: [{ parents: 0, children: 1 }] },
  { name: 'ON DELETE CASCADE travels as what it did', before: `insert into parent values (K, 'x'); insert into child values (K, K), (K + 1, K)`, first: `delete from parent where id = K`, second: `select 1`, show: `select id from child where pid = K`, want: [] },
];

let lab: MeshLab;

beforeAll(async () => {
  lab = new MeshLab(tables);
  await lab.start([18, 17, 16]);
});
afterAll(async () => {
  await lab?.[Symbol.asyncDispose]();
});

const fill = (sql: string, k: number) => sql.replaceAll('K', String(k));

describe.each([{ order: 'as written', late: [0, 1] }, { order: 'the later write first', late: [1, 0] }])('every kind of conflict, the third node late: $order', ({ late }) => {
  const base = late[0] === 0 ? 1000 : 5000;
  const key = (i: number) => base + i * 10;

  it('ends the same everywhere, as the model says', async () => {
    await lab.on(0, conflicts.map((c, i) => fill(c.before ?? '', key(i))).filter((sql) => sql !== '').join('; '));
    await lab.settle();
    for (const from of [0, 1, 2]) for (const to of [0, 1, 2]) if (from !== to) await lab.link(from, to, false);
    {
      await using first = await openNode(lab.nodes[0]!.node);
      await using second = await openNode(lab.nodes[1]!.node);
      for (const [i, c] of conflicts.entries()) {
        await first.query(fill(c.first, key(i)));
        await second.query(fill(c.second, key(i)));
      }
    }
    // The third node hears one of them first, then the other; the first two hear one another last.
    for (const from of late) {
      await lab.on(from, `insert into row values (${base + 900 + from}, 0, 'marker')`);
      await lab.link(from, 2, true);
      await waitFor('the third node has heard', async () => (await lab.on(2, `select 1 from row where id = ${base + 900 + from}`)).length === 1);
    }
    for (const from of [0, 1, 2]) for (const to of [0, 1, 2]) if (from !== to) await lab.link(from, to, true);
    await lab.settle();
    const got: string[] = [];
    for (const node of [0, 1, 2]) {
      await using session = await openNode(lab.nodes[node]!.node);
      for (const [i, c] of conflicts.entries()) {
        const rows = await session.query(fill(c.show, key(i)));
        const want = JSON.parse(fill(JSON.stringify(c.want), key(i))) as unknown;
        if (JSON.stringify(rows) !== JSON.stringify(want)) got.push(`${c.name}, node ${node + 1}: ${JSON.stringify(rows)} instead of ${JSON.stringify(want)}`);
      }
    }
    expect(got).toEqual([]);
    expect(await lab.differences()).toEqual([]);
  });
});

describe('beside conflicts', () => {
  it('TRUNCATE empties the table everywhere, with what was hidden, in one transaction with others', async () => {
    await lab.on(0, `truncate uni, parent, child`);
    await lab.settle();
    for (const i of [0, 1, 2]) {
      expect(await lab.on(i, `select (select count(*)::int from uni) + (select count(*)::int from parent) + (select count(*)::int from child) + (select count(*)::int from _mesh.ghost_uni where _mesh_kind = 'p') as n`)).toEqual([{ n: 0 }]);
    }
    expect(await lab.differences()).toEqual([]);
  });

  it('the log says what was overruled, by what', async () => {
    const rows = (await Promise.all([0, 1, 2].map((i) => lab.on<{ kind: string; tbl: string }>(i, 'select distinct kind, tbl from _mesh.conflict')))).flat();
    const kinds = new Set(rows.map((r) => r.kind));
    for (const kind of ['update_stale', 'update_deleted', 'delete_older', 'resurrected', 'unique_parked', 'invalid_parked', 'update_merged']) expect(kinds, kind).toContain(kind);
    const [lost] = (await Promise.all([0, 1, 2].map((i) => lab.on<{ detail: { lost: string[]; kept: number } }>(i, `select detail from _mesh.conflict where kind = 'update_stale' and key = '1000'`)))).flat();
    expect(lost!.detail.lost).toEqual(['1000', '1', 'first', 'n1']);
  });

  it('updated_at and origin_node follow the write that counts, on every node', async () => {
    await lab.on(1, `insert into row (id, updated_at, origin_node, _mesh_w) values (42, '1999-01-01', 'forged', 7)`);
    await lab.settle();
    const seen = await Promise.all([0, 1, 2].map((i) => lab.on<{ t: string; o: string }>(i, `select updated_at::text as t, origin_node as o from row where id = 42`)));
    expect(new Set(seen.map((s) => JSON.stringify(s))).size).toBe(1);
    expect(seen[0]![0]!.o).toBe('n2');
    expect(new Date(seen[0]![0]!.t).getFullYear()).toBeGreaterThan(2020);
  });

  it('an application without rights in _mesh can write, and cannot call what belongs to the mesh', async () => {
    await lab.on(0, `drop role if exists mesh_app; create role mesh_app; grant select, insert, update, delete, truncate on row, uni to mesh_app`);
    await lab.on(0, `set role mesh_app; insert into row values (77, 1, 'app'); update row set a = 2 where id = 77; update row set id = 78 where id = 77; insert into uni values (77, 'app', 1, 1); update uni set email = 'app2' where id = 77; delete from uni where id = 77`);
    await expect(lab.on(0, `set role mesh_app; select _mesh.touch_row(array['78'])`)).rejects.toMatchObject({ code: '42501' });
    await expect(lab.on(0, `set role mesh_app; insert into _mesh.journal (origin, xid, op, w) values (1, 1, 'U', 1)`)).rejects.toMatchObject({ code: '42501' });
    await lab.settle();
    expect(await lab.on(2, `select a from row where id = 78`)).toEqual([{ a: 2 }]);
  });

  it('a session\'s own settings do not change what travels', async () => {
    await lab.on(0, `set datestyle = 'SQL, DMY'; set intervalstyle = 'sql_standard'; set extra_float_digits = 0; set search_path = pg_temp, public; set timezone = 'Asia/Kolkata'; insert into row values (79, 1, 'odd settings')`);
    await lab.settle();
    expect(await lab.differences()).toEqual([]);
  });

  it('deleting and inserting one key in one statement: whole rows yes, by column refused', async () => {
    await lab.on(0, `insert into row values (80, 1, 'a'); insert into col (id, n) values (80, 1)`);
    await lab.on(0, `with gone as (delete from row where id = 80 returning id) insert into row select id, 2, 'b' from gone`);
    await expect(lab.on(0, `with gone as (delete from col where id = 80 returning id) insert into col (id, n) select id, 2 from gone`)).rejects.toMatchObject({ code: '0A000' });
    await lab.settle();
    expect(await lab.on(1, `select b from row where id = 80`)).toEqual([{ b: 'b' }]);
    expect(await lab.differences()).toEqual([]);
  });

  it('a key born again after its tombstone was collected counts anew', async () => {
    await lab.on(0, `insert into col (id, n) values (85, 5)`);
    await lab.settle();
    await lab.on(1, `update col set n = n + 22 where id = 85`);
    await lab.settle();
    await lab.on(0, `delete from col where id = 85`);
    await lab.settle();
    await waitFor('the tombstone is collected everywhere', async () => {
      for (const i of [0, 1, 2]) await lab.on(i, 'select _mesh.heartbeat(), _mesh.collect()');
      return (await Promise.all([0, 1, 2].map((i) => lab.on(i, `select 1 from _mesh.ghost_col where id = 85`)))).every((rows) => rows.length === 0);
    });
    await lab.on(2, `insert into col (id, n) values (85, 1)`);
    await lab.settle();
    for (const i of [0, 1, 2]) expect(await lab.on(i, `select n from col where id = 85`)).toEqual([{ n: 1 }]);
    expect(await lab.differences()).toEqual([]);
  });

  it('a clock far ahead is refused with words, and nothing is lost once it is right', async () => {
    await lab.skew(0, 3600);
    await lab.on(0, `insert into row values (81, 1, 'from the future')`);
    await waitFor('the change is refused', async () => (await lab.on<{ n: bigint }>(1, `select apply_error_count as n from pg_stat_subscription_stats where subname = 'sub_n2_from_n1'`))[0]!.n > 0n);
    expect(await lab.on(1, `select 1 from row where id = 81`)).toEqual([]);
    const { clock } = (await lab.on<{ clock: bigint }>(1, `select pg_sequence_last_value('_mesh.clock') - _mesh.wall() as clock`))[0]!;
    expect(clock).toBeLessThan(60_000_000n);
    await lab.skew(1, 3600);
    await lab.skew(2, 3600);
    await lab.settle();
    expect(await lab.on(2, `select 1 as there from row where id = 81`)).toEqual([{ there: 1 }]);
    for (const i of [0, 1, 2]) await lab.skew(i, 0);
  });
});

describe('negative controls: these must come apart', () => {
  it('without a hybrid clock, a node whose clock is behind loses its own later write', async () => {
    await lab.on(0, `insert into row values (90, 1, 'first')`);
    await lab.settle();
    const wallOnly = `create or replace function _mesh.next_stamp(above bigint) returns bigint volatile language sql return (_mesh.wall() << 9) | _mesh.me()`;
    const { body } = (await lab.on<{ body: string }>(1, `select pg_get_functiondef('_mesh.next_stamp(bigint)'::regprocedure) as body`))[0]!;
    await lab.skew(1, -20);
    await lab.on(1, wallOnly);
    await lab.on(1, `update row set b = 'later, with a clock that is behind' where id = 90`);
    await lab.settle();
    expect((await lab.differences()).length).toBeGreaterThan(0);
    // With the clock in place the same brings all together again.
    await lab.on(1, body);
    await repairMesh(lab.meshNodes);
    await lab.on(1, `update row set b = 'with the clock' where id = 90`);
    await lab.settle();
    await lab.skew(1, 0);
    expect(await lab.on(0, `select b from row where id = 90`)).toEqual([{ b: 'with the clock' }]);
  });

  let attempts = 9000;

  it('with tombstones collected before all have acknowledged, a dead row comes back on some nodes only', async () => {
    // A key of its own and open links for each attempt.
    const id = (attempts += 1);
    for (const other of [0, 1]) await lab.link(2, other, true);
    await lab.on(0, `insert into row values (${id}, ${id}, 'alive')`);
    await lab.settle();
    await lab.link(2, 0, false);
    await lab.link(2, 1, false);
    await lab.on(2, `update row set b = 'late, but before the delete' where id = ${id}`);
    // Earlier tests set the clocks ahead, so that stamps count writes: the delete is later than the update only where its node has counted further.
    for (const tick of [1, 2, 3]) await lab.on(0, `update row set b = 'tick ${tick}' where id = 90`);
    await lab.on(0, `delete from row where id = ${id}`);
    await waitFor('the delete is everywhere', async () => (await lab.on(1, `select 1 from row where id = ${id}`)).length === 0 && (await lab.on(2, `select 1 from row where id = ${id}`)).length === 0);
    // As shipped, nothing is collected while n3's changes are missing.
    for (const round of [0, 1, 2]) for (const i of [0, 1, 2]) await lab.on(i, `select _mesh.heartbeat(), _mesh.collect(), ${round}`);
    expect(await lab.on(0, `select 1 as kept from _mesh.ghost_row where id = ${id}`)).toEqual([{ kept: 1 }]);
    await lab.on(0, `delete from _mesh.ghost_row where id = ${id}`);
    await lab.link(2, 0, true);
    await lab.link(2, 1, true);
    await lab.settle();
    expect((await lab.differences()).some((d) => d.includes(`public.row ${id}`))).toBe(true);
  });
});
