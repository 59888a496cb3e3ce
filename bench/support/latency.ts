import { ensureChangesSchema } from '../../src/changes/target-schema.ts';
import { planTables, recordTableEvent } from '../../src/changes/table-states.ts';
import { sleep } from '../../src/core/abort.ts';
import { parseConninfo } from '../../src/pg/conninfo.ts';
import { parseLsn } from '../../src/pg/lsn.ts';
import { ReplicationSession } from '../../src/pg/replication-session.ts';
import { Session } from '../../src/pg/session.ts';
import { Follower } from '../../src/workflows/follow.ts';
import type { Cluster } from '../../src/servers/cluster.ts';

const seconds = 10;
const perSecond = 200;

/**
 * Source commit to target commit at 200 transactions a second, natively and by us, one after the other. A trigger on the target stamps each row; both servers share one
 * clock. The stamp is taken just before the commit, as the source's is.
 */
export async function latencyBench(source: Cluster, target: Cluster, out: (text: string) => void): Promise<void> {
  for (const kind of ['native', 'pgweave'] as const) {
    const name = `latency_${kind}`;
    await using sourceAdmin = await Session.open(parseConninfo(source.uri()), { role: 'bench' });
    await using targetAdmin = await Session.open(parseConninfo(target.uri()), { role: 'bench' });
    await sourceAdmin.query(`create database ${name}`);
    await targetAdmin.query(`create database ${name}`);
    const from = parseConninfo(source.uri(name));
    const to = parseConninfo(target.uri(name));
    const writer = await Session.open(from, { role: 'bench' });
    const reader = await Session.open(to, { role: 'bench' });
    const table = 'create table public.t (id int primary key, written timestamptz, arrived timestamptz)';
    // A walsender sends what is flushed: without this the source's WAL writer would be measured.
    await writer.query('set synchronous_commit = on');
    await writer.query(table);
    await reader.query(`${table}; create function public.stamp() returns trigger language plpgsql as $$ begin new.arrived := pg_catalog.clock_timestamp(); return new; end $$;
      create trigger stamp before insert on public.t for each row execute function public.stamp(); alter table public.t enable always trigger stamp`);
    await writer.query(`create publication bench for table public.t`);
    const replication = await ReplicationSession.open(from, { role: 'bench' });
    await replication.createLogicalSlot({ name });
    await replication.close();
    let follower: Follower | undefined;
    let running: Promise<unknown> | undefined;
    if (kind === 'native') await reader.query(`create subscription ${name} connection 'host=127.0.0.1 port=${source.port} user=postgres dbname=${name}' publication bench with (slot_name = '${name}', create_slot = false, copy_data = false)`);
    else {
      await ensureChangesSchema(reader);
      await planTables(reader, name, [{ schema: 'public', name: 't' }]);
      await recordTableEvent(reader, name, { schema: 'public', name: 't' }, { type: 'copied', lsn: parseLsn('0/1') });
      follower = await Follower.open({ source: from, target: to, job: name, slot: name, publications: ['bench'] });
      running = follower.run();
    }
    await sleep(1000);
    const began = performance.now();
    for (let i = 0; i < seconds * perSecond; i += 1) {
      await writer.query(`insert into public.t values (${i}, pg_catalog.clock_timestamp())`);
      const due = began + ((i + 1) * 1000) / perSecond;
      if (due > performance.now()) await sleep(due - performance.now());
    }
    while ((await reader.one<{ n: number }>('select count(*)::int as n from public.t')).n < seconds * perSecond) await sleep(50);
    const row = await reader.one<{ median: string; p99: string; max: string }>(`
      select (percentile_cont(0.5) within group (order by ms))::numeric(10, 2)::text as median, (percentile_cont(0.99) within group (order by ms))::numeric(10, 2)::text as p99, max(ms)::numeric(10, 2)::text as max
        from (select extract(epoch from arrived - written) * 1000 as ms from public.t) as x`);
    out(`${kind.padEnd(8)} median ${row.median} ms   99th percentile ${row.p99} ms   most ${row.max} ms`);
    if (kind === 'native') await reader.query(`drop subscription ${name}`);
    follower?.stop();
    await running;
    await follower?.[Symbol.asyncDispose]();
    await writer.close();
    await reader.close();
  }
}
