import { Command, Option } from 'commander';
import { errorMessage, exitCodes } from '../core/errors.ts';
import { createLog, type Log } from '../core/log.ts';
import { makeFolder } from '../core/make-folder.ts';
import { JobStatus } from '../core/snapshot.ts';
import { StateFileWriter } from '../core/state-file.ts';
import { parseDuration } from '../core/units.ts';
import type { MeshNode } from '../mesh/nodes.ts';
import type { MeshStatus } from '../mesh/status.ts';
import { runAction, type CommonOptions, type JobContext } from './common.ts';
import { parsePort } from './port.ts';

interface WatchFlags extends CommonOptions {
  readonly nodes: string;
  readonly every: string;
  readonly maintain?: boolean;
  readonly apiPort?: number;
  readonly apiHost?: string;
  readonly apiToken?: string;
}

/** `pgweave mesh watch`: measures the mesh until it is stopped, for the dashboard, for Prometheus and for the log. */
export function meshWatchCommand(): Command {
  const command = new Command('watch')
    .summary('measure every node and edge until stopped, for dashboard, metrics and log')
    .description('Looks at every node and edge again and again: serves dashboard, API and metrics, logs what goes wrong and what is well again, and keeps house where asked to. Changes nothing else.')
    .option('-n, --nodes <file>', 'the nodes: JSON or YAML', 'nodes.json')
    .option('--json', 'print every look as a line of JSON on standard output')
    .option('--every <duration>', 'how often', '5s')
    .option('--maintain', 'housekeeping as well, as mesh maintain does it, every 15 s at most')
    .option('--api-port <port>', 'serve API, metrics and dashboard on this port (usually 7654); 0 takes a free one', parsePort)
    .option('--api-host <address>', 'address of the API (default: 127.0.0.1); any other needs a token')
    .option('--api-token <token>', 'token that the API asks for; better given as PGWEAVE_API_TOKEN')
    .option('--job <name>', 'name under which pgweave tui and pgweave serve find it', 'mesh')
    .option('--dir <folder>', 'state folder (default: $XDG_STATE_HOME/pgweave/<job>)')
    .addOption(new Option('--log-level <level>', 'least level of the log').choices(['debug', 'info', 'warn', 'error']).default('info'))
    .addOption(new Option('--log-format <format>', 'auto: human on a terminal, JSON otherwise').choices(['auto', 'human', 'json']).default('auto'));
  command.addHelpText('after', '\nExample:\n  pgweave mesh watch --api-port 7654 --maintain');
  return command.action((flags: WatchFlags) => runAction({ ...flags, interactive: false }, (context) => watch(flags, context)));
}

const maintainEveryMs = 15_000;

async function watch(flags: WatchFlags, context: JobContext): Promise<number> {
  const { readNodes } = await import('../mesh/nodes.ts');
  const { meshStatus } = await import('../mesh/status.ts');
  const { meshTopology } = await import('../mesh/topology.ts');
  const { sleep } = await import('../core/abort.ts');
  const nodes = readNodes(flags.nodes);
  const everyMs = parseDuration(flags.every);
  const log = await createLog({ level: flags.logLevel, format: flags.logFormat });
  const status = new JobStatus(context.job, 'mesh watch');
  makeFolder(context.folder.path);
  await using _stateFile = new StateFileWriter(context.folder.path, () => status.read(), { onError: (error) => log.warn(`the state file cannot be written: ${errorMessage(error)}`) });
  await using _server = await serve(flags, status, nodes, log);
  const news = new Issues(status, log);
  status.emit({ type: 'phase', phase: 'streaming' });
  let maintainedAt = Number.NEGATIVE_INFINITY;
  while (!context.signal.aborted) {
    try {
      if (flags.maintain && performance.now() - maintainedAt >= maintainEveryMs) {
        maintainedAt = performance.now();
        await keepHouse(nodes, context.signal, log);
      }
      const found = await meshStatus(nodes, { signal: context.signal });
      if (context.signal.aborted) break;
      const at = new Date().toISOString();
      const topology = meshTopology(found, status.read().topology, at);
      status.emit({ type: 'topology', topology });
      if (context.json) process.stdout.write(`${JSON.stringify({ at, healthy: found.healthy, issues: found.issues, ...topology })}\n`);
      news.tell(found);
      await sleep(everyMs, context.signal);
    } catch (error) {
      if (!context.signal.aborted) throw error;
    }
  }
  status.emit({ type: 'phase', phase: 'stopped' });
  return exitCodes.done;
}

async function serve(flags: WatchFlags, status: JobStatus, nodes: readonly MeshNode[], log: Log): Promise<AsyncDisposable | undefined> {
  if (flags.apiPort === undefined) return undefined;
  const { startServer } = await import('../server/server.ts');
  const { ownJob } = await import('../server/job-control.ts');
  const token = flags.apiToken ?? process.env['PGWEAVE_API_TOKEN'];
  const config = { nodes: nodes.map((n) => `${n.name} ${n.host}:${n.port}/${n.db}`), every: flags.every, maintain: flags.maintain === true };
  const server = await startServer({ control: ownJob(() => status.read(), config, null), port: flags.apiPort, log, ...(flags.apiHost === undefined ? {} : { host: flags.apiHost }), ...(token === undefined ? {} : { token }) });
  status.setApi(server.url);
  process.stderr.write(`dashboard and API: ${server.url}\n`);
  return server;
}

async function keepHouse(nodes: readonly MeshNode[], signal: AbortSignal, log: Log): Promise<void> {
  const { maintainAll } = await import('../mesh/maintain.ts');
  // A node that is away is told of as such by the next look.
  for (const r of await maintainAll(nodes, signal)) if (r.collected !== undefined && r.collected > 0n) log.info(`${r.node}: ${r.collected} tombstones collected`);
}

/** Tells each issue when it comes and when it goes. */
class Issues {
  readonly #status: JobStatus;
  readonly #log: Log;
  #open = new Set<string>();
  #first = true;

  constructor(status: JobStatus, log: Log) {
    this.#status = status;
    this.#log = log;
  }

  tell(found: MeshStatus): void {
    const now = new Map(found.issues.map((i) => [`${i.node}: ${i.issue}`, i]));
    for (const [text, { fix }] of now) {
      if (this.#open.has(text)) continue;
      this.#status.emit({ type: 'warning', code: 'mesh-issue', message: text, hint: fix });
      this.#log.warn({ hint: fix }, text);
    }
    for (const text of this.#open) if (!now.has(text)) this.#say(`well again: ${text}`);
    if (found.healthy && (this.#first || this.#open.size > 0)) this.#say(`healthy: ${found.nodes.length} nodes`);
    this.#open = new Set(now.keys());
    this.#first = false;
  }

  #say(message: string): void {
    this.#status.emit({ type: 'log', level: 'info', message });
    this.#log.info(message);
  }
}
