// `npm run bench -- follow [options]` or `npx tsx bench/follow.ts`: our stream against PostgreSQL's own subscription on the same backlog, from the same LSN.
//   --scenario NAME[,NAME]   inserts, updates, many-updates, tpcb, unique-keys (default: these), one-transaction (5 million rows)
//   --scale 0.1              share of the full size (default 1)
//   --repeat 3               interleaved repetitions; medians are printed
//   --latency                commit-to-commit latency at 200 transactions a second, beside native
//   --decode                 the decoder alone
// Both servers run here, with fsync off. Rows are compared after every run.
import { parseArgs } from 'node:util';
import { cpus } from 'node:os';
import { latencyBench } from './support/latency.ts';
import { decodeBench } from './support/decode.ts';
import { runScenario, scenarios, type Outcome } from './support/follow-scenarios.ts';
import { startCluster } from '../src/servers/cluster.ts';

const { values } = parseArgs({
  options: { scenario: { type: 'string' }, scale: { type: 'string', default: '1' }, repeat: { type: 'string', default: '3' }, latency: { type: 'boolean', default: false }, decode: { type: 'boolean', default: false }, version: { type: 'string', default: '15' } },
});
const scale = Number(values.scale);
const repeat = Number(values.repeat);
const version = Number(values.version) as 14 | 15 | 16 | 17 | 18;
const out = (text: string) => process.stdout.write(`${text}\n`);

const settings = { shared_buffers: '256MB', max_wal_size: '4GB', wal_sender_timeout: '60s', max_connections: '60', autovacuum: 'off', checkpoint_timeout: '30min', wal_retrieve_retry_interval: '100ms' };
await using source = await startCluster({ version, settings });
await using target = await startCluster({ version, settings });
out(`PostgreSQL ${version} on both sides, loopback, fsync off, ${cpus().length} cores, Node ${process.version}, scale ${scale}`);

if (values.decode) await decodeBench(source, scale, out);
else if (values.latency) await latencyBench(source, target, out);
else {
  const chosen = values.scenario?.split(',') ?? Object.keys(scenarios).filter((name) => scenarios[name]!.goal !== undefined);
  out(`${'backlog'.padEnd(14)} ${'native'.padStart(9)} ${'streaming'.padStart(9)} ${'binary'.padStart(9)} ${'pgweave'.padStart(9)} ${'ratio'.padStart(6)}  ${'goal'.padStart(4)}  ${'to binary'.padStart(9)}  ${'CPU ratio'.padStart(9)}  peak memory`);
  for (const name of chosen) {
    const scenario = scenarios[name];
    if (!scenario) throw new Error(`no such scenario: ${name}; there are ${Object.keys(scenarios).join(', ')}`);
    const runs: Outcome[] = [];
    for (let i = 0; i < repeat; i += 1) {
      const outcome = await runScenario(source, target, scenario, scale);
      runs.push(outcome);
      if (process.env['BENCH_VERBOSE']) out(`  ${outcome.cpu}`);
    }
    const median = (pick: (o: Outcome) => number) => runs.map(pick).sort((a, b) => a - b)[Math.floor(runs.length / 2)]!;
    const native = median((o) => o.nativeMs);
    const streaming = median((o) => o.nativeStreamingMs);
    const binary = median((o) => o.nativeBinaryMs);
    const ours = median((o) => o.ourMs);
    const ratio = Math.min(native, streaming) / ours;
    out(`${name.padEnd(14)} ${seconds(native)} ${seconds(streaming)} ${seconds(binary)} ${seconds(ours)} ${ratio.toFixed(2).padStart(6)}  ${(scenario.goal?.toFixed(1) ?? '-').padStart(4)}  ${(binary / ours).toFixed(2).padStart(9)}  ${(median((o) => o.nativeCpuMs) / median((o) => o.ourCpuMs)).toFixed(2).padStart(9)}  ${Math.round(Math.max(...runs.map((o) => o.peakBytes)) / 1048576)} MB`);
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`.padStart(9);
}
