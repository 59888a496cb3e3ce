import type { TableRef } from './tables.ts';
import type { Topology } from './topology.ts';

/** Where a job stands, in the order in which a migration passes through. */
export type Phase =
  | 'preparing'
  | 'schema'
  | 'copying'
  | 'indexes'
  | 'finishing'
  | 'catching-up'
  | 'streaming'
  | 'paused'
  | 'switching-over'
  | 'switched-over'
  | 'done'
  | 'stopped'
  | 'failed';

/**
 * A table's life. Durable in `pgweave.table_state` on the target (changes/table-states.ts), except `copying`'s progress.
 * `copied`: rows are in, as of `lsn`; `streaming`: changes are applied; `paused`: changes wait, `reason` says why, `lsn` is the commit that failed.
 */
export type TableState =
  | { readonly name: 'pending' }
  | { readonly name: 'copying' }
  | { readonly name: 'copied'; readonly lsn: string | null }
  | { readonly name: 'streaming' }
  | { readonly name: 'paused'; readonly reason: string; readonly lsn: string | null };

export type StepStatus = 'running' | 'ok' | 'warn' | 'failed' | 'undone' | 'skipped';

/** One step of switchover, setup or cleanup, as people see it. */
export interface StepEvent {
  readonly type: 'step';
  readonly name: string;
  readonly status: StepStatus;
  readonly detail: string;
  /** Milliseconds since the first step began. */
  readonly elapsedMs: number;
}

export interface PlannedTable extends TableRef {
  readonly bytes: number;
  /** Estimate from the catalog; -1 where never analysed. */
  readonly rows: number;
  readonly parts: number;
  readonly indexes: number;
  readonly state?: TableState;
}

/** Facts that workflows report. Progress view, TUI, API, state file and metrics draw on these and nothing else. */
export type JobEvent =
  | { readonly type: 'phase'; readonly phase: Phase; readonly detail?: string }
  | { readonly type: 'servers'; readonly source: ServerFacts; readonly target: ServerFacts }
  | { readonly type: 'schema-objects'; readonly done: number; readonly total: number }
  | { readonly type: 'tables-planned'; readonly tables: readonly PlannedTable[] }
  | { readonly type: 'table-state'; readonly table: TableRef; readonly state: TableState }
  /** The table left the job. */
  | { readonly type: 'table-removed'; readonly table: TableRef }
  /** Increments since the last event of this table. */
  | { readonly type: 'copy-progress'; readonly table: TableRef; readonly part: number; readonly bytes: number; readonly rows: number }
  | { readonly type: 'copy-part'; readonly table: TableRef; readonly part: number; readonly status: 'started' | 'done' }
  | { readonly type: 'index'; readonly table: TableRef; readonly index: string; readonly status: 'started' | 'progress' | 'done'; readonly phase?: string; readonly percent?: number }
  | { readonly type: 'indexes-planned'; readonly total: number }
  | StreamProgress
  | { readonly type: 'table-changes'; readonly table: TableRef; readonly inserts: number; readonly updates: number; readonly deletes: number }
  | SlotHealth
  | StepEvent
  | { readonly type: 'counter'; readonly name: 'batches' | 'conflicts' | 'retries' | 'reconnects'; readonly by: number }
  /** Writes on the source were refused (`true`) or are taken again, there or on the target (`false`). */
  | { readonly type: 'writes'; readonly refused: boolean }
  /** Rows were compared. `lsn`: the one LSN of both sides where the job was running. */
  | { readonly type: 'verified'; readonly tables: number; readonly rows: number; readonly differing: number; readonly lsn: string | null }
  /** The way back after a switchover was opened or closed. */
  | { readonly type: 'way-back'; readonly open: boolean; readonly slot: string }
  | { readonly type: 'topology'; readonly topology: Topology }
  | { readonly type: 'warning'; readonly code: string; readonly message: string; readonly hint?: string }
  | { readonly type: 'log'; readonly level: 'debug' | 'info' | 'warn' | 'error'; readonly message: string; readonly fields?: Readonly<Record<string, unknown>> };

export interface ServerFacts {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  /** As `server_version` prints it, such as `15.18`. */
  readonly version: string;
  readonly provider: string;
}

export interface StreamProgress {
  readonly type: 'stream-progress';
  readonly receivedLsn: string;
  readonly appliedLsn: string;
  /** The source's current WAL position as its last keepalive or status query told. */
  readonly sourceLsn: string;
  readonly lagBytes: number;
  /** Milliseconds from source commit to target commit of the newest transaction applied; null while none. */
  readonly lagMs: number | null;
  readonly transactions: number;
  readonly rows: number;
  readonly spoolBytes?: number;
}

export interface SlotHealth {
  readonly type: 'slot-health';
  readonly slot: string;
  /** pg_replication_slots.wal_status: reserved, extended, unreserved, lost. */
  readonly walStatus: string;
  readonly retainedBytes: number;
  /** pg_replication_slots.safe_wal_size; null where unlimited. */
  readonly safeBytes: number | null;
}

/** What a workflow gets to report with. Never throws, never awaits. */
export type Emit = (event: JobEvent) => void;

/** Sends each event to several listeners. */
export function fanOut(...listeners: readonly Emit[]): Emit {
  return (event) => {
    for (const listener of listeners) listener(event);
  };
}
