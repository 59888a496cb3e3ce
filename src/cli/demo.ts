import { Command } from 'commander';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exitCodes, usageError } from '../core/errors.ts';
import { fanOut, type JobEvent } from '../core/events.ts';
import { JobStatus } from '../core/snapshot.ts';
import { formatCount } from '../core/units.ts';
import { print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { openUrl } from './open-url.ts';
import { parsePort } from './port.ts';
import { liveReporter, type Reporter } from './render/reporter.ts';

interface DemoFlags {
  readonly scale: number;
  readonly keep?: boolean;
  readonly web?: boolean;
  readonly apiPort: number;
  readonly json?: boolean;
}

export function demoCommand(): Command {
  return new Command('demo')
    .summary('two embedded servers, a live writer, a whole migration before your eyes')
    .description('Starts two PostgreSQL servers of its own, fills one with a shop that an application keeps writing to, migrates it to the other while you watch, switches over, and counts that nothing is missing. Touches nothing else.')
    .option('--scale <n>', 'size of the shop; 1 is some 80 MB', parseScale, 0.5)
    .option('--keep', 'leave both servers up at the end and print their URIs')
    .option('--web', 'serve the dashboard of the run and print its URL')
    .option('--api-port <port>', 'port of the dashboard with --web; 0 takes a free one', parsePort, 7654)
    .option('--json', 'print one JSON document on standard output')
    .addHelpText('after', '\nExample:\n  pgweave demo\n  pgweave demo --scale 5 --web --keep')
    .action((flags: DemoFlags) => {
      const options: CommonOptions = { job: 'demo', interactive: false, logLevel: 'warn', logFormat: 'auto', dir: join(tmpdir(), 'pgweave-demo'), ...(flags.json ? { json: true } : {}) };
      return runAction(options, (context) => runDemo(flags, context));
    });
}

function parseScale(text: string): number {
  const scale = Number(text);
  if (!(scale > 0 && scale <= 1000)) throw usageError(`not a scale: "${text}"`, 'Give a number above 0, such as 0.1 or 5.');
  return scale;
}

async function runDemo(flags: DemoFlags, context: JobContext): Promise<number> {
  const { demo } = await import('../workflows/demo.ts');
  const status = new JobStatus('demo', 'demo');
  const terminal = !context.json && process.stdout.isTTY;
  let view: Reporter | undefined;
  const say = (text: string) => {
    if (!context.json) print(text);
  };
  const show = (event: JobEvent) => {
    view?.emit(event);
    if (context.json || event.type !== 'step' || event.status === 'running') return;
    print(`  ${(event.elapsedMs / 1000).toFixed(3).padStart(6, '0')}  ${event.name.padEnd(30)}  ${event.status === 'ok' ? '' : `${event.status}: `}${event.detail}`);
  };
  let server: AsyncDisposable | undefined;
  let shownPercent = -1;
  try {
    if (flags.web) {
      const { startServer } = await import('../server/server.ts');
      const { ownJob } = await import('../server/job-control.ts');
      const started = await startServer({ control: ownJob(() => status.read(), { command: 'demo' }, null), port: flags.apiPort });
      server = started;
      say(`Dashboard: ${started.url}`);
      if (terminal) openUrl(started.url);
    }
    const result = await demo({
      scale: flags.scale, job: 'demo', keep: flags.keep === true, writeAfterMs: flags.web ? 30_000 : 2000, say, signal: context.signal, onEvent: fanOut(status.emit, show),
      onGenerate: (done, total, table) => {
        const percent = Math.floor((done / total) * 100);
        if (context.json || (!terminal && percent < 100)) return;
        if (percent === shownPercent) return;
        shownPercent = percent;
        const filled = Math.round((percent / 100) * 28);
        const line = `generating  ${'█'.repeat(filled)}${'░'.repeat(28 - filled)}  ${String(percent).padStart(3)} %  ${formatCount(done)} of ${formatCount(total)} rows  ${percent < 100 ? table : ''}`;
        process.stdout.write(terminal ? `\r\u001b[K${line}${percent === 100 ? '\n' : ''}` : `${line}\n`);
      },
      onMigration: (running) => {
        if (!terminal) return;
        if (running) view = liveReporter(process.stdout, () => status.read());
        else {
          view?.close();
          view = undefined;
        }
      },
    });
    if (context.json) printJson(result);
    else if (result.kept) print('', 'Both servers stay up:', `  source  ${result.source}`, `  target  ${result.target}`, 'Stop and remove them:', `  kill -INT ${result.servers.map((s) => s.pid).join(' ')}; sleep 2; rm -rf ${result.servers.map((s) => s.folder).join(' ')}`);
    else print('Both servers are stopped and removed. See what to do with your own: pgweave validate --help');
    return result.missing === 0 && result.schemaDifferences === 0 ? exitCodes.done : exitCodes.checkFailed;
  } finally {
    view?.close();
    await server?.[Symbol.asyncDispose]();
  }
}
