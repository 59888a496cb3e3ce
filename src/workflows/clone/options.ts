import type { CopyFormat } from '../../copy/table-plan.ts';
import type { Emit, ServerFacts } from '../../core/events.ts';
import type { SelectionRules } from '../../core/selection/rules.ts';
import type { SelectionScope } from '../../core/selection/select.ts';
import type { TableRef } from '../../core/tables.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import type { StreamStart } from './stream-start.ts';

/** Tables larger than this are copied in several parts. A smaller part gains nothing: one COPY moves 2 GB in some ten seconds. */
export const defaultSplitBytes = 2 * 1024 ** 3;

export interface CloneOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  /** Default `default`. */
  readonly job?: string;
  /** What comes after the copy: `clone` nothing; `follow` and `sync` a stream of changes, for which a slot and publications are made first. Default `clone`. */
  readonly mode?: 'clone' | 'follow' | 'sync';
  /** Parallel copies; default 4. */
  readonly jobs?: number;
  /** Parallel index builds; default as many as `jobs`. */
  readonly indexJobs?: number;
  /** Tables with more bytes are copied in several parts; 0 for never. Default 2 GB. */
  readonly splitBytes?: number;
  /** Default `auto`: binary where the types allow it. */
  readonly format?: CopyFormat;
  /** What is done for the planner at the end; default `analyze`. */
  readonly statistics?: 'analyze' | 'vacuum' | 'none';
  /** Drop tables of the same name on the target instead of refusing them. */
  readonly dropExisting?: boolean;
  /** False forgets what earlier runs of this job did. Default true. */
  readonly resume?: boolean;
  /** Default true: roles that the database uses are made where they are missing. */
  readonly roles?: boolean;
  /** Default true: objects keep their owners. */
  readonly owners?: boolean;
  /** Default true: grants are copied. */
  readonly privileges?: boolean;
  /** Default true: what lies in a tablespace goes to the one of that name, where the target has it. */
  readonly tablespaces?: boolean;
  /** Which tables, rows; default everything. Time windows must be fixed (core/selection/kept.ts). */
  readonly rules?: SelectionRules;
  readonly scope?: SelectionScope;
  /** With mode `sync`: tables without a replica identity that are published for inserts alone. */
  readonly insertOnly?: (table: TableRef) => boolean;
  readonly dumper?: 'auto' | 'system' | 'bundled';
  readonly signal?: AbortSignal;
  readonly onEvent?: Emit;
  readonly hooks?: CloneHooks;
}

export interface CloneHooks {
  /** The slot and the publications are there and nothing is copied yet: whoever wants to spool the stream during the copy can begin now. */
  readonly onStreamStart?: (start: StreamStart) => void | Promise<void>;
}

export interface CloneResult {
  readonly format: 1;
  readonly job: string;
  readonly mode: 'clone' | 'follow' | 'sync';
  readonly source: ServerFacts;
  readonly target: ServerFacts;
  /** An earlier run had done part of it. */
  readonly resumed: boolean;
  /** An earlier run had done all of it; nothing was done now. */
  readonly alreadyDone: boolean;
  readonly schemaObjects: number;
  /** Tables whose rows are on the target, by this run and earlier ones. */
  readonly tables: number;
  /** Rows and COPY bytes of this run. */
  readonly rows: number;
  readonly bytes: number;
  /** Indexes built by this run. */
  readonly indexes: number;
  readonly sequences: number;
  readonly largeObjects: number;
  /** Objects of the source that the selection left out, with the reason. */
  readonly leftOut: readonly { readonly object: string; readonly reason: string }[];
  readonly warnings: readonly { readonly code: string; readonly message: string; readonly hint: string | null }[];
  readonly elapsedMs: number;
  /** Set with `follow` and `sync`. */
  readonly stream: StreamStart | undefined;
}

/** What `--dry-run` is about. */
export interface PlanOptions extends CloneOptions {
  /** For one database of several, which is made where the target lacks it: a database of the target server that is there. */
  readonly madeThrough?: string;
}

/** What `--dry-run` shows. */
export interface ClonePlan {
  readonly format: 1;
  readonly job: string;
  readonly mode: 'clone' | 'follow' | 'sync';
  readonly source: ServerFacts;
  readonly target: ServerFacts;
  /** The target has no such database yet. */
  readonly makesDatabase: boolean;
  readonly resumes: boolean;
  readonly tables: readonly (TableRef & { readonly bytes: number; readonly rows: number; readonly parts: number; readonly indexes: number; readonly format: 'binary' | 'text'; readonly done: boolean })[];
  readonly bytes: number;
  readonly indexes: number;
  readonly schemaObjects: number;
  readonly sequences: number;
  readonly largeObjects: number;
  /** Relations on the target that stand in the way; `--drop-existing` drops them. */
  readonly existing: readonly string[];
  readonly leftOut: readonly { readonly object: string; readonly reason: string }[];
  /** Row filters of a job that is followed: applied by the source as it decodes, or by pgweave, and why not by the source. */
  readonly rowFilters: readonly { readonly table: string; readonly by: 'source' | 'pgweave'; readonly because: string | null }[];
  /** From a short read of the largest tables, over `jobs` connections; null where there is nothing to measure. Indexes come on top. */
  readonly estimate: { readonly bytesPerSecond: number; readonly copyMs: number; readonly sampledBytes: number } | null;
}
