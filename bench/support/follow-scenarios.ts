import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ensureChangesSchema } from '../../src/changes/target-schema.ts';
import { planTables, recordTableEvent } from '../../src/changes/table-states.ts';
import { sleep } from '../../src/core/abort.ts';
import { parseConninfo } from '../../src/pg/conninfo.ts';
import { parseLsn } from '../../src/pg/lsn.ts';
import { ReplicationSession } from '../../src/pg/replication-session.ts';
import { Session } from '../../src/pg/session.ts';
import type { Cluster } from '../../src/servers/cluster.ts';

export interface Scenario {
  /** How many times as fast as native it is meant to be; undefined: it is there for its memory. */
  readonly goal: number | undefined;
  readonly schema: string;
  /** Fills the tables before the slots are made; the target starts with the same rows. */
  fill(scale: number): string;
  /** The backlog. */
  load(session: Session, scale: number): Promise<void>;
  readonly tables: readonly string[];
}

export interface Outcome {
  /** A subscription as CREATE SUBSCRIPTION makes it, with `streaming = on`, and with `binary = true`. */
  readonly nativeMs: number;
  readonly nativeStreamingMs: number;
  readonly nativeBinaryMs: number;
  readonly ourMs: number;
  readonly peakBytes: number;
  /** CPU time of all processes that take part, ms: walsender, apply worker or backend, follower. What a loaded machine leaves comparable. */
  readonly nativeCpuMs: number;
  readonly ourCpuMs: number;
  /** The same, one by one, for a closer look. */
  readonly cpu: string;
}

async function inTransactions(session: Session, transactions: number, statement: (i: number) => string): Promise<void> {
  // Many transactions a round trip: a simple query of several explicit transactions.
  const per = 50;
  for (let i = 0; i < transactions; i += per) {
    let text = '';
    for (let k = i; k < Math.min(transactions, i + per); k += 1) text += `begin; ${statement(k)}; commit; `;
    await session.query(text);
  }
}

export const scenarios: Readonly<Record<string, Scenario>> = {
  inserts: {
    goal: 1.1, tables: ['t'],
    schema: 'create table t (id int primary key, a int, b bigint, c text, d timestamptz default now())',
    fill: () => 'select 1',
    load: (session, scale) => inTransactions(session, Math.round(1000 * scale), (i) => `insert into t select g, g % 100, g * 7::bigint, 'some text of row ' || g from generate_series(${i * 1000 + 1}, ${(i + 1) * 1000}) g`),
  },
  updates: {
    goal: 1.3, tables: ['t'],
    schema: 'create table t (id int primary key, a int, b bigint, c text, d timestamptz default now())',
    fill: (scale) => `insert into t select g, 0, 0, 'some text of row ' || g from generate_series(1, ${Math.round(125_000 * scale)}) g`,
    load: (session) => inTransactions(session, 4, (i) => `update t set a = ${i} + 1, b = id * ${i}::bigint`),
  },
  'many-updates': {
    goal: 1.3, tables: ['t'],
    schema: 'create table t (id int primary key, a int, b bigint, c text, d timestamptz default now())',
    fill: (scale) => `insert into t select g, 0, 0, 'some text of row ' || g from generate_series(1, ${Math.round(500_000 * scale)}) g`,
    load: (session, scale) => inTransactions(session, Math.round(500 * scale), (i) => `update t set a = ${i} where id > ${i * 1000} and id <= ${(i + 1) * 1000}`),
  },
  tpcb: {
    goal: 2, tables: ['branches', 'tellers', 'accounts', 'history'],
    schema: `create table branches (bid int primary key, balance int, filler char(88)) with (fillfactor = 90); create table tellers (tid int primary key, bid int, balance int, filler char(84)) with (fillfactor = 90);
      create table accounts (aid int primary key, bid int, balance int, filler char(84)) with (fillfactor = 90); create table history (hid bigint primary key, tid int, bid int, aid int, delta int, mtime timestamp)`,
    fill: (scale) => `insert into branches select g, 0, '' from generate_series(1, 5) g; insert into tellers select g, (g - 1) / 10 + 1, 0, '' from generate_series(1, 50) g;
      insert into accounts select g, (g - 1) / 100000 + 1, 0, '' from generate_series(1, ${Math.round(500_000 * scale)}) g`,
    load: (session, scale) => {
      let seed = 42;
      const random = (below: number) => {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
        return 1 + (seed % below);
      };
      return inTransactions(session, Math.round(100_000 * scale), (i) => {
        const aid = random(Math.round(500_000 * scale));
        const tid = random(50);
        const bid = random(5);
        const delta = random(10_000) - 5000;
        return `update accounts set balance = balance + ${delta} where aid = ${aid}; update tellers set balance = balance + ${delta} where tid = ${tid}; update branches set balance = balance + ${delta} where bid = ${bid}; insert into history values (${i}, ${tid}, ${bid}, ${aid}, ${delta}, now())`;
      });
    },
  },
  'one-transaction': {
    goal: undefined, tables: ['t'],
    schema: 'create table t (id int primary key, a int, c text)',
    fill: () => 'select 1',
    load: async (session, scale) => {
      await session.query(`insert into t select g, g % 100, 'some text of row ' || g from generate_series(1, ${Math.round(5_000_000 * scale)}) g`);
    },
  },
  'unique-keys': {
    goal: 1, tables: ['t'],
    schema: 'create table t (id int primary key, email text unique, code bigint unique, a int, note text)',
    fill: (scale) => `insert into t select g, 'user' || g || '@example.org', g * 10, 0, 'note ' || g from generate_series(1, ${Math.round(200_000 * scale)}) g`,
    load: async (session, scale) => {
      const base = Math.round(200_000 * scale);
      // 1,000 rows a transaction: 400 inserted, 400 updated (a unique value among them), 200 deleted.
      await inTransactions(session, Math.round(1000 * scale), (i) => `insert into t select ${base} + ${i} * 400 + g, 'new' || ${i} || '.' || g, (${base} + ${i} * 400 + g) * 10::bigint, 0, 'x' from generate_series(1, 400) g;
        update t set a = a + 1, email = 'changed${i}.' || id where id > ${(i * 131) % (base - 500)} and id <= ${(i * 131) % (base - 500)} + 400;
        delete from t where id > ${base} + ${i} * 400 and id <= ${base} + ${i} * 400 + 200`);
    },
  },
};

const follower = fileURLToPath(new URL('follow-child.ts', import.meta.url));
let runs = 0;

/** One backlog, applied by native replication in three forms and by us, each into a database of its own; who begins changes with every run. */
export async function runScenario(source: Cluster, target: Cluster, scenario: Scenario, scale: number): Promise<Outcome> {
  runs += 1;
  const name = `bench${runs}`;
  await using sourceAdmin = await Session.open(parseConninfo(source.uri()), { role: 'bench' });
  await using targetAdmin = await Session.open(parseConninfo(target.uri()), { role: 'bench' });
  await sourceAdmin.query(`create database ${name}`);
  const sinks = ['native', 'streaming', 'binary', 'ours'].map((kind) => `${name}_${kind}`);
  const from = parseConninfo(source.uri(name));
  const session = await Session.open(from, { role: 'bench' });
  await session.query('set search_path = public');
  await session.query(`${scenario.schema}; create table bench_end (id int primary key)`);
  await session.query(scenario.fill(scale));
  for (const sink of sinks) {
    await targetAdmin.query(`create database ${sink}`);
    await using there = await Session.open(parseConninfo(target.uri(sink)), { role: 'bench' });
    await there.query('set search_path = public');
    await there.query(`${scenario.schema}; create table bench_end (id int primary key)`);
    await there.query(scenario.fill(scale));
    await there.query('vacuum analyze');
  }
  await session.query(`create publication bench for all tables`);
  const replication = await ReplicationSession.open(from, { role: 'bench' });
  for (const sink of sinks) await replication.createLogicalSlot({ name: sink });
  await replication.close();
  await scenario.load(session, scale);
  await session.query('insert into bench_end values (1)');
  await sourceAdmin.query('checkpoint');
  await targetAdmin.query('checkpoint');
  const expected = await contents(session, scenario.tables);

  const subscribe = async (sink: string, wish: string): Promise<{ ms: number; cpu: number[] }> => {
    await using there = await Session.open(parseConninfo(target.uri(sink)), { role: 'bench' });
    await there.query('set search_path = public');
    await there.query(`create subscription ${sink} connection 'host=127.0.0.1 port=${source.port} user=postgres dbname=${name}' publication bench with (slot_name = '${sink}', create_slot = false, copy_data = false, enabled = false${wish})`);
    const began = performance.now();
    await there.query(`alter subscription ${sink} enable`);
    await reached(there);
    const ms = performance.now() - began;
    const cpu = [await cpuOf(sourceAdmin, `select active_pid as pid from pg_replication_slots where slot_name = '${sink}'`), await cpuOf(there, `select pid from pg_stat_subscription where subname = '${sink}' and pid is not null limit 1`)];
    await there.query(`alter subscription ${sink} disable`);
    await there.query(`alter subscription ${sink} set (slot_name = none)`);
    await there.query(`drop subscription ${sink}`);
    await compare(there, scenario.tables, expected, sink);
    await dropSlot(sourceAdmin, sink);
    return { ms, cpu };
  };
  const ours = async (sink: string): Promise<{ ms: number; peak: number; cpu: number[] }> => {
    const to = parseConninfo(target.uri(sink));
    await using there = await Session.open(to, { role: 'bench' });
    await ensureChangesSchema(there);
    const refs = [...scenario.tables, 'bench_end'].map((table) => ({ schema: 'public', name: table }));
    await planTables(there, sink, refs);
    for (const ref of refs) await recordTableEvent(there, sink, ref, { type: 'copied', lsn: parseLsn('0/1') });
    const child = fork(follower, [JSON.stringify({ source: source.uri(name), target: target.uri(sink), job: sink })], { execArgv: [...(process.env['BENCH_PROFILE'] ? ['--cpu-prof', `--cpu-prof-dir=${process.env['BENCH_PROFILE']}`] : []), '--import', import.meta.resolve('tsx')], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const [ready] = (await once(child, 'message')) as [string];
    if (ready !== 'ready') throw new Error(`the follower said ${ready}`);
    const began = performance.now();
    child.send('go');
    await there.query('set search_path = public');
    await reached(there);
    const ms = performance.now() - began;
    const servers = [await cpuOf(sourceAdmin, `select active_pid as pid from pg_replication_slots where slot_name = '${sink}'`), await cpuOf(there, `select pid from pg_stat_activity where application_name = 'pgweave ${sink} apply'`)];
    child.send('stop');
    const [message] = (await once(child, 'message')) as [{ peak: number; cpuMs: number }];
    await once(child, 'exit');
    await compare(there, scenario.tables, expected, sink);
    await dropSlot(sourceAdmin, sink);
    return { ms, peak: message.peak, cpu: [...servers, message.cpuMs] };
  };

  const native = { plain: emptyRun(), streaming: emptyRun(), binary: emptyRun() };
  let mine = { ...emptyRun(), peak: 0 };
  const turns = [
    async () => { mine = await ours(sinks[3]!); },
    async () => { native.plain = await subscribe(sinks[0]!, ''); },
    async () => { native.streaming = await subscribe(sinks[1]!, ', streaming = on'); },
    async () => { native.binary = await subscribe(sinks[2]!, ', binary = true'); },
  ];
  for (let i = 0; i < turns.length; i += 1) await turns[(i + runs - 1) % turns.length]!();
  await session.close();
  for (const sink of sinks) await targetAdmin.query(`drop database ${sink} with (force)`);
  await sourceAdmin.query(`drop database ${name} with (force)`);
  const sum = (cpu: readonly number[]) => cpu.reduce((a, b) => a + b, 0);
  return {
    nativeMs: native.plain.ms, nativeStreamingMs: native.streaming.ms, nativeBinaryMs: native.binary.ms, ourMs: mine.ms, peakBytes: mine.peak, nativeCpuMs: Math.min(sum(native.plain.cpu), sum(native.streaming.cpu)), ourCpuMs: sum(mine.cpu),
    cpu: `${Object.entries(native).map(([kind, { ms, cpu }]) => `${kind}: ${Math.round(ms)} ms, walsender ${cpu[0]} worker ${cpu[1]}`).join('; ')}; pgweave: ${Math.round(mine.ms)} ms, walsender ${mine.cpu[0]} backend ${mine.cpu[1]} follower ${mine.cpu[2]} ms`,
  };
}

function emptyRun(): { ms: number; cpu: number[] } {
  return { ms: 0, cpu: [] };
}

/** CPU time of a server process, ms; the query gives its pid. Linux. */
async function cpuOf(session: Session, query: string): Promise<number> {
  const [row] = await session.query<{ pid: number }>(query);
  if (!row) return 0;
  // utime and stime, in ticks of 10 ms; the name before them may hold spaces.
  const fields = readFileSync(`/proc/${row.pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** The last transaction of the backlog is on the target. */
async function reached(target: Session): Promise<void> {
  while ((await target.query('select 1 from bench_end')).length === 0) await sleep(5);
}

async function dropSlot(source: Session, slot: string): Promise<void> {
  for (;;) {
    const [row] = await source.query<{ active: boolean }>(`select active from pg_replication_slots where slot_name = '${slot}'`);
    if (!row) return;
    if (!row.active) await source.query(`select pg_drop_replication_slot('${slot}')`);
    else await sleep(20);
  }
}

async function contents(session: Session, tables: readonly string[]): Promise<string[]> {
  const out: string[] = [];
  for (const table of tables) {
    const { sum } = await session.one<{ sum: string }>(`select count(*)::text || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0)::text as sum from ${table} t`);
    out.push(`${table} ${sum}`);
  }
  return out;
}

async function compare(session: Session, tables: readonly string[], expected: readonly string[], who: string): Promise<void> {
  const found = await contents(session, tables);
  if (JSON.stringify(found) !== JSON.stringify(expected)) throw new Error(`${who}: rows differ: ${found.join('; ')} instead of ${expected.join('; ')}`);
}
