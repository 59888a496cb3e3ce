import type { Emit } from '../../core/events.ts';
import type { Log } from '../../core/log.ts';
import { logEntry } from '../../core/log-lines.ts';
import type { JobSnapshot } from '../../core/snapshot.ts';
import { LiveView, type Terminal } from './live-view.ts';
import { progressSummary } from './progress.ts';

export interface Reporter extends Disposable {
  /** Hand this to a workflow's `onEvent`, beside `JobStatus.emit`. */
  readonly emit: Emit;
  /** Stops reporting; on a terminal the last picture stays. Can be called twice. */
  close(): void;
}

const summaryEveryMs = 10_000;

/**
 * Reports to somebody who watches a terminal: the progress in place, warnings and errors above it.
 * `log` gets every entry too when it does not write to the same terminal (a log file, a collector); pass undefined where it would.
 */
export function liveReporter(terminal: Terminal, read: () => JobSnapshot, log?: Log): Reporter & { readonly view: LiveView } {
  const view = new LiveView(terminal, read);
  view.start();
  const close = () => view.stop();
  return {
    view,
    emit: (event) => {
      const entry = logEntry(event);
      if (!entry) return;
      log?.[entry.level](entry.fields ?? {}, entry.message);
      // Phases and tables are in the picture already; what a person must not miss stays in the scrollback.
      if (!log && event.type !== 'phase' && (entry.level === 'warn' || entry.level === 'error')) view.writeAbove(`${entry.level}: ${entry.message}`);
    },
    close,
    [Symbol.dispose]: close,
  };
}

/** Reports where nobody watches: one log line an event that matters, and a summary every ten seconds while something moves. */
export function logReporter(log: Log, read: () => JobSnapshot): Reporter {
  let last = '';
  const timer = setInterval(() => {
    const summary = progressSummary(read());
    if (summary !== last) log.info(summary);
    last = summary;
  }, summaryEveryMs);
  timer.unref();
  const close = () => clearInterval(timer);
  return {
    emit: (event) => {
      const entry = logEntry(event);
      if (entry) log[entry.level](entry.fields ?? {}, entry.message);
    },
    close,
    [Symbol.dispose]: close,
  };
}
