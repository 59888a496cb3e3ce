import { errorMessage } from '../core/errors.ts';
import { JobStatus, type JobSnapshot } from '../core/snapshot.ts';
import { isRunning, readStateFile } from '../core/state-file.ts';
import { HistoryReader } from './history-file.ts';
import type { History, HistoryRange } from './history.ts';
import type { ControlState, JobControl } from './job-control.ts';

const lookEveryMs = 500;

/** A job as its state folder shows it: facts without actions. Follows the file while a job in another process writes it. */
export class FolderControl implements JobControl, Disposable {
  readonly actions = null;
  readonly #dir: string;
  readonly #history: HistoryReader;
  readonly #timer: NodeJS.Timeout;
  #snapshot: JobSnapshot;
  #problem: string | null = null;
  #reading = false;

  private constructor(dir: string, job: string, snapshot: JobSnapshot | null) {
    this.#dir = dir;
    this.#history = new HistoryReader(dir, job);
    this.#snapshot = snapshot ?? emptySnapshot(job);
    this.#timer = setInterval(() => void this.#look(), lookEveryMs);
    this.#timer.unref();
  }

  /** Reads the folder once before it returns. Throws where its state file is damaged; a missing one is waited for. */
  static async open(dir: string, job: string): Promise<FolderControl> {
    return new FolderControl(dir, job, await readStateFile(dir));
  }

  read(): JobSnapshot {
    return this.#snapshot;
  }

  state(): ControlState {
    if (this.#problem !== null) return { mode: 'folder', running: false, note: this.#problem };
    if (this.#snapshot.command === '') return { mode: 'folder', running: false, note: `No job has written a state to ${this.#dir} yet.` };
    if (!isRunning(this.#snapshot)) return { mode: 'folder', running: false, note: `Nothing runs now. The state was written at ${this.#snapshot.writtenAt}.` };
    return { mode: 'folder', running: true, note: this.#snapshot.api === undefined ? 'The job runs without an API, so it can be watched but not steered from here.' : `The job can be steered at ${this.#snapshot.api}.` };
  }

  config(): Readonly<Record<string, unknown>> {
    return { job: this.#snapshot.job, command: this.#snapshot.command, folder: this.#dir };
  }

  history(range: HistoryRange): Promise<History> {
    return this.#history.read(range);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      this.#snapshot = (await readStateFile(this.#dir)) ?? this.#snapshot;
      this.#problem = null;
    } catch (error) {
      this.#problem = errorMessage(error);
    } finally {
      this.#reading = false;
    }
  }
}

/** What is shown where nothing is known: a job that has not begun. `command` is empty, by which readers tell. */
function emptySnapshot(job: string): JobSnapshot {
  return new JobStatus(job, '').read();
}
