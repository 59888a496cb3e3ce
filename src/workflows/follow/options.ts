import type { ChangeLog } from '../../changes/change-log.ts';
import type { Emit } from '../../core/events.ts';
import type { JobFolder } from '../../core/job-folder.ts';
import type { TableRef } from '../../core/tables.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';

export interface FollowOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  /** Default: `pgweave_<job>`. */
  readonly slot?: string;
  /** Default: those of `pgweave_<job>` and `pgweave_<job>_inserts` that the source has. */
  readonly publications?: readonly string[];
  /** `none` leaves out what was itself replicated to the source. Default any. */
  readonly origin?: 'any' | 'none';
  /** Folder for received changes: the source can recycle its WAL while the target is behind. */
  readonly spool?: { readonly folder: string; readonly maxBytes?: number } | undefined;
  /** End once the target has everything that the source held when the streaming began. */
  readonly untilCaughtUp?: boolean;
  /** Add columns to the target that were added on the source, instead of pausing the table. */
  readonly addColumns?: boolean;
  /** Values in binary form: `auto` where all published types have the same binary form on both sides. */
  readonly binary?: 'auto' | 'on' | 'off';
  /** Tables in the stream that the job does not know: pause them (default), or apply them (a stream without a copy). */
  readonly unknownTables?: 'apply' | 'pause';
  /** The table on the target for a table of the source; default the same name. */
  readonly mapTable?: (table: TableRef) => TableRef;
  /** Columns that are not replicated. */
  readonly excludedColumns?: (table: TableRef) => readonly string[];
  /** The job's folder, where the rules are kept by which it was cloned: they give `mapTable` and `excludedColumns`. */
  readonly folder?: JobFolder;
  /** For tests and benchmarks: from how many rows on a table's changes in one batch go by COPY and set statements. */
  readonly setWiseFrom?: number;
  /** A log that receives already, such as one opened while the copy ran; closed at the end. */
  readonly log?: ChangeLog;
  /** First firing: finish the transaction in hand and end. */
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: Emit;
}

export interface FollowResult {
  /** Everything that the source wrote before it is on the target. */
  readonly appliedLsn: string;
  readonly transactions: number;
  readonly rows: number;
  /** Tables that wait for somebody to act. */
  readonly paused: readonly { readonly table: TableRef; readonly reason: string }[];
  /** `untilCaughtUp` was asked for and reached. */
  readonly caughtUp: boolean;
  /** Set where a switchover ended it: the job that now streams the other way, or null where none was asked for. */
  readonly switchedOver: { readonly wayBack: string | null } | undefined;
}
