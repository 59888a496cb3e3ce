import { ensurePgweaveTables } from '../../catalog/pgweave-schema.ts';
import { PgweaveError } from '../../core/errors.ts';
import type { Emit, StepEvent, StepStatus } from '../../core/events.ts';
import type { Session } from '../../pg/session.ts';
import type { PreviousSetting } from './lock-source.ts';

const statements: readonly string[] = [
  `create table if not exists pgweave.switchover (
     job text primary key, run text not null, status text not null check (status in ('running', 'undone', 'done')), started_at pg_catalog.timestamptz not null default pg_catalog.clock_timestamp(),
     ended_at pg_catalog.timestamptz, previous pg_catalog.jsonb, way_back boolean not null default false, marker_lsn pg_catalog.pg_lsn, steps pg_catalog.jsonb not null default '[]')`,
];

/** `running`: begun, and not brought to an end by the process that began it. `undone`: the source takes writes again. `done`: the target has taken over. */
export type SwitchoverStatus = 'running' | 'undone' | 'done';

export interface SwitchoverRecord {
  readonly run: string;
  readonly status: SwitchoverStatus;
  readonly startedAt: string;
  /** The source database's own setting before it was made read-only; null where nothing was changed yet. */
  readonly previous: PreviousSetting | null;
  /** A slot and publication for the way back were made. */
  readonly wayBack: boolean;
  readonly steps: readonly Omit<StepEvent, 'type'>[];
}

/** The newest switchover of a job, as `pgweave.switchover` on the target has it; undefined where there was none. */
export async function readSwitchover(target: Session, job: string): Promise<SwitchoverRecord | undefined> {
  const { there } = await target.one<{ there: boolean }>(`select pg_catalog.to_regclass('pgweave.switchover') is not null as there`);
  if (!there) return undefined;
  const [row] = await target.query<{ run: string; status: SwitchoverStatus; started: string; previous: PreviousSetting | null; way_back: boolean; steps: Omit<StepEvent, 'type'>[] }>(
    'select run, status, started_at::text as started, previous, way_back, steps from pgweave.switchover where job = $1', [job],
  );
  return row && { run: row.run, status: row.status, startedAt: row.started, previous: row.previous, wayBack: row.way_back, steps: row.steps };
}

/**
 * The steps of one switchover: told to listeners as they happen, and kept on the target, so that whoever comes after a crash knows what was begun. What a step changes is
 * written down before it is changed.
 */
export class SwitchoverSteps {
  readonly run: string;
  readonly #target: Session;
  readonly #job: string;
  readonly #emit: Emit;
  readonly #start = performance.now();
  readonly #steps: Omit<StepEvent, 'type'>[] = [];

  private constructor(target: Session, job: string, run: string, emit: Emit) {
    this.#target = target;
    this.#job = job;
    this.run = run;
    this.#emit = emit;
  }

  /** Begins a run; what an unfinished run had changed on the source (`previous`) is taken over from it. */
  static async begin(target: Session, job: string, run: string, previous: PreviousSetting | undefined, emit: Emit): Promise<SwitchoverSteps> {
    await ensurePgweaveTables(target, 'switchover', 1, statements);
    await target.query(
      `insert into pgweave.switchover (job, run, status, previous) values ($1, $2, 'running', $3)
       on conflict (job) do update set run = excluded.run, status = 'running', previous = excluded.previous, started_at = pg_catalog.clock_timestamp(), ended_at = null, way_back = false, marker_lsn = null, steps = '[]'`,
      [job, run, previous === undefined ? null : JSON.stringify(previous)],
    );
    return new SwitchoverSteps(target, job, run, emit);
  }

  /** Milliseconds since the run began. */
  elapsed(): number {
    return performance.now() - this.#start;
  }

  get all(): readonly Omit<StepEvent, 'type'>[] {
    return this.#steps;
  }

  /** Runs one step. `work` returns what people read about it. A step that throws is reported as failed and the error goes up. */
  async step<T extends { readonly detail: string; readonly status?: StepStatus }>(name: string, work: () => Promise<T>): Promise<T> {
    this.#report(name, 'running', '');
    try {
      const result = await work();
      this.#report(name, result.status ?? 'ok', result.detail);
      return result;
    } catch (error) {
      this.#report(name, 'failed', error instanceof Error ? error.message : String(error));
      throw error;
    }
  }

  /** Adds a step that was taken back. */
  undone(name: string, detail: string): void {
    this.#report(name, 'undone', detail);
  }

  async remember(previous: PreviousSetting): Promise<void> {
    await this.#target.query('update pgweave.switchover set previous = $2 where job = $1', [this.#job, JSON.stringify(previous)]);
  }

  async rememberWayBack(): Promise<void> {
    await this.#target.query('update pgweave.switchover set way_back = true where job = $1', [this.#job]);
  }

  async end(status: 'undone' | 'done', markerLsn?: string): Promise<void> {
    await this.#target.query('update pgweave.switchover set status = $2, ended_at = pg_catalog.clock_timestamp(), marker_lsn = $3, steps = $4 where job = $1', [this.#job, status, markerLsn ?? null, JSON.stringify(this.#steps)]);
  }

  #report(name: string, status: StepStatus, detail: string): void {
    const step = { name, status, detail, elapsedMs: Math.round(this.elapsed()) };
    const known = this.#steps.findIndex((s) => s.name === name);
    if (known >= 0) this.#steps[known] = step;
    else this.#steps.push(step);
    this.#emit({ type: 'step', ...step });
  }
}

/** Copying over a target that has taken over would lose what applications wrote to it since. Throws `switched-over-already`. */
export async function refuseSwitchedOver(target: Session, job: string): Promise<void> {
  const record = await readSwitchover(target, job);
  if (record?.status !== 'done') return;
  throw new PgweaveError('switched-over-already', `job ${job} was switched over at ${record.startedAt.slice(0, 19)} UTC: the target has the writes, and nothing is copied over it`, {
    hint: record.wayBack ? `The way back is open. Let the old source follow: pgweave follow --job ${job}. Return: pgweave switchover --job ${job} --back` : `What is left of the job is removed by: pgweave cleanup --job ${job}`, retry: 'never',
  });
}
