import { failpoint } from '../core/failpoints.ts';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { Lsn } from '../pg/lsn.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { quoteLiteral } from '../pg/identifiers.ts';
import { ReplicationSession, type CreatedSlot } from '../pg/replication-session.ts';
import { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';

/** A snapshot of the source that other sessions can import as long as this object is open. */
export interface SourceSnapshot extends AsyncDisposable {
  /** For `set transaction snapshot`. */
  readonly id: string;
  /** What the source's `pg_current_snapshot()` says in it. */
  readonly fingerprint: string;
  /** The slot's consistent point; undefined for a plain snapshot, which no stream of changes fits to. */
  readonly lsn: Lsn | undefined;
  /** A session inside the snapshot, for catalog queries. */
  readonly session: Session;
  /** Whether it can still be imported. */
  alive(): Promise<boolean>;
  close(): Promise<void>;
}

export interface SnapshotOptions {
  readonly job: string;
  readonly signal?: AbortSignal | undefined;
}

export interface SlotSnapshotOptions extends SnapshotOptions {
  readonly slot: string;
  /** A temporary slot lives as long as the snapshot and serves only to know the LSN that belongs to it. */
  readonly temporary: boolean;
  /** Called once when the slot is made, before anything is copied. */
  readonly onCreated?: (lsn: Lsn) => void | Promise<void>;
}

/** The snapshot of a transaction of its own; nothing stays on the source. */
export async function openSnapshot(source: ConnectionSpec, options: SnapshotOptions): Promise<SourceSnapshot> {
  const session = await Session.open(source, { role: 'snapshot', job: options.job, side: 'the source', signal: options.signal });
  try {
    await session.query('begin isolation level repeatable read read only');
    return await hold(session, undefined, undefined);
  } catch (error) {
    await session.close();
    throw error;
  }
}

/**
 * The snapshot that CREATE_REPLICATION_SLOT exports, never one taken apart from it [hard case 42]: the slot's stream begins exactly where this snapshot ends. The name that
 * the walsender exports dies with its next command, so a holder imports it and exports it again under a name of its own.
 * Creating a slot waits for every transaction that has an id; see catalog/old-transactions.ts for who they are.
 */
export async function openSlotSnapshot(source: ConnectionSpec, options: SlotSnapshotOptions): Promise<SourceSnapshot> {
  const sender = await ReplicationSession.open(source, { role: 'slot', job: options.job, side: 'the source', signal: options.signal });
  let holder: Session | undefined;
  try {
    const { in_recovery: standby } = await sender.session.one<{ in_recovery: boolean }>('select pg_catalog.pg_is_in_recovery() as in_recovery');
    const created = await createSlot(sender, options, standby);
    await failpoint('clone.slot-created');
    holder = await Session.open(source, { role: 'snapshot', job: options.job, side: 'the source', signal: options.signal });
    await holder.query(`begin isolation level repeatable read read only; set transaction snapshot ${quoteLiteral(created.snapshotName ?? '')}`);
    await options.onCreated?.(created.consistentPoint);
    const snapshot = await hold(holder, created.consistentPoint, options.temporary ? sender : undefined);
    if (!options.temporary) await sender.close();
    return snapshot;
  } catch (error) {
    await holder?.close();
    await sender.close();
    throw error;
  }
}

async function createSlot(sender: ReplicationSession, options: SlotSnapshotOptions, standby: boolean): Promise<CreatedSlot> {
  try {
    // FAILOVER (17 and later) lets a standby take the slot over; a temporary one cannot have it, nor one made on a standby.
    return await sender.createLogicalSlot({ name: options.slot, temporary: options.temporary, snapshot: 'export', failover: sender.serverVersion >= 170_000 && !options.temporary && !standby });
  } catch (error) {
    switch (sqlstateOf(error)) {
      case sqlstate.duplicateObject: throw new PgweaveError('slot-exists', `slot ${options.slot} is there already on the source`, { hint: 'It belongs to a job that this target knows nothing of. See what it is with: pgweave cleanup', cause: error });
      case '53400': throw new PgweaveError('no-slot-free', `the source has no replication slot free: ${errorMessage(error)}`, { hint: 'Raise max_replication_slots (needs a restart), or drop slots that nobody uses; pgweave validate lists them.', cause: error });
      case sqlstate.objectNotInPrerequisiteState: throw new PgweaveError('not-logical', `the source cannot make a logical slot: ${errorMessage(error)}`, { hint: 'Set wal_level = logical and restart the source; pgweave validate says how for your provider.', cause: error });
      case sqlstate.insufficientPrivilege: throw new PgweaveError('no-replication-right', `role "${sender.session.spec.user}" may not make a replication slot: ${errorMessage(error)}`, { hint: 'Give it the replication attribute; pgweave validate says how for your provider.', cause: error });
      default: throw error;
    }
  }
}

async function hold(session: Session, lsn: Lsn | undefined, sender: ReplicationSession | undefined): Promise<SourceSnapshot> {
  const { id, fingerprint } = await session.one<{ id: string; fingerprint: string }>('select pg_catalog.pg_export_snapshot() as id, pg_catalog.pg_current_snapshot()::text as fingerprint');
  const close = async () => {
    await session.close();
    await sender?.close();
  };
  return {
    id, fingerprint, lsn, session, close,
    async alive() {
      if (session.lost) return false;
      return session.query('select 1').then(() => true, () => false);
    },
    [Symbol.asyncDispose]: close,
  };
}
