// `npm run bench -- dashboard [options]`: what it costs to be watched.
//   --tables 5000    tables in the snapshot
//   --rows 1000000   rows of the copy
//   --repeat 5       interleaved repetitions of the copy, with and without the dashboard; medians are printed
// CPU of this process beside the wall time: the servers take most of the latter, and their noise hides what the dashboard takes.
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { setTimeout as pause } from 'node:timers/promises';
import { JobStatus } from '../src/core/snapshot.ts';
import { formatBytes } from '../src/core/units.ts';
import { parseConninfo } from '../src/pg/conninfo.ts';
import { Session } from '../src/pg/session.ts';
import { ownJob } from '../src/server/job-control.ts';
import type { JobState } from '../src/server/messages.ts';
import { startServer } from '../src/server/server.ts';
import { SnapshotFeed } from '../src/server/snapshot-feed.ts';
import { startCluster } from '../src/servers/cluster.ts';
import { clone } from '../src/workflows/clone.ts';

const { values } = parseArgs({ options: { tables: { type: 'string', default: '5000' }, rows: { type: 'string', default: '1000000' }, repeat: { type: 'string', default: '5' } } });
const tables = Number(values.tables);
const repeat = Number(values.repeat);
const out = (text: string) => process.stdout.write(`${text}\n`);
const median = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;

out(`${cpus().length} cores, Node ${process.version}`);
snapshotCost();
await copyCost();
process.exit(0);

function snapshotCost(): void {
  const status = new JobStatus('bench', 'clone');
  const refs = Array.from({ length: tables }, (_, i) => ({ schema: 'public', name: `table_number_${i}` }));
  status.emit({ type: 'tables-planned', tables: refs.map((ref) => ({ ...ref, bytes: 1e8, rows: 1e6, parts: 1, indexes: 3 })) });
  const state = (): JobState => ({ mode: 'job', running: true, note: null, version: '0', canAct: true, switchover: { status: 'idle', error: null } });
  const feed = new SnapshotFeed(() => status.read(), state);
  feed.refresh();
  const whole: number[] = [];
  const delta: number[] = [];
  let wholeBytes = 0;
  let deltaBytes = 0;
  for (let round = 0; round < 60; round += 1) {
    const { seq } = feed;
    // A hundred tables change between two looks: as many as a busy stream touches in half a second.
    for (let i = 0; i < 100; i += 1) status.emit({ type: 'table-changes', table: refs[(round * 100 + i) % tables]!, inserts: 3, updates: 1, deletes: 0 });
    delta.push(cpuOf(() => {
      feed.refresh();
      deltaBytes = feed.since(seq)!.length;
    }));
    whole.push(cpuOf(() => {
      wholeBytes = feed.since(0)!.length;
    }));
  }
  out(`snapshot of ${tables} tables: look for changes and send them ${median(delta).toFixed(1)} ms, ${formatBytes(deltaBytes)}; the whole for a new client ${median(whole).toFixed(1)} ms, ${formatBytes(wholeBytes)} before compression`);
  const events = 200_000;
  const ms = cpuOf(() => {
    for (let i = 0; i < events; i += 1) status.emit({ type: 'copy-progress', table: refs[i % tables]!, part: 0, bytes: 8192, rows: 10 });
  });
  out(`one event: ${((ms * 1000) / events).toFixed(2)} µs`);
}

/** CPU of this process, milliseconds: others on the machine do not count. */
function cpuOf(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

async function copyCost(): Promise<void> {
  const settings = { shared_buffers: '256MB', max_wal_size: '4GB', autovacuum: 'off', checkpoint_timeout: '30min' };
  await using source = await startCluster({ version: 15, settings });
  await using target = await startCluster({ version: 15, settings });
  const spec = parseConninfo(source.uri('postgres'));
  await using session = await Session.open(spec, { role: 'bench' });
  await session.query(`create table public.big (id bigint, a text, b text); insert into public.big select i, md5(i::text), repeat('x', 100) from generate_series(1, ${Number(values.rows)}) i`);
  for (let i = 0; i < 50; i += 1) await session.query(`create table public.small_${i} as select * from public.big limit 1000`);
  const runs: Record<'alone' | 'watched', { ms: number; cpu: number }[]> = { alone: [], watched: [] };
  for (let i = 0; i < repeat; i += 1) {
    for (const kind of i % 2 === 0 ? (['alone', 'watched'] as const) : (['watched', 'alone'] as const)) {
      await using admin = await Session.open(parseConninfo(target.uri('postgres')), { role: 'bench' });
      const database = `${kind}_${i}`;
      await admin.query(`create database ${database}`);
      runs[kind].push(await copyOnce(spec, parseConninfo(target.uri(database)), kind === 'watched'));
      await admin.query(`drop database ${database} with (force)`);
    }
  }
  for (const [kind, all] of Object.entries(runs)) out(`copy ${kind.padEnd(8)} ${(median(all.map((r) => r.ms)) / 1000).toFixed(2)} s, CPU of pgweave ${(median(all.map((r) => r.cpu)) / 1000).toFixed(2)} s`);
  const ratio = median(runs.watched.map((r, i) => r.ms / runs.alone[i]!.ms));
  out(`watched by a page to alone: wall ${ratio.toFixed(3)}, CPU +${((median(runs.watched.map((r) => r.cpu)) - median(runs.alone.map((r) => r.cpu))) / median(runs.alone.map((r) => r.ms)) * 100).toFixed(1)} % of the run`);
}

async function copyOnce(source: ReturnType<typeof parseConninfo>, target: ReturnType<typeof parseConninfo>, watched: boolean): Promise<{ ms: number; cpu: number }> {
  const status = new JobStatus('bench', 'clone');
  const server = watched ? await startServer({ control: ownJob(() => status.read(), {}, null), port: 0 }) : null;
  const watching = new AbortController();
  // Routes are compiled at their first use: a page that was opened before the copy has paid for that.
  if (server) for (const path of ['changes', 'history']) await fetch(`${server.url}/api/v1/${path}`).then((r) => r.arrayBuffer());
  const clients = server ? [watch(server.url, watching.signal)] : [];
  const cpuBefore = process.cpuUsage();
  const from = performance.now();
  await clone({ source, target, job: 'bench', jobs: 2, roles: false, statistics: 'none', onEvent: status.emit });
  const ms = performance.now() - from;
  const { user, system } = process.cpuUsage(cpuBefore);
  watching.abort();
  await Promise.all(clients);
  await server?.close();
  return { ms, cpu: (user + system) / 1000 };
}

/** What a page asks for: changes twice a second (over HTTP here, which costs more than the WebSocket), history every two seconds. Its own cost is in this process too. */
async function watch(url: string, signal: AbortSignal): Promise<void> {
  let feed = '';
  let seq = 0;
  for (let i = 0; !signal.aborted; i += 1) {
    const answer = await fetch(`${url}/api/v1/changes?feed=${feed}&since=${seq}`, { signal }).catch(() => null);
    if (answer?.status === 200) ({ feed, seq } = (await answer.json()) as { feed: string; seq: number });
    if (i % 4 === 0) await fetch(`${url}/api/v1/history`, { signal }).then((r) => r.arrayBuffer(), () => undefined);
    await pause(500, undefined, { signal }).catch(() => undefined);
  }
}
