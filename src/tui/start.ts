import { PgweaveError } from '../core/errors.ts';
import type { JobControl } from '../server/job-control.ts';
import { loadDashboard } from './load.ts';

export interface TuiOptions {
  readonly control: JobControl;
  /** Whether leaving ends the job, which is then asked first: true for `--tui` of a running command, false for `pgweave tui`. */
  readonly quitStopsJob: boolean;
  /** The person wants to leave: by q, or by Ctrl-C. */
  readonly onQuit: () => void;
  readonly stdin?: NodeJS.ReadStream;
  readonly stdout?: NodeJS.WriteStream;
}

export interface Tui extends AsyncDisposable {
  /** Gives the terminal back as it was. Can be called twice. */
  close(): Promise<void>;
}

const enterScreen = '\u001b[?1049h\u001b[H';
const leaveScreen = '\u001b[?1049l';

/**
 * The terminal dashboard on the terminal's other screen, so that what stood there before comes back.
 * @throws PgweaveError `no-terminal` where input or output is none.
 */
export async function startTui(options: TuiOptions): Promise<Tui> {
  const stdin = options.stdin ?? process.stdin;
  const stdout = options.stdout ?? process.stdout;
  if (!stdin.isTTY || !stdout.isTTY) throw new PgweaveError('no-terminal', 'the terminal dashboard needs a terminal for input and output', { hint: 'Without one, use pgweave status, or the web dashboard with --api-port.', exitCode: 2 });
  const { mountDashboard } = await loadDashboard();
  stdout.write(enterScreen);
  const app = mountDashboard({ control: options.control, quitStopsJob: options.quitStopsJob, onQuit: options.onQuit }, { stdin, stdout });
  let closed: Promise<void> | null = null;
  // However the process ends, the terminal comes back.
  const restore = () => void stdout.write(leaveScreen);
  process.once('exit', restore);
  const close = (): Promise<void> => {
    closed ??= (async () => {
      const ended = app.waitUntilExit();
      app.unmount();
      await ended;
      restore();
      process.removeListener('exit', restore);
    })();
    return closed;
  };
  return { close, [Symbol.asyncDispose]: close };
}
