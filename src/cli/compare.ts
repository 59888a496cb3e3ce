import type { Command } from 'commander';
import { exitCodes } from '../core/errors.ts';
import { hasRules, keptRules } from '../core/selection/index.ts';
import { describeConnection } from '../pg/conninfo.ts';
import { jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { refuseInstance } from './instance.ts';
import { renderDifferences } from './render/differences.ts';
import { paintFor } from './render/layout.ts';
import { addSelectionOptions, selectionRules, type SelectionOptions } from './selection-options.ts';

interface CompareFlags extends Omit<CommonOptions, 'config'>, SelectionOptions {
  /** False with --no-owner, --no-privileges, --no-comments. */
  readonly owner: boolean;
  readonly privileges: boolean;
  readonly comments: boolean;
}

export function compareCommand(): Command {
  const command = jobCommand('compare', 'compare the two schemas', "pgweave compare --source postgresql://app@old/shop --target postgresql://app@new/shop\npgweave compare --json | jq '.differences[] | select(.change == \"missing\") | .object'")
    .option('--no-owner', 'owners do not count')
    .option('--no-privileges', 'privileges do not count')
    .option('--no-comments', 'comments do not count');
  return addSelectionOptions(command, { databases: false }).action((flags: CompareFlags) => runAction(flags, (context) => runCompare(flags, context)));
}

async function runCompare(flags: CompareFlags, context: JobContext): Promise<number> {
  const { compare } = await import('../workflows/compare.ts');
  // Two ends that are given are compared, whatever the job is about.
  if (flags.source === undefined && flags.sourceUri === undefined) refuseInstance(context, 'compare');
  const [source, target] = [context.source(), context.target()];
  const given = selectionRules(flags, context.config());
  // A job of this name may have been begun with other databases: its rules are not ours then.
  const identity = context.folder.identity();
  const ours = identity?.source === describeConnection(source) && identity.target === describeConnection(target);
  const rules = hasRules(given) ? given : ours ? keptRules(context.folder) : undefined;
  const result = await compare({ source, target, job: context.job, rules, strict: hasRules(given), owners: flags.owner, privileges: flags.privileges, comments: flags.comments, signal: context.signal });
  if (context.json) printJson(result);
  else print(...renderDifferences(result, paintFor(process.stdout)));
  return result.equal ? exitCodes.done : exitCodes.checkFailed;
}
