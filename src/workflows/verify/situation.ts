import { subscriptionByName, type SubscriptionRow } from '../../catalog/subscriptions.ts';
import { runningFollower } from '../../changes/control.ts';
import { hasChangesSchema } from '../../changes/target-schema.ts';
import { readTableStateMap, type TableRecord } from '../../changes/table-states.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import type { Session } from '../../pg/session.ts';

/**
 * How the target is kept: `running`: a follower of ours streams; `subscription`: PostgreSQL's own workers do; `stopped`: the job has a follower that does not run; `plain`: two databases, nothing
 * between them.
 */
export type VerifyMode = 'running' | 'subscription' | 'stopped' | 'plain';

export interface Situation {
  readonly mode: VerifyMode;
  /** By tableKey; empty where the job keeps none. */
  readonly states: ReadonlyMap<string, TableRecord>;
  readonly subscription: SubscriptionRow | undefined;
  /** A stream of changes belongs to the job, whether it runs or not: only the tables in it must be equal. */
  readonly followed: boolean;
}

/** Looks at the target: what brings changes there now? */
export async function readSituation(target: Session, job: string): Promise<Situation> {
  const [subscription] = await target.query<SubscriptionRow>(subscriptionByName(jobObjectName(job), target.serverVersion));
  const ours = await hasChangesSchema(target);
  const states = ours ? await readTableStateMap(target, job) : new Map<string, TableRecord>();
  const followed = subscription !== undefined || [...states.values()].some((r) => r.copiedLsn !== undefined);
  if (subscription?.enabled) return { mode: 'subscription', states, subscription, followed };
  if (ours && (await runningFollower(target, job))) return { mode: 'running', states, subscription, followed };
  return { mode: followed ? 'stopped' : 'plain', states, subscription, followed };
}
