import { open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PgweaveError } from './errors.ts';
import type { JobSnapshot } from './snapshot.ts';

const fileName = 'status.json';
const writeEveryMs = 1000;

/** Path of the state file in a job's folder. */
export function stateFilePath(jobDir: string): string {
  return join(jobDir, fileName);
}

/**
 * Writes a job's status into its folder, whole and atomically (a temporary file beside it, renamed over it), once a second and at the end.
 * A reader therefore always finds one complete document, also after `kill -9`. Writing never fails the job: `onError` hears of the first failure.
 */
export class StateFileWriter implements AsyncDisposable {
  readonly #path: string;
  readonly #read: () => JobSnapshot;
  readonly #onError: (error: unknown) => void;
  readonly #timer: NodeJS.Timeout;
  #writing: Promise<void> | null = null;
  #failed = false;
  #closed = false;

  constructor(jobDir: string, read: () => JobSnapshot, options: { onError?: (error: unknown) => void; everyMs?: number } = {}) {
    this.#path = stateFilePath(jobDir);
    this.#read = read;
    this.#onError = options.onError ?? (() => {});
    this.#timer = setInterval(() => void this.write(), options.everyMs ?? writeEveryMs);
    // The state file alone keeps no process alive.
    this.#timer.unref();
  }

  /** Writes now. While a write is under way the call joins it, so that a slow disk never piles up writes. */
  write(): Promise<void> {
    this.#writing ??= this.#writeOnce().finally(() => {
      this.#writing = null;
    });
    return this.#writing;
  }

  /** The final write: state as it is now. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#writing;
    await this.write();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #writeOnce(): Promise<void> {
    const temporary = `${this.#path}.${process.pid}.tmp`;
    try {
      // Serialised before the first await: the snapshot object is reused.
      const text = JSON.stringify(this.#read());
      // Only the owner reads it: table names and server addresses are nobody else's business.
      const file = await open(temporary, 'w', 0o600);
      try {
        await file.writeFile(text);
      } finally {
        await file.close();
      }
      await rename(temporary, this.#path);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => {});
      if (!this.#failed) {
        this.#failed = true;
        this.#onError(error);
      }
    }
  }
}

/**
 * Reads the state file of a job's folder; null where there is none.
 * @throws PgweaveError `state-file-unreadable` where it is damaged or from a later pgweave.
 */
export async function readStateFile(jobDir: string): Promise<JobSnapshot | null> {
  const path = stateFilePath(jobDir);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new PgweaveError('state-file-unreadable', `cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new PgweaveError('state-file-unreadable', `${path} is not valid JSON`, { hint: 'The running job writes it anew every second. Where no job runs, delete it: it holds no progress, only what was shown.', cause: error });
  }
  if (!isSnapshot(value)) {
    throw new PgweaveError('state-file-unreadable', `${path} is not a status of this version of pgweave`, { hint: 'It was written by another version. Use that version, or start the job again.' });
  }
  return value;
}

function isSnapshot(value: unknown): value is JobSnapshot {
  return typeof value === 'object' && value !== null && 'format' in value && value.format === 1 && 'tables' in value && Array.isArray(value.tables);
}

/** Whether the process that wrote the snapshot is alive. Only meaningful on the machine that wrote it. */
export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** The state file is rewritten each second, so this much later nothing writes it any more; the pid alone could belong to a new process. */
const silentAfterMs = 10_000;

/** Whether a job still runs behind a snapshot read from its folder: its process lives and it wrote within the last ten seconds. */
export function isRunning(snapshot: JobSnapshot, now: number = Date.now()): boolean {
  return now - Date.parse(snapshot.writtenAt) < silentAfterMs && !isEnded(snapshot) && isProcessAlive(snapshot.pid);
}

function isEnded(snapshot: JobSnapshot): boolean {
  return snapshot.phase === 'done' || snapshot.phase === 'stopped' || snapshot.phase === 'failed';
}
