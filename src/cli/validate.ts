import type { Command } from 'commander';
import { resolveDatabases, rulesByDatabase } from '../catalog/selection.ts';
import { exitCodes, usageError } from '../core/errors.ts';
import { selectsDatabases, type SelectionRules } from '../core/selection/index.ts';
import { withDatabase, type ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import type { ValidateResult } from '../workflows/validate.ts';
import { jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { chooseInteractively } from './interactive.ts';
import { renderChecks } from './render/checks.ts';
import { paintFor } from './render/layout.ts';
import { subscriptionOptions } from './subscription-options.ts';
import { addSelectionOptions, selectionRules, type SelectionOptions } from './selection-options.ts';

interface ValidateFlags extends CommonOptions, SelectionOptions {
  readonly config?: string;
  readonly follow?: boolean;
  readonly sync?: boolean;
  readonly details?: boolean;
  readonly jobs: string;
  readonly dropExisting?: boolean;
  /** False with --no-roles. */
  readonly roles: boolean;
  readonly owner: boolean;
  readonly insertOnly?: readonly string[];
  readonly sourceForTarget?: string;
}

export function validateCommand(): Command {
  const command = jobCommand('validate', 'check both servers before anything is changed; every failure comes with its fix', 'pgweave validate --follow --source postgresql://app@old/shop --target postgresql://app@new/shop\npgweave validate --json | jq \'.checks[] | select(.status == "fail")\'')
    .option('--follow', 'check for a job that streams changes after the copy')
    .option('--sync', 'check for a job that hands over to a native subscription')
    .option('--details', 'show what is behind every check')
    .option('--jobs <n>', 'parallel copies that the job will run', '4')
    .option('--drop-existing', 'the job will drop tables of the same name on the target')
    .option('--no-roles', 'the job will create no roles')
    .option('--no-owner', 'the job will not keep owners')
    .option('--insert-only <names>', 'with --sync: tables without a replica identity of which only inserts will be replicated, separated by commas', (value: string, before: readonly string[] | undefined) => [...(before ?? []), value])
    .option('--source-for-target <uri>', 'with --sync: the address at which the target reaches the source, where it is not the one of --source');
  return addSelectionOptions(command).action((flags: ValidateFlags) => runAction(flags, (context) => runValidate(flags, context)));
}

async function runValidate(flags: ValidateFlags, context: JobContext): Promise<number> {
  const { validate } = await import('../workflows/validate.ts');
  if (flags.follow && flags.sync) throw usageError('--follow and --sync exclude one another', 'Follow with pgweave itself (--follow), or with a native subscription (--sync).');
  const jobs = Number(flags.jobs);
  if (!Number.isInteger(jobs) || jobs < 1) throw usageError(`not a number of jobs: "${flags.jobs}"`, 'Give a whole number from 1.');
  const source = context.source();
  const target = context.target();
  const given = selectionRules(flags, context.config());
  const rules = (await chooseInteractively(context, { source, target, rules: given, verb: 'check', jobs })) ?? given;
  const { insertOnly, sourceForTarget } = subscriptionOptions({ ...(flags.insertOnly ? { insertOnly: flags.insertOnly } : {}), ...(flags.sourceForTarget ? { sourceForTarget: flags.sourceForTarget } : {}) });
  const databases = await databasesOf(source, rules, context);
  const results: ValidateResult[] = [];
  for (const database of databases ?? [source.database]) {
    results.push(await validate({
      source: withDatabase(source, database), target: databases === undefined ? target : withDatabase(target, database), job: context.job, mode: flags.sync ? 'sync' : flags.follow ? 'follow' : 'clone', jobs, dropExisting: flags.dropExisting === true,
      roles: flags.roles, owner: flags.owner, insertOnly, sourceForTarget, rules, scope: { database, databases: databases ?? [database] }, madeThrough: databases === undefined ? undefined : target.database, signal: context.signal,
    }));
  }
  if (context.json) printJson(databases === undefined ? results[0] : { format: 1, ok: results.every((r) => r.ok), databases: results });
  else {
    const paint = paintFor(process.stdout);
    results.forEach((result, i) => print(...(i > 0 ? [''] : []), ...renderChecks(result, { paint, details: flags.details === true })));
  }
  return results.every((r) => r.ok) ? exitCodes.done : exitCodes.checkFailed;
}

/** Names of several databases, each checked against the one of the same name; undefined where the job is about the URI's database alone. */
async function databasesOf(source: ConnectionSpec, rules: SelectionRules, context: JobContext): Promise<readonly string[] | undefined> {
  if (!selectsDatabases(rules)) return undefined;
  await using session = await Session.open(source, { role: 'preflight', job: context.job, side: 'the source', signal: context.signal });
  const names = await resolveDatabases(session, rules);
  // For its refusal of names that match nothing in any of them.
  await rulesByDatabase(source, rules, names, { job: context.job, signal: context.signal });
  return names;
}
