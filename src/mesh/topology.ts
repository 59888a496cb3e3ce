import type { LinkState, Topology, TopologyEdge, TopologyNode } from '../core/topology.ts';
import { subscriptionName } from './names.ts';
import type { MeshStatus, NodeStatus } from './status.ts';

/** Over either of these an edge is behind. */
const behindMs = 10_000;
const behindBytes = 32 * 1024 ** 2;
/** Half of what a node's clock may drift by default before others refuse its changes is far from it; ten seconds are worth a look (status.ts says so too). */
const skewAlarmMs = 10_000;

/** A mesh as a picture: every node, and both directions between each two. `before` keeps since when an edge is as it is; `at` is now, ISO 8601. Pure. */
export function meshTopology(status: MeshStatus, before: Topology | undefined, at: string): Topology {
  const known = new Map(before?.edges.map((e) => [`${e.from} ${e.to}`, e]));
  const edges = status.nodes.flatMap((from) => status.nodes.filter((to) => to !== from).map((to): TopologyEdge => {
    const edge = edgeOf(from, to);
    const old = known.get(`${from.node} ${to.node}`);
    return { ...edge, since: old?.state === edge.state ? (old.since ?? at) : at };
  }));
  return { kind: 'mesh', nodes: status.nodes.map(nodeOf), edges };
}

function nodeOf(n: NodeStatus): TopologyNode {
  const measured = n.reachable && n.member;
  return {
    name: n.node, role: 'node', host: n.address, version: n.version?.split(' ')[0] ?? null, reachable: n.reachable, problem: problemOf(n),
    conflicts: measured ? Object.values(n.conflicts).reduce((a, b) => a + b, 0) : null, parkedRows: measured ? n.tables.reduce((sum, t) => sum + t.hidden, 0) : null, clockOffsetMs: n.clockSkewMs ?? null,
  };
}

/** In few words, for the picture; the whole is in `mesh status`. */
function problemOf(n: NodeStatus): string | null {
  if (!n.reachable) return n.error ?? null;
  if (n.error !== undefined) return 'Cannot be looked at';
  if (!n.member) return 'No member';
  return n.clockSkewMs !== undefined && Math.abs(n.clockSkewMs) > skewAlarmMs ? 'Clock off' : null;
}

/** What the sender's slot for the receiver tells, and the receiver where that tells nothing. */
function edgeOf(from: NodeStatus, to: NodeStatus): Omit<TopologyEdge, 'since'> {
  const ends = { from: from.node, to: to.node };
  const off = (detail: string): Omit<TopologyEdge, 'since'> => ({ ...ends, state: 'not-connected', detail });
  if (!from.reachable) return off(`${from.node} cannot be reached: ${from.error ?? 'unknown'}`);
  const name = subscriptionName(to.node, from.node);
  const slot = from.slots.find((s) => s.name === name);
  if (!slot) return off(`slot ${name} is missing on ${from.node}`);
  const lag = { lagBytes: slot.lagBytes, lagMs: slot.active ? (slot.replayLagMs ?? null) : null };
  if (slot.walStatus === 'lost') return { ...off(`slot ${name} has lost its WAL`), ...lag };
  if (!slot.active) {
    const subscription = to.subscriptions.find((s) => s.name === name);
    const why = !to.reachable ? `${to.node} cannot be reached` : subscription === undefined ? `subscription ${name} is missing on ${to.node}` : subscription.enabled ? `subscription ${name} does not run on ${to.node}` : `subscription ${name} is disabled on ${to.node}`;
    return { ...off(why), ...lag, ...(subscription?.enabled === false ? { state: 'paused' as const } : {}) };
  }
  const joining = from.members.some((m) => m.name === to.node && m.state === 'joining') || to.members.some((m) => m.name === from.node && m.state === 'joining');
  const state: LinkState = joining ? 'copying' : (lag.lagMs ?? 0) > behindMs || lag.lagBytes > behindBytes ? 'behind' : 'on-time';
  return { ...ends, state, ...lag, detail: null };
}
