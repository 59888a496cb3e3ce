import { columnDependentsOf } from '../catalog/column-dependents.ts';
import { resolveDatabases, resolveSelection, rulesByDatabase } from '../catalog/selection.ts';
import { excludedColumns, hasRules, keepRules, keptRules, selectsDatabases, type SelectionRules } from '../core/selection/index.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { claimJob, type JobContext } from './common.ts';

export interface SettledRules {
  readonly rules: SelectionRules;
  /** Where the job spans several databases: their names, and what of the rules each job keeps. */
  readonly several: { readonly names: readonly string[]; readonly rulesOf: ReadonlyMap<string, SelectionRules> } | undefined;
}

/**
 * Settles what a job moves: looks at both servers and checks the rules on the source first, and only then records the two ends and the rules in the job's folder, so that a slip of the pen is
 * never held against the corrected command.
 */
export async function settleRules(context: JobContext, source: ConnectionSpec, target: ConnectionSpec, given: SelectionRules, startOver: boolean): Promise<SettledRules> {
  const now = new Date();
  const { job, signal } = context;
  // A job that is known already is refused at once where its ends are others.
  if (context.folder.identity()) claimJob(context, source, target);
  const begins = startOver || keptRules(context.folder) === undefined;
  const rules = keepRules(context.folder, given, { startOver, now, peek: true });
  let several: SettledRules['several'];
  {
    await using here = await Session.open(source, { role: 'choose', job, side: 'the source', signal });
    await using _there = await Session.open(target, { role: 'choose', job, side: 'the target', signal });
    if (selectsDatabases(rules)) {
      const names = await resolveDatabases(here, rules);
      several = { names, rulesOf: await rulesByDatabase(source, rules, names, { job, signal }) };
    } else if (hasRules(rules)) {
      const { selection } = await resolveSelection(here, rules);
      // Once the job has begun, what came to rest on a column since is no reason to stop.
      if (begins) await columnDependentsOf(here, excludedColumns(selection));
    }
  }
  claimJob(context, source, target);
  keepRules(context.folder, given, { startOver, now });
  return { rules, several };
}
