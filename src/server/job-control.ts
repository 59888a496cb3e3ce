import { PgweaveError } from '../core/errors.ts';
import type { JobSnapshot } from '../core/snapshot.ts';
import type { TableRef } from '../core/tables.ts';
import type { History, HistoryRange } from './history.ts';

/** Where a server's facts come from. `job`: it runs in this process; `folder`: a state folder is read; `remote`: another pgweave's API. */
export type ControlMode = 'job' | 'folder' | 'remote';

export interface ControlState {
  readonly mode: ControlMode;
  /** Whether a job runs behind the snapshot now. */
  readonly running: boolean;
  /** Why not, or what cannot be done here, in one sentence; null where there is nothing to say. */
  readonly note: string | null;
}

export type TableAction = 'retry' | 'skip-transaction' | 'copy-again';

/** What `pgweave switchover` takes as flags. */
export interface SwitchoverRequest {
  /** Writes are given back when it took longer, milliseconds. */
  readonly timeoutMs?: number | undefined;
  readonly lock?: 'database' | 'tables' | 'none' | undefined;
  readonly sequenceBuffer?: number | undefined;
  readonly verify?: boolean | undefined;
  readonly reverse?: boolean | undefined;
  /** Return over the open way back. */
  readonly back?: boolean | undefined;
}

/** One thing that is looked at before a switchover. */
export interface CheckResult {
  readonly name: string;
  readonly status: 'ok' | 'warn' | 'failed';
  readonly detail: string;
  /** What to do about it, SQL or a command where there is one. */
  readonly fix?: string | undefined;
}

/** What can be done to a running job. Each rejects with a PgweaveError that says why it was refused and what to do. */
export interface JobActions {
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Resolves when the switchover is through; its steps are events of the job. The signal stops it and gives writes back. */
  switchover(request: SwitchoverRequest, signal: AbortSignal): Promise<void>;
  /** Looks, changes nothing. Without it the dashboard shows only what the snapshot tells. */
  checks?(): Promise<readonly CheckResult[]>;
  table(action: TableAction, table: TableRef): Promise<void>;
}

/** All that the server, and with it dashboard and TUI, knows of a job. */
export interface JobControl {
  /** The state now; may be reused by its owner, so it is serialised or copied before anything is awaited. */
  read(): JobSnapshot;
  state(): ControlState;
  /** The configuration that the job runs with, without secrets. */
  config(): Readonly<Record<string, unknown>>;
  /** What was measured over time, where somebody else records it; without it the server records from its own start. */
  history?(range: HistoryRange): Promise<History>;
  /** Null where nothing can be done from here. */
  readonly actions: JobActions | null;
}

/** A control for a job in this process. */
export function ownJob(read: () => JobSnapshot, config: Readonly<Record<string, unknown>>, actions: JobActions | null): JobControl {
  return { read, config: () => config, actions, state: () => ({ mode: 'job', running: true, note: null }) };
}

export function noActionsError(state: ControlState): PgweaveError {
  if (state.mode === 'job' && state.note !== null) return new PgweaveError('no-running-job', state.note, { hint: 'It can be stopped at any time: the same command goes on.', retry: 'manual' });
  return new PgweaveError('no-running-job', state.note ?? 'no running job can be reached from here', {
    hint: 'Start the job with --api-port, or attach to its API: pgweave serve --connect http://host:port', retry: 'manual',
  });
}
