import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, privateServer, waitFor, type Cluster, type TestDatabase } from '../../test/support/servers.ts';
import { addNode } from './add-node.ts';
import { adoptTables } from './adopt.ts';
import { applySchema } from './apply-schema.ts';
import { openNode } from './connect.ts';
import { generateSql } from './generate.ts';
import { maintainAll } from './maintain.ts';
import { parseNodes, type MeshNode } from './nodes.ts';
import { parseSchema, type SchemaInput } from './schema-input.ts';
import { interleaveKeys } from './sequences.ts';
import { setupReplication } from './setup-replication.ts';
import { meshStatus } from './status.ts';
import { verifyMesh } from './verify.ts';

let server: Cluster;

beforeAll(async () => {
  server = await privateServer(18, { settings: { wal_retrieve_retry_interval: `'50ms'`, log_statement: `'all'`, log_min_duration_statement: '0', max_replication_slots: '80', max_active_replication_origins: '80', max_wal_senders: '80', max_worker_processes: '80', max_logical_replication_workers: '60', logical_decoding_work_mem: `'64kB'`, max_prepared_transactions: '4' } });
});
afterAll(async () => {
  await server?.destroy();
});

interface Made {
  readonly nodes: MeshNode[];
  readonly on: (i: number) => TestDatabase;
}

/** Nodes that are databases of one server, empty. */
async function emptyNodes(prefix: string, count = 2, on = server): Promise<Made> {
  const own: TestDatabase[] = [];
  for (let i = 0; i < count; i += 1) own.push(await createDatabase(on, prefix));
  return { nodes: parseNodes(own.map((d, i) => ({ name: `${prefix}${i + 1}`, host: '127.0.0.1', port: on.port, db: d.name, user: 'postgres', password: 'sesame 1' }))), on: (i) => own[i]! };
}

async function generated(prefix: string, schema: SchemaInput, server?: Cluster): Promise<Made> {
  const made = await emptyNodes(prefix, 2, server);
  for (const node of made.nodes) await applySchema(node, generateSql(parseSchema(schema)));
  await setupReplication(made.nodes);
  return made;
}

const codeOf = (work: Promise<unknown>) => work.then(() => 'done', (e: { code?: string; message: string }) => `${e.code}: ${e.message}`);
const int = { data_type: 'int' };
const plain: SchemaInput = { t: { columns: { id: int, v: { data_type: 'text' } }, constraints: { primary: ['id'] } } };

describe('rights', () => {
  it('a writer\'s own types and operators never run with the rights of the mesh', async () => {
    const { on } = await generated('evil', { c: { columns: { a: int, b: { data_type: 'text' }, n: int }, constraints: { primary: ['a', 'b'], checks: ['a > 0'] }, crdt: { columns: { n: { type: 'pn_counter' } } } }, r: plain['t']! });
    await on(0).run(`create role mesh_evil; grant select, insert, update, delete, truncate on c, r to mesh_evil; create schema evil authorization mesh_evil; create table public.ran (who text); grant insert on public.ran to mesh_evil;
      set role mesh_evil;
      create function evil.spy() returns boolean language plpgsql as $$ begin if current_user <> 'mesh_evil' then insert into public.ran values (current_user); end if; return true; end $$;
      create domain evil.text as pg_catalog.text check (evil.spy()); create domain evil.jsonb as pg_catalog.jsonb check (evil.spy()); create domain evil.int8 as pg_catalog.int8 check (evil.spy());
      create function evil.eq(int, int) returns boolean language sql as 'select evil.spy() and $1 operator(pg_catalog.=) $2'; create operator evil.= (leftarg = int, rightarg = int, procedure = evil.eq)`);
    await on(0).run(`set role mesh_evil; set search_path = evil, pg_catalog, public;
      insert into c (a, b, n) values (1, 'x', 1), (2, 'y', 1); update c set n = n + 1; update c set a = a + 10; delete from c; truncate c;
      insert into r (id, v) values (1, 'x'); insert into r (id, v) values (1, 'y') on conflict (id) do update set v = excluded.v; update r set id = 2; delete from r; truncate r`);
    await on(0).run(`set role mesh_evil; set search_path = evil, pg_catalog, public; set default_transaction_isolation = 'repeatable read'; begin; insert into c (a, b, n) values (1, 'x', 1); insert into r (id, v) values (3, 'x'); commit`);
    expect(await on(0).query('select who from ran')).toEqual([]);
  });

  it('no password in the log of a server that logs everything; a new password is carried to the edges', async () => {
    const { nodes, on } = await generated('secret', plain);
    const changed = nodes.map((n) => ({ ...n, password: `it's moonlit`, passwordInFile: `it's moonlit` }));
    await setupReplication(changed.map((n) => ({ ...n, hostForNodes: 'localhost' })));
    const conninfo = async () => (await on(0).query<{ subconninfo: string }>(`select subconninfo from pg_subscription where subname = 'sub_secret1_from_secret2'`))[0]!.subconninfo;
    expect(await conninfo()).toContain(`it\\'s moonlit`);
    expect(await conninfo()).toContain('localhost');
    // Without --host-for-nodes the address stays.
    await setupReplication(nodes);
    expect(await conninfo()).toContain('sesame 1');
    expect(await conninfo()).toContain('localhost');
    await on(1).run(`insert into t values (1, 'still flows')`);
    await waitFor('the row', async () => (await on(0).query('select 1 from t')).length === 1);
    const log = readFileSync(server.logFile, 'utf8');
    expect(['create publication', 'sesame 1', 'moonlit'].map((text) => log.includes(text))).toEqual([true, false, false]);
  });
});

describe('settings of servers and databases do not change what the merge does', () => {
  it('apply workers read what is committed, without a lock timeout, whatever the database says', async () => {
    const { nodes, on } = await generated('iso', plain);
    for (const i of [0, 1]) await on(i).run(`alter database ${on(i).name} set default_transaction_isolation = 'serializable'; alter database ${on(i).name} set lock_timeout = '1ms'; alter database ${on(i).name} set default_transaction_read_only = on; alter database ${on(i).name} set datestyle = 'SQL, DMY'`);
    await on(1).run(`set default_transaction_read_only = off; commit; create table seen (what text); create function see() returns trigger language plpgsql as $$ begin insert into public.seen values (current_setting('transaction_isolation') || ' ' || current_setting('lock_timeout')); return null; end $$;
      create trigger see after insert on t for each row execute function see(); alter table t enable always trigger see`);
    const writable = 'set default_transaction_read_only = off; commit; ';
    await on(1).run(`${writable}alter subscription sub_iso2_from_iso1 disable`);
    await waitFor('the worker has ended', async () => (await on(1).query(`select 1 from pg_stat_subscription where subname = 'sub_iso2_from_iso1' and pid is not null`)).length === 0);
    await on(1).run(`${writable}alter subscription sub_iso2_from_iso1 enable`);
    await on(0).run(`${writable}insert into t values (1, 'x')`);
    expect(await waitFor('the row', async () => { const rows = await on(1).query('select what from seen'); return rows.length > 0 && rows; })).toEqual([{ what: 'read committed 0' }]);
    expect((await verifyMesh(nodes)).equal).toBe(true);
  });

  it('keys of one stamp are ranked alike in all time zones', async () => {
    const { nodes, on } = await emptyNodes('zone');
    for (const i of [0, 1]) await on(i).run('create table z (at timestamptz primary key, email text unique)');
    await on(0).run(`alter database ${on(0).name} set timezone = 'America/New_York'; insert into z values ('2024-11-03 01:30:00-04', 'x')`);
    await on(1).run(`alter database ${on(1).name} set timezone = 'UTC'; insert into z values ('2024-11-03 01:10:00-05', 'x')`);
    await adoptTables(nodes);
    await setupReplication(nodes);
    await waitFor('one of both is hidden everywhere', async () => (await Promise.all([0, 1].map((i) => on(i).query(`select 1 from _mesh.ghost_z where _mesh_kind = 'p'`)))).every((r) => r.length === 1));
    expect((await verifyMesh(nodes)).differences).toEqual([]);
  });

  it('databases of two encodings are refused', async () => {
    const { nodes } = await emptyNodes('enc', 1);
    const latin = await createDatabase(server, 'enclatin', `encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0`);
    const both = [nodes[0]!, parseNodes([{ id: 2, name: 'latin', host: '127.0.0.1', port: server.port, db: latin.name, user: 'postgres' }])[0]!];
    for (const node of both) await applySchema(node, generateSql(parseSchema(plain)));
    expect(await codeOf(setupReplication(both))).toMatch(/^mesh-refused: latin: its database is encoded in LATIN1, that of enc1 in UTF8/);
  });
});

describe('settings of a server', () => {
  it('too few replication origins for the mesh are refused, on 18', async () => {
    await using few = await privateServer(18, { settings: { max_active_replication_origins: '1' } });
    const { nodes } = await emptyNodes('few', 3, few);
    expect(await codeOf(adoptTables(nodes))).toMatch(/few1: max_active_replication_origins = 1, fewer than 2/);
  });
});

describe('local statements', () => {
  it('TRUNCATE is refused under an old snapshot: rows that it cannot see would go here alone', async () => {
    const { nodes, on } = await generated('trunc', plain);
    await on(0).run(`insert into t values (1, 'seen')`);
    const session = await on(0).session();
    await session.query('begin isolation level repeatable read');
    await session.query('select * from t');
    await on(0).run(`insert into t values (2, 'not seen')`);
    await expect(session.query('truncate t')).rejects.toMatchObject({ code: '0A000' });
    await session.query('rollback');
    await on(0).run('truncate t');
    expect((await verifyMesh(nodes)).tables).toMatchObject([{ rows: 0n, differences: 0 }]);
    expect(await on(1).query('select 1 from t')).toEqual([]);
  });

  it('the journal is emptied though there is never a moment without a writer', async () => {
    const { nodes, on } = await generated('busy', plain);
    const stop = { now: false };
    let id = 0;
    const writers = [0, 1, 2].map(async (k) => {
      await using session = await openNode(nodes[0]!);
      await session.query('select pg_sleep($1)', [k * 0.03]);
      while (!stop.now) {
        id += 1;
        await session.query(`begin; insert into t values (${id}, repeat('x', 5000)); select pg_sleep(0.1); commit`);
      }
    });
    try {
      await waitFor('lines', async () => (await on(0).query<{ b: bigint }>(`select pg_relation_size('_mesh.journal') as b`))[0]!.b > 50_000n);
      const low = await waitFor('the journal is emptied', async () => {
        await on(0).run('select _mesh.maintain(1024)');
        return (await on(0).query<{ b: bigint }>(`select pg_relation_size('_mesh.journal') as b`))[0]!.b < 20_000n;
      });
      expect(low).toBe(true);
    } finally {
      stop.now = true;
      await Promise.all(writers);
    }
    expect((await verifyMesh(nodes)).equal).toBe(true);
  });
});

describe('transactions that travel otherwise than most', () => {
  it('large ones that are streamed before they end, with parts rolled back; prepared ones', async () => {
    const { nodes, on } = await generated('big', { ...plain, u: { columns: { id: int, e: { data_type: 'text' } }, constraints: { primary: ['id'], unique: [['e']] } } });
    const session = await on(0).session();
    await session.query(`begin; insert into t select g, repeat('x', 200) from generate_series(1, 4000) g; savepoint s; insert into t select g, 'never' from generate_series(5000, 8000) g; update t set v = 'never'; rollback to s; update t set v = v || 'y' where id % 2 = 0; insert into u select g, 'e' || g from generate_series(1, 500) g; commit`);
    const [streamed] = await waitFor('it was streamed', async () => { const rows = await on(0).query<{ n: bigint }>(`select stream_count as n from pg_stat_replication_slots where slot_name = 'sub_big2_from_big1' and stream_count > 0`); return rows.length > 0 && rows; });
    expect(streamed!.n).toBeGreaterThan(0n);
    await session.query(`begin; insert into t values (9000, 'prepared'); delete from t where id = 1; update u set e = 'moved' where id = 1; prepare transaction 'mesh'`);
    // What is prepared counts as unfinished: its tombstone is not taken for acknowledged.
    for (const i of [0, 1, 0, 1, 0, 1]) await on(i).run('select _mesh.maintain()');
    await on(0).run(`commit prepared 'mesh'`);
    await waitFor('it arrives', async () => (await on(1).query('select 1 from t where id = 9000')).length === 1);
    expect((await verifyMesh(nodes)).differences).toEqual([]);
    expect(await on(1).query(`select count(*)::int as n, count(*) filter (where v ~ 'y$')::int as even, count(*) filter (where v = 'never')::int as never from t`)).toEqual([{ n: 4000, even: 2000, never: 0 }]);
  });
});

describe('adopt', () => {
  it('rows of a table that comes into a running mesh reach the nodes that lack them', async () => {
    const { nodes, on } = await generated('late', plain);
    for (const i of [0, 1]) await on(i).run('create table more (id int primary key, v text)');
    await on(1).run(`insert into more values (1, 'was here')`);
    await adoptTables(nodes);
    await waitFor('the row', async () => (await on(0).query('select 1 from more')).length === 1);
    expect((await verifyMesh(nodes)).equal).toBe(true);
    expect(await codeOf(verifyMesh(nodes, { tables: ['mroe'] }))).toMatch(/^no-such-table: the mesh has no table mroe/);
    // A third node takes tables of both kinds.
    await using third = await createDatabase(server, 'late');
    await third.run('create table more (id int primary key, v text)');
    const all = [...nodes, parseNodes([{ id: 3, name: 'late3', host: '127.0.0.1', port: server.port, db: third.name, user: 'postgres' }])[0]!];
    const base = { method: 'base-backup', donor: 'late1' } as const;
    expect((await addNode(all, 'late3', { ...base, phase: 'prepare' })).state).toBe('prepared');
    // Seeded with the schema, and so without the rows: no clone.
    await using seeded = await createDatabase(server, 'seeded');
    const wrong = [...nodes, { ...all[2]!, db: seeded.name }];
    await applySchema(wrong[2]!, generateSql(parseSchema(plain)));
    expect(await codeOf(addNode(wrong, 'late3', { ...base, phase: 'finish' }))).toMatch(/^not-a-clone: /);
    expect((await addNode(all, 'late3', { sql: generateSql(parseSchema(plain)) })).state).toBe('active');
    expect(await third.query('select v from more')).toEqual([{ v: 'was here' }]);
    expect((await verifyMesh(all)).differences).toEqual([]);
  });

  it('all nodes or none', async () => {
    const { nodes, on } = await emptyNodes('none');
    for (const i of [0, 1]) await on(i).run('create table t (id int primary key)');
    await on(1).run(`create function stop() returns event_trigger language plpgsql as $$ begin if tg_tag = 'CREATE SCHEMA' then raise 'not today'; end if; end $$; create event trigger stop on ddl_command_start execute function stop()`);
    expect(await codeOf(adoptTables(nodes))).toMatch(/^schema-failed: the tables of node none2 cannot be adopted: .*not today/);
    for (const i of [0, 1]) expect(await on(i).query(`select to_regnamespace('_mesh')::text as m, (select count(*)::int from pg_attribute where attrelid = 't'::regclass and attnum > 0) as columns`)).toEqual([{ m: null, columns: 1 }]);
  });

  it('refuses counters that may be NULL, triggers that would change rows unseen, sequences that would soon end', async () => {
    const { nodes, on } = await emptyNodes('faults');
    for (const i of [0, 1]) {
      await on(i).run(`create table t (id smallserial primary key, n int); create function f() returns trigger language plpgsql as 'begin return new; end';
        create trigger zzzz before update on t for each row execute function f(); create trigger a_always before insert on t for each row execute function f(); alter table t enable always trigger a_always;
        create trigger fine before insert on t for each row execute function f()`);
    }
    const message = await codeOf(adoptTables(nodes, { counters: ['t.n'], interleaveSequences: true }));
    for (const part of ['counter n may be NULL', 'trigger zzzz fires after', 'trigger a_always fires before rows of other nodes', 'sequence t_id_seq has room for 63 more']) expect(message).toContain(part);
    expect(message).not.toContain('trigger fine');
  });

  it('a node joins a mesh of adopted tables, and draws keys of its own', async () => {
    const { nodes, on } = await emptyNodes('own', 3);
    const ddl = `create table a (id bigserial primary key, email text unique, n int not null default 0); create table "B b" (v text, k int primary key)`;
    await on(0).run(ddl);
    await on(1).run(`create table a (n int not null default 0, email text unique, id bigserial primary key); create table "B b" (k int primary key, v text)`);
    await adoptTables(nodes.slice(0, 2), { interleaveSequences: true, counters: ['a.n'] });
    await setupReplication(nodes.slice(0, 2));
    await on(0).run(`insert into a (email) values ('one'); insert into "B b" values ('v', 1)`);
    expect(await codeOf(addNode(nodes, 'own3'))).toMatch(/^no-schema: node own3 has no table public.B b, public.a, which the mesh has/);
    await on(2).run(`create table a (id bigserial primary key, email text, n int not null default 0); create table "B b" (v text, k int primary key)`);
    expect(await codeOf(addNode(nodes, 'own3'))).toMatch(/^adopt-refused: own3: defines public.a otherwise/);
    expect(await on(2).query(`select to_regnamespace('_mesh')::text as m`)).toEqual([{ m: null }]);
    await on(2).run(`drop table a, "B b"; ${ddl}`);
    expect((await addNode(nodes, 'own3', { donor: 'own2' })).state).toBe('active');
    // The donor may not have had it when it was copied: then it comes from its own node.
    await waitFor('the first row', async () => (await on(2).query('select 1 from a')).length === 1);
    await on(2).run(`insert into a (email) values ('three'); update a set n = n + 1`);
    await waitFor('its rows', async () => (await on(1).query('select 1 from a where n = 1')).length === 2);
    await waitFor('its row at the third', async () => (await on(0).query('select 1 from a where n = 1')).length === 2);
    expect(await on(0).query<{ r: number }>('select (id % 512)::int as r from a order by email')).toEqual([{ r: 1 }, { r: 3 }]);
    expect((await verifyMesh(nodes)).differences).toEqual([]);
    // A clone has the sequences of its donor, where they stood.
    await using clone = await openNode(nodes[0]!);
    await interleaveKeys(clone, clone, 9);
    expect(await clone.query(`select (nextval('a_id_seq') % 512)::int as r`)).toEqual([{ r: 9 }]);
  });
});

describe('status says', () => {
  it('what was forgotten, or changed about tables, or left behind', async () => {
    const { nodes, on } = await generated('says', { ...plain, u: { columns: { id: int, e: { data_type: 'text' } }, constraints: { primary: ['id'], unique: [['e']] } } });
    await maintainAll(nodes);
    const issues = async () => (await meshStatus(nodes)).issues.map((i) => `${i.node}: ${i.issue}`);
    await waitFor('healthy', async () => (await issues()).length === 0);
    await on(0).run(`update _mesh.node set seen_at = now() - interval '1 hour' where name = 'says1'; alter table t add column more int; alter table u disable trigger zzz_mesh_stamp`);
    await on(1).run(`update _mesh.node set seen_at = null where name = 'says2'`);
    await on(1).run(`select pg_create_logical_replication_slot('sub_gone_from_says2', 'pgoutput')`);
    expect(await issues()).toEqual([
      'says1: no housekeeping for 60 minutes: tombstones and journal grow', 'says1: table public.t: column more was added since and does not travel', `says1: table public.u: the mesh's trigger zzz_mesh_stamp is off or gone: writes go past the mesh`,
      'says2: no housekeeping has ever run: tombstones and journal grow', expect.stringMatching(/^says2: slot sub_gone_from_says2 belongs to no node in nodes.json and keeps \d+ MB of WAL/),
    ]);
    await maintainAll(nodes);
    expect((await meshStatus(nodes)).nodes.map((n) => n.maintainedSecondsAgo! < 60)).toEqual([true, true]);
    await on(1).run(`select pg_drop_replication_slot('sub_gone_from_says2')`);
  });

  it('that an edge is stuck, though its worker comes back again and again', async () => {
    const { nodes, on } = await generated('stuck', plain);
    await maintainAll(nodes);
    await waitFor('heard', async () => (await on(1).query(`select 1 from _mesh.node where name = 'stuck1' and seen_at is not null`)).length === 1);
    await on(1).run(`create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$; create trigger no after insert on t for each row execute function no(); alter table t enable always trigger no`);
    await on(0).run(`insert into t values (1, 'x')`);
    await waitFor('errors', async () => (await on(1).query(`select 1 from pg_stat_subscription_stats where subname = 'sub_stuck2_from_stuck1' and apply_error_count > 0`)).length === 1);
    await on(1).run(`update _mesh.node set seen_at = now() - interval '5 minutes' where name = 'stuck1'`);
    await maintainAll(nodes);
    expect((await meshStatus(nodes)).issues.map((i) => `${i.node}: ${i.issue}`)).toContainEqual(expect.stringMatching(/^stuck2: has heard nothing from stuck1 for 30\d s, which spoke \d+ s ago: the edge is stuck or far behind \(\d+ apply errors so far\)/));
    await on(1).run('drop trigger no on t');
    await waitFor('the row', async () => (await on(1).query('select 1 from t')).length === 1);
    await maintainAll(nodes);
    await waitFor('healthy', async () => (await meshStatus(nodes)).healthy);
  });

  it('that a slot has lost its WAL; setup-replication makes it anew and nothing is missing', async () => {
    await using small = await privateServer(17, { settings: { wal_retrieve_retry_interval: `'50ms'`, max_slot_wal_keep_size: `'1MB'`, min_wal_size: `'2MB'` }, initdbArguments: ['--wal-segsize=1'] });
    const { nodes, on } = await generated('lost', plain, small);
    await on(0).run(`insert into t values (1, 'both know')`);
    await waitFor('the row', async () => (await on(1).query('select 1 from t')).length === 1);
    await on(1).run('alter subscription sub_lost2_from_lost1 disable');
    await on(0).run(`insert into t values (2, 'never sent'); delete from t where id = 1`);
    await waitFor('the slot is lost', async () => {
      await on(0).run(`select pg_logical_emit_message(false, 'fill', repeat('x', 900000)); select pg_switch_wal(); checkpoint`);
      return (await on(0).query(`select 1 from pg_replication_slots where slot_name = 'sub_lost2_from_lost1' and wal_status = 'lost'`)).length === 1;
    });
    expect((await meshStatus(nodes)).issues.map((i) => i.issue)).toContain('slot sub_lost2_from_lost1 has lost its WAL');
    await setupReplication(nodes);
    await waitFor('level', async () => JSON.stringify(await on(1).query('select id, v from t')) === JSON.stringify([{ id: 2, v: 'never sent' }]));
    expect((await verifyMesh(nodes)).differences).toEqual([]);
  });
});
