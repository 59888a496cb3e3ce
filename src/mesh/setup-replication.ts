import { PgweaveError } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import { clockFaults, encodingFaults, faultsError, installedMesh, sameMesh, serverFaults, type InstalledMesh, type NodeFault } from './checks.ts';
import { NodeSessions } from './connect.ts';
import { dropSlot, ensureApplyRole, ensurePublication, ensureSlot, ensureSubscription } from './edges.ts';
import { tableFunction, withoutCollection } from './members.ts';
import { subscriptionName } from './names.ts';
import type { MeshNode } from './nodes.ts';
import type { Session } from '../pg/session.ts';

export interface SetupOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: (step: string) => void;
}

export interface SetupResult {
  readonly nodes: readonly string[];
  readonly edges: readonly string[];
  /** Rows told to the other nodes because they were there before: by node. */
  readonly emitted: Readonly<Record<string, bigint>>;
}

/**
 * Ties all nodes together: publications, slots, subscriptions in both directions between all of them. May be run again after a failure. What tables
 * held already is told to the others afterwards, so nodes may begin with rows of their own.
 */
export async function setupReplication(nodes: readonly MeshNode[], options: SetupOptions = {}): Promise<SetupResult> {
  await using sessions = await NodeSessions.open(nodes, options.signal);
  const meshes = await checkBeforeSetup(sessions, nodes);
  const running = [...meshes].find(([, m]) => m.members.filter((x) => x.state === 'active').length > 1);
  if (running) {
    const known = running[1].members.filter((m) => m.state !== 'removed').map((m) => m.name);
    const strangers = nodes.filter((n) => !known.includes(n.name)).map((n) => n.name);
    if (strangers.length > 0) {
      throw new PgweaveError('mesh-running', `a mesh of ${known.join(', ')} runs already; ${strangers.join(', ')} cannot be tied in with it like this`, { hint: `Nothing was changed. pgweave mesh add-node ${strangers[0]} brings a node into a running mesh.`, exitCode: 1 });
    }
  }
  const unpublished = new Set<string>();
  for (const node of nodes) {
    const session = sessions.of(node);
    await ensureApplyRole(session);
    if (await ensurePublication(session, node)) unpublished.add(node.name);
    await registerMembers(session, nodes);
  }
  options.onStep?.('publications');
  await failpoint('mesh.setup.slots');
  const edges: string[] = [];
  // Tombstones must stay until they are told again: what a slot that is gone had yet to carry is acknowledged as soon as the new one runs.
  const emitted = await withoutCollection(sessions, nodes, async () => await makeSlots(sessions, nodes, edges, unpublished, options));
  await failpoint('mesh.setup.subscriptions');
  for (const from of nodes) for (const to of nodes) if (from !== to) await ensureSubscription(sessions.of(to), from, to);
  options.onStep?.('subscriptions');
  return { nodes: nodes.map((n) => n.name), edges, emitted };
}

/** Slots for all edges; where one is new, its node tells what it holds. Returns the rows told, by node. */
async function makeSlots(sessions: NodeSessions, nodes: readonly MeshNode[], edges: string[], unpublished: ReadonlySet<string>, options: SetupOptions): Promise<Record<string, bigint>> {
  const fresh = new Set<string>();
  for (const from of nodes) {
    for (const to of nodes) {
      if (from === to) continue;
      const name = subscriptionName(to.name, from.name);
      edges.push(name);
      // A slot that has lost its WAL can carry nothing any more. Source: PostgreSQL documentation, pg_replication_slots.wal_status.
      const [lost] = await sessions.of(from).query(`select 1 from pg_catalog.pg_replication_slots where slot_name = $1 and wal_status = 'lost'`, [name]);
      // Nor one whose publication was gone for a while: up to version 17 its walsender fails at whatever was written meanwhile, for ever.
      if (lost || unpublished.has(from.name)) await dropSlot(sessions.of(from), name, options.signal);
      const [there] = await sessions.of(from).query('select 1 from pg_catalog.pg_replication_slots where slot_name = $1', [name]);
      const [followed] = await sessions.of(to).query('select 1 from pg_catalog.pg_subscription where subname = $1 and subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())', [name]);
      // Without a subscription an earlier run may have ended before it told what was there.
      if (!there || !followed) fresh.add(from.name);
      await ensureSlot(sessions.of(from), name);
    }
  }
  options.onStep?.('slots');
  await failpoint('mesh.setup.slots-made');
  const emitted: Record<string, bigint> = {};
  // What was written before a slot was there is in no journal that anybody reads. Told now, before anything of the others can arrive and be told again.
  for (const node of nodes) if (fresh.has(node.name)) emitted[node.name] = await reemitAll(sessions.of(node));
  options.onStep?.('rows that were there before');
  return emitted;
}

/** Enters members that a node does not know yet as active. */
export async function registerMembers(session: Session, nodes: readonly MeshNode[]): Promise<void> {
  for (const n of nodes) await session.query(`insert into _mesh.node (id, name, state) values ($1, $2, 'active') on conflict (id) do nothing`, [n.id, n.name]);
}

/** Tells the other nodes again everything that this one holds. Merging it twice changes nothing. */
export async function reemitAll(session: Session): Promise<bigint> {
  const tables = await session.query<{ name: string; base: string }>('select name, base from _mesh.tbl order by name');
  let total = 0n;
  for (const { base } of tables) {
    const { n } = await session.one<{ n: bigint }>(`select ${tableFunction('reemit', base)}() as n`);
    total += n;
  }
  return total;
}

async function checkBeforeSetup(sessions: NodeSessions, nodes: readonly MeshNode[]): Promise<Map<string, InstalledMesh>> {
  if (nodes.length < 2) throw new PgweaveError('mesh-too-small', 'a mesh needs two nodes at least', { exitCode: 2, hint: 'Add nodes to nodes.json.' });
  const faults: NodeFault[] = (await Promise.all(nodes.map((n) => serverFaults(sessions.of(n), n, nodes.length)))).flat();
  if (faults.length > 0) throw faultsError('node-unfit', faults);
  const meshes = new Map<string, InstalledMesh>();
  for (const node of nodes) {
    const mesh = await installedMesh(sessions.of(node));
    if (mesh) meshes.set(node.name, mesh);
    else faults.push({ node: node.name, fault: 'holds no mesh yet', fix: 'Run pgweave mesh apply-schema (or adopt) first.' });
  }
  if (faults.length > 0) throw faultsError('no-mesh', faults);
  sameMesh(meshes);
  for (const node of nodes) {
    const mesh = meshes.get(node.name)!;
    if (mesh.id !== node.id) faults.push({ node: node.name, fault: `is number ${mesh.id ?? '?'} in its database and ${node.id} in nodes.json`, fix: 'Give every node its number in nodes.json ("id"): the order of the file has changed.' });
  }
  faults.push(...(await clockFaults(sessions, nodes, meshes.values().next().value!.maxDriftMs)), ...(await encodingFaults(sessions, nodes)));
  if (faults.length > 0) throw faultsError('mesh-refused', faults);
  return meshes;
}
