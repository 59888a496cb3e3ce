/**
 * pgweave as a library: the workflows of the command line as functions. None of them ends the process, prints, or keeps global state; several jobs run in one process.
 */
export { PgweaveError, type PgweaveErrorOptions, type Retry } from './core/errors.ts';
export type { Emit, JobEvent, Phase, PlannedTable, ServerFacts, SlotHealth, StepEvent, StreamProgress, TableState } from './core/events.ts';
export { JobStatus, type JobSnapshot, type TableStatus } from './core/snapshot.ts';
export type { TableRef } from './core/tables.ts';
export { readJobConfig } from './core/selection/job-config.ts';
export { noRules, type SelectionRules } from './core/selection/index.ts';
export { parseConninfo, withDatabase, type ConnectionSpec } from './pg/conninfo.ts';
export { formatLsn, parseLsn, type Lsn } from './pg/lsn.ts';

export { validate, type ValidateOptions, type ValidateResult } from './workflows/validate.ts';
export { clone, planClone, type CloneOptions, type ClonePlan, type CloneResult } from './workflows/clone.ts';
export { follow, Follower, type FollowOptions, type FollowResult } from './workflows/follow.ts';
export { sync, type SyncOptions, type SyncResult } from './workflows/sync.ts';
export { nativeStatus, streamStatus, type NativeStatus, type StatusOptions } from './workflows/status.ts';
export { verify, type VerifyOptions, type VerifyReport } from './workflows/verify.ts';
export { compare, type CompareOptions, type CompareResult } from './workflows/compare.ts';
export { runSwitchover, type RunSwitchoverOptions } from './workflows/run-switchover.ts';
export { switchover, undoSwitchover, type SwitchoverOptions, type SwitchoverResult } from './workflows/switchover.ts';
export { tableCommand, type TableOptions, type TableResult } from './workflows/table.ts';
export { planCleanup, runCleanup, type CleanupOptions, type CleanupPlan, type CleanupResult } from './workflows/cleanup.ts';
export * as fanout from './fanout/index.ts';
export * as mesh from './mesh/index.ts';
