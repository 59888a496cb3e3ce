import { PgweaveError } from '../errors.ts';
import type { JobFolder } from '../job-folder.ts';
import { describeRules, fixTimeWindows, hasRules, noRules, type SelectionRules } from './rules.ts';

const file = 'selection.json';

/** The rules that the job began with, or undefined where it has none yet. */
export function keptRules(folder: JobFolder): SelectionRules | undefined {
  const kept = folder.read(file) as { format: 1; rules: SelectionRules } | undefined;
  return kept && { ...noRules, ...kept.rules };
}

export interface KeepOptions {
  /** True with --no-resume: the rules given replace those kept. */
  readonly startOver?: boolean;
  readonly now?: Date;
  /** True: say what would be kept, write nothing. */
  readonly peek?: boolean;
}

/**
 * The rules that a job works by. The first run fixes its time windows and keeps the rules; a later run may say nothing or the same again and gets the same moments.
 * Other rules for a job that has begun are refused with what differs (`selection-changed`, exit code 2): its tables on the target would no longer fit.
 */
export function keepRules(folder: JobFolder, given: SelectionRules, options: KeepOptions = {}): SelectionRules {
  const kept = options.startOver ? undefined : keptRules(folder);
  if (kept && !hasRules(given)) return kept;
  if (kept) {
    const before = describeRules(kept);
    const after = describeRules(given);
    const added = after.filter((line) => !before.includes(line));
    const gone = before.filter((line) => !after.includes(line));
    if (added.length > 0 || gone.length > 0) {
      throw new PgweaveError('selection-changed', `job "${folder.job}" began with another selection${added.length > 0 ? `\nnew: ${added.join('; ')}` : ''}${gone.length > 0 ? `\nno longer given: ${gone.join('; ')}` : ''}`, {
        hint: `Without selection flags the job goes on as it began. To begin anew with these: --no-resume. To have both: another name with --job.`, exitCode: 2, retry: 'never',
      });
    }
    return kept;
  }
  const rules = fixTimeWindows(given, options.now ?? new Date());
  if (!options.peek) folder.write(file, { format: 1, rules });
  return rules;
}
