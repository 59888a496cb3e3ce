import type { JobSnapshot, JobSummary, LogLine, TableStatus } from '../core/snapshot.ts';
import { tableKey } from '../core/tables.ts';
import type { ControlState } from './job-control.ts';

/** What goes over the WebSocket and `GET /api/v1/changes`, and how a client puts it together again. No I/O: the dashboard uses it too. */

export interface SwitchoverState {
  readonly status: 'idle' | 'running' | 'done' | 'failed' | 'stopped';
  readonly error: { readonly code: string; readonly message: string; readonly hint: string | null } | null;
}

/** The server's own facts beside the job's. */
export interface JobState extends ControlState {
  /** Of pgweave. */
  readonly version: string;
  /** Whether pause, resume, switchover and table actions can be asked for here. */
  readonly canAct: boolean;
  readonly switchover: SwitchoverState;
}

/** `snapshot` replaces everything; `delta` holds what changed after `since`. */
export interface FeedMessage {
  readonly type: 'snapshot' | 'delta';
  readonly feed: string;
  readonly seq: number;
  readonly since: number;
  readonly writtenAt: string;
  readonly state?: JobState;
  readonly summary: Partial<JobSummary>;
  readonly tables: readonly TableStatus[];
  readonly log: readonly LogLine[];
}

/** What a client has of a job. Immutable: each message makes a new view, sharing what did not change. */
export interface JobView {
  readonly feed: string;
  readonly seq: number;
  readonly state: JobState;
  readonly summary: JobSummary;
  readonly tables: readonly TableStatus[];
  readonly log: readonly LogLine[];
}

const logLinesKept = 500;

/** Places of tables in the array, kept beside a view so that a delta costs what it changes. */
const places = new WeakMap<readonly TableStatus[], Map<string, number>>();

/** Puts a message onto a view. Returns null where it does not fit (another feed, a gap): the client then asks for everything. */
export function applyMessage(view: JobView | null, message: FeedMessage): JobView | null {
  if (message.type === 'snapshot') {
    if (!message.state) return null;
    return { feed: message.feed, seq: message.seq, state: message.state, summary: { ...message.summary, writtenAt: message.writtenAt } as JobSummary, tables: message.tables, log: message.log };
  }
  if (!view || view.feed !== message.feed || message.since > view.seq) return null;
  return {
    feed: view.feed, seq: message.seq, state: message.state ?? view.state, summary: mergeSummary(view.summary, message), tables: mergeTables(view.tables, message.tables),
    log: message.log.length === 0 ? view.log : [...view.log, ...message.log].slice(-logLinesKept),
  };
}

function mergeSummary(summary: JobSummary, message: FeedMessage): JobSummary {
  const merged: Record<string, unknown> = { ...summary, ...message.summary, writtenAt: message.writtenAt };
  // An optional field that went away travels as null.
  for (const name of ['writesRefused', 'verified', 'wayBack', 'api', 'topology']) if (merged[name] === null) delete merged[name];
  return merged as unknown as JobSummary;
}

function mergeTables(tables: readonly TableStatus[], changed: readonly TableStatus[]): readonly TableStatus[] {
  if (changed.length === 0) return tables;
  let at = places.get(tables);
  if (!at) {
    at = new Map(tables.map((t, i) => [tableKey(t), i]));
  }
  const merged = [...tables];
  for (const t of changed) {
    const key = tableKey(t);
    const known = at.get(key);
    if (known === undefined) {
      at.set(key, merged.length);
      merged.push(t);
    } else merged[known] = t;
  }
  places.delete(tables);
  places.set(merged, at);
  return merged;
}

/** The whole snapshot again, for the renderers that take one. */
export function snapshotOf(view: JobView): JobSnapshot {
  return { ...view.summary, tables: [...view.tables], log: [...view.log] };
}
