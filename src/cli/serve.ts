import { Command } from 'commander';
import { createLog } from '../core/log.ts';
import { addAttachOptions, attach, detach, type AttachFlags } from './attach.ts';
import { addCommonOptions, print, printJson, runAction, type CommonOptions } from './common.ts';
import { parsePort } from './port.ts';

interface ServeOptions extends CommonOptions, AttachFlags {
  readonly apiPort: number;
  readonly apiHost: string;
  readonly apiToken?: string;
  readonly apiAllowHost: readonly string[];
}

/** `pgweave serve`: API, metrics and dashboard for a job that runs elsewhere, or for what it left behind. Ends with Ctrl-C. */
export function serveCommand(): Command {
  const command = new Command('serve')
    .summary('serve the dashboard and the API of a running job, or of what it left behind')
    .description('Serves the dashboard, the API and the metrics of a job: of a running one, which can then be steered, or of the state that it left behind.')
    .option('--api-port <port>', 'port to listen on; 0 takes a free one', parsePort, 7654)
    .option('--api-host <address>', 'address to listen on; any but this machine\'s own needs a token', '127.0.0.1')
    .option('--api-token <token>', 'token that is asked for; better given as PGWEAVE_API_TOKEN')
    .option('--api-allow-host <name>', 'one more name that the server is reached by, such as a proxy\'s; can be given several times', (name: string, known: readonly string[]) => [...known, name], []);
  addCommonOptions(addAttachOptions(command));
  command.addHelpText('after', '\nExample:\n  pgweave serve --job default\n  pgweave serve --connect http://127.0.0.1:7654 --api-port 8080');
  return command.action(async (options: ServeOptions) => {
    await runAction(options, async ({ folder, signal, json }) => {
      const { startServer } = await import('../server/server.ts');
      const log = await createLog({ level: options.logLevel, format: options.logFormat });
      const control = await attach(folder, options);
      try {
        await using server = await startServer({ control, host: options.apiHost, port: options.apiPort, token: options.apiToken ?? process.env['PGWEAVE_API_TOKEN'], allowedHosts: options.apiAllowHost, log });
        const { note } = control.state();
        if (json) printJson({ url: server.url, api: `${server.url}/api/v1`, note });
        else print(`dashboard  ${server.url}`, `API        ${server.url}/api/docs`, `metrics    ${server.url}/metrics`, ...(note === null ? [] : [note]), 'Ctrl-C ends it.');
        await untilAborted(signal);
      } finally {
        await detach(control);
      }
    });
  });
}

/** Ctrl-C is how this command ends, so it is no failure. */
function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    // A waiting promise alone keeps no process alive; the server's socket does.
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
