import type { JobSummary } from '../../src/core/snapshot.ts';
import type { LinkState, Topology, TopologyEdge, TopologyNode } from '../../src/core/topology.ts';
import { formatBytes, formatDuration } from '../../src/core/units.ts';
import type { IconName } from './parts/icon.tsx';
import type { Tone } from './parts/ui.tsx';

/** What fan-out and mesh pages say. Pure. */

export const linkWords: Readonly<Record<LinkState, readonly [Tone, IconName, string]>> = {
  'not-connected': ['bad', 'lost', 'Not connected'], paused: ['warn', 'pause', 'Paused'], behind: ['warn', 'clock', 'Behind'], copying: ['run', 'copying', 'Copying'], 'on-time': ['ok', 'ok', 'On time'],
};

const worstFirst: readonly LinkState[] = ['not-connected', 'paused', 'behind', 'copying', 'on-time'];

/** Worst first, then the largest lag. */
export function sortEdges(edges: readonly TopologyEdge[]): TopologyEdge[] {
  return [...edges].sort((a, b) => worstFirst.indexOf(a.state) - worstFirst.indexOf(b.state) || (b.lagMs ?? -1) - (a.lagMs ?? -1) || a.to.localeCompare(b.to));
}

export function lagText(edge: TopologyEdge): string {
  if (edge.lagMs !== null && edge.lagMs !== undefined) return formatDuration(edge.lagMs);
  if (edge.lagBytes !== null && edge.lagBytes !== undefined) return formatBytes(edge.lagBytes);
  return '-';
}

/** State of a node: its own problem, else the worst of the links into it, but for those from nodes that are away themselves: that is their trouble. */
export function nodeWord(topology: Topology, node: TopologyNode): readonly [Tone, IconName, string] {
  if (node.reachable === false) return ['bad', 'lost', 'Not reachable'];
  if (node.problem) return ['warn', 'warn', node.problem];
  const away = new Set(topology.nodes.filter((n) => n.reachable === false).map((n) => n.name));
  const worst = sortEdges(topology.edges.filter((e) => e.to === node.name && !away.has(e.from)))[0];
  return worst ? linkWords[worst.state] : ['idle', 'pending', 'Not measured'];
}

/** Where on the way from one place to the other a label stands: beside the middle of the picture, where the lines cross, else in the middle of its line. */
export function labelShare(from: { readonly x: number; readonly y: number }, to: { readonly x: number; readonly y: number }): number {
  return Math.hypot((from.x + to.x) / 2 - 500, (from.y + to.y) / 2 - 380) < 60 ? 0.4 : 0.5;
}

/** Whether a job is a fan-out or a mesh and nothing else: no source, target and tables of its own to tell of. */
export function isOnlyTopology(s: Pick<JobSummary, 'topology' | 'source'>): boolean {
  return s.topology !== undefined && s.source === null;
}

/** Places on a circle, in thousandths of the picture, the first at the top. */
export function placeNodes(count: number): { x: number; y: number }[] {
  return Array.from({ length: count }, (_, i) => {
    const angle = (i / count) * 2 * Math.PI - Math.PI / 2;
    return { x: 500 + 360 * Math.cos(angle), y: 380 + 280 * Math.sin(angle) };
  });
}
