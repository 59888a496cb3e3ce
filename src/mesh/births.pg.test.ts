import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitFor } from '../../test/support/servers.ts';
import { labTables, MeshLab } from '../../test/support/mesh-lab.ts';
import { errorMessage } from '../core/errors.ts';
import type { Session } from '../pg/session.ts';
import { sqlstateOf } from '../pg/sqlstate.ts';
import { openNode } from './connect.ts';

/**
 * A row that is born while another transaction is still deleting the one before it: it was stamped before the tombstone could be seen, and yet begins
 * a new life. Its counters must be those of the new life on every node.
 */
const int = { data_type: 'int' };
const text = { data_type: 'text' };
const tables = labTables({
  cnt: { columns: { id: int, b: text, n: int }, constraints: { primary: ['id'] }, crdt: { columns: { n: { type: 'pn_counter' } } } },
  lww: { columns: { id: int, b: text, n: int }, constraints: { primary: ['id'] }, crdt: { columns: { n: { type: 'lww_field' } } } },
  uni: { columns: { id: int, b: text, n: int }, constraints: { primary: ['id'], unique: [['b']] }, crdt: { columns: { n: { type: 'pn_counter' } } } },
  row: { columns: { id: int, b: text, n: int }, constraints: { primary: ['id'] } },
});

let lab: MeshLab;

beforeAll(async () => {
  lab = new MeshLab(tables);
  await lab.start([18, 17, 16]);
});
afterAll(async () => {
  await lab?.[Symbol.asyncDispose]();
});

/** Whether a row was born, or the SQLSTATE with which it was refused. */
const outcome = (birth: Promise<unknown>) => birth.then(() => 'born', (error: unknown) => sqlstateOf(error) ?? errorMessage(error));
const pidOf = async (session: Session) => (await session.one<{ pid: number }>('select pg_backend_pid() as pid')).pid;

/** Waits until a session of a node waits for another one, or for that very one. */
async function blocked(node: number, pid: number, by?: number): Promise<void> {
  await waitFor('the session waits for another', async () => {
    const [{ blockers } = { blockers: [] }] = await lab.on<{ blockers: number[] }>(node, 'select pg_blocking_pids($1) as blockers', [pid]);
    return by === undefined ? blockers.length > 0 : blockers.includes(by);
  });
}

/** The worker that applies what one node sends to another. */
async function workerOf(from: number, to: number): Promise<number> {
  const name = `sub_${lab.nodes[to]!.node.name}_from_${lab.nodes[from]!.node.name}`;
  let pid: number | undefined;
  await waitFor('the worker runs', async () => (pid = (await lab.on<{ pid: number }>(to, 'select pid from pg_stat_subscription where subname = $1 and pid is not null', [name]))[0]?.pid) !== undefined);
  return pid!;
}

async function collectedEverywhere(): Promise<void> {
  await waitFor('the tombstones are collected everywhere', async () => {
    for (const i of [0, 1, 2]) await lab.on(i, 'select _mesh.heartbeat(), _mesh.collect()');
    return (await Promise.all([0, 1, 2].map((i) => lab.on(i, tables.map((t) => `select 1 from _mesh.ghost_${t.base} where _mesh_kind = 'd'`).join(' union all '))))).every((rows) => rows.length === 0);
  });
}

const births = [
  { how: 'INSERT', sql: (t: string, k: number) => `insert into ${t} (id, b, n) values (${k}, 'new ${k}', 1)` },
  { how: 'INSERT ON CONFLICT', sql: (t: string, k: number) => `insert into ${t} (id, b, n) values (${k}, 'new ${k}', 1) on conflict (id) do update set n = ${t}.n + excluded.n` },
  { how: 'a key change', sql: (t: string, k: number) => `update ${t} set id = ${k} where id = ${k + 1}` },
];

describe.each([{ order: 'the deletion\'s node first', late: [1, 0] }, { order: 'the birth\'s node first', late: [0, 1] }])('a birth that waited for a deletion, the third node late: $order', ({ late }) => {
  const cases = tables.flatMap(({ name }) => births.flatMap((birth) => ['a session', 'another node'].map((deleter) => ({ table: name.replace('public.', ''), birth, deleter }))));
  const first = late[0] === 0 ? 1000 : 5000;
  const key = (i: number) => first + i * 10;
  // What the third node writes for the former life: nothing, something before the birth, something after it.
  const stray = (when: number) => cases.map((c, i) => ((i + late[0]!) % 3 === when ? `update ${c.table} set n = n + 300 where id = ${key(i)}` : '')).filter(Boolean).join('; ');

  it('leaves the same row, with the same metadata, everywhere', async () => {
    const fill = (n: number) => cases.map((c, i) => `insert into ${c.table} (id, b, n) values (${key(i)}, 'old ${key(i)}', ${n})`).join('; ');
    // A life that is forgotten everywhere, and one to which every node has counted something.
    await lab.on(0, fill(100));
    await lab.settle();
    await lab.on(1, cases.map((c, i) => `delete from ${c.table} where id = ${key(i)}`).join('; '));
    await lab.settle();
    await collectedEverywhere();
    await lab.on(0, `${fill(5)}; ${cases.map((c, i) => `insert into ${c.table} (id, b, n) values (${key(i) + 1}, 'moves ${key(i)}', 1)`).join('; ')}; insert into row values (${first + 999}, 'held', 0)`);
    await lab.settle();
    for (const node of [1, 2]) {
      await lab.on(node, cases.map((c, i) => `update ${c.table} set n = n + 20 where id = ${key(i)}`).join('; '));
      await lab.settle();
    }
    await lab.isolate(2);
    await lab.on(2, stray(1));
    for (const [i, c] of cases.entries()) {
      await using deleter = await openNode(lab.nodes[0]!.node);
      await using writer = await openNode(lab.nodes[0]!.node);
      await deleter.query('begin');
      if (c.deleter === 'a session') await deleter.query(`delete from ${c.table} where id = ${key(i)}`);
      else {
        // The other node's transaction cannot end here as long as this row is held.
        await deleter.query(`select from row where id = ${first + 999} for update`);
        await lab.on(1, `begin; delete from ${c.table} where id = ${key(i)}; update row set n = n + 1 where id = ${first + 999}; commit`);
        await blocked(0, await workerOf(1, 0), await pidOf(deleter));
      }
      const pid = await pidOf(writer);
      const born = writer.query(c.birth.sql(c.table, key(i)));
      await blocked(0, pid);
      await deleter.query('commit');
      await born;
    }
    await lab.on(2, stray(2));
    for (const i of [0, 1, 2]) await lab.on(i, 'select _mesh.heartbeat(), _mesh.collect()');
    for (const from of late) {
      await lab.on(from, `insert into row values (${first + 900 + from}, 'marker', 0)`);
      await lab.link(from, 2, true);
      await waitFor('the third node has heard', async () => (await lab.on(2, `select 1 from row where id = ${first + 900 + from}`)).length === 1);
    }
    await lab.isolate(2, true);
    await lab.settle();
    expect(await lab.differences()).toEqual([]);
    for (const i of [0, 1, 2]) {
      for (const [k, c] of cases.entries()) {
        if (c.table === 'cnt' || c.table === 'uni') expect(await lab.on(i, `select n from ${c.table} where id = ${key(k)}`), `${c.table}, ${c.birth.how} after a deletion by ${c.deleter}, node ${i + 1}`).toEqual([{ n: 1 }]);
      }
    }
    await collectedEverywhere();
    expect(await lab.differences()).toEqual([]);
  });
});

describe('a tombstone that another node renews while the row above it is being born', () => {
  // The birth has read the tombstone and waits, for its second row; the worker has renewed the tombstone and waits, for a held row.
  async function race(k: number, ahead: number): Promise<string> {
    await lab.on(0, `insert into cnt (id, n) values (${k}, 5); insert into row values (${k}, 'held', 0)`);
    await lab.settle();
    await lab.isolate(0);
    await lab.on(0, `delete from cnt where id = ${k}`);
    // The others know a later life, which the third one ends. Its word comes first.
    await lab.on(1, `delete from cnt where id = ${k}; insert into cnt (id, n) values (${k}, 7)`);
    await waitFor('the third node has heard', async () => (await lab.on(2, `select from cnt where id = ${k} and n = 7`)).length === 1);
    await lab.skew(2, ahead);
    await lab.on(2, `begin; delete from cnt where id = ${k}; update row set n = n + 1 where id = ${k}; commit`);
    await lab.skew(2, 0);
    await using other = await openNode(lab.nodes[0]!.node);
    await using holder = await openNode(lab.nodes[0]!.node);
    await using writer = await openNode(lab.nodes[0]!.node);
    await other.query('begin');
    await other.query(`insert into cnt (id, n) values (${k + 1}, 0)`);
    await holder.query('begin');
    await holder.query(`select from row where id = ${k} for update`);
    const pid = await pidOf(writer);
    const born = outcome(writer.query(`insert into cnt (id, n) values (${k}, 1), (${k + 1}, 1)`));
    await blocked(0, pid, await pidOf(other));
    await lab.link(2, 0, true);
    const worker = await workerOf(2, 0);
    await blocked(0, worker, await pidOf(holder));
    await other.query('rollback');
    await blocked(0, pid, worker);
    await holder.query('commit');
    const result = await born;
    await lab.isolate(0, true);
    await lab.settle();
    return result;
  }

  it('older than the birth: the row lives, in a life after it', async () => {
    expect(await race(9000, 0)).toBe('born');
    expect(await lab.differences()).toEqual([]);
    for (const i of [0, 1, 2]) expect(await lab.on(i, 'select n from cnt where id = 9000')).toEqual([{ n: 1 }]);
  });

  it('newer than the birth: the writer is told to try again', async () => {
    expect(await race(9100, 20)).toBe('40001');
    expect(await lab.differences()).toEqual([]);
    for (const i of [0, 1, 2]) expect(await lab.on(i, 'select n from cnt where id = 9100')).toEqual([]);
  });
});

describe('with a foreign key that is checked at the end of the transaction', () => {
  it('a birth that waited for a deletion is told to try again, rather than go unchecked', async () => {
    await lab.on(0, `create table owner (id int primary key); alter table lww add constraint owned foreign key (n) references owner deferrable initially deferred not valid`);
    await lab.on(0, `insert into owner values (1); insert into lww (id, n) values (9200, 1)`);
    await lab.settle();
    for (const owner of [1, 2]) {
      await using deleter = await openNode(lab.nodes[0]!.node);
      await using writer = await openNode(lab.nodes[0]!.node);
      await deleter.query('begin; delete from lww where id = 9200');
      const pid = await pidOf(writer);
      const insert = `insert into lww (id, n) values (9200, ${owner})`;
      const born = outcome(writer.query(insert));
      await blocked(0, pid);
      await deleter.query('commit');
      expect(await born).toBe('40001');
      if (owner === 2) await expect(writer.query(insert)).rejects.toMatchObject({ code: '23503' });
      else await writer.query(insert);
    }
    await lab.on(0, 'alter table lww drop constraint owned');
    await lab.settle();
    expect(await lab.differences()).toEqual([]);
  });
});
