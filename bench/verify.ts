// `npm run bench -- verify [options]` or `npx tsx bench/verify.ts`: verify against the least that any comparison by checksum must do, in one run.
//   --scale 0.1     share of the full size (1: some 1 GB a side, 3.2 million rows)
//   --repeat 3      interleaved repetitions; medians are printed
//   --jobs 1,2      sessions a side
//   --version 15    of both servers
// The limit: `select count(*), sum(hash of the row's text)` over the same tables, on both servers at once, with as many sessions a side. Both servers run here, fsync off.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { parseConninfo } from '../src/pg/conninfo.ts';
import { Session } from '../src/pg/session.ts';
import { startCluster, type Cluster } from '../src/servers/cluster.ts';
import { eachLimited } from '../src/verify/snapshot-pool.ts';

const { values } = parseArgs({ options: { scale: { type: 'string', default: '1' }, repeat: { type: 'string', default: '3' }, jobs: { type: 'string', default: '1,2' }, version: { type: 'string', default: '15' } } });
const scale = Number(values.scale);
const repeat = Number(values.repeat);
const version = Number(values.version) as 14 | 15 | 16 | 17 | 18;
const out = (text: string) => process.stdout.write(`${text}\n`);
const smallTables = 200;

const settings = { shared_buffers: '512MB', max_wal_size: '8GB', autovacuum: 'off', checkpoint_timeout: '30min' };
await using source = await startCluster({ version, settings });
await using target = await startCluster({ version, settings });
const tables = await fill(source);
await fill(target);
const bytes = await sizeOf(source);
out(`PostgreSQL ${version} on both sides, loopback, fsync off, ${cpus().length} cores, Node ${process.version}; ${tables.length} tables, ${Math.round(bytes / 1048576)} MB a side`);
out('jobs      limit     verify   ratio  wanted  peak memory');
for (const jobs of values.jobs.split(',').map(Number)) {
  const limits: number[] = [];
  const ours: { ms: number; peak: number; ok: boolean }[] = [];
  for (let i = 0; i < repeat; i += 1) {
    limits.push(await limit(jobs));
    ours.push(await verifyInChild(jobs));
  }
  if (ours.some((o) => !o.ok)) throw new Error('verify found differences where there are none');
  const a = median(limits);
  const b = median(ours.map((o) => o.ms));
  out(`${String(jobs).padStart(4)}  ${seconds(a)}  ${seconds(b)}  ${(b / a).toFixed(2).padStart(6)}   ≤ 1.5  ${String(Math.round(Math.max(...ours.map((o) => o.peak)) / 1048576)).padStart(8)} MB`);
}
// Scattered differences in the large tables: one more pass over each, and the rows by name.
await using there = await Session.open(parseConninfo(target.uri()), { role: 'bench' });
const changed = await there.execute(`update public.wide set c = c + 1 where id % 1000 = 0`);
const found = await verifyInChild(2);
out(`with ${changed} rows changed in the widest table: ${seconds(found.ms).trim()}, peak ${Math.round(found.peak / 1048576)} MB, ${found.differing} found`);
if (found.differing !== changed) throw new Error('not every seeded difference was found');

async function fill(server: Cluster): Promise<{ name: string; columns: string[] }[]> {
  await using session = await Session.open(parseConninfo(server.uri()), { role: 'bench' });
  await session.query('set search_path = public');
  await session.query(`create table wide (id bigint primary key, a int, b text, c numeric(12,2), d timestamptz, e jsonb, f uuid, g bool, h float8, i text, j date, k bytea)`);
  await session.query(`insert into wide select g, g % 1000, md5(g::text), g * 1.25, '2020-01-01'::timestamptz + g * interval '1 second', jsonb_build_object('a', g, 'b', 'some text'), md5(g::text)::uuid, g % 2 = 0, g / 3.0, 'text of row ' || g, date '2020-01-01' + (g % 1000)::int, decode(md5(g::text), 'hex') from generate_series(1, ${Math.round(2_000_000 * scale)}) g`);
  await session.query(`create table accounts (aid int primary key, bid int, abalance int, filler char(84))`);
  await session.query(`insert into accounts select g, g / 100000, 0, '' from generate_series(1, ${Math.round(1_000_000 * scale)}) g`);
  for (let i = 0; i < smallTables; i += 1) await session.query(`create table small_${i} (id int primary key, v text); insert into small_${i} select g, 'v' || g from generate_series(1, 1000) g`);
  await session.query('vacuum analyze');
  const rows = await session.query<{ name: string; columns: (string | null)[] }>(`select c.relname::text as name, array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 order by a.attnum) as columns from pg_class c where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace order by pg_relation_size(c.oid) desc`);
  return rows.map((r) => ({ name: r.name, columns: r.columns.map(String) }));
}

async function sizeOf(server: Cluster): Promise<number> {
  await using session = await Session.open(parseConninfo(server.uri()), { role: 'bench' });
  return Number((await session.one<{ n: bigint }>('select sum(pg_table_size(oid))::int8 as n from pg_class where relkind = \'r\' and relnamespace = \'public\'::regnamespace')).n);
}

async function limit(jobs: number): Promise<number> {
  const began = performance.now();
  await Promise.all([source, target].map(async (server) => {
    const sessions = await Promise.all(Array.from({ length: jobs }, () => Session.open(parseConninfo(server.uri()), { role: 'bench' })));
    for (const session of sessions) await session.query('set max_parallel_workers_per_gather = 0; set jit = off');
    await eachLimited(tables, jobs, async (table) => {
      const session = sessions.pop()!;
      await session.query(`select count(*), sum(hashtextextended(row(${table.columns.map((c) => `t.${c}`).join(', ')})::text, 0)) from public.${table.name} t`);
      sessions.push(session);
    });
    for (const session of sessions) await session.close();
  }));
  return performance.now() - began;
}

async function verifyInChild(jobs: number): Promise<{ ms: number; peak: number; ok: boolean; differing: number }> {
  const child = fork(fileURLToPath(new URL('support/verify-child.ts', import.meta.url)), [JSON.stringify({ source: source.uri(), target: target.uri(), jobs })], { execArgv: ['--import', import.meta.resolve('tsx')], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [result] = (await once(child, 'message')) as [{ ms: number; peak: number; ok: boolean; differing: number }];
  await once(child, 'exit');
  return result;
}

function median(list: readonly number[]): number {
  return [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]!;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`.padStart(9);
}
