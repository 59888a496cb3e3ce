import { join, resolve } from 'node:path';
import { readProgress } from '../../changes/apply/progress.ts';
import type { ChangeLog } from '../../changes/change-log.ts';
import { receiveChanges } from '../../changes/receive.ts';
import { checkSpool, registeredSpool, registerSpool } from '../../changes/spool/registration.ts';
import type { SpoolIdentity } from '../../changes/spool/spool-folder.ts';
import type { Emit } from '../../core/events.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import { parseLsn, zeroLsn, type Lsn } from '../../pg/lsn.ts';
import { Session } from '../../pg/session.ts';
import type { StreamStart } from '../clone/stream-start.ts';
import type { FollowOptions } from './options.ts';
import { streamMayBeBinary } from './stream-format.ts';
import { tableRules } from './table-rules.ts';

export interface OpenLogOptions {
  readonly source: Session;
  readonly target: Session;
  readonly publications: readonly string[];
  readonly binary: boolean;
  /** The target's progress; undefined where it has none yet. */
  readonly progress: Lsn | undefined;
  readonly emit: Emit;
  readonly whenFull?: 'stop' | 'wait';
}

/** Begins to receive a job's changes, into its part of the spool where there is one. Throws what receiveChanges throws, and `spool-required`. */
export async function openLog(options: Pick<FollowOptions, 'source' | 'job' | 'slot' | 'spool' | 'origin'>, { source, target, publications, binary, progress, emit, whenFull }: OpenLogOptions): Promise<ChangeLog> {
  const { job } = options;
  const slot = options.slot ?? jobObjectName(job);
  const slotLsn = await slotPosition(source, slot);
  const registered = await registeredSpool(target, job);
  const startLsn = progress ?? registered?.startLsn ?? slotLsn;
  const slotIsAhead = slotLsn > startLsn;
  const parent = options.spool && resolve(options.spool.folder);
  const spool = parent === undefined ? undefined : {
    // A folder a slot, so that the jobs of an instance and the way back may share what was named.
    folder: join(parent, slot),
    ...(options.spool?.maxBytes === undefined ? {} : { maxBytes: options.spool.maxBytes }), ...(whenFull === undefined ? {} : { whenFull }),
    onOpen: async (identity: SpoolIdentity) => {
      checkSpool(job, registered, identity, slotIsAhead);
      await registerSpool(target, job, { id: identity.id, folder: parent, startLsn });
    },
  };
  if (!spool) checkSpool(job, registered, undefined, slotIsAhead);
  return await receiveChanges({ source: options.source, job, slot, publications, startLsn, emit, binary, spool, ...(options.origin === undefined ? {} : { origin: options.origin }) });
}

/**
 * Receives into the spool while the copy runs, so that the source need not keep its WAL so long; the follower takes the log over (FollowOptions.log). A full spool only
 * makes the source wait, and keep its WAL. Whoever calls closes it where no follower does.
 */
export async function spoolDuringCopy(options: Pick<FollowOptions, 'source' | 'target' | 'job' | 'spool' | 'origin' | 'folder' | 'signal'>, stream: StreamStart, emit: Emit): Promise<ChangeLog> {
  const { job, signal } = options;
  await using source = await Session.open(options.source, { role: 'spool', job, side: 'the source', signal });
  await using target = await Session.open(options.target, { role: 'spool', job, side: 'the target', signal });
  const publications = stream.publications.names;
  const { mapTable } = await tableRules(options, source, target);
  // What the target lacks now, the copy makes as it is on the source.
  const binary = await streamMayBeBinary(source, target, publications, mapTable);
  return await openLog(options, { source, target, publications, binary, progress: await readProgress(target, job), emit, whenFull: 'wait' });
}

/** Where the slot's stream begins; zero where there is no such slot: receiving then says what is wrong. */
export async function slotPosition(source: Session, slot: string): Promise<Lsn> {
  const [row] = await source.query<{ lsn: string | null }>('select confirmed_flush_lsn::text as lsn from pg_catalog.pg_replication_slots where slot_name = $1', [slot]);
  return row?.lsn ? parseLsn(row.lsn) : zeroLsn;
}
