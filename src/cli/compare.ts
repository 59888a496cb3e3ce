import type { Command } from 'commander';
import { exitCodes } from '../core/errors.ts';
import { describeRules, keptRules } from '../core/selection/index.ts';
import { jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { renderDifferences } from './render/differences.ts';
import { paintFor } from './render/layout.ts';

interface CompareFlags extends CommonOptions {
  /** False with --no-owner, --no-privileges, --no-comments. */
  readonly owner: boolean;
  readonly privileges: boolean;
  readonly comments: boolean;
}

export function compareCommand(): Command {
  return jobCommand('compare', 'compare the two schemas', "pgweave compare --source postgresql://app@old/shop --target postgresql://app@new/shop\npgweave compare --json | jq '.differences[] | select(.change == \"missing\") | .object'")
    .option('--no-owner', 'owners do not count')
    .option('--no-privileges', 'privileges do not count')
    .option('--no-comments', 'comments do not count')
    .action((flags: CompareFlags) => runAction(flags, (context) => runCompare(flags, context)));
}

async function runCompare(flags: CompareFlags, context: JobContext): Promise<number> {
  const { compare } = await import('../workflows/compare.ts');
  const result = await compare({ source: context.source(), target: context.target(), job: context.job, owners: flags.owner, privileges: flags.privileges, comments: flags.comments, signal: context.signal });
  const rules = keptRules(context.folder);
  const selection = rules ? describeRules(rules) : [];
  if (context.json) printJson({ ...result, selection });
  else print(...renderDifferences(result, paintFor(process.stdout)), ...(selection.length > 0 && !result.equal ? ['', `Job "${context.job}" does not move everything as it is (${selection.join('; ')}): differences that come of that are told too.`] : []));
  return result.equal ? exitCodes.done : exitCodes.checkFailed;
}
