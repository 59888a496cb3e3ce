import { sleep } from '../src/core/abort.ts';
import { applySchema } from '../src/mesh/apply-schema.ts';
import { openNode } from '../src/mesh/connect.ts';
import { generateSql } from '../src/mesh/generate.ts';
import { subscriptionName } from '../src/mesh/names.ts';
import { parseNodes, type MeshNode } from '../src/mesh/nodes.ts';
import { parseSchema } from '../src/mesh/schema-input.ts';
import { setupReplication } from '../src/mesh/setup-replication.ts';
import { verifyMesh } from '../src/mesh/verify.ts';
import type { Session } from '../src/pg/session.ts';
import { sqlstate, sqlstateOf } from '../src/pg/sqlstate.ts';
import { startCluster, type Cluster } from '../src/servers/cluster.ts';

/**
 * What a mesh costs. Run with: npx tsx bench/mesh.ts
 * 1. Single-row inserts, single-row updates and hundred-row updates on one node: a plain table, the same table in the mesh, and the usual approach (a
 *    per-row trigger with one locked clock row, on a natively published table). One run, interleaved rounds, fsync on, one writer and four.
 * 2. Convergence: a burst of 10,000 one-row transactions on each of three nodes, and the time from its end until all nodes hold the same rows.
 */
// Short slices, many rounds: what else a machine does falls on all three alike.
const seconds = Number(process.env['MESH_BENCH_SECONDS'] ?? 0.4);
const rounds = Number(process.env['MESH_BENCH_ROUNDS'] ?? 20);
const burst = Number(process.env['MESH_BENCH_BURST'] ?? 10_000);
const rows = 20_000;

/** `off` shows what the triggers themselves cost, where commits are free. */
const fsync = process.env['MESH_BENCH_FSYNC'] === 'off' ? 'off' : 'on';
const durable = { fsync, synchronous_commit: fsync, full_page_writes: fsync, shared_buffers: "'256MB'", max_wal_size: "'4GB'", wal_retrieve_retry_interval: "'200ms'" };

const tables = parseSchema({ account: { columns: { id: { data_type: 'bigint' }, branch: { data_type: 'int' }, balance: { data_type: 'bigint' }, filler: { data_type: 'text' } }, constraints: { primary: ['id'] } } });

/** The same columns, without and with what the usual approach adds. */
const rivals = `
create table plain (id bigint primary key, branch int, balance bigint, filler text, updated_at timestamptz not null default now(), origin_node text);
create table usual (id bigint primary key, branch int, balance bigint, filler text, updated_at timestamptz not null default now(), origin_node text, hlc_time bigint, hlc_counter int, hlc_node text);
alter table usual replica identity full;
create table usual_clock (one int primary key, t bigint not null, c int not null);
insert into usual_clock values (1, 0, 0);
create function usual_stamp() returns trigger language plpgsql as $$
declare now_us bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint; at bigint; n int;
begin
  update usual_clock set t = greatest(t, now_us), c = case when now_us > t then 0 else c + 1 end where one = 1 returning t, c into at, n;
  new.hlc_time := at; new.hlc_counter := n; new.hlc_node := 'n1'; new.updated_at := now(); new.origin_node := 'n1';
  return new;
end $$;
create function usual_resolve() returns trigger language plpgsql as $$
begin
  if (new.hlc_time, new.hlc_counter, new.hlc_node) < (old.hlc_time, old.hlc_counter, old.hlc_node) then return null; end if;
  return new;
end $$;
create trigger a_stamp before insert or update on usual for each row execute function usual_stamp();
create trigger z_resolve before update on usual for each row execute function usual_resolve();
alter table usual enable always trigger z_resolve;
create publication usual_pub for table usual;`;

type Work = (session: Session, table: string, next: () => number) => Promise<unknown>;
const works: Readonly<Record<string, Work>> = {
  'insert, one row': (s, table, next) => s.query({ text: `insert into ${table} (id, branch, balance, filler) values ($1, 1, 0, 'filler text of some length, as pgbench has it')`, values: [String(next())] }),
  'update, one row': (s, table) => s.query({ text: `update ${table} set balance = balance + 1 where id = $1`, values: [String(1 + Math.floor(Math.random() * rows))] }),
  'update, hundred rows': (s, table) => {
    const from = 1 + Math.floor(Math.random() * (rows - 100));
    return s.query({ text: `update ${table} set balance = balance + 1 where id between $1 and $2`, values: [String(from), String(from + 99)] });
  },
};

/** Statements of one slice, and the seconds it took. */
async function slice(sessions: readonly Session[], work: Work, table: string, next: () => number): Promise<{ done: number; took: number }> {
  const start = performance.now();
  const end = start + seconds * 1000;
  let done = 0;
  await Promise.all(sessions.map(async (session) => {
    do {
      try {
        await work(session, table, next);
        done += 1;
      } catch (error) {
        // Hundred-row updates of several writers may meet in a deadlock, on any of the three tables: it counts as nothing done.
        if (sqlstateOf(error) !== sqlstate.deadlockDetected) throw error;
      }
    } while (performance.now() < end);
  }));
  return { done, took: (performance.now() - start) / 1000 };
}

const say = (line: string) => void process.stdout.write(`${line}\n`);

async function makeNodes(count: number): Promise<{ nodes: MeshNode[]; clusters: Cluster[] }> {
  const clusters: Cluster[] = [];
  for (let i = 0; i < count; i += 1) clusters.push(await startCluster({ version: 18, template: true, settings: durable }));
  const nodes = parseNodes(clusters.map((c, i) => ({ name: `n${i + 1}`, host: '127.0.0.1', port: c.port, db: 'postgres', user: 'postgres' })));
  for (const node of nodes) await applySchema(node, generateSql(tables));
  return { nodes, clusters };
}

async function writeRates(): Promise<void> {
  const { nodes, clusters } = await makeNodes(1);
  const [node] = nodes as [MeshNode];
  try {
    await using session = await openNode(node);
    await session.query(rivals);
    for (const table of ['plain', 'account', 'usual']) await session.query(`insert into ${table} (id, branch, balance, filler) select g, 1, 0, 'filler text of some length, as pgbench has it' from generate_series(1, ${rows}) g`);
    await session.query('vacuum analyze');
    say(`Writes on one node, fsync ${fsync}, PostgreSQL 18, ${rounds} interleaved slices of ${seconds} s; statements a second, and the share of the plain rate`);
    say('| statement | writers | plain | mesh | share | usual approach | share |\n|---|---|---|---|---|---|---|');
    let key = 1_000_000_000;
    const next = () => (key += 1);
    for (const writers of [1, 4]) {
      const sessions = await Promise.all(Array.from({ length: writers }, () => openNode(node)));
      for (const [name, work] of Object.entries(works)) {
        const got = { plain: { done: 0, took: 0 }, account: { done: 0, took: 0 }, usual: { done: 0, took: 0 } };
        for (let round = 0; round <= rounds; round += 1) {
          for (const table of ['plain', 'account', 'usual'] as const) {
            const { done, took } = await slice(sessions, work, table, next);
            // The first round fills caches and plans.
            if (round > 0) got[table] = { done: got[table].done + done, took: got[table].took + took };
          }
        }
        const rate = (table: keyof typeof got) => got[table].done / got[table].took;
        const share = (table: keyof typeof got) => (rate(table) / rate('plain')).toFixed(2);
        say(`| ${name} | ${writers} | ${rate('plain').toFixed(0)} | ${rate('account').toFixed(0)} | ${share('account')} | ${rate('usual').toFixed(0)} | ${share('usual')} |`);
      }
      for (const open of sessions) await open.close();
    }
  } finally {
    for (const cluster of clusters) await cluster.destroy();
  }
}

async function convergence(): Promise<void> {
  const { nodes, clusters } = await makeNodes(3);
  try {
    await setupReplication(nodes);
    const start = performance.now();
    await Promise.all(nodes.map(async (node, n) => {
      const sessions = await Promise.all(Array.from({ length: 4 }, () => openNode(node)));
      await Promise.all(sessions.map(async (session, k) => {
        for (let i = k; i < burst; i += sessions.length) {
          // Half the keys are shared by all nodes, so half the writes are conflicts.
          const id = i % 2 === 0 ? i : (n + 1) * 1_000_000 + i;
          await session.query({ text: `insert into account (id, branch, balance, filler) values ($1, $2, $3, 'x') on conflict (id) do update set balance = excluded.balance, branch = excluded.branch`, values: [String(id), String(n), String(i)] });
        }
        await session.close();
      }));
    }));
    const written = performance.now();
    for (const node of nodes) {
      await using session = await openNode(node);
      const { lsn } = await session.one<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
      await session.query(`select pg_logical_emit_message(true, 'end', '')`);
      const slots = nodes.filter((n) => n !== node).map((n) => subscriptionName(n.name, node.name));
      for (;;) {
        const [row] = await session.query<{ n: number }>('select count(*)::int as n from pg_replication_slots where slot_name = any ($1) and confirmed_flush_lsn >= $2::pg_lsn', [slots, lsn]);
        if (row!.n === slots.length) break;
        await sleep(20);
      }
    }
    const level = performance.now();
    const { equal, tables: counted } = await verifyMesh(nodes);
    say(`\nConvergence: ${burst.toLocaleString('en-US')} one-row transactions on each of three nodes (half of them conflicts), fsync ${fsync}`);
    // Both times: what the nodes need while writers are busy, and what is left to do once these have ended.
    say(`first commit to all nodes level: ${((level - start) / 1000).toFixed(1)} s, of which writing took ${((written - start) / 1000).toFixed(1)} s and catching up, after the last commit, ${((level - written) / 1000).toFixed(1)} s; ${counted[0]!.rows} rows, ${equal ? 'equal on all nodes' : 'DIFFERENT'}`);
    if (!equal) process.exitCode = 1;
  } finally {
    for (const cluster of clusters) await cluster.destroy();
  }
}

await writeRates();
await convergence();
