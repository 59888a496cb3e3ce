import { columnDependentsOf } from '../catalog/column-dependents.ts';
import { resolveDatabases, resolveSelection, rulesByDatabase, selectableTables } from '../catalog/selection.ts';
import { PgweaveError } from '../core/errors.ts';
import { describeRules, excludedColumns, fixTimeWindows, hasRules, keepRules, keptRules, matchTables, noRules, selectsDatabases, unmatchedError, type SelectableTable, type SelectionRules } from '../core/selection/index.ts';
import type { TablePattern } from '../core/selection/names.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { instanceJobs } from '../workflows/instance.ts';
import { claimJob, type JobContext } from './common.ts';
import { neverBegan } from './never-began.ts';

export interface SettledRules {
  readonly rules: SelectionRules;
  /** Where the job spans several databases: their names, and what of the rules each job keeps. */
  readonly several: { readonly names: readonly string[]; readonly rulesOf: ReadonlyMap<string, SelectionRules> } | undefined;
}

export interface SettleOptions {
  /** The rules given replace those kept. */
  readonly startOver: boolean;
  /** Only looks and refuses; writes nothing down. */
  readonly peek?: boolean;
  /** The tables of --insert-only. */
  readonly insertOnly?: readonly TablePattern[];
}

/**
 * Settles what a job moves: looks at both servers and checks the rules on the source first, and only then records the two ends and the rules in the job's folder, so that a slip of the pen is
 * never held against the corrected command. Nor is one that was found later, as long as nothing was made.
 */
export async function settleRules(context: JobContext, source: ConnectionSpec, target: ConnectionSpec, given: SelectionRules, options: SettleOptions): Promise<SettledRules> {
  const now = new Date();
  const { job, signal } = context;
  const anew = !options.peek && (await neverBegan(context, source, target));
  // A job that is known already is refused at once where its ends are others.
  if (context.folder.identity() && !options.peek && !anew) claimJob(context, source, target);
  const startOver = anew || options.startOver || (await holdsNothing(context, source, target, given));
  const begins = startOver || keptRules(context.folder) === undefined;
  const rules = fixTimeWindows(keepRules(context.folder, given, { startOver, now, peek: true }), now);
  let several: SettledRules['several'];
  {
    await using here = await Session.open(source, { role: 'choose', job, side: 'the source', signal });
    await using _there = await Session.open(target, { role: 'choose', job, side: 'the target', signal });
    if (options.insertOnly && !selectsDatabases(rules)) refuseUnmatched('--insert-only', options.insertOnly, source.database, await selectableTables(here));
    if (selectsDatabases(rules)) {
      const names = await resolveDatabases(here, rules);
      several = { names, rulesOf: await rulesByDatabase(source, rules, names, { job, signal }) };
    } else if (hasRules(rules)) {
      const { selection } = await resolveSelection(here, rules);
      // Once the job has begun, what came to rest on a column since is no reason to stop.
      if (begins) await columnDependentsOf(here, excludedColumns(selection));
    }
  }
  if (options.peek) return { rules, several };
  claimJob(context, source, target, { anew });
  keepRules(context.folder, given, { startOver, now });
  return { rules, several };
}

function refuseUnmatched(flag: string, patterns: readonly TablePattern[], database: string, tables: readonly SelectableTable[]): void {
  const { unmatched } = matchTables({ ...noRules, schemaOnlyTables: patterns }, database, tables);
  if (unmatched.length > 0) throw unmatchedError(unmatched.map((u) => ({ ...u, rule: flag })));
}

/** One line a time window, with the moment that it was turned into. */
export function windowLines(rules: SelectionRules): string[] {
  return describeRules({ ...noRules, timeFilters: rules.timeFilters }, { moments: true });
}

/** Whether other rules than those given are kept, and yet nothing was made by them: the run that kept them was refused. */
async function holdsNothing(context: JobContext, source: ConnectionSpec, target: ConnectionSpec, given: SelectionRules): Promise<boolean> {
  try {
    keepRules(context.folder, given, { peek: true });
    return false;
  } catch (error) {
    if (!(error instanceof PgweaveError) || error.code !== 'selection-changed') throw error;
  }
  if (instanceJobs(context.folder)) return false;
  const { planCleanup } = await import('../workflows/cleanup.ts');
  const { leftovers, unreachable } = await planCleanup({ source, target, job: context.job, signal: context.signal });
  return leftovers.length === 0 && unreachable.length === 0;
}
