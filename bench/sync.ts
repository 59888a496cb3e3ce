// `npm run bench -- sync [options]`: from two servers, one empty, to the moment when every table streams: `clone --sync` against CREATE SUBSCRIPTION with its own copy.
//   --scale 0.2    share of the full size, some 700 MB (default 1)
//   --repeat 3     interleaved repetitions; medians are printed
//   --jobs 2       parallel copies on our side, max_sync_workers_per_subscription on PostgreSQL's
//   --version 16   of both servers
// PostgreSQL is measured in two ways: the whole schema is there first, as its manual has it; and keys and indexes are made by hand once all rows are in, as experts do it
// (one after the other; primary keys stay, since the stream needs them). Making the schema is not counted on its side, and is on ours. Rows are counted after every run.
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { sleep } from '../src/core/abort.ts';
import { parseConninfo } from '../src/pg/conninfo.ts';
import { Session } from '../src/pg/session.ts';
import { embeddedVersions } from '../src/servers/binaries.ts';
import { startCluster } from '../src/servers/cluster.ts';
import { clone } from '../src/workflows/clone.ts';
import { handOverToSubscription } from '../src/workflows/sync.ts';

const { values } = parseArgs({ options: { scale: { type: 'string', default: '1' }, repeat: { type: 'string', default: '3' }, jobs: { type: 'string', default: '2' }, version: { type: 'string', default: '16' } } });
const scale = Number(values.scale);
const repeat = Number(values.repeat);
const jobs = Number(values.jobs);
const version = embeddedVersions.find((v) => v === Number(values.version)) ?? 16;
const out = (text: string) => process.stdout.write(`${text}\n`);

const settings = { shared_buffers: '256MB', maintenance_work_mem: '256MB', max_wal_size: '4GB', checkpoint_timeout: '30min', max_sync_workers_per_subscription: String(jobs) };
await using source = await startCluster({ version, settings });
await using target = await startCluster({ version, settings });

const small = 100;
const tables = `
  create table accounts (id int primary key, branch int not null, balance int not null, filler char(84));
  create table events (id bigint primary key, account int not null, kind text not null, amount numeric(12,2), at timestamptz not null, payload jsonb);
  ${Array.from({ length: small }, (_, i) => `create table small_${i} (id int primary key, name text);`).join(' ')}`;
const indexes = [
  'create index accounts_branch on accounts (branch)', 'create index accounts_balance on accounts (balance)', 'create index events_account on events (account, at)', 'create index events_kind on events (kind)', 'create index events_at on events (at)',
  ...Array.from({ length: small }, (_, i) => `create index small_${i}_name on small_${i} (name)`),
];
const accounts = Math.round(2_500_000 * scale);
const events = Math.round(2_000_000 * scale);

async function run<T>(uri: string, work: (session: Session) => Promise<T>): Promise<T> {
  await using session = await Session.open(parseConninfo(uri), { role: 'bench' });
  await session.query('set search_path = public');
  return await work(session);
}

await run(source.uri(), (s) => s.query('create database bench'));
await run(source.uri('bench'), async (s) => {
  await s.query(tables);
  await s.query(`insert into accounts select i, i % 100, i % 1000, 'x' from generate_series(1, ${accounts}) i`);
  await s.query(`insert into events select i, i % ${accounts}, 'kind ' || i % 20, i / 7.0, timestamptz '2026-01-01' + i * interval '1 second', jsonb_build_object('n', i, 'text', 'some payload of event ' || i) from generate_series(1, ${events}) i`);
  for (let i = 0; i < small; i += 1) await s.query(`insert into small_${i} select n, 'row ' || n from generate_series(1, ${Math.round(2000 * scale)}) n`);
  for (const index of indexes) await s.query(index);
  await s.query('analyze');
});
const { size } = await run(source.uri('bench'), (s) => s.one<{ size: string }>(`select pg_catalog.pg_size_pretty(pg_catalog.pg_database_size('bench')) as size`));
out(`PostgreSQL ${version} on both sides, loopback, fsync off, ${cpus().length} cores, Node ${process.version}; ${size} with indexes, ${small + 2} tables, ${jobs} jobs`);

let counter = 0;

async function withTarget(work: (uri: string, name: string) => Promise<number>): Promise<number> {
  counter += 1;
  const name = `bench_${counter}`;
  await run(target.uri(), (s) => s.query(`create database ${name}`));
  const ms = await work(target.uri(name), name);
  await run(target.uri(name), async (s) => {
    const { n } = await s.one<{ n: bigint }>('select (select count(*) from accounts) + (select count(*) from events) as n');
    if (n !== BigInt(accounts + events)) throw new Error(`${n} rows instead of ${accounts + events}`);
    for (const { subname } of await s.query<{ subname: string }>(`select subname from pg_catalog.pg_subscription b join pg_catalog.pg_database d on d.oid = b.subdbid where d.datname = '${name}'`)) {
      await s.query(`alter subscription ${subname} disable`);
      await s.query(`alter subscription ${subname} set (slot_name = none)`);
      await s.query(`drop subscription ${subname}`);
    }
  });
  await run(target.uri(), (s) => s.query(`drop database ${name} with (force)`));
  await run(source.uri('bench'), async (s) => {
    for (;;) {
      const slots = await s.query<{ slot_name: string; active: boolean }>('select slot_name, active from pg_catalog.pg_replication_slots');
      if (slots.length === 0) break;
      for (const slot of slots) if (!slot.active) await s.query('select pg_catalog.pg_drop_replication_slot($1)', [slot.slot_name]);
      await sleep(50);
    }
    for (const { pubname } of await s.query<{ pubname: string }>('select pubname from pg_catalog.pg_publication')) await s.query(`drop publication ${pubname}`);
    await s.query('checkpoint');
  });
  await run(target.uri(), (s) => s.query('checkpoint'));
  return ms;
}

const native = (indexesFirst: boolean) =>
  withTarget((uri, name) =>
    run(uri, async (s) => {
      await s.query(tables);
      if (indexesFirst) for (const index of indexes) await s.query(index);
      const began = performance.now();
      await run(source.uri('bench'), (from) => from.query(`create publication ${name} for all tables`));
      await s.query(`create subscription ${name} connection 'host=127.0.0.1 port=${source.port} dbname=bench user=postgres' publication ${name} with (binary = true)`);
      for (;;) {
        const { left } = await s.one<{ left: bigint }>(`select count(*) as left from pg_catalog.pg_subscription_rel where srsubstate <> 'r'`);
        if (left === 0n) break;
        await sleep(20);
      }
      if (!indexesFirst) for (const index of indexes) await s.query(index);
      return performance.now() - began;
    }));

const ours = () =>
  withTarget(async (uri, name) => {
    const began = performance.now();
    const ends = { source: parseConninfo(source.uri('bench')), target: parseConninfo(uri), job: name };
    await clone({ ...ends, mode: 'sync', jobs, indexJobs: jobs, roles: false, statistics: 'none', onEvent: (e) => { if (process.env['BENCH_VERBOSE'] && e.type === 'phase') out(`  ${((performance.now() - began) / 1000).toFixed(2)} s ${e.phase}`); } });
    if (process.env['BENCH_VERBOSE']) out(`  ${((performance.now() - began) / 1000).toFixed(2)} s copied`);
    const { tables: there } = await handOverToSubscription(ends);
    if (there.some((t) => t.state !== 'r')) throw new Error('a table does not stream');
    return performance.now() - began;
  });

const runs: { native: number; after: number; ours: number }[] = [];
for (let i = 0; i < repeat; i += 1) {
  const one = { native: await native(true), after: await native(false), ours: await ours() };
  if (process.env['BENCH_VERBOSE']) out(`  ${JSON.stringify(one)}`);
  runs.push(one);
}
const median = (pick: (r: (typeof runs)[number]) => number) => runs.map(pick).sort((a, b) => a - b)[Math.floor(runs.length / 2)]!;
const line = (what: string, ms: number) => out(`${what.padEnd(52)} ${(ms / 1000).toFixed(2).padStart(8)} s   ${(ms / median((r) => r.ours)).toFixed(2).padStart(5)}`);
out('');
line('pgweave clone --sync', median((r) => r.ours));
line('CREATE SUBSCRIPTION, the whole schema first', median((r) => r.native));
line('CREATE SUBSCRIPTION, indexes by hand afterwards', median((r) => r.after));
