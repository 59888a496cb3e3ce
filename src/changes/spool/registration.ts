import { hostname } from 'node:os';
import { PgweaveError } from '../../core/errors.ts';
import { formatLsn, parseLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';
import type { SpoolIdentity } from './spool-folder.ts';

/** The spool that holds changes of a job which the source has let go of: the target remembers it, so that nobody goes on without it. */
export interface RegisteredSpool {
  readonly id: string;
  readonly folder: string;
  readonly host: string;
  /** Where receiving into it began: what a target without any progress needs begins there, wherever the slot is by now. */
  readonly startLsn: Lsn;
}

export async function registeredSpool(target: Session, job: string): Promise<RegisteredSpool | undefined> {
  const [row] = await target.query<{ id: string; folder: string; host: string; start: string }>('select spool_id as id, folder, host, start_lsn::text as start from pgweave.spool where job = $1', [job]);
  return row && { id: row.id, folder: row.folder, host: row.host, startLsn: parseLsn(row.start) };
}

/**
 * Throws `spool-required` where going on with `given` (undefined: without a spool) would lose changes: they lie in another spool, and the slot is past what the
 * target has (`slotIsAhead`).
 */
export function checkSpool(job: string, registered: RegisteredSpool | undefined, given: SpoolIdentity | undefined, slotIsAhead: boolean): void {
  if (!registered || registered.id === given?.id || !slotIsAhead) return;
  const { folder, host } = registered;
  throw new PgweaveError('spool-required', `changes that the source has let go of lie in the spool ${folder} on ${host}${given ? ', and the folder given is another spool' : ''}`, {
    retry: 'never', hint: `Go on from it: pgweave follow --job ${job} --spool ${folder}. If it is lost, begin again: pgweave cleanup --job ${job}, then pgweave clone --follow.`, details: { folder, host },
  });
}

/** To be called before anything is acknowledged to the source. */
export async function registerSpool(target: Session, job: string, spool: Omit<RegisteredSpool, 'host'>): Promise<void> {
  await target.execute(
    `insert into pgweave.spool as s (job, spool_id, folder, host, start_lsn) values ($1, $2, $3, $4, $5)
     on conflict (job) do update set spool_id = excluded.spool_id, folder = excluded.folder, host = excluded.host, start_lsn = case when s.spool_id = excluded.spool_id then s.start_lsn else excluded.start_lsn end`,
    [job, spool.id, spool.folder, hostname(), formatLsn(spool.startLsn)],
  );
}

/** The spool was drained to its last byte: nothing needs it any more. */
export async function forgetSpool(target: Session, job: string): Promise<void> {
  await target.execute('delete from pgweave.spool where job = $1', [job]);
}
