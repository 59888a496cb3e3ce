import type { LinkState, Topology } from '../core/topology.ts';
import { describeHosts } from '../pg/conninfo.ts';
import type { FanoutConfig } from './config.ts';
import type { FanoutHealth, TargetHealth } from './health.ts';

/** What is measured on the source beside the slots of the targets. */
export interface SourceFacts {
  readonly version: string;
  readonly slotsUsed: number;
  readonly slotsMax: number;
}

/** Over either of these a target is behind: ten seconds, or more than one WAL segment of the usual size and as much again. */
const behindMs = 10_000;
const behindBytes = 32 * 1024 * 1024;

/** The service as a picture: who follows whom, how far behind, and what is wrong. Pure. */
export function topologyOf(config: FanoutConfig, health: FanoutHealth, source: SourceFacts | undefined): Topology {
  const targets = new Map(config.targets.map((t) => [t.name, t]));
  const from = targets.has('source') ? `source ${config.source.database}` : 'source';
  return {
    kind: 'fan-out',
    nodes: [
      {
        name: from, role: 'source', host: describeHosts(config.source), version: source?.version ?? null, reachable: health.source.reachable, problem: health.source.error, retainedBytes: health.source.retainedBytes,
        ...(source ? { slotsUsed: source.slotsUsed, slotsMax: source.slotsMax } : {}),
      },
      ...health.targets.map((t) => {
        const target = targets.get(t.name);
        return { name: t.name, role: 'target' as const, host: target ? describeHosts(target.connection) : null, version: t.version, reachable: t.reachable, problem: t.lastError?.message ?? null, retainedBytes: t.retainedBytes };
      }),
    ],
    edges: health.targets.map((t) => ({ from, to: t.name, state: linkState(t), lagMs: t.lagMs, lagBytes: t.lagBytes, rowsPerSecond: t.rowsPerSecond, detail: t.lastError?.message ?? null, since: t.stateSince })),
  };
}

function linkState(t: TargetHealth): LinkState {
  switch (t.state) {
    case 'streaming':
      if (!t.connected) return 'not-connected';
      return (t.lagMs ?? 0) > behindMs || (t.lagBytes ?? 0) > behindBytes ? 'behind' : 'on-time';
    case 'syncing': case 'setting-up': return 'copying';
    case 'failing': return t.lastError?.code === 'tables-paused' ? 'paused' : 'not-connected';
    case 'waiting': case 'resync-needed': return 'not-connected';
    default: return t.state satisfies never;
  }
}
