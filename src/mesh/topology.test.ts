import { describe, expect, it } from 'vitest';
import { subscriptionName } from './names.ts';
import type { NodeStatus } from './status.ts';
import { meshTopology } from './topology.ts';

type Slot = NodeStatus['slots'][number];

function node(name: string, peers: readonly string[], over: Partial<NodeStatus> = {}, slot: Partial<Slot> = {}): NodeStatus {
  return {
    node: name, id: name.charCodeAt(0), address: `${name}:5432/app`, reachable: true, error: undefined, version: '18.4 (Debian)', walLevel: 'logical', member: true, members: peers.map((peer) => ({ name: peer, state: 'active', seenSecondsAgo: 1 })),
    tables: [], publications: [], journalBytes: 0, maintainedSecondsAgo: 1, conflicts: { overruled: 2, hidden: 1 }, clockSkewMs: 3,
    subscriptions: peers.map((peer) => ({ name: subscriptionName(name, peer), enabled: true, running: true, applyErrors: 0 })),
    slots: peers.map((peer) => ({ name: subscriptionName(peer, name), active: true, lagBytes: 0, walStatus: 'reserved', replayLagMs: 4, ...slot })), ...over,
  } as NodeStatus;
}

const drawn = (nodes: readonly NodeStatus[], before?: ReturnType<typeof meshTopology>, at = '2026-03-01T00:00:00.000Z') => meshTopology({ healthy: true, nodes, issues: [] }, before, at);
const edge = (topology: ReturnType<typeof drawn>, from: string, to: string) => topology.edges.find((e) => e.from === from && e.to === to)!;

describe('the picture of a mesh', () => {
  it('has each direction once, with what the sender\'s slot tells', () => {
    const topology = drawn([node('a', ['b', 'c']), node('b', ['a', 'c'], {}, { lagBytes: 40 * 1024 ** 2, replayLagMs: 900 }), node('c', ['a', 'b'], {}, { replayLagMs: 12_000 })]);
    expect(topology.edges.map((e) => `${e.from}${e.to} ${e.state}`)).toEqual(['ab on-time', 'ac on-time', 'ba behind', 'bc behind', 'ca behind', 'cb behind']);
    expect(edge(topology, 'a', 'b')).toMatchObject({ lagMs: 4, lagBytes: 0, detail: null });
    expect(topology.nodes[0]).toEqual({ name: 'a', role: 'node', host: 'a:5432/app', version: '18.4', reachable: true, problem: null, conflicts: 3, parkedRows: 0, clockOffsetMs: 3 });
  });

  it('says what is wrong, and since when', () => {
    const nodes = [node('a', ['b', 'c']), node('b', ['a', 'c']), node('c', ['a', 'b'])];
    const before = drawn(nodes);
    const away = node('c', [], { reachable: false, error: 'timed out', member: false, clockSkewMs: undefined, version: undefined, slots: [], subscriptions: [] });
    const after = drawn([node('a', ['b', 'c'], { clockSkewMs: -20_000 }, { active: false }), nodes[1]!, away], before, '2026-03-01T01:00:00.000Z');
    expect(edge(after, 'a', 'c')).toMatchObject({ state: 'not-connected', detail: 'c cannot be reached', since: '2026-03-01T01:00:00.000Z', lagMs: null });
    expect(edge(after, 'c', 'b')).toMatchObject({ state: 'not-connected', detail: 'c cannot be reached: timed out' });
    expect(edge(after, 'b', 'a')).toMatchObject({ state: 'on-time', since: '2026-03-01T00:00:00.000Z' });
    expect(after.nodes.map((n) => [n.reachable, n.problem])).toEqual([[true, 'Clock off'], [true, null], [false, 'timed out']]);
    expect(after.nodes[2]).toMatchObject({ conflicts: null, parkedRows: null, clockOffsetMs: null, version: null });
  });

  it('tells a disabled subscription, a missing or lost slot, and a node that joins apart', () => {
    const disabled = drawn([node('a', ['b'], {}, { active: false }), node('b', ['a'], { subscriptions: [{ name: subscriptionName('b', 'a'), enabled: false, running: false, applyErrors: 0 }] })]);
    expect(edge(disabled, 'a', 'b')).toMatchObject({ state: 'paused', detail: `subscription ${subscriptionName('b', 'a')} is disabled on b` });
    expect(edge(drawn([node('a', ['b'], { slots: [] }), node('b', ['a'])]), 'a', 'b')).toMatchObject({ state: 'not-connected', detail: expect.stringContaining('is missing on a') as string });
    expect(edge(drawn([node('a', ['b'], {}, { walStatus: 'lost' }), node('b', ['a'])]), 'a', 'b')).toMatchObject({ state: 'not-connected', detail: expect.stringContaining('lost') as string });
    expect(edge(drawn([node('a', ['b'], { members: [{ name: 'b', state: 'joining', seenSecondsAgo: undefined }] }), node('b', ['a'])]), 'a', 'b').state).toBe('copying');
  });
});
