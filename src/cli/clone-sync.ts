import type { Emit } from '../core/events.ts';
import type { SelectionRules } from '../core/selection/index.ts';
import type { JobFolder } from '../core/job-folder.ts';
import { parseLsn } from '../pg/lsn.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import type { SyncResult } from '../workflows/sync.ts';
import { subscriptionOptions, type SubscriptionFlags } from './subscription-options.ts';

export interface HandOver {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly rules: SelectionRules;
  readonly databases: readonly string[];
  readonly folder: JobFolder;
  readonly signal: AbortSignal;
  readonly emit: Emit;
}

/** The second half of `clone --sync`: PostgreSQL goes on from where the copy ended. Tables of a copy that was broken off and resumed are brought to one position by our own stream first. */
export async function handOver(flags: SubscriptionFlags, what: HandOver): Promise<SyncResult> {
  const { handOverToSubscription } = await import('../workflows/sync.ts');
  const { source, target, job, signal } = what;
  return await handOverToSubscription({
    ...subscriptionOptions(flags), source, target, job, rules: what.rules, scope: { database: source.database, databases: what.databases }, signal, onEvent: what.emit,
    bridge: async () => {
      const { Follower } = await import('../workflows/follow.ts');
      await using follower = await Follower.open({ source, target, job, untilCaughtUp: true, folder: what.folder, signal, onEvent: what.emit });
      return parseLsn((await follower.run()).appliedLsn);
    },
  });
}
