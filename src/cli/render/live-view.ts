import type { WriteStream } from 'node:tty';
import type { JobSnapshot } from '../../core/snapshot.ts';
import { paintFor } from './layout.ts';
import { renderProgress, rowsTaken } from './progress.ts';

/** What the live view needs of a terminal: `process.stderr` or `process.stdout`. */
export type Terminal = Pick<WriteStream, 'write' | 'isTTY'> & { readonly columns?: number; readonly rows?: number };

const hideCursor = '\u001b[?25l';
const showCursor = '\u001b[?25h';

/**
 * Draws the progress of a job in place, four times a second, on a terminal. Whatever else is written to the same terminal goes through
 * {@link writeAbove}, so that log lines stand above the view and stay in the scrollback.
 */
export class LiveView {
  readonly #stream: Terminal;
  readonly #read: () => JobSnapshot;
  readonly #now: () => number;
  #timer: NodeJS.Timeout | undefined;
  #drawn: string[] = [];

  constructor(stream: Terminal, read: () => JobSnapshot, now: () => number = Date.now) {
    this.#stream = stream;
    this.#read = read;
    this.#now = now;
  }

  start(everyMs = 250): void {
    this.#stream.write(hideCursor);
    // However the process ends, the terminal gets its cursor back.
    process.once('exit', this.#restore);
    this.draw();
    this.#timer = setInterval(() => this.draw(), everyMs);
    this.#timer.unref();
  }

  draw(): void {
    const width = Math.max(20, this.#stream.columns ?? 80);
    const height = Math.max(6, this.#stream.rows ?? 24);
    const lines = renderProgress(this.#read(), { width: width - 1, now: this.#now(), paint: paintFor(this.#stream), workLines: Math.max(1, Math.min(8, height - 10)) }).slice(0, height - 1);
    this.#stream.write(`${this.#eraser()}${lines.join('\n')}\n`);
    this.#drawn = lines;
  }

  /** Writes whole lines above the view. */
  writeAbove(text: string): void {
    this.#stream.write(`${this.#eraser()}${text.endsWith('\n') ? text : `${text}\n`}`);
    this.#drawn = [];
    this.draw();
  }

  /** Stops drawing; the last picture stays on the screen. */
  stop(): void {
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.draw();
    this.#restore();
    process.removeListener('exit', this.#restore);
  }

  readonly #restore = (): void => {
    this.#stream.write(showCursor);
  };

  /** Moves to the first line of the last picture and clears from there. */
  #eraser(): string {
    const rows = rowsTaken(this.#drawn, this.#stream.columns ?? 80);
    return rows === 0 ? '' : `\u001b[${rows}A\r\u001b[J`;
  }
}
