import { open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PgweaveError } from '../core/errors.ts';
import type { JobSnapshot } from '../core/snapshot.ts';
import { HistoryRecorder, historyRanges, historySeries, type History, type HistoryRange, type KeptHistory } from './history.ts';

const fileName = 'history.json';
const recordEveryMs = 1000;
/** After `kill -9` the charts lack this much at most. At its largest the file has some 300 kB, after four weeks. */
const writeEveryMs = 20_000;

/** Path of the history in a job's folder. */
export function historyFilePath(jobDir: string): string {
  return join(jobDir, fileName);
}

/**
 * Records a job's history while it runs and keeps it in the job's folder: whole and atomically, now and then and at the end. A job that is started again goes on in it, so that its charts show
 * what was before. Never fails the job: `onError` hears of a file that cannot be read or written, each once.
 */
export class HistoryKeeper implements AsyncDisposable {
  readonly recorder = new HistoryRecorder();
  readonly #path: string;
  readonly #job: string;
  readonly #read: () => JobSnapshot;
  readonly #onError: (error: unknown) => void;
  readonly #timers: NodeJS.Timeout[] = [];
  #writing: Promise<void> = Promise.resolve();
  #failed = false;

  private constructor(jobDir: string, job: string, read: () => JobSnapshot, onError: (error: unknown) => void) {
    this.#path = historyFilePath(jobDir);
    this.#job = job;
    this.#read = read;
    this.#onError = onError;
  }

  static async open(jobDir: string, job: string, read: () => JobSnapshot, onError: (error: unknown) => void): Promise<HistoryKeeper> {
    const keeper = new HistoryKeeper(jobDir, job, read, onError);
    try {
      const kept = await readHistoryFile(jobDir, job);
      if (kept) keeper.recorder.restore(kept);
    } catch (error) {
      onError(error);
    }
    keeper.#timers.push(setInterval(() => keeper.recorder.record(read(), true, Date.now()), recordEveryMs), setInterval(() => keeper.#write(), writeEveryMs));
    for (const timer of keeper.#timers) timer.unref();
    return keeper;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    // How it ended belongs to it.
    this.recorder.record(this.#read(), true, Date.now());
    this.#write();
    await this.#writing;
  }

  #write(): void {
    this.#writing = this.#writing.then(() => this.#writeOnce());
  }

  async #writeOnce(): Promise<void> {
    const temporary = `${this.#path}.${process.pid}.tmp`;
    try {
      const file = await open(temporary, 'w', 0o600);
      try {
        await file.writeFile(JSON.stringify(this.recorder.keep(this.#job), rounded));
      } finally {
        await file.close();
      }
      await rename(temporary, this.#path);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => {});
      if (!this.#failed) this.#onError(error);
      this.#failed = true;
    }
  }
}

/** Fractions of bytes and milliseconds are no measurement. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Math.round(value) : value;
}

/**
 * What a job's folder keeps of its history; null where there is none, or where it is another job's.
 * @throws PgweaveError `history-unreadable` where the file is damaged or of another version.
 */
export async function readHistoryFile(jobDir: string, job: string): Promise<KeptHistory | null> {
  const path = historyFilePath(jobDir);
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw unreadable(path, error);
  }
  if (!isKept(value)) throw unreadable(path);
  return value.job === job ? value : null;
}

function unreadable(path: string, cause?: unknown): PgweaveError {
  return new PgweaveError('history-unreadable', `the history in ${path} cannot be read`, { hint: 'It holds only what the charts show; it begins anew.', cause });
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

function isKept(value: unknown): value is KeptHistory {
  if (!isObject(value) || value['format'] !== 1 || typeof value['job'] !== 'string' || typeof value['lastPhase'] !== 'string' || !Array.isArray(value['events']) || !isObject(value['tiers'])) return false;
  const { tiers } = value;
  return historyRanges.every((range) => {
    const tier = tiers[range];
    if (!isObject(tier) || !Array.isArray(tier['at']) || !isObject(tier['series'])) return false;
    const { at, series } = tier;
    return historySeries.every((name) => Array.isArray(series[name]) && series[name].length === at.length);
  });
}

/** The history that a folder's file holds, read anew where it was written since. */
export class HistoryReader {
  readonly #dir: string;
  readonly #job: string;
  #recorder = new HistoryRecorder();
  #readAt = 0;

  constructor(jobDir: string, job: string) {
    this.#dir = jobDir;
    this.#job = job;
  }

  /** Empty where there is no file, or none that can be read. */
  async read(range: HistoryRange): Promise<History> {
    const writtenAt = (await stat(historyFilePath(this.#dir)).catch(() => null))?.mtimeMs ?? 0;
    if (writtenAt !== this.#readAt) {
      this.#readAt = writtenAt;
      this.#recorder = new HistoryRecorder();
      const kept = await readHistoryFile(this.#dir, this.#job).catch(() => null);
      if (kept) this.#recorder.restore(kept);
    }
    return this.#recorder.read(range);
  }
}
