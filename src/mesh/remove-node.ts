import { errorMessage, PgweaveError } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import type { Session } from '../pg/session.ts';
import { installedMesh } from './checks.ts';
import { NodeSessions } from './connect.ts';
import { dropSlot, dropSubscription } from './edges.ts';
import { closeGate, drain, meshTables, takeOff, tableFunction, withoutCollection } from './members.ts';
import { subscriptionName } from './names.ts';
import { nodeNamed, type MeshNode } from './nodes.ts';

export interface RemoveNodeOptions {
  /** The node is gone for good: the others drop their ends and tell one another what it had told only some of them. */
  readonly lost?: boolean | undefined;
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((step: string) => void) | undefined;
}

export interface RemoveNodeResult {
  readonly node: string;
  readonly remaining: readonly string[];
  /** Rows and tombstones that were told again. */
  readonly emitted: bigint;
}

/**
 * Takes a node out of the mesh. In order: it stops taking writes, everything it wrote reaches the others, edges go on both sides, its tables stay as
 * they are, without the mesh. Lost: only the others are touched. May be run again after a failure.
 */
export async function removeNode(nodes: readonly MeshNode[], name: string, options: RemoveNodeOptions = {}): Promise<RemoveNodeResult> {
  const node = nodeNamed(nodes, name);
  const timeoutMs = options.timeoutMs ?? 600_000;
  const others = nodes.filter((n) => n.name !== name);
  await using sessions = await NodeSessions.open(options.lost ? others : nodes, options.signal);
  const peers: MeshNode[] = [];
  let known = false;
  for (const other of others) {
    const mesh = await installedMesh(sessions.of(other));
    if (!mesh) continue;
    peers.push(other);
    known ||= mesh.members.some((m) => m.name === name && m.id === node.id);
    const unlisted = mesh.members.filter((m) => m.state !== 'removed' && !nodes.some((n) => n.name === m.name));
    if (unlisted.length > 0) throw new PgweaveError('mesh-input', `${unlisted.map((m) => m.name).join(', ')} belongs to the mesh but is not in nodes.json`, { exitCode: 2, hint: 'Add it: every member must be told.' });
  }
  if (!known) throw new PgweaveError('no-member', `no other node knows ${name} as number ${node.id}`, { hint: 'Check the name and the "id" in nodes.json against pgweave mesh status.' });
  const gone = options.lost ? undefined : sessions.of(node);
  if (gone && (await installedMesh(gone))) {
    await closeGate(gone, `node ${name} is leaving the mesh and takes no writes any more`);
    options.onStep?.(`${name} takes no writes any more`);
    await failpoint('mesh.remove.closed');
    await drain(sessions, [node, ...peers], { timeoutMs, signal: options.signal }).catch((error: unknown) => {
      throw new PgweaveError('drain-failed', `${name} and the others could not be brought level: ${errorMessage(error)}`, { cause: error, hint: `Repair what status shows and run the command again; where ${name} cannot come back, --lost.` });
    });
    options.onStep?.('everything it wrote has reached the others');
    await failpoint('mesh.remove.drained');
  }
  for (const peer of peers) {
    await dropSubscription(sessions.of(peer), subscriptionName(peer.name, name));
    if (gone) {
      await dropSubscription(gone, subscriptionName(name, peer.name));
      await dropSlot(gone, subscriptionName(peer.name, name), options.signal);
    }
    await dropSlot(sessions.of(peer), subscriptionName(name, peer.name), options.signal);
  }
  options.onStep?.('its subscriptions and slots are gone');
  await failpoint('mesh.remove.edges');
  const emitted = await withoutCollection(sessions, peers, async () => {
    let total = 0n;
    // Marked everywhere before anything is told again: tags of a node that has left give way.
    for (const peer of peers) await sessions.of(peer).query(`update _mesh.node set state = 'removed' where id = $1`, [node.id]);
    for (const peer of peers) total += await tellWhatItTold(sessions.of(peer), node.id, options.lost ?? false);
    if (peers.length > 1) await drain(sessions, peers, { timeoutMs, signal: options.signal });
    return total;
  });
  options.onStep?.(`${emitted} rows and tombstones of ${name} told again`);
  if (gone && (await installedMesh(gone))) await takeOff(gone);
  return { node: name, remaining: peers.map((p) => p.name), emitted };
}

/** Tombstones of the node get another node to answer for them; if it is lost, everything that may come from it is told again. */
async function tellWhatItTold(session: Session, id: number, lost: boolean): Promise<bigint> {
  let total = 0n;
  for (const table of await meshTables(session)) {
    const ghost = tableFunction('ghost', table.base);
    // Metadata by column may hold a stamp of the lost node anywhere.
    const told = lost ? `s.kind = 'd' or (s.w & 511) = $1 or s.m is not null` : `s.kind = 'd' and exists (select from ${ghost} g where g._mesh_kind = 'd' and g._mesh_o = $1 and g._mesh_d = s.d)`;
    const { n } = await session.one<{ n: bigint }>(`select ${tableFunction('reemit', table.base)}(coalesce((select pg_catalog.array_agg(s.key) from ${tableFunction('state', table.base)}() s where ${told}), '{}')) as n`, [id]);
    total += n;
  }
  return total;
}
