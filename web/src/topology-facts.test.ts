import { describe, expect, it } from 'vitest';
import type { Topology } from '../../src/core/topology.ts';
import { lagText, nodeWord, placeNodes, sortEdges } from './topology-facts.ts';

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
    expect(topology.nodes.map((n) => nodeWord(topology, n)[2])).toEqual(['Not connected', 'Clock off', 'Not reachable', 'Not measured']);
  });

  it('places nodes apart and inside the picture', () => {
    const places = placeNodes(5);
    expect(places[0]).toEqual({ x: 500, y: 100 });
    for (const { x, y } of places) expect(x > 100 && x < 900 && y > 50 && y < 710).toBe(true);
    expect(new Set(places.map((p) => `${Math.round(p.x)},${Math.round(p.y)}`)).size).toBe(5);
  });
});
