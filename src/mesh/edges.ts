import { sleep } from '../core/abort.ts';
import { PgweaveError } from '../core/errors.ts';
import { quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { applyRole, publicationName, subscriptionName } from './names.ts';
import { conninfoForNodes, type MeshNode } from './nodes.ts';

/** Makes the publication of a node's journal, if it is not there; tells whether it was not. */
export async function ensurePublication(session: Session, node: MeshNode): Promise<boolean> {
  const name = publicationName(node.name);
  const [there] = await session.query('select 1 from pg_catalog.pg_publication where pubname = $1', [name]);
  if (!there) await session.query(`create publication ${quoteIdent(name)} for table _mesh.journal with (publish = 'insert')`);
  return !there;
}

/**
 * The role that owns the subscriptions. Its deadlock_timeout is low, so that of an apply worker and an application the worker gives way: it tries again by
 * itself. Settings of the owner hold for apply workers, and go before those of a database.
 */
export async function ensureApplyRole(session: Session): Promise<void> {
  const [there] = await session.query('select 1 from pg_catalog.pg_roles where rolname = $1', [applyRole]);
  try {
    if (!there) await session.query(`create role ${applyRole} superuser login`);
  } catch (error) {
    // Another node of the mesh in the same server was faster.
    if (sqlstateOf(error) !== sqlstate.duplicateObject && sqlstateOf(error) !== sqlstate.uniqueViolation) throw error;
  }
  const settings: Readonly<Record<string, string>> = {
    deadlock_timeout: `'10ms'`,
    // What a database or a server may set by default, and the merge cannot live with: it must see what was committed while it waited for a lock.
    default_transaction_isolation: `'read committed'`, default_transaction_read_only: 'off', lock_timeout: '0', ...(session.serverVersion >= 170_000 ? { transaction_timeout: '0' } : {}),
  };
  for (const [name, value] of Object.entries(settings)) {
    await session.query(`alter role ${applyRole} set ${name} = ${value}`).catch((error: unknown) => {
      // The same: "tuple concurrently updated" (XX000).
      if (sqlstateOf(error) !== 'XX000') throw error;
    });
  }
}

/** Makes the slot on the publisher, if it is not there; returns where it begins. */
export async function ensureSlot(publisher: Session, name: string): Promise<bigint> {
  await publisher.query(`select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput') where not exists (select from pg_catalog.pg_replication_slots where slot_name = $1)`, [name]);
  const { lsn } = await publisher.one<{ lsn: bigint }>(`select (confirmed_flush_lsn - '0/0'::pg_lsn)::int8 as lsn from pg_catalog.pg_replication_slots where slot_name = $1`, [name]);
  return lsn;
}

/** Makes the subscription of one edge on an existing slot, if it is not there; else gives it the password and the address of nodes.json, if they have changed. */
export async function ensureSubscription(subscriber: Session, from: MeshNode, to: MeshNode): Promise<void> {
  const name = subscriptionName(to.name, from.name);
  const [there] = await subscriber.query<{ subenabled: boolean; subconninfo: string }>('select subenabled, subconninfo from pg_catalog.pg_subscription where subname = $1 and subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())', [name]);
  if (!there) {
    await unlogged(subscriber, async () => {
      await subscriber.query(`create subscription ${quoteIdent(name)} connection ${quoteLiteral(conninfoForNodes(from))} publication ${quoteIdent(publicationName(from.name))}
        with (create_slot = false, slot_name = ${quoteIdent(name)}, copy_data = false, origin = none, streaming = on, binary = true, run_as_owner = true)`);
      await subscriber.query(`alter subscription ${quoteIdent(name)} owner to ${applyRole}`);
    });
    return;
  }
  // Where nodes reach one another was perhaps said on the command line alone, when the edge was made.
  const wanted = from.hostForNodes === undefined ? withAddressOf(there.subconninfo, conninfoForNodes(from)) : conninfoForNodes(from);
  if (wanted !== there.subconninfo) await unlogged(subscriber, () => subscriber.query(`alter subscription ${quoteIdent(name)} connection ${quoteLiteral(wanted)}`));
  if (!there.subenabled) await subscriber.query(`alter subscription ${quoteIdent(name)} enable`);
}

/** Runs statements that hold a password so that no server log gets them, whatever it logs. */
async function unlogged(session: Session, work: () => Promise<unknown>): Promise<void> {
  await session.transaction(async () => {
    await session.query(`set local log_statement = 'none'; set local log_min_duration_statement = -1; set local log_min_duration_sample = -1; set local log_transaction_sample_rate = 0; set local log_min_error_statement = 'panic'; set local pg_stat_statements.track_utility = off`);
    await work();
  });
}

/** A connection string of ours with the host and port of another one of ours. */
function withAddressOf(other: string, own: string): string {
  const address = /^host=(?:'(?:[^'\\]|\\.)*'|\S*) port=(?:'(?:[^'\\]|\\.)*'|\S*) /;
  const theirs = address.exec(other)?.[0];
  return theirs === undefined ? own : own.replace(address, () => theirs);
}

/** Drops a subscription without asking its publisher, which may be gone; the slot is dropped apart. */
export async function dropSubscription(subscriber: Session, name: string): Promise<boolean> {
  const [there] = await subscriber.query('select 1 from pg_catalog.pg_subscription where subname = $1 and subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())', [name]);
  if (!there) return false;
  await subscriber.query(`alter subscription ${quoteIdent(name)} disable`);
  await subscriber.query(`alter subscription ${quoteIdent(name)} set (slot_name = none)`);
  await subscriber.query(`drop subscription ${quoteIdent(name)}`);
  return true;
}

/** Drops a slot, ending who reads it. Throws where it stays in use for half a minute. */
export async function dropSlot(publisher: Session, name: string, signal?: AbortSignal): Promise<boolean> {
  for (let attempt = 0; ; attempt += 1) {
    const [slot] = await publisher.query<{ active_pid: number | null }>('select active_pid from pg_catalog.pg_replication_slots where slot_name = $1', [name]);
    if (!slot) return attempt > 0;
    try {
      if (slot.active_pid !== null) await publisher.query('select pg_catalog.pg_terminate_backend($1)', [slot.active_pid]);
      else await publisher.query('select pg_catalog.pg_drop_replication_slot($1)', [name]);
    } catch (error) {
      const state = sqlstateOf(error);
      if (state !== sqlstate.objectInUse && state !== sqlstate.undefinedObject) throw error;
    }
    if (attempt > 600) throw new PgweaveError('slot-in-use', `slot ${name} stays in use`, { hint: 'Disable the subscription that reads it, then run the command again.' });
    if (attempt > 0) await sleep(50, signal);
  }
}

/** What an edge has yet to carry: `undefined` where the slot is missing. */
export async function confirmedLsn(publisher: Session, slot: string): Promise<bigint | undefined> {
  const [row] = await publisher.query<{ lsn: bigint | null }>(`select (confirmed_flush_lsn - '0/0'::pg_lsn)::int8 as lsn from pg_catalog.pg_replication_slots where slot_name = $1`, [slot]);
  return row?.lsn ?? undefined;
}

export async function currentLsn(session: Session): Promise<bigint> {
  const { lsn } = await session.one<{ lsn: bigint }>(`select (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8 as lsn`);
  return lsn;
}

/** Waits until a subscriber has confirmed everything up to `target`; sends heartbeats along so that idle edges move. Throws after `timeoutMs`. */
export async function waitConfirmed(publisher: Session, slot: string, target: bigint, options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined; readonly what: string }): Promise<void> {
  const end = Date.now() + options.timeoutMs;
  for (;;) {
    const lsn = await confirmedLsn(publisher, slot);
    if (lsn !== undefined && lsn >= target) return;
    if (Date.now() > end) {
      throw new PgweaveError('edge-stuck', `${options.what} did not catch up within ${options.timeoutMs / 1000} s${lsn === undefined ? ` (there is no slot ${slot})` : ''}`, { hint: 'pgweave mesh status shows why: a node that is down, a clock that is off, an apply error. Then run the command again.' });
    }
    await publisher.query('select _mesh.heartbeat()').catch((error: unknown) => {
      // A node that is joining or leaving writes nothing.
      if (sqlstateOf(error) !== sqlstate.readOnlySqlTransaction) throw error;
    });
    await sleep(100, options.signal);
  }
}
