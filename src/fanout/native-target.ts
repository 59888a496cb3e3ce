import { createHash } from 'node:crypto';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import { tableKey } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { dropPublications, ensurePublications } from '../workflows/publications.ts';
import { subscriptionConnection } from '../workflows/sync/connection.ts';
import { publishedTables } from '../workflows/sync/published-tables.ts';
import { checkSlot, readSlot } from '../workflows/sync/start-point.ts';
import { alignSubscription, createSubscription, dropSubscription, enableSubscription, readSubscribedTables, readSubscription, refreshSubscription, subscriptionMark } from '../workflows/sync/subscription.ts';
import type { FanoutConfig, FanoutTarget, TableRules } from './config.ts';
import { slotLostError, type Round, type TargetFacts } from './engine.ts';
import { resolveTables, schemaError, schemaFaults } from './tables.ts';
import { restoreTriggers, silenceTriggers } from './triggers.ts';

/** Targets with the file's own rules share the publication of the configured name; each other set of rules has one of its own. */
export function publicationNameOf(config: FanoutConfig, target: FanoutTarget): string {
  const key = (t: TableRules) => JSON.stringify([t.tables, t.filters, t.excludeColumns]);
  if (key(config.rules) === key(target)) return config.publication;
  const suffix = createHash('sha256').update(key(target)).digest('hex').slice(0, 8);
  return `${config.publication.slice(0, 44)}_${suffix}`;
}

function namesOf(publication: string): { all: string; inserts: string } {
  return { all: publication, inserts: `${publication.slice(0, 55)}_inserts` };
}

function ownerOf(config: FanoutConfig): string {
  return `fanout ${config.publication}`;
}

const subscriptionSettings = { streaming: 'on', binary: false, twoPhase: false, origin: 'any' } as const;

/**
 * Brings publication, slot, subscription and tables of one target to what the configuration says; can be run again at any time, and after a crash at any line. Tables are added and removed
 * without touching the others: those removed stop, their rows stay.
 */
export async function reconcileNative(config: FanoutConfig, target: FanoutTarget, { signal, say, inTurn }: Round): Promise<TargetFacts> {
  await using source = await Session.open(config.source, { role: 'fanout', job: target.name, side: 'the source', signal });
  await using session = await Session.open(target.connection, { role: 'fanout', job: target.name, side: `target ${target.name}`, signal });
  const tables = await resolveTables(source, target);
  const faults = await schemaFaults(session, tables);
  if (faults.length > 0) throw schemaError(target.name, faults);
  const planned = await publishedTables(source, { selection: tables.selection, catalog: tables.catalog, insertOnly: () => true });
  const publication = publicationNameOf(config, target);
  const owner = ownerOf(config);
  const publications = await inTurn(() => ensurePublications(source, { job: owner, tables: planned.tables, viaRoot: true, names: namesOf(publication), adopt: config.adoptExisting }));
  await failpoint('fanout.published');
  const connection = subscriptionConnection(config.source, target.connection, { sourceForTarget: sourceSeenBy(config.source, target) });

  const there = await readSubscription(session, target.subscription);
  if (there && there.comment !== subscriptionMark(owner)) {
    if (!config.adoptExisting) throw new PgweaveError('subscription-not-ours', `subscription ${target.subscription} is on target ${target.name} already and was not made by this service`, { hint: 'Name another with subscription_name, or take it over with adopt_existing: true in settings.' });
    await session.query(`comment on subscription ${quoteIdent(target.subscription)} is '${subscriptionMark(owner).replaceAll("'", "''")}'`);
  }
  const wanted = new Set(planned.tables.map(tableKey));
  const before = there ? await readSubscribedTables(session, target.subscription) : [];
  const known = new Set(before.map(tableKey));
  const added = planned.tables.filter((t) => !known.has(tableKey(t))).map((t) => ({ schema: t.schema, name: t.name }));
  const removed = before.filter((t) => !wanted.has(tableKey(t))).map((t) => ({ schema: t.schema, name: t.name }));
  if (added.length > 0 && target.initialSync && target.disableTriggersDuringSync) await silenceTriggers(session, owner, added);

  if (!there) await subscribe(source, session, config, target, owner, publications.names, connection.conninfo, say);
  else {
    const slot = await readSlot(source, target.subscription);
    if (!slot || slot.wal_status === 'lost') throw slotLostError(target.subscription, target, slot ? 'it is lost' : 'it is gone');
    await alignSubscription(session, there, { publications: publications.names, settings: subscriptionSettings, conninfo: connection.conninfo, source: config.source });
    if (!there.enabled) await enableSubscription(session, target.subscription);
    if (added.length + removed.length > 0) {
      await failpoint('fanout.before-refresh');
      await refreshSubscription(session, target.subscription, target.initialSync, config.source);
    }
  }
  const now = await readSubscribedTables(session, target.subscription);
  const ready = now.filter((t) => t.state === 'r').length;
  if (ready === now.length) await restoreTriggers(session, owner);
  return { tables: now.length, ready, added: there ? added : [], removed, version: session.serverVersionText };
}

async function subscribe(source: Session, session: Session, config: FanoutConfig, target: FanoutTarget, owner: string, publications: readonly string[], conninfo: string, say: (text: string) => void): Promise<void> {
  const slot = await readSlot(source, target.subscription);
  if (slot) checkSlot(slot, target.subscription, source.spec.database);
  else {
    try {
      await source.query(`select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`, [target.subscription]);
    } catch (error) {
      if (sqlstateOf(error) === '53400') throw new PgweaveError('no-slot-free', 'the source has no replication slot free', { hint: 'Raise max_replication_slots: each native target needs one, and one more for each table in its initial copy.', retry: 'backoff', cause: error });
      throw error;
    }
  }
  await failpoint('fanout.slot');
  await createSubscription(session, { job: owner, name: target.subscription, conninfo, slot: target.subscription, publications, copyData: target.initialSync, settings: subscriptionSettings, source: config.source });
  await failpoint('fanout.subscribed');
  await enableSubscription(session, target.subscription);
  say(`subscription ${target.subscription} made${target.initialSync ? '; PostgreSQL copies the rows now' : ', from now on'}`);
}

function sourceSeenBy(source: ConnectionSpec, target: FanoutTarget): ConnectionSpec | undefined {
  if (target.sourceHost === undefined) return undefined;
  const [host, port] = target.sourceHost.split(':');
  return { ...source, hosts: [{ host: host!, port: port === undefined ? source.hosts[0]!.port : Number(port) }] };
}

/** Lets go of a target: subscription and slot are removed, rows stay. A target that cannot be reached keeps its subscription, which then finds no slot; its slot goes all the same. */
export async function removeNative(config: FanoutConfig, target: FanoutTarget, remaining: readonly FanoutTarget[], signal: AbortSignal): Promise<string[]> {
  const left: string[] = [];
  try {
    await using session = await Session.open(target.connection, { role: 'fanout', job: target.name, side: `target ${target.name}`, signal });
    const there = await readSubscription(session, target.subscription);
    if (there?.comment === subscriptionMark(ownerOf(config))) await dropSubscription(session, target.subscription);
    await restoreTriggers(session, ownerOf(config));
  } catch (error) {
    left.push(`subscription ${target.subscription} on ${target.name}: ${errorMessage(error)}`);
  }
  await using source = await Session.open(config.source, { role: 'fanout', job: target.name, side: 'the source', signal });
  await dropSlotNow(source, target.subscription);
  const publication = publicationNameOf(config, target);
  if (!remaining.some((t) => t.engine === 'native' && publicationNameOf({ ...config, targets: remaining }, t) === publication)) await dropPublications(source, ownerOf(config), namesOf(publication));
  return left;
}

/** Drops a slot, ending the walsender that uses it. */
export async function dropSlotNow(source: Session, slot: string): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const [row] = await source.query<{ pid: number | null }>('select active_pid as pid from pg_catalog.pg_replication_slots where slot_name = $1 and database = pg_catalog.current_database()', [slot]);
    if (!row) return;
    if (row.pid !== null) await source.query('select pg_catalog.pg_terminate_backend($1)', [row.pid]);
    try {
      await source.query('select pg_catalog.pg_drop_replication_slot($1)', [slot]);
      return;
    } catch (error) {
      if (sqlstateOf(error) !== sqlstate.objectInUse) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new PgweaveError('slot-in-use', `slot ${slot} is in use and could not be dropped`, { hint: 'Something keeps connecting to it; disable the subscription that uses it.', retry: 'backoff' });
}

/** Begins a target anew: subscription and slot dropped, rows of its tables emptied, so that the next round copies them. */
export async function resetNative(config: FanoutConfig, target: FanoutTarget, signal: AbortSignal): Promise<void> {
  await using session = await Session.open(target.connection, { role: 'fanout', job: target.name, side: `target ${target.name}`, signal });
  await using source = await Session.open(config.source, { role: 'fanout', job: target.name, side: 'the source', signal });
  if (await readSubscription(session, target.subscription)) await dropSubscription(session, target.subscription);
  await dropSlotNow(source, target.subscription);
  const tables = await resolveTables(source, target);
  const list = tables.chosen.map((s) => `${quoteIdent(s.mapTo.schema)}.${quoteIdent(s.mapTo.name)}`);
  if (list.length > 0) await session.query(`truncate ${list.join(', ')}`);
}
