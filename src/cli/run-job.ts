import type { Command } from 'commander';
import { errorMessage, isInterrupted, PgweaveError } from '../core/errors.ts';
import { fanOut, type Emit } from '../core/events.ts';
import { createLog } from '../core/log.ts';
import { JobStatus } from '../core/snapshot.ts';
import { readStateFile, StateFileWriter } from '../core/state-file.ts';
import type { HistoryRange } from '../server/history.ts';
import type { JobActions } from '../server/job-control.ts';
import { parseDuration, parseSize } from '../core/units.ts';
import type { JobContext } from './common.ts';
import { parsePort } from './port.ts';
import { liveReporter, logReporter, type Reporter } from './render/reporter.ts';

/** Flags of commands that run a job which can be watched. */
export interface RunFlags {
  readonly tui?: boolean;
  readonly apiPort?: number;
  readonly apiHost?: string;
  readonly apiToken?: string;
  readonly apiAllowHost?: readonly string[];
  readonly webhook?: string;
  readonly webhookLag?: number;
  readonly webhookLagBytes?: number;
}

/** Adds --tui, --api-port, --api-host, --api-token, --api-allow-host, --webhook, --webhook-lag and --webhook-lag-bytes. */
export function addRunOptions(command: Command): Command {
  return command
    .option('--tui', 'the terminal dashboard instead of the progress view')
    .option('--api-port <port>', 'serve API, metrics and dashboard on this port (usually 7654); 0 takes a free one', parsePort)
    .option('--api-host <address>', 'address of the API (default: 127.0.0.1); any other needs a token')
    .option('--api-token <token>', 'token that the API asks for; better given as PGWEAVE_API_TOKEN')
    .option('--api-allow-host <name>', 'one more name that the API is reached by, such as a proxy\'s; can be given several times', (name: string, known: readonly string[] | undefined) => [...(known ?? []), name])
    .option('--webhook <url>', 'POST a JSON document there on phase changes, failures and lag')
    .option('--webhook-lag <duration>', 'tell the webhook when the lag is over this, such as 30s', parseDuration)
    .option('--webhook-lag-bytes <size>', 'tell the webhook when the lag is over this, such as 1GB', parseSize);
}

export interface RunningJob {
  /** For the workflow's `onEvent`. */
  readonly emit: Emit;
  readonly status: JobStatus;
  /** Lets the API, the dashboard and the TUI act on the job; before this is called they only look. */
  allow(actions: JobActions): void;
}

/**
 * Runs a workflow with everything that watches it: status folded from events, the state file in the job's folder, a live view or log lines on stderr, and where asked for the API and the terminal
 * dashboard. Standard output stays free for the result.
 */
export async function runJob<T>(context: JobContext, command: string, flags: RunFlags, config: Readonly<Record<string, unknown>>, work: (job: RunningJob) => Promise<T>): Promise<T> {
  const status = new JobStatus(context.job, command);
  const read = () => status.read();
  const log = await createLog({ level: context.options.logLevel, format: context.options.logFormat });
  // A file that cannot be read is written anew in a second, and held only what was shown.
  const before = await readStateFile(context.folder.path).catch(() => null);
  if (before?.job === context.job) status.recall(before.tables);
  await using stateFile = new StateFileWriter(context.folder.path, read, { onError: (error) => log.warn(`the state file cannot be written: ${errorMessage(error)}`) });
  const { HistoryKeeper } = await import('../server/history-file.ts');
  await using history = await HistoryKeeper.open(context.folder.path, context.job, read, (error) => log.warn(`the history for the charts: ${errorMessage(error)}`));
  let actions: JobActions | null = null;
  const watchers: AsyncDisposable[] = [];
  const listeners: Emit[] = [status.emit];
  let reporter: Reporter | undefined;
  try {
    const control = { read, config: () => config, state: () => ({ mode: 'job' as const, running: true, note: actions ? null : 'The job cannot be steered in this phase: that is for one that streams.' }), history: (range: HistoryRange) => Promise.resolve(history.recorder.read(range)), get actions() { return actions; } };
    if (flags.apiPort !== undefined) {
      const { startServer } = await import('../server/server.ts');
      const token = flags.apiToken ?? process.env['PGWEAVE_API_TOKEN'];
      const server = await startServer({ control, port: flags.apiPort, log, ...(flags.apiHost === undefined ? {} : { host: flags.apiHost }), ...(token === undefined ? {} : { token }), ...(flags.apiAllowHost === undefined ? {} : { allowedHosts: flags.apiAllowHost }) });
      watchers.push(server);
      // By this `pgweave tui` and `pgweave serve` find the job.
      status.setApi(server.url);
      process.stderr.write(`dashboard and API: ${server.url}\n`);
    }
    if (flags.webhook !== undefined) {
      const { Webhook } = await import('../server/webhook.ts');
      watchers.push(new Webhook({ url: flags.webhook, log, secret: process.env['PGWEAVE_WEBHOOK_SECRET'], lagLimitMs: flags.webhookLag, lagLimitBytes: flags.webhookLagBytes }, read));
    }
    if (flags.tui) {
      const { startTui } = await import('../tui/start.ts');
      // Leaving the dashboard is asking for the job's end: what Ctrl-C does.
      watchers.push(await startTui({ control, quitStopsJob: true, onQuit: () => process.kill(process.pid, 'SIGINT') }));
    } else reporter = !context.json && process.stderr.isTTY && context.options.logFormat !== 'json' ? liveReporter(process.stderr, read) : logReporter(log, read);
    if (reporter) listeners.push(reporter.emit);
    return await work({ emit: fanOut(...listeners), status, allow: (given) => { actions = given; } });
  } catch (error) {
    if (isInterrupted(error)) status.emit({ type: 'phase', phase: 'stopped' });
    else {
      status.emit({ type: 'phase', phase: 'failed' });
      const known = error instanceof PgweaveError ? error : undefined;
      status.fail({ code: known?.code ?? 'unexpected', message: errorMessage(error), hint: known?.hint });
    }
    throw error;
  } finally {
    reporter?.close();
    status.setApi(null);
    await stateFile.close();
    for (const watcher of watchers.reverse()) await watcher[Symbol.asyncDispose]();
  }
}
