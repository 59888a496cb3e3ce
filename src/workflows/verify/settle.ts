import type { SubscriptionRow } from '../../catalog/subscriptions.ts';
import { Session } from '../../pg/session.ts';
import { checksumSettings } from '../../verify/checksum-sql.ts';
import { compareTables, type ComparedTable } from '../../verify/compare.ts';
import { describeRows } from '../../verify/describe.ts';
import type { RowDifference } from '../../verify/narrow.ts';
import { recheckRows } from '../../verify/recheck.ts';
import type { TableReport } from '../../verify/report.ts';
import { SnapshotPool } from '../../verify/snapshot-pool.ts';
import type { VerifyRunContext } from './context.ts';
import { subscriptionCaughtUp } from './lag.ts';
import { plainMoment } from './moment.ts';

/** Looks at a table without a key: a row that truly differs does so in each of them. */
const looks = 4;

export interface SettleContext extends VerifyRunContext {
  readonly subscription: SubscriptionRow;
}

/**
 * Tells true differences from changes on their way, where a native subscription follows and both sides could only be read at two moments: what differed is read again until it agrees, or stays
 * different although the target had time to apply everything.
 */
export async function settle(compared: readonly ComparedTable[], context: SettleContext): Promise<ComparedTable[]> {
  const open = compared.filter((c) => c.report.status === 'different' && c.differences.length > 0);
  if (open.length === 0) return [...compared];
  const { job, signal } = context;
  await using source = await Session.open(context.source, { role: 'verify', job, side: 'the source', signal });
  await using target = await Session.open(context.target, { role: 'verify', job, side: 'the target', signal });
  for (const session of [source, target]) await session.query(checksumSettings);
  const caughtUp = () => subscriptionCaughtUp(source, context.subscription.slot ?? '', context.lagTimeoutMs, signal);
  const settled = new Map<ComparedTable, ComparedTable>();
  for (const one of open) settled.set(one, one.unit.key ? await settleKeyed(one, { source, target, caughtUp }, context) : await settleKeyless(one, caughtUp, context));
  return compared.map((one) => settled.get(one) ?? one);
}

async function settleKeyed(one: ComparedTable, at: { readonly source: Session; readonly target: Session; readonly caughtUp: () => Promise<boolean> }, context: SettleContext): Promise<ComparedTable> {
  const found = await recheckRows(one.unit, one.differences, { source: at.source, target: at.target, hash: context.hash, caughtUp: at.caughtUp });
  // More differed than were kept: those beyond were not looked at again and count as they were.
  const total = one.report.missing + one.report.extra + one.report.changed;
  const unseen = total > one.differences.length;
  if (found.differing.length === 0 && found.undecided === 0 && !unseen) return { ...one, differences: [], report: equalNow(one.report) };
  const notes = [...one.report.notes, ...(found.behind ? ['the subscription has not caught up in time: some of these may be under way'] : []), ...(found.undecided > 0 ? [`${found.undecided} rows changed too often to be compared`] : [])];
  if (unseen) return { ...one, report: { ...one.report, notes: [...notes, `only the first ${one.differences.length} differences were looked at again`] } };
  if (found.differing.length === 0) return { ...one, differences: [], report: { ...equalNow(one.report), status: 'not-compared', reason: notes.at(-1)!, notes } };
  return described(one, found.differing, notes, context);
}

async function settleKeyless(one: ComparedTable, caughtUp: () => Promise<boolean>, context: SettleContext): Promise<ComparedTable> {
  const id = (d: RowDifference) => `${d.kind} ${d.hash.h1} ${d.hash.h2}`;
  let left: readonly RowDifference[] = one.differences;
  let behind = false;
  for (let look = 1; look < looks && left.length > 0 && !behind; look += 1) {
    await using moment = await plainMoment(context, async () => {
      behind = !(await caughtUp());
    });
    const [again] = await compareTables({ job: context.job, source: moment.source, target: moment.target, units: [one.unit], hash: context.hash, jobs: context.jobs, lsn: null, keep: context.keep, show: 0, values: false, signal: context.signal });
    const now = new Set(again!.differences.map(id));
    left = again!.report.status === 'equal' ? [] : left.filter((d) => now.has(id(d)));
  }
  if (left.length === 0) return { ...one, differences: [], report: equalNow(one.report) };
  return described(one, left, behind ? [...one.report.notes, 'the subscription has not caught up in time: some of these may be under way'] : one.report.notes, context);
}

function equalNow(report: TableReport): TableReport {
  return { ...report, status: 'equal', missing: 0, extra: 0, changed: 0, shown: [] };
}

async function described(one: ComparedTable, differences: readonly RowDifference[], notes: readonly string[], context: SettleContext): Promise<ComparedTable> {
  await using moment = await plainMoment(context);
  await using source = new SnapshotPool(moment.source, context);
  await using target = new SnapshotPool(moment.target, context);
  const shown = await describeRows(one.unit, differences.slice(0, context.show), { source, target, hash: context.hash }, context.values);
  const count = (kind: RowDifference['kind']) => differences.filter((d) => d.kind === kind).reduce((sum, d) => sum + d.count, 0);
  return { ...one, differences, report: { ...one.report, status: 'different', missing: count('missing'), extra: count('extra'), changed: count('changed'), shown, notes } };
}
