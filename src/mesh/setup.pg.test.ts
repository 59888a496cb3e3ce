import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, privateServer, sharedServer, waitFor, type Cluster, type TestDatabase } from '../../test/support/servers.ts';
import { armFailpoints } from '../core/failpoints.ts';
import { adoptTables } from './adopt.ts';
import { applySchema, applySchemaToAll } from './apply-schema.ts';
import { clockFaults } from './checks.ts';
import { ping, type NodeSessions } from './connect.ts';
import { generateSql } from './generate.ts';
import { maintainAll } from './maintain.ts';
import { parseNodes, type MeshNode } from './nodes.ts';
import { repairMesh } from './repair.ts';
import { parseSchema } from './schema-input.ts';
import { setupReplication } from './setup-replication.ts';
import { meshHealth, meshStatus } from './status.ts';
import { verifyMesh } from './verify.ts';

const folder = mkdtempSync(join(tmpdir(), 'mesh-sql-'));
let server: Cluster;
const databases: TestDatabase[] = [];

beforeAll(async () => {
  server = await privateServer(17, { settings: { wal_retrieve_retry_interval: `'50ms'` } });
});
afterAll(async () => {
  await server?.destroy();
  rmSync(folder, { recursive: true, force: true });
});

/** Nodes that are databases of one server, empty. */
async function twoNodes(prefix: string): Promise<{ nodes: MeshNode[]; on: (i: number) => TestDatabase }> {
  const own = [await createDatabase(server, prefix), await createDatabase(server, prefix)];
  databases.push(...own);
  return { nodes: parseNodes(own.map((d, i) => ({ name: `${prefix}${i + 1}`, host: '127.0.0.1', port: server.port, db: d.name, user: 'postgres' }))), on: (i) => own[i]! };
}

const tables = parseSchema({ t: { columns: { id: { data_type: 'int' }, v: { data_type: 'text' } }, constraints: { primary: ['id'] } } });
const codeOf = (work: Promise<unknown>) => work.then(() => 'done', (e: { code?: string; message: string }) => `${e.code}: ${e.message}`);

describe('setting up', () => {
  it('rows that are there before travel; status is healthy; a second run changes nothing', async () => {
    const { nodes, on } = await twoNodes('s');
    await applySchemaToAll(nodes, sqlFile());
    await on(0).run(`insert into t values (1, 'before the slots')`);
    for (const point of ['slots', 'slots-made', 'subscriptions']) {
      armFailpoints(`mesh.setup.${point}=error`);
      await expect(setupReplication(nodes)).rejects.toThrow('failpoint');
      armFailpoints('');
    }
    const first = await setupReplication(nodes);
    expect(first.edges).toEqual(['sub_s2_from_s1', 'sub_s1_from_s2']);
    expect(first.emitted).toEqual({ s1: 1n, s2: 0n });
    await waitFor('the row', async () => (await on(1).query('select 1 from t')).length === 1);
    expect((await setupReplication(nodes)).emitted).toEqual({});
    await maintainAll(nodes);
    const status = await waitFor('all edges run', async () => {
      const now = await meshStatus(nodes);
      return now.healthy && now;
    });
    expect(status.nodes[0]).toMatchObject({ reachable: true, member: true, walLevel: 'logical', publications: ['pub_s1'], members: [{ name: 's2', state: 'active' }] });
    expect((await verifyMesh(nodes)).equal).toBe(true);
    expect((await ping(nodes[0]!)).ok).toBe(true);
  });

  it('the apply workers run under a role of their own that gives way in deadlocks', async () => {
    const rows = await databases[0]!.query<{ owner: string; config: string[] }>(`select r.rolname as owner, s.setconfig as config from pg_subscription x join pg_roles r on r.oid = x.subowner join pg_db_role_setting s on s.setrole = r.oid limit 1`);
    expect(rows).toEqual([{ owner: 'pgweave_mesh_apply', config: ['deadlock_timeout=10ms', 'default_transaction_isolation=read committed', 'default_transaction_read_only=off', 'lock_timeout=0', 'transaction_timeout=0'] }]);
  });

  it('what is broken is named', async () => {
    const { nodes, on } = await twoNodes('w');
    expect((await meshHealth(nodes)).issues.map((i) => i.issue)).toEqual(['holds no mesh of that name', 'holds no mesh of that name']);
    for (const node of nodes) await applySchema(node, generateSql(tables));
    await setupReplication(nodes);
    await on(1).run(`alter subscription sub_w2_from_w1 disable; update _mesh.node set state = 'joining' where name = 'w1'`);
    const { issues } = await meshHealth(nodes);
    expect(issues.map((i) => `${i.node}: ${i.issue}`)).toEqual(expect.arrayContaining(['w2: w1 is still joining: no tombstone is collected', 'w2: subscription sub_w2_from_w1 is disabled']));
    await on(1).run(`drop publication pub_w2; alter subscription sub_w2_from_w1 enable; update _mesh.node set state = 'active'`);
    await setupReplication(nodes);
    await waitFor('healthy again', async () => (await meshHealth(nodes)).healthy);
  });
});

describe('refused, with nothing half-made', () => {
  it('a mesh that is there already, a node on 15, no mesh, other tables, other numbers', async () => {
    const { nodes, on } = await twoNodes('r');
    const sql = generateSql(tables);
    expect(await codeOf(setupReplication(nodes))).toMatch(/^no-mesh: /);
    await applySchema(nodes[0]!, sql);
    expect(await codeOf(applySchema(nodes[0]!, sql))).toMatch(/^mesh-exists: node r1 holds a mesh already/);
    expect(await codeOf(applySchemaToAll(nodes, sqlFile()))).toMatch(/^mesh-exists/);
    expect(await on(1).query(`select to_regnamespace('_mesh')::text as there`)).toEqual([{ there: null }]);
    await applySchema(nodes[1]!, generateSql(parseSchema({ t: { columns: { id: { data_type: 'int' } }, constraints: { primary: ['id'] } } })));
    expect(await codeOf(setupReplication(nodes))).toMatch(/^mesh-mismatch: r2: defines table public.t otherwise than r1/);
    expect(await codeOf(setupReplication([nodes[1]!, { ...nodes[0]!, id: 7 }]))).toMatch(/^mesh-mismatch/);
    expect(await on(0).query('select 1 from pg_publication')).toEqual([]);
    expect(await codeOf(setupReplication([nodes[0]!]))).toMatch(/^mesh-too-small/);

    const old = await sharedServer(15);
    await using database = await createDatabase(old, 'mesh15');
    const [node] = parseNodes([{ name: 'old', host: '127.0.0.1', port: old.port, db: database.name, user: 'postgres' }]);
    expect(await codeOf(applySchema(node!, sql))).toMatch(/^node-unfit: old: runs PostgreSQL 15\.\d+.*needs 16 or newer/);
  });

  it('a statement that fails leaves the node as it was', async () => {
    const { nodes, on } = await twoNodes('f');
    expect(await codeOf(applySchema(nodes[0]!, `${generateSql(tables)}\nselect 1/0;`))).toMatch(/^schema-failed: .*division by zero/);
    expect(await on(0).query(`select to_regclass('public.t')::text as t, to_regnamespace('_mesh')::text as m`)).toEqual([{ t: null, m: null }]);
    // Where the second node fails, the message says how to go on with it alone.
    await on(1).run('create table t (x int)');
    const failed = await applySchemaToAll(nodes, sqlFile()).catch((e: { hint?: string }) => e.hint);
    expect(failed).toContain('f1 has the schema already: once the cause is gone, run pgweave mesh apply-schema --node f2');
    await on(1).run('drop table t');
    expect(await applySchemaToAll(nodes, sqlFile(), { node: 'f2' })).toEqual(['f2']);
  });

  it('a clock that is off', async () => {
    const { nodes } = await twoNodes('k');
    const third: MeshNode = { ...nodes[1]!, name: 'k3', id: 3 };
    // A stand-in for sessions to servers whose clocks we cannot move.
    const offsets: Record<string, number> = { k1: 0, k2: 40, k3: 55_000 };
    const sessions = { of: (n: MeshNode) => ({ one: () => Promise.resolve({ us: BigInt(Date.now() + offsets[n.name]!) * 1000n }) }) } as unknown as NodeSessions;
    expect(await clockFaults(sessions, [...nodes, third], 60_000)).toMatchObject([{ node: 'k3', fault: expect.stringMatching(/^its clock is (54\.9|55\.0) s off/) as string }]);
  });
});

describe('adopt', () => {
  const existing = `create table customer (id bigserial primary key, email text unique, visits int not null default 0); create table note (id bigint generated always as identity primary key, customer_id bigint references customer, body text);
    create table odd (a int, b text, c text generated always as (b || '!') stored, primary key (b, a)); create index on note (customer_id);`;

  it('takes tables over with their rows, sequences apart, counters counting', async () => {
    const { nodes, on } = await twoNodes('a');
    await on(0).run(`${existing} insert into customer (email, visits) values ('x', 5), ('y', 0); insert into note (customer_id, body) values (1, 'hi'); insert into odd values (1, 'k')`);
    await on(1).run(existing.replace('a int, b text', 'b text, a int'));
    expect(await codeOf(adoptTables(nodes))).toMatch(/^adopt-refused: .*keys are drawn from sequences/);
    const dry = await adoptTables(nodes, { interleaveSequences: true, counters: ['customer.visits'], dryRun: true });
    expect(dry.tables).toEqual(['public.customer', 'public.note', 'public.odd']);
    expect(await on(0).query(`select to_regnamespace('_mesh')::text as m`)).toEqual([{ m: null }]);
    await adoptTables(nodes, { interleaveSequences: true, counters: ['customer.visits'] });
    await setupReplication(nodes);
    await waitFor('rows travel', async () => (await on(1).query('select 1 from customer')).length === 2 && (await on(1).query('select 1 from note')).length === 1 && (await on(1).query('select c from odd')).length === 1);
    await on(0).run(`update customer set visits = visits + 1 where email = 'x'; insert into customer (email) values ('from a')`);
    await on(1).run(`update customer set visits = visits + 10 where email = 'x'; insert into customer (email) values ('from b'); insert into note (customer_id, body) values (1, 'there')`);
    expect((await verifyMesh(nodes)).differences).toEqual([]);
    for (const i of [0, 1]) {
      expect(await on(i).query(`select visits from customer where email = 'x'`)).toEqual([{ visits: 16 }]);
      expect(await on(i).query(`select count(distinct id)::int as n from customer`)).toEqual([{ n: 4 }]);
    }
    // Tables come into a running mesh too.
    for (const i of [0, 1]) await on(i).run('create table later (id uuid primary key default gen_random_uuid(), v text)');
    expect((await adoptTables(nodes, {})).tables).toEqual(['public.later']);
    await on(1).run(`insert into later (v) values ('works')`);
    await waitFor('the later table', async () => (await on(0).query('select v from later')).length === 1);
    expect((await repairMesh(nodes)).before.equal).toBe(true);
  });

  it('refuses what a mesh cannot keep, by name', async () => {
    const { nodes, on } = await twoNodes('b');
    const bad = `create table nokey (a int); create table partial (id int primary key, a int); create unique index partial_a on partial (a) where a > 0; create table defer (id int primary key, a int unique deferrable);
      create table expr (id int primary key, a text); create unique index expr_a on expr (lower(a)); create table nulls (id int primary key, a int unique nulls not distinct); create extension if not exists btree_gist; create unlogged table unlogged (id int primary key);`.replace('create extension if not exists btree_gist; ', '');
    for (const i of [0, 1]) await on(i).run(`${bad} create table excl (id int primary key, r int4range, exclude using gist (r with &&)); create table part (id int primary key) partition by range (id)`);
    await on(1).run('create table only_here (id int primary key)');
    const message = await codeOf(adoptTables(nodes));
    for (const part of ['public.nokey: has no primary key', 'unique index partial_a is partial', 'is deferrable', 'expr_a is on an expression', 'NULLS NOT DISTINCT', 'exclusion constraint excl_r_excl', 'unlogged and temporary', 'b2: has table public.only_here, which b1 lacks']) expect(message).toContain(part);
    expect(await codeOf(adoptTables(nodes, { tables: ['part'] }))).toContain('partitioned');
    expect(await codeOf(adoptTables(nodes, { tables: ['nope'] }))).toMatch(/^no-such-table/);
    for (const i of [0, 1]) expect(await on(i).query(`select to_regnamespace('_mesh')::text as m`)).toEqual([{ m: null }]);
  });
});

function sqlFile(): string {
  const path = join(folder, 'generated.sql');
  writeFileSync(path, generateSql(tables));
  return path;
}
