import { oldTransactions, preparedTransactions, type OldTransactionRow, type PreparedTransactionRow } from '../../catalog/old-transactions.ts';
import { slotState, type SlotStateRow } from '../../catalog/slot-state.ts';
import type { CopyLedger } from '../../copy/copy-ledger.ts';
import { openSlotSnapshot, type SourceSnapshot } from '../../copy/snapshot.ts';
import { sleep } from '../../core/abort.ts';
import { PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { failpoint } from '../../core/failpoints.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import { formatLsn, parseLsn, type Lsn } from '../../pg/lsn.ts';
import { displayName } from '../../pg/identifiers.ts';
import { Session } from '../../pg/session.ts';
import type { JobPublications } from '../publications.ts';
import type { End } from './ends.ts';

/** Where a job's stream of changes begins. */
export interface StreamStart {
  readonly slot: string;
  /** The slot's consistent point: changes committed from here on are in the stream. */
  readonly lsn: Lsn;
  readonly publications: JobPublications;
}

export interface StreamStartOptions {
  readonly source: End;
  readonly target: Session;
  readonly ledger: CopyLedger;
  readonly job: string;
  readonly publish: (source: Session) => Promise<JobPublications>;
  readonly emit: Emit;
  readonly signal: AbortSignal;
}

/** A wait of this length is worth a word about who is to blame for it. */
const slowSlotMs = 3000;

/**
 * Makes the publications, then the slot whose snapshot the copy reads in; returns both. On a rerun the slot is there already and only its start is returned: unfinished
 * tables then get a snapshot of their own. The publications come first, since the decoder looks them up as they were at the slot's beginning.
 */
export async function startStream(options: StreamStartOptions): Promise<{ readonly start: StreamStart; readonly snapshot: SourceSnapshot | undefined }> {
  const { source, target, ledger, job, emit } = options;
  const publications = await options.publish(source.session);
  if (publications.insertsOnly.length > 0) {
    const names = publications.insertsOnly.map((t) => displayName(t.schema, t.name));
    emit({ type: 'warning', code: 'inserts-only', message: `${names.length === 1 ? `${names[0]} has` : `${names.length} tables have`} no replica identity, so only inserts are streamed${names.length === 1 ? '' : `: ${names.slice(0, 5).join(', ')}${names.length > 5 ? ', …' : ''}`}`, hint: 'UPDATE and DELETE there do not reach the target. Give the table a primary key, or ALTER TABLE … REPLICA IDENTITY on the source; pgweave validate says which.' });
  }
  if (publications.unlogged.length > 0) {
    emit({ type: 'warning', code: 'unlogged', message: `${publications.unlogged.length} unlogged ${publications.unlogged.length === 1 ? 'table is' : 'tables are'} copied now and not streamed`, hint: 'The switchover copies them again under the lock.' });
  }
  await failpoint('clone.published');
  const slot = jobObjectName(job);
  const recorded = ledger.stepNote('slot');
  const [there] = await source.session.query<SlotStateRow>(slotState(slot, source.session.serverVersion));
  if (recorded) {
    if (!there || there.wal_status === 'lost') {
      throw new PgweaveError('slot-lost', there ? `slot ${slot} lost WAL that was still needed` : `slot ${slot} is no longer on the source`, { hint: 'The changes since the copy began are gone with it. Begin anew with --no-resume --drop-existing.', retry: 'never' });
    }
    return { start: { slot, lsn: parseLsn(recorded), publications }, snapshot: undefined };
  }
  // The intent is written before the slot is made: a slot of our name that is there with it comes from a run that died in between, and nothing has been read from it.
  if (there && !ledger.hasStep('slot-intent')) {
    throw new PgweaveError('slot-exists', `slot ${slot} is there already on the source, and this target knows nothing of it`, { hint: `It belongs to a job of the same name with another target. Choose another --job, or remove what is left of it: pgweave cleanup --job ${job}` });
  }
  if (there) await source.session.query('select pg_catalog.pg_drop_replication_slot($1)', [slot]);
  await ledger.markStep(target, 'slot-intent');
  let lsn: Lsn | undefined;
  const blame = new AbortController();
  void blameSlowSlot(options, AbortSignal.any([blame.signal, options.signal]));
  try {
    const snapshot = await openSlotSnapshot(source.spec, {
      slot, temporary: false, job, signal: options.signal,
      onCreated: async (at) => {
        lsn = at;
        await ledger.markStep(target, 'slot', formatLsn(at));
      },
    });
    return { start: { slot, lsn: lsn!, publications }, snapshot };
  } finally {
    blame.abort();
  }
}

/** A snapshot with an LSN of its own for tables that are copied after the first snapshot was lost [hard case 52]. */
export function openLaterSnapshot(options: Pick<StreamStartOptions, 'source' | 'job' | 'signal'>): Promise<SourceSnapshot> {
  return openSlotSnapshot(options.source.spec, { slot: `${jobObjectName(options.job)}_copy_${process.pid}`, temporary: true, job: options.job, signal: options.signal });
}

/** Creating a slot waits for every transaction that has an id, prepared ones too [hard case 25]: says which. */
async function blameSlowSlot({ source, job, emit }: StreamStartOptions, signal: AbortSignal): Promise<void> {
  try {
    await sleep(slowSlotMs, signal);
    await using session = await Session.open(source.spec, { role: 'slot-watch', job, side: 'the source', signal });
    const [old] = await session.query<OldTransactionRow>(oldTransactions(1));
    const [prepared] = await session.query<PreparedTransactionRow>(preparedTransactions());
    if (prepared) {
      emit({ type: 'warning', code: 'slot-waits', message: `the slot waits for the prepared transaction '${prepared.gid}' of ${prepared.owner} in ${prepared.database} (${prepared.age_seconds} s old)`, hint: `In ${prepared.database}: COMMIT PREPARED or ROLLBACK PREPARED '${prepared.gid}';` });
    } else if (old) {
      emit({ type: 'warning', code: 'slot-waits', message: `the slot waits for a transaction of ${old.role ?? 'another role'} in ${old.database ?? 'the server'} (pid ${old.pid}, ${old.application || 'no application name'}, ${old.age_seconds} s old)`, hint: `Let it end, or end it: SELECT pg_terminate_backend(${old.pid});` });
    }
  } catch {
    // Only a word to the waiting: its failure is nobody's concern.
  }
}
