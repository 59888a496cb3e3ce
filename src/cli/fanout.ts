import { Command, Option } from 'commander';
import { errorMessage, exitCodes, PgweaveError } from '../core/errors.ts';
import { createLog, type Log } from '../core/log.ts';
import { JobStatus } from '../core/snapshot.ts';
import { formatBytes, formatDuration } from '../core/units.ts';
import { describeConnection } from '../pg/conninfo.ts';
import type { LogFacts } from '../changes/nats/inspect.ts';
import type { NatsSpec } from '../changes/nats/connection.ts';
import type { FanoutConfig, FanoutService, PublishService } from '../fanout/index.ts';
import type { FanoutHealth } from '../fanout/health.ts';
import type { Session } from '../pg/session.ts';
import { print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { parsePort } from './port.ts';

interface FanoutFlags {
  readonly config?: string;
  readonly json?: boolean;
  readonly logLevel: CommonOptions['logLevel'];
  readonly logFormat: CommonOptions['logFormat'];
  readonly healthPort?: number;
  readonly healthHost?: string;
  readonly createSchema?: boolean;
  readonly apiPort?: number;
  readonly apiHost?: string;
  readonly apiToken?: string;
  readonly url?: string;
  readonly target?: string;
  readonly targets?: readonly string[];
}

export function fanoutCommand(): Command {
  const root = new Command('fanout').summary('one source, many targets, as a service').description('One source, many targets, as a service driven by a configuration file.')
    .addHelpText('after', '\nExample:\n  pgweave fanout check --config replication-config.yml\n  pgweave fanout run');
  const sub = (name: string, summary: string, example: string) => root.command(name).summary(summary).description(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`)
    .option('--config <file>', 'configuration: YAML, TOML or JSON (default: CONFIG_FILE, /config/, ./config/, ./, ../replication-config.yml, REPLICATION_CONFIG)')
    .option('--json', 'print one JSON document on standard output')
    .addOption(new Option('--log-level <level>', 'least level of the log').choices(['debug', 'info', 'warn', 'error']).default('info'))
    .addOption(new Option('--log-format <format>', 'auto: human on a terminal, JSON otherwise').choices(['auto', 'human', 'json']).default('auto'))
    .addHelpText('after', `\nExample:\n  ${example}`);
  const run = (work: (flags: FanoutFlags, context: JobContext) => Promise<number | void>) => (flags: FanoutFlags) =>
    runAction({ job: 'fanout', interactive: false, logLevel: flags.logLevel, logFormat: flags.logFormat, ...(flags.json ? { json: true } : {}) }, (context) => work(flags, context));
  sub('run', 'keep every target as the file says, until SIGTERM; SIGHUP reads the file again', 'pgweave fanout run --config replication-config.yml')
    .option('--health-port <port>', 'port of /health, /ready and /metrics (default: health_port of the file, 3000)', parsePort)
    .option('--health-host <address>', 'address of the same (default: health_host of the file, 127.0.0.1)')
    .option('--targets <names>', 'these targets of the file alone, comma-separated: others are kept elsewhere', (text: string) => text.split(',').map((name) => name.trim()).filter((name) => name !== ''))
    .option('--create-schema', 'make tables that targets lack, as create_schema: true in settings')
    .option('--api-port <port>', 'serve API, metrics and dashboard on this port (usually 7654); 0 takes a free one', parsePort)
    .option('--api-host <address>', 'address of the API (default: 127.0.0.1); any other needs a token')
    .option('--api-token <token>', 'token that the API asks for; better given as PGWEAVE_API_TOKEN')
    .action(run(runService));
  sub('publish', 'write the source\'s changes to the log on NATS (log.nats of the file), for targets on other machines', 'pgweave fanout publish --config replication-config.yml')
    .option('--health-port <port>', 'port of /health, /ready and /metrics (default: health_port of the file, 3000)', parsePort)
    .option('--health-host <address>', 'address of the same (default: health_host of the file, 127.0.0.1)')
    .action(run(runPublisher));
  sub('check', 'check the configuration, with line numbers, and whether the servers answer', 'pgweave fanout check --config replication-config.yml').action(run(check));
  sub('status', 'ask a running service for its health', 'pgweave fanout status --url http://127.0.0.1:3000')
    .option('--url <url>', 'where the service answers (default: by the file\'s health_port)')
    .action(run(status));
  sub('setup-schema', 'make the tables that targets lack, as the source has them, without rows', 'pgweave fanout setup-schema --target reports')
    .option('--target <name>', 'this target alone')
    .action(run(setupSchema));
  return root;
}

async function runService(flags: FanoutFlags, context: JobContext): Promise<number> {
  const { FanoutService, onlyTargets, readFanoutConfig, startHealthServer } = await import('../fanout/index.ts');
  const log = await createLog({ level: flags.logLevel, format: flags.logFormat });
  const read = (): FanoutConfig => {
    const found = onlyTargets(readFanoutConfig(flags.config), flags.targets);
    return flags.createSchema ? { ...found, createSchema: true } : found;
  };
  const config = read();
  const status = new JobStatus('fanout', 'fanout run');
  await using service = new FanoutService(config, log, status.emit);
  await using health = await startHealthServer(service, flags.healthHost ?? process.env['HEALTH_HOST'] ?? config.healthHost, flags.healthPort ?? config.healthPort);
  log.info(`health at ${health.url}/health`);
  await using dashboard = flags.apiPort === undefined ? undefined : await serveDashboard(status, service.config, { ...flags, apiPort: flags.apiPort }, log);
  if (dashboard) log.info(`dashboard and API at ${dashboard.url}`);
  service.start();
  await untilStopped(service, read, context, log);
  return exitCodes.done;
}

async function runPublisher(flags: FanoutFlags, context: JobContext): Promise<number> {
  const { PublishService, readFanoutConfig, startHealthServer } = await import('../fanout/index.ts');
  const log = await createLog({ level: flags.logLevel, format: flags.logFormat });
  const config = readFanoutConfig(flags.config);
  await using service = new PublishService(config, log);
  await using health = await startHealthServer(service, flags.healthHost ?? process.env['HEALTH_HOST'] ?? config.healthHost, flags.healthPort ?? config.healthPort);
  log.info(`health at ${health.url}/health`);
  service.start();
  await untilStopped(service, () => readFanoutConfig(flags.config), context, log);
  return exitCodes.done;
}

/** Gives a service its file whenever that changes, until SIGTERM; then stops it. */
async function untilStopped(service: FanoutService | PublishService, read: () => FanoutConfig, context: JobContext, log: Log): Promise<void> {
  const { watchConfig } = await import('../fanout/watch-config.ts');
  const { path } = read();
  const unwatch = watchConfig(path === 'REPLICATION_CONFIG' ? undefined : path, () => {
    let next: FanoutConfig;
    try {
      next = read();
    } catch (error) {
      service.refuse(error);
      return;
    }
    service.replace(next).catch((error: unknown) => log.error(`the new configuration could not be carried out: ${errorMessage(error)}`));
  });
  await new Promise<void>((resolve) => {
    // The signal alone keeps nothing alive; the health server does.
    if (context.signal.aborted) resolve();
    else context.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  unwatch();
  log.info('stopping: rounds in hand are finished, nothing is dropped');
  await service.stop();
  log.info('stopped');
}

/** The dashboard's page of the fan-out: source and targets with their lag. Nothing can be changed through it: that is the file's part. */
async function serveDashboard(status: JobStatus, config: FanoutConfig, flags: FanoutFlags & { readonly apiPort: number }, log: Log) {
  const { startServer } = await import('../server/server.ts');
  const { ownJob } = await import('../server/job-control.ts');
  const { path, publication, source, targets } = config;
  const shown = { config: path, publication, source: describeConnection(source), targets: targets.map((t) => `${t.name} (${t.engine}): ${describeConnection(t.connection)}`) };
  const token = flags.apiToken ?? process.env['PGWEAVE_API_TOKEN'];
  return await startServer({ control: ownJob(() => status.read(), shown, null), port: flags.apiPort, log, ...(flags.apiHost === undefined ? {} : { host: flags.apiHost }), ...(token === undefined ? {} : { token }) });
}

async function check(flags: FanoutFlags, context: JobContext): Promise<number> {
  const { readFanoutConfig } = await import('../fanout/index.ts');
  const { resolveTables, schemaFaults } = await import('../fanout/tables.ts');
  const { Session } = await import('../pg/session.ts');
  const { displayName } = await import('../pg/identifiers.ts');
  const config = readFanoutConfig(flags.config);
  const results: { target: string; address: string; engine: string; ok: boolean; tables: number; problems: string[] }[] = [];
  await using source = await Session.open(config.source, { role: 'fanout check', side: 'the source', signal: context.signal });
  for (const target of config.targets) {
    const result = { target: target.name, address: describeConnection(target.connection), engine: target.engine, ok: true, tables: 0, problems: [] as string[] };
    results.push(result);
    try {
      const tables = await resolveTables(source, target);
      result.tables = tables.chosen.length;
      await using session = await Session.open(target.connection, { role: 'fanout check', side: `target ${target.name}`, signal: context.signal });
      for (const fault of await schemaFaults(session, tables)) result.problems.push(fault.column === undefined ? `table ${displayName(fault.table.schema, fault.table.name)} is missing` : `column ${displayName(fault.table.schema, fault.table.name)}.${fault.column} is missing`);
    } catch (error) {
      result.problems.push(errorMessage(error));
    }
    result.ok = result.problems.length === 0 || (config.createSchema && result.problems.every((p) => p.startsWith('table ')));
  }
  const log = config.log ? await checkLog(config.log, config, source) : null;
  const ok = results.every((r) => r.ok) && log?.ok !== false;
  if (flags.json) printJson({ ok, config: config.path, source: describeConnection(config.source), publication: config.publication, targets: results, ...(log ? { log } : {}) });
  else {
    print(`${config.path}: publication ${config.publication}, source ${describeConnection(config.source)}, ${config.targets.length} targets`);
    for (const r of results) print(`  ${r.ok ? 'ok  ' : 'FAIL'}  ${r.target.padEnd(20)}  ${r.engine.padEnd(6)}  ${String(r.tables).padStart(4)} tables  ${r.address}`, ...r.problems.map((p) => `          ${p}`));
    if (log) print(`  ${log.ok ? 'ok  ' : 'FAIL'}  log on NATS            stream ${log.stream}: ${log.problem ?? (log.exists ? `${log.messages} messages, ${formatBytes(log.bytes ?? 0)}, up to ${log.to ?? 'nothing'}` : 'not there yet; the publisher makes it')}`);
    if (results.some((r) => !r.ok)) print('Missing tables are made by: pgweave fanout setup-schema, or create_schema: true in settings.');
  }
  return ok ? exitCodes.done : exitCodes.checkFailed;
}

async function checkLog(nats: NatsSpec, config: FanoutConfig, source: Session): Promise<Partial<LogFacts> & { readonly stream: string; readonly ok: boolean; readonly problem?: string }> {
  const { inspectLog } = await import('../changes/nats/inspect.ts');
  const { natsLogNameOf } = await import('../fanout/nats-target.ts');
  try {
    return { ok: true, ...(await inspectLog(nats, await natsLogNameOf(config, source))) };
  } catch (error) {
    return { ok: false, stream: nats.stream, problem: errorMessage(error) };
  }
}

async function status(flags: FanoutFlags): Promise<number> {
  const { readFanoutConfig } = await import('../fanout/index.ts');
  const url = flags.url ?? `http://127.0.0.1:${readFanoutConfig(flags.config).healthPort}`;
  let health: FanoutHealth;
  try {
    const answer = await fetch(new URL('/health', url), { signal: AbortSignal.timeout(5000) });
    health = (await answer.json()) as FanoutHealth;
  } catch (error) {
    throw new PgweaveError('no-service', `no fan-out service answers at ${url}: ${errorMessage((error as Error).cause ?? error)}`, { hint: 'Start it with pgweave fanout run, or give its address with --url.' });
  }
  if (flags.json) printJson(health);
  else {
    print(`${health.status}   source ${health.source.address} ${health.source.reachable ? 'reachable' : `NOT REACHABLE: ${health.source.error}`}   WAL kept ${formatBytes(health.source.retainedBytes ?? 0)}${health.source.budgetBytes === null ? '' : ` of ${formatBytes(health.source.budgetBytes)}`}`);
    if (health.config.error !== null) print(`the newest configuration is not used: ${health.config.error}`);
    if (health.log) {
      const { stream, publishing, lagBytes, lastError } = health.log;
      print(`  ${publishing ? 'publishing' : 'NOT PUBLISHING'} to the stream ${stream}   lag ${lagBytes === null ? 'not known' : formatBytes(lagBytes)}`);
      if (lastError) print(`      ${lastError.message}`, ...(lastError.hint ? [`      ${lastError.hint}`] : []));
    }
    for (const t of health.targets) {
      print(`  ${t.name.padEnd(20)}  ${t.engine.padEnd(6)}  ${t.state.padEnd(13)}  ${t.tablesReady} of ${t.tables} tables   lag ${t.lagBytes === null ? 'not known' : formatBytes(t.lagBytes)}${t.lagMs === null ? '' : ` (${formatDuration(t.lagMs)})`}`);
      if (t.lastError) print(`      ${t.lastError.message}`, ...(t.lastError.hint ? [`      ${t.lastError.hint}`] : []));
    }
  }
  return health.status === 'healthy' ? exitCodes.done : exitCodes.checkFailed;
}

async function setupSchema(flags: FanoutFlags, context: JobContext): Promise<number> {
  const { readFanoutConfig, setUpSchema } = await import('../fanout/index.ts');
  const { displayName } = await import('../pg/identifiers.ts');
  const config = readFanoutConfig(flags.config);
  const targets = flags.target === undefined ? config.targets : config.targets.filter((t) => t.name === flags.target);
  if (targets.length === 0) throw new PgweaveError('no-such-target', `the configuration has no target "${flags.target}"`, { hint: `It has: ${config.targets.map((t) => t.name).join(', ')}.`, exitCode: exitCodes.usage });
  const done: { target: string; made: number; left: string[] }[] = [];
  for (const target of targets) {
    const { made, left } = await setUpSchema(config.source, target, context.signal);
    const faults = left.map((f) => `${displayName(f.table.schema, f.table.name)}${f.column === undefined ? '' : `.${f.column}`}`);
    done.push({ target: target.name, made, left: faults });
    if (!flags.json) print(`${target.name}: ${made} tables made${faults.length > 0 ? `; still missing: ${faults.join(', ')}` : ''}`);
  }
  if (flags.json) printJson({ targets: done });
  return done.every((d) => d.left.length === 0) ? exitCodes.done : exitCodes.checkFailed;
}
