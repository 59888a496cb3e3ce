// One source, eight targets: native subscriptions against engine: stream. CPU of the source's walsenders, and the time until all eight are caught up.
//   npm run bench -- fanout [--rows 200000] [--repeats 3]
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { sleep } from '../src/core/abort.ts';
import { parseConninfo } from '../src/pg/conninfo.ts';
import { Session } from '../src/pg/session.ts';
import { startCluster, type Cluster } from '../src/servers/cluster.ts';

const { values } = parseArgs({ options: { rows: { type: 'string', default: '200000' }, repeats: { type: 'string', default: '3' } } });
const rows = Number(values.rows);
const targets = 8;
const say = (text: string) => process.stdout.write(`${text}\n`);
const ticksPerSecond = 100;

/** CPU seconds of a process so far, user and system. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

async function walsenders(source: Session): Promise<number[]> {
  return (await source.query<{ pid: number }>(`select pid from pg_catalog.pg_stat_activity where backend_type = 'walsender'`)).map((r) => r.pid);
}

/** Apply workers, and the sessions of our appliers. */
async function appliers(target: Session): Promise<number[]> {
  return (await target.query<{ pid: number }>(`select pid from pg_catalog.pg_stat_activity where backend_type = 'logical replication worker' or backend_type = 'logical replication apply worker' or (backend_type = 'client backend' and datname like 'bench%' and application_name not like '%bench%')`)).map((r) => r.pid);
}

/** CPU seconds of the walsenders; of them, the service and whoever applies; seconds until all are caught up. */
interface Measured { readonly cpu: number; readonly all: number; readonly seconds: number }

async function measure(engine: 'native' | 'stream', source: Cluster, target: Cluster): Promise<Measured> {
  const admin = async (cluster: Cluster, sql: string, database = 'postgres') => {
    await using session = await Session.open(parseConninfo(cluster.uri(database)), { role: 'bench' });
    await session.query(sql);
  };
  const schema = 'create table public.accounts (id int primary key, balance int not null, filler text)';
  await admin(source, 'create database bench');
  await admin(source, schema, 'bench');
  for (let i = 0; i < targets; i += 1) {
    await admin(target, `create database bench_${i}`);
    await admin(target, schema, `bench_${i}`);
  }
  const config = JSON.stringify({ replication: {
    publication_name: 'bench', engine, source: { uri: source.uri('bench') }, targets: Array.from({ length: targets }, (_, i) => ({ name: `t${i}`, uri: target.uri(`bench_${i}`) })), tables: ['accounts'], settings: { wait_interval_seconds: 0.2, health_port: 0 },
  } });
  const service = fork(fileURLToPath(new URL('./support/fanout-service.ts', import.meta.url)), [config], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  await once(service, 'message');
  await using session = await Session.open(parseConninfo(source.uri('bench')), { role: 'bench' });
  const before = new Map((await walsenders(session)).map((pid) => [pid, cpuSeconds(pid)]));
  await using onTarget = await Session.open(parseConninfo(target.uri('postgres')), { role: 'bench watch' });
  const appliersBefore = new Map((await appliers(onTarget)).map((pid) => [pid, cpuSeconds(pid)]));
  const serviceBefore = cpuSeconds(service.pid!);
  const began = performance.now();
  const step = 1000;
  for (let from = 1; from <= rows; from += step) {
    await session.query(`insert into public.accounts select i, 0, repeat('x', 80) from generate_series(${from}, ${Math.min(rows, from + step - 1)}) i`);
    await session.query(`update public.accounts set balance = balance + 1 where id between ${from} and ${from + step / 2}`);
  }
  await session.query(`insert into public.accounts values (0, 0, 'last')`);
  for (let i = 0; i < targets; i += 1) {
    await using reader = await Session.open(parseConninfo(target.uri(`bench_${i}`)), { role: 'bench' });
    while ((await reader.query('select 1 from public.accounts where id = 0')).length === 0) await sleep(20);
  }
  const seconds = (performance.now() - began) / 1000;
  let cpu = 0;
  for (const pid of await walsenders(session)) cpu += cpuSeconds(pid) - (before.get(pid) ?? 0);
  let all = cpu + cpuSeconds(service.pid!) - serviceBefore;
  for (const pid of await appliers(onTarget)) all += cpuSeconds(pid) - (appliersBefore.get(pid) ?? 0);
  const sums: string[] = [];
  for (let i = 0; i < targets; i += 1) {
    await using reader = await Session.open(parseConninfo(target.uri(`bench_${i}`)), { role: 'bench' });
    sums.push((await reader.one<{ s: string }>('select count(*) || \' \' || sum(balance) as s from public.accounts')).s);
  }
  const want = (await session.one<{ s: string }>('select count(*) || \' \' || sum(balance) as s from public.accounts')).s;
  if (sums.some((s) => s !== want)) throw new Error(`contents differ: ${want} against ${sums.join(', ')}`);
  service.send('stop');
  await once(service, 'exit');
  return { cpu, all, seconds };
}

const median = (list: readonly number[]) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]!;
const state = mkdtempSync(join(tmpdir(), 'pgwbench-'));
process.env['XDG_STATE_HOME'] = state;
const results: Record<'native' | 'stream', Measured[]> = { native: [], stream: [] };
for (let round = 0; round < Number(values.repeats); round += 1) {
  for (const engine of ['native', 'stream'] as const) {
    const [source, target] = await Promise.all([startCluster({ version: 16, template: true }), startCluster({ version: 16, template: true, settings: { max_connections: '200' } })]);
    try {
      const measured = await measure(engine, source, target);
      results[engine].push(measured);
      say(`round ${round + 1}  ${engine.padEnd(6)}  walsender CPU ${measured.cpu.toFixed(2)} s   CPU in all ${measured.all.toFixed(1)} s   all caught up after ${measured.seconds.toFixed(1)} s`);
    } finally {
      await source.destroy();
      await target.destroy();
    }
  }
}
rmSync(state, { recursive: true, force: true });
const cpu = (engine: 'native' | 'stream') => median(results[engine].map((m) => m.cpu));
const all = (engine: 'native' | 'stream') => median(results[engine].map((m) => m.all));
const time = (engine: 'native' | 'stream') => median(results[engine].map((m) => m.seconds));
say(`median of ${values.repeats}: ${rows} inserts and ${Math.round(rows / 2)} updates to ${targets} targets`);
say(`  walsender CPU   native ${cpu('native').toFixed(2)} s   stream ${cpu('stream').toFixed(2)} s   ratio ${(cpu('stream') / cpu('native')).toFixed(2)}`);
say(`  CPU in all      native ${all('native').toFixed(1)} s   stream ${all('stream').toFixed(1)} s   ratio ${(all('stream') / all('native')).toFixed(2)}`);
say(`  caught up       native ${time('native').toFixed(1)} s   stream ${time('stream').toFixed(1)} s   ratio ${(time('stream') / time('native')).toFixed(2)}`);
