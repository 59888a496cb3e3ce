import { describe, expect, it } from 'vitest';
import type { Topology } from '../../src/core/topology.ts';
import { isOnlyTopology, labelShare, lagText, nodeWord, placeNodes, sortEdges } from './topology-facts.ts';

const topology: Topology = {
  kind: 'mesh',
  nodes: [{ name: 'a', role: 'node', reachable: true }, { name: 'b', role: 'node', reachable: true, problem: 'Clock off' }, { name: 'c', role: 'node', reachable: false }, { name: 'd', role: 'node', reachable: null }],
  edges: [{ from: 'b', to: 'a', state: 'on-time', lagMs: 200 }, { from: 'c', to: 'a', state: 'not-connected' }, { from: 'a', to: 'b', state: 'behind', lagMs: 6800 }, { from: 'a', to: 'c', state: 'on-time', lagBytes: 2048 }],
};

describe('topology', () => {
  it('puts the worst first and says only what is measured', () => {
    expect(sortEdges(topology.edges).map((e) => e.state)).toEqual(['not-connected', 'behind', 'on-time', 'on-time']);
    expect(topology.edges.map(lagText)).toEqual(['200 ms', '-', '6.8 s', '2.00 kB']);
  });

  it('takes a node\'s own trouble before that of its links', () => {
    expect(topology.nodes.map((n) => nodeWord(topology, n)[2])).toEqual(['On time', 'Clock off', 'Not reachable', 'Not measured']);
    // A node that is there and whose link is not is another matter.
    const there = { ...topology, nodes: topology.nodes.map((n) => ({ ...n, reachable: true })) };
    expect(nodeWord(there, there.nodes[0]!)[2]).toBe('Not connected');
  });

  it('places nodes apart and inside the picture', () => {
    const places = placeNodes(5);
    expect(places[0]).toEqual({ x: 500, y: 100 });
    for (const { x, y } of places) expect(x > 100 && x < 900 && y > 50 && y < 710).toBe(true);
    expect(new Set(places.map((p) => `${Math.round(p.x)},${Math.round(p.y)}`)).size).toBe(5);
  });

  it('keeps labels of crossing lines apart', () => {
    for (const count of [2, 3, 4, 6]) {
      const places = placeNodes(count);
      const labels = places.flatMap((a, i) => places.slice(i + 1).map((b) => {
        const share = labelShare(a, b);
        return { x: a.x + (b.x - a.x) * share, y: a.y + (b.y - a.y) * share };
      }));
      for (const [i, a] of labels.entries()) for (const b of labels.slice(i + 1)) expect(Math.hypot(a.x - b.x, a.y - b.y)).toBeGreaterThan(40);
    }
  });

  it('knows a job that is nothing but a topology', () => {
    expect(isOnlyTopology({ topology, source: null })).toBe(true);
    expect(isOnlyTopology({ topology, source: { host: 'h', port: 1, database: 'd', version: '18', provider: 'x' } })).toBe(false);
    expect(isOnlyTopology({ source: null })).toBe(false);
  });
});
