import { PgweaveError } from '../core/errors.ts';
import { noRules, type SelectionRules } from '../core/selection/rules.ts';
import { displayName } from '../pg/identifiers.ts';
import { formatCount } from '../core/units.ts';
import { isWayBack } from '../core/way-back.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { formatLsn } from '../pg/lsn.ts';
import { switchover, type SwitchoverOptions, type SwitchoverResult, type VerifyContext } from './switchover.ts';
import { isNativeJob, switchoverNative } from './switchover-native.ts';
import { verify } from './verify.ts';

export interface RunSwitchoverOptions extends Omit<SwitchoverOptions, 'verify'> {
  /** Compare all rows while both sides hold still. */
  readonly verify?: boolean;
  /** What the job moves; default everything. */
  readonly rules?: SelectionRules | undefined;
  /** For --reverse of a native job: the address at which the old source reaches the target. */
  readonly targetForSource?: ConnectionSpec | undefined;
}

/** The switchover that fits the job: of our own stream, or of a native subscription. */
export async function runSwitchover(options: RunSwitchoverOptions): Promise<SwitchoverResult> {
  const { verify: wanted, rules: _rules, targetForSource, ...rest } = options;
  const given: SwitchoverOptions = { ...rest, ...(wanted ? { verify: (context) => verifyAtRest(options, context) } : {}) };
  return (await isNativeJob(options.target, options.job, options.signal)) ? switchoverNative({ ...given, targetForSource }) : switchover(given);
}

/** The rules are those of the way forward. What new names and columns mean the other way stands on the old source; filters hold for tables of the same name on both sides. */
function rulesOfWayBack(rules: SelectionRules | undefined): SelectionRules | undefined {
  return rules === undefined || rules.maps.length > 0 ? undefined : { ...noRules, tableFilters: rules.tableFilters, timeFilters: rules.timeFilters };
}

/** Under the lock nothing moves, so two plain snapshots are the same moment. */
async function verifyAtRest(options: RunSwitchoverOptions, { lsn }: VerifyContext): Promise<string> {
  const { source, target, job, signal, onEvent } = options;
  const rules = isWayBack(job) ? rulesOfWayBack(options.rules) : options.rules;
  // Of its events only the outcome belongs to the switchover: its phases and tables are not the job's.
  const report = await verify({ source, target, job, rules, signal, atRest: true, values: false, onEvent: (event) => (event.type === 'verified' ? onEvent?.({ ...event, lsn: formatLsn(lsn) }) : undefined) });
  const { totals } = report;
  if (!report.ok) {
    const shown = report.tables.filter((t) => t.status !== 'equal' && t.status !== 'left-out').slice(0, 5).map((t) => displayName(t.table.schema, t.table.name)).join(', ');
    throw new PgweaveError('not-equal', `source and target differ: ${totals.different > 0 ? `${formatCount(totals.different)} of ${formatCount(totals.tables)} tables` : 'not everything could be compared'}${shown === '' ? '' : ` (${shown})`}`, {
      hint: `See which rows, and mend them: pgweave verify --job ${job}, pgweave verify --job ${job} --repair. Then switch over again.`, details: { ...totals },
    });
  }
  return `${formatCount(totals.equal)} tables, ${formatCount(totals.rows)} rows equal`;
}
