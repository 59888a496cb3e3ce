import { describe, expect, it } from 'vitest';
import { parseConfig } from '../core/config.ts';
import { resolveFanoutConfig } from './config.ts';
import type { FanoutHealth, TargetHealth } from './health.ts';
import { topologyOf } from './topology.ts';

const config = resolveFanoutConfig(parseConfig(JSON.stringify({ replication: {
  publication_name: 'p', source: { uri: 'postgresql://u:hidden-word@src.example/shop' }, tables: ['x'],
  targets: ['one', 'two', 'three', 'four', 'five', 'six'].map((name) => ({ name, uri: `postgresql://u:hidden-word@${name}.example:5433/shop` })),
} }), 'c.json', 'json'));

const target = (name: string, other: Partial<TargetHealth>): TargetHealth => ({
  name, engine: 'native', version: '17.10', state: 'streaming', stateSince: '2024-01-01T00:00:00.000Z', reachable: true, connected: true, healthy: true, tables: 1, tablesReady: 1, lagBytes: 0, lagMs: null, rowsPerSecond: null, retainedBytes: 0,
  attempts: 0, lastError: null, lastSuccessAt: null, ...other,
});
const error = (code: string) => ({ code, message: `it is ${code}`, hint: null, at: '2024-01-01T00:00:00.000Z' });

describe('topologyOf', () => {
  const health: FanoutHealth = {
    status: 'unhealthy', ready: false, startedAt: '', config: { path: 'c.json', loadedAt: '', error: null }, source: { address: 'src.example:5432/shop', reachable: true, error: null, retainedBytes: 7, budgetBytes: null },
    targets: [
      target('one', {}), target('two', { lagMs: 20_000 }), target('three', { connected: false }), target('four', { state: 'syncing' }), target('five', { state: 'failing', lastError: error('tables-paused') }),
      target('six', { state: 'failing', reachable: false, lastError: error('connection-refused') }),
    ],
  };

  it('draws each target with its lag, and says what is wrong where something is', () => {
    const topology = topologyOf(config, health, { version: '16.14', slotsUsed: 2, slotsMax: 10 });
    expect(topology.kind).toBe('fan-out');
    expect(topology.nodes[0]).toEqual({ name: 'source', role: 'source', host: 'src.example:5432', version: '16.14', reachable: true, problem: null, retainedBytes: 7, slotsUsed: 2, slotsMax: 10 });
    expect(topology.nodes[6]).toMatchObject({ name: 'six', role: 'target', host: 'six.example:5433', reachable: false, problem: 'it is connection-refused' });
    expect(topology.edges.map((e) => [e.from, e.to, e.state])).toEqual([
      ['source', 'one', 'on-time'], ['source', 'two', 'behind'], ['source', 'three', 'not-connected'], ['source', 'four', 'copying'], ['source', 'five', 'paused'], ['source', 'six', 'not-connected'],
    ]);
    expect(JSON.stringify(topology)).not.toContain('hidden-word');
  });

  it('keeps names apart where a target is called source', () => {
    const named = { ...config, targets: [{ ...config.targets[0]!, name: 'source' }] };
    const topology = topologyOf(named, { ...health, targets: [target('source', {})] }, undefined);
    expect(topology.nodes.map((n) => n.name)).toEqual(['source shop', 'source']);
    expect(topology.edges).toMatchObject([{ from: 'source shop', to: 'source' }]);
  });
});
