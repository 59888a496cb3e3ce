import { jobObjectName } from '../../core/job-folder.ts';
import { displayName } from '../../pg/identifiers.ts';
import { Session } from '../../pg/session.ts';
import { checksumSettings } from '../../verify/checksum-sql.ts';
import type { ComparedTable } from '../../verify/compare.ts';
import { narrow, type RowDifference } from '../../verify/narrow.ts';
import { keyStates } from '../../verify/recheck.ts';
import { openMender, repairRows, type Mender } from '../../verify/repair.ts';
import type { RepairCounts, TableReport } from '../../verify/report.ts';
import { SnapshotPool } from '../../verify/snapshot-pool.ts';
import type { Unit } from '../../verify/unit.ts';
import type { VerifyRunContext } from './context.ts';
import { subscriptionCaughtUp } from './lag.ts';
import { exactMoment, plainMoment, type Moment } from './moment.ts';
import type { Situation } from './situation.ts';

export interface RepairContext extends VerifyRunContext {
  readonly situation: Situation;
  /** The snapshots in which the differences were found. */
  readonly moment: Moment;
  /** Compares tables anew, at a moment of now. */
  readonly compareAgain: (units: readonly Unit[]) => Promise<ComparedTable[]>;
}

const rounds = 3;
/** Rows mended in one transaction beside a native subscription: so few that its worker is not kept waiting for long. */
const rowsBesideWorker = 100;
const attemptsBesideWorker = 20;

/**
 * Makes the rows that differ as they are on the source, compares those tables again, and repeats where something still differs. How the follower is kept from undoing it:
 *
 * - our own: it is held at a new LSN, the source's rows are read in the snapshot of exactly that LSN and written before it goes on; later changes come on top.
 * - a native subscription: its worker has applied everything up to the moment at which the source's row was read; the row is written, which locks it; if the source's row is still the same then, the
 *   transaction commits. Whatever changes it later is applied after it, by the lock.
 * - none: in the snapshot in which the difference was found.
 */
export async function repairDifferences(compared: readonly ComparedTable[], context: RepairContext): Promise<ComparedTable[]> {
  const done = new Map<string, RepairCounts>();
  const final = new Map<string, ComparedTable>(compared.map((c) => [name(c.unit), c]));
  let open = compared.filter((c) => c.differences.length > 0);
  if (open.length === 0) return [...compared];
  await using writer = await Session.open(context.target, { role: 'verify repair', job: context.job, side: 'the target', signal: context.signal });
  await writer.query(`${checksumSettings}; set default_transaction_read_only = off`);
  await using mender = await openMender(writer, `${jobObjectName(context.job)}_verify`);
  if (!mender.replica) context.emit({ type: 'warning', code: 'repair-with-triggers', message: 'the role may not set session_replication_role on the target: triggers and foreign keys there act on the rows that are repaired' });
  for (let round = 0; open.length > 0 && round < rounds; round += 1) {
    const counted = await repairOnce(open, mender, round === 0, context);
    for (const [unit, counts] of counted) done.set(name(unit), add(done.get(name(unit)), counts));
    const again = await context.compareAgain(open.map((c) => c.unit));
    for (const one of again) final.set(name(one.unit), one);
    open = again.filter((c) => c.differences.length > 0);
  }
  return [...final.values()].map((one) => {
    const counts = done.get(name(one.unit));
    return counts ? { ...one, report: { ...one.report, repaired: counts } satisfies TableReport } : one;
  });
}

type Counted = (readonly [Unit, RepairCounts])[];

async function repairOnce(open: readonly ComparedTable[], mender: Mender, first: boolean, context: RepairContext): Promise<Counted> {
  switch (context.situation.mode) {
    case 'running': {
      const counted: Counted = [];
      await using _moment = await exactMoment(context, async (moment) => {
        counted.push(...(await repairIn(moment, open, mender, context, true)));
      });
      return counted;
    }
    case 'subscription': return repairBesideWorker(open, mender, context);
    case 'stopped':
    case 'plain': {
      if (first) return repairIn(context.moment, open, mender, context, false);
      await using moment = await plainMoment(context);
      return await repairIn(moment, open, mender, context, true);
    }
  }
}

/** Mends in the snapshots of a moment. `later`: not the one in which the differences were found, so that tables without a key must be compared in it first. */
async function repairIn(moment: Moment, open: readonly ComparedTable[], mender: Mender, context: RepairContext, later: boolean): Promise<Counted> {
  await using source = new SnapshotPool(moment.source, context);
  await using target = new SnapshotPool(moment.target, context);
  const counted: Counted = [];
  for (const { unit, differences } of open) {
    const rows = unit.key || !later ? differences : (await narrow(unit, undefined, { source, target, hash: context.hash }, context.keep)).rows;
    counted.push([unit, await mender.session.transaction(() => source.use((session) => repairRows(unit, rows, session, mender, context.hash)))]);
  }
  return counted;
}

async function repairBesideWorker(open: readonly ComparedTable[], mender: Mender, context: RepairContext): Promise<Counted> {
  await using source = await Session.open(context.source, { role: 'verify repair', job: context.job, side: 'the source', signal: context.signal });
  await source.query(`${checksumSettings}; set default_transaction_read_only = on`);
  const slot = context.situation.subscription?.slot ?? '';
  const counted: Counted = [];
  for (const { unit, differences } of open) {
    let counts: RepairCounts | undefined;
    for (let i = 0; i < differences.length; i += rowsBesideWorker) {
      const batch = differences.slice(i, i + rowsBesideWorker);
      for (let attempt = 0; attempt < attemptsBesideWorker; attempt += 1) {
        const mended = await mendUnlessChanged(unit, batch, source, mender, slot, context);
        if (!mended) continue;
        counts = add(counts, mended);
        break;
      }
    }
    counted.push([unit, counts ?? { inserted: 0, updated: 0, deleted: 0 }]);
  }
  return counted;
}

/** One transaction; undefined where a row changed on the source meanwhile, so that it was rolled back. */
async function mendUnlessChanged(unit: Unit, batch: readonly RowDifference[], source: Session, mender: Mender, slot: string, context: RepairContext): Promise<RepairCounts | undefined> {
  const states = async () => (unit.key ? (await keyStates(unit, 'source', batch, source, context.hash)).join('\n') : '');
  const before = await states();
  if (!(await subscriptionCaughtUp(source, slot, context.lagTimeoutMs, context.signal))) return undefined;
  await mender.session.query('begin');
  try {
    const counts = await repairRows(unit, batch, source, mender, context.hash);
    const same = before === (await states());
    await mender.session.query(same ? 'commit' : 'rollback');
    return same ? counts : undefined;
  } catch (error) {
    await mender.session.query('rollback').catch(() => undefined);
    throw error;
  }
}

function add(a: RepairCounts | undefined, b: RepairCounts): RepairCounts {
  return a ? { inserted: a.inserted + b.inserted, updated: a.updated + b.updated, deleted: a.deleted + b.deleted } : b;
}

function name(unit: Unit): string {
  return displayName(unit.table.schema, unit.table.name);
}
