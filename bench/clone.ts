// `npm run bench -- clone [options]`: a whole database copied by pgweave and by others, interleaved, and one big table against a pipe of two psql.
//   --size 1GB     of the data without indexes (default 1GB)
//   --repeat 3     interleaved repetitions; medians are printed
//   --jobs 2       parallel copies and index builds, the same number for everybody; several, separated by commas, are measured one after the other
//   --big-only     only the one big table
// Needs PostgreSQL's client programs (psql, pg_dump, pg_restore), and pgcopydb for its row. The servers are PostgreSQL 15 from npm, in /dev/shm where it is there, fsync off.
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { CopyLedger } from '../src/copy/copy-ledger.ts';
import { copyTables } from '../src/copy/copy-tables.ts';
import { openSnapshot } from '../src/copy/snapshot.ts';
import { fitToTarget, planCopy } from '../src/copy/table-plan.ts';
import { sleep } from '../src/core/abort.ts';
import { formatBytes, parseSize } from '../src/core/units.ts';
import { parseConninfo } from '../src/pg/conninfo.ts';
import { Session } from '../src/pg/session.ts';
import { startCluster } from '../src/servers/cluster.ts';
import { countCpu, type CpuSeconds } from './support/cpu.ts';

const { values } = parseArgs({ options: { size: { type: 'string', default: '1GB' }, repeat: { type: 'string', default: '3' }, jobs: { type: 'string', default: '2' }, 'big-only': { type: 'boolean', default: false } } });
const size = parseSize(values.size);
const repeat = Number(values.repeat);
const jobsList = values.jobs.split(',').map(Number);
const main = join(import.meta.dirname, '../dist/cli/main.js');
const run = promisify(execFile);
const out = (text: string) => process.stdout.write(`${text}\n`);
const median = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;

const parent = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'pgweave-bench-'));
await run('chmod', ['755', parent]);
const settings = { shared_buffers: "'256MB'", maintenance_work_mem: "'256MB'", max_wal_size: "'8GB'", checkpoint_timeout: "'30min'", max_sync_workers_per_subscription: String(Math.max(...jobsList)) };
const source = await startCluster({ version: 15, parent, settings });
const target = await startCluster({ version: 15, parent, settings });

async function on<T>(uri: string, work: (session: Session) => Promise<T>): Promise<T> {
  await using session = await Session.open(parseConninfo(uri), { role: 'bench' });
  await session.query('set search_path = public');
  return await work(session);
}

/** Accounts as pgbench has them (40 %), a wide table (50 %), 200 small ones (10 %). */
async function fill(): Promise<void> {
  await on(source.uri(), (s) => s.query('create database bench'));
  await on(source.uri('bench'), async (s) => {
    await s.query('create table accounts (aid int primary key, bid int, abalance int, filler char(84)); create table branches (bid int primary key, balance int); create table tellers (tid int primary key, bid int, balance int)');
    await s.query(`insert into accounts select i, i / 100000, i % 977, '' from generate_series(1, ${Math.round((size * 0.4) / 130)}) i; insert into branches select i, 0 from generate_series(0, 100) i; insert into tellers select i, i / 10, 0 from generate_series(1, 1000) i`);
    await s.query('create table wide (id bigint primary key, at timestamptz not null, amount numeric(14, 4), ratio float8, name text, doc jsonb, raw bytea, flag bool, day date, n1 int, n2 int)');
    await s.query(`insert into wide select i, '2024-01-01'::timestamptz + i * interval '1 second', i * 1.0731, i / 7.0, 'name ' || md5(i::text), jsonb_build_object('id', i, 'tags', jsonb_build_array('a', i % 10), 'note', md5((i * 3)::text)), decode(md5(i::text) || md5((i + 1)::text), 'hex'), i % 2 = 0, '2024-01-01'::date + (i % 1000)::int, i % 1000, i % 77 from generate_series(1, ${Math.round((size * 0.5) / 330)}) i`);
    await s.query('create index on accounts (bid); create index on wide (at); create index on wide (n1, day); create index on wide (name)');
    for (let t = 0; t < 200; t += 1) await s.query(`create table small_${t} (id int primary key, name text, at timestamptz default now()); insert into small_${t} select i, 'row ' || md5(i::text) from generate_series(1, ${Math.round((size * 0.1) / 200 / 80)}) i; create index on small_${t} (name)`);
    await s.query('vacuum analyze');
  });
}

async function freshTarget(): Promise<string> {
  await on(target.uri(), async (s) => {
    for (const sql of ['drop database if exists bench with (force)', 'create database bench', 'checkpoint']) await s.query(sql);
  });
  return target.uri('bench');
}

/** Number of rows and a checksum of every table: after a run both sides must have the same. */
async function contents(uri: string): Promise<string> {
  return await on(uri, async (s) => {
    const parts: string[] = [];
    for (const table of ['accounts', 'branches', 'tellers', 'wide', 'small_0', 'small_199']) parts.push((await s.one<{ c: string }>(`select '${table} ' || count(*) || ' ' || sum(pg_catalog.hashtextextended(t::text, 1)) as c from (select * from ${table} offset 0) t`)).c);
    const { n } = await s.one<{ n: string }>(`select sum(n)::text as n from (${Array.from({ length: 200 }, (_, t) => `select count(*) as n from small_${t}`).join(' union all ')}) x`);
    return [...parts, n].join('; ');
  });
}

interface Measured {
  readonly ms: number;
  readonly cpuSeconds?: number;
  readonly peakBytes?: number;
}

async function timed(work: () => Promise<unknown>): Promise<Measured> {
  const began = performance.now();
  await work();
  return { ms: performance.now() - began };
}

/** pgweave as a process of its own; CPU and peak memory are of that process as the kernel counts them, without pg_dump, its child. */
async function pgweave(jobs: number, format: 'auto' | 'text', statistics: 'vacuum' | 'none'): Promise<Measured> {
  const dir = mkdtempSync(join(tmpdir(), 'pgweave-bench-state-'));
  const report = 'data:text/javascript,process.on("exit",()=>process.stderr.write("usage "+JSON.stringify(process.resourceUsage())+"\\n"))';
  const began = performance.now();
  const child = spawn(process.execPath, ['--import', report, main, 'clone', '--source', source.uri('bench'), '--target', target.uri('bench'), '--dir', dir, '--jobs', String(jobs), '--index-jobs', String(jobs), '--copy-format', format, '--statistics', statistics, '--json', '--log-level', 'error'], { stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const code = await new Promise<number | null>((resolve) => {
    child.once('close', resolve);
  });
  const ms = performance.now() - began;
  rmSync(dir, { recursive: true, force: true });
  const usage = /usage (\{.*\})/.exec(errors);
  if (code !== 0 || !usage) throw new Error(`pgweave clone failed: ${errors}`);
  const { userCPUTime, systemCPUTime, maxRSS } = JSON.parse(usage[1]!) as NodeJS.ResourceUsage;
  return { ms, cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, peakBytes: maxRSS * 1024 };
}

const withFolder = async (work: (folder: string) => Promise<unknown>) => {
  const folder = mkdtempSync(join(parent, 'peer-'));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
const quiet = { maxBuffer: 1 << 28 };

function pgcopydb(jobs: number): Promise<Measured> {
  return timed(() => withFolder((folder) => run('pgcopydb', ['clone', '--source', source.uri('bench'), '--target', target.uri('bench'), '--dir', join(folder, 'work'), '--table-jobs', String(jobs), '--index-jobs', String(jobs)], { ...quiet, env: { ...process.env, XDG_DATA_HOME: folder } })));
}

function dumpRestore(jobs: number): Promise<Measured> {
  return timed(() => withFolder(async (folder) => {
    await run('pg_dump', ['-Fd', '-Z0', '-j', String(jobs), '-f', join(folder, 'dump'), '-d', source.uri('bench')], quiet);
    await run('pg_restore', ['-j', String(jobs), '-d', target.uri('bench'), join(folder, 'dump')], quiet);
  }));
}

/** A subscription's own copy into the whole schema, to the moment when every table is in. */
async function native(): Promise<Measured> {
  const { stdout } = await run('pg_dump', ['-s', '-d', source.uri('bench')], quiet);
  await on(source.uri('bench'), (s) => s.query('create publication native for all tables'));
  const measured = await timed(async () => {
    await new Promise<void>((resolve, reject) => {
      const psql = execFile('psql', ['-qX', '-v', 'ON_ERROR_STOP=1', '-d', target.uri('bench')], (error) => (error ? reject(error) : resolve()));
      psql.stdin!.end(stdout);
    });
    await on(target.uri('bench'), async (s) => {
      await s.query(`create subscription native connection 'host=127.0.0.1 port=${source.port} user=postgres dbname=bench' publication native`);
      for (;;) {
        const { left } = await s.one<{ left: number }>(`select count(*)::int as left from pg_catalog.pg_subscription_rel where srsubstate not in ('r', 's')`);
        if (left === 0) break;
        await sleep(50);
      }
    });
  });
  await on(target.uri('bench'), (s) => s.query('drop subscription native'));
  await on(source.uri('bench'), (s) => s.query('drop publication native'));
  return measured;
}

async function wholeDatabase(jobs: number): Promise<void> {
  const has = async (program: string) => run(program, ['--version']).then(() => true, () => false);
  const runners: (readonly [string, () => Promise<Measured>])[] = [
    ['pgweave, binary, vacuum analyze', () => pgweave(jobs, 'auto', 'vacuum')],
    ['pgweave, text, vacuum analyze', () => pgweave(jobs, 'text', 'vacuum')],
    ...((await has('pgcopydb')) ? [['pgcopydb (text, vacuum analyze)', () => pgcopydb(jobs)] as const] : []),
    ['pgweave, binary, no statistics', () => pgweave(jobs, 'auto', 'none')],
    ['pg_dump -Fd -Z0 | pg_restore', () => dumpRestore(jobs)],
    ['native subscription copy', () => native()],
  ];
  const expected = await contents(source.uri('bench'));
  const results = new Map<string, (Measured & { readonly cpu: CpuSeconds })[]>();
  for (let round = 0; round < repeat; round += 1) {
    for (const [name, measure] of runners) {
      const uri = await freshTarget();
      const { result, cpu } = await countCpu(source, target, measure);
      if ((await contents(uri)) !== expected) throw new Error(`${name}: the target does not hold what the source holds`);
      results.set(name, [...(results.get(name) ?? []), { ...result, cpu }]);
    }
  }
  const of = (name: string) => median(results.get(name)!.map((m) => m.ms));
  out(`\nwhole database, ${jobs} jobs, medians of ${repeat}:`);
  for (const [name] of runners) {
    const all = results.get(name)!;
    const own = all[0]!.cpuSeconds === undefined ? '' : `   own CPU ${median(all.map((m) => m.cpuSeconds!)).toFixed(1)} s   peak memory ${formatBytes(Math.max(...all.map((m) => m.peakBytes!)))}`;
    const cpu = (pick: (c: CpuSeconds) => number) => median(all.map((m) => pick(m.cpu)));
    const total = cpu((c) => c.source + c.target + c.tool);
    out(`  ${name.padEnd(34)} ${(of(name) / 1000).toFixed(1).padStart(6)} s   (${all.map((m) => (m.ms / 1000).toFixed(1)).join(' ')})   CPU ${total.toFixed(1)} s: source ${cpu((c) => c.source).toFixed(1)}, target ${cpu((c) => c.target).toFixed(1)}, tool ${cpu((c) => c.tool).toFixed(1)}; ${(total / (of(name) / 1000)).toFixed(2)} cores in use${own}`);
  }
  const ratio = (peer: string, ours: string) => results.has(peer) && out(`  ${peer} takes ${(of(peer) / of(ours)).toFixed(2)} times as long as ${ours}`);
  ratio('pgcopydb (text, vacuum analyze)', 'pgweave, text, vacuum analyze');
  ratio('pgcopydb (text, vacuum analyze)', 'pgweave, binary, vacuum analyze');
  ratio('pg_dump -Fd -Z0 | pg_restore', 'pgweave, binary, no statistics');
  ratio('native subscription copy', 'pgweave, binary, no statistics');
}

/** Rows of one table without indexes: our COPY against `psql | psql`, which is as fast as two servers can be. */
async function bigTable(): Promise<void> {
  const [from, to] = [source.uri('bench'), await freshTarget()];
  await on(to, (s) => s.query('create table wide (id bigint, at timestamptz not null, amount numeric(14, 4), ratio float8, name text, doc jsonb, raw bytea, flag bool, day date, n1 int, n2 int)'));
  const times = new Map<string, number[]>();
  const cpu = new Map<string, number[]>();
  const add = (map: Map<string, number[]>, name: string, value: number) => map.set(name, [...(map.get(name) ?? []), value]);
  for (let round = 0; round < repeat; round += 1) {
    for (const format of ['text', 'binary'] as const) {
      add(times, `psql | psql, ${format}`, (await timed(() => run('bash', ['-c', `set -o pipefail; psql -qX -c "copy public.wide to stdout (format ${format})" "$0" | psql -qX -v ON_ERROR_STOP=1 -c begin -c "truncate public.wide" -c "copy public.wide from stdin (freeze, format ${format})" -c commit "$1"`, from, to]))).ms);
      await using snapshot = await openSnapshot(parseConninfo(from), { job: 'bench' });
      await using session = await Session.open(parseConninfo(to), { role: 'bench' });
      const all = await planCopy(snapshot.session, { splitBytes: 0, format, sameEncoding: true, selection: { choose: (t) => (t.name === 'wide' ? 'copy' : 'skip') } });
      const tables = await fitToTarget(all, session);
      const ledger = await CopyLedger.open(session, `bench${round}${format}`);
      const before = process.cpuUsage();
      const began = performance.now();
      const outcome = await copyTables({
        source: parseConninfo(from), target: parseConninfo(to), job: 'bench', snapshot, ledger, encoding: 'UTF8', targetEncoding: 'UTF8', tables, jobs: 1, signal: new AbortController().signal, copiedSql: () => 'select 1', emit: () => undefined, onCopied: () => undefined,
      });
      add(times, `pgweave, ${format}`, performance.now() - began);
      const { user, system } = process.cpuUsage(before);
      add(cpu, `pgweave, ${format}`, (user + system) / 1e6 / (outcome.bytes / 1e9));
      if (outcome.copied !== 1) throw new Error(`the table was not copied: ${String(outcome.failed[0]?.error)}`);
    }
  }
  out(`\none table, rows only, medians of ${repeat}:`);
  for (const [name, list] of times) out(`  ${name.padEnd(34)} ${(median(list) / 1000).toFixed(2).padStart(6)} s   (${list.map((ms) => (ms / 1000).toFixed(2)).join(' ')})${cpu.has(name) ? `   own CPU ${median(cpu.get(name)!).toFixed(2)} s a GB` : ''}`);
  for (const format of ['text', 'binary']) out(`  pgweave takes ${(median(times.get(`pgweave, ${format}`)!) / median(times.get(`psql | psql, ${format}`)!)).toFixed(2)} times as long as the pipe, ${format}`);
}

try {
  if (!values['big-only'] && !existsSync(main)) throw new Error('run `npm run build` first: the command line is measured as it is installed');
  await fill();
  const { bytes } = await on(source.uri('bench'), (s) => s.one<{ bytes: bigint }>(`select pg_catalog.pg_database_size('bench') as bytes`));
  out(`PostgreSQL 15 on both sides, loopback, ${parent.startsWith('/dev/shm') ? 'data in memory, ' : ''}fsync off; ${cpus().length} cores, load ${loadavg()[0]!.toFixed(1)} at the start; Node ${process.version}; ${formatBytes(Number(bytes))} with indexes, 204 tables`);
  if (!values['big-only']) for (const jobs of jobsList) await wholeDatabase(jobs);
  await bigTable();
  out(`load ${loadavg()[0]!.toFixed(1)} at the end`);
} finally {
  await source.destroy();
  await target.destroy();
  rmSync(parent, { recursive: true, force: true });
}
