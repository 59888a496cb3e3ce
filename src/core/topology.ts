/**
 * Who replicates to whom, with what was measured last. Fan-out and mesh report it; the dashboard draws it.
 * A field that was not measured is null or absent, and is then not shown.
 */
export interface Topology {
  readonly kind: 'fan-out' | 'mesh';
  readonly nodes: readonly TopologyNode[];
  readonly edges: readonly TopologyEdge[];
}

/** `behind`: connected, with a lag over the limit that whoever measured it applies. */
export type LinkState = 'on-time' | 'behind' | 'copying' | 'paused' | 'not-connected';

export interface TopologyNode {
  /** Unique in the topology. */
  readonly name: string;
  readonly role: 'source' | 'target' | 'node';
  readonly host?: string | null;
  /** As `server_version` prints it. */
  readonly version?: string | null;
  readonly reachable: boolean | null;
  /** What is wrong, in one sentence, or null. */
  readonly problem?: string | null;
  readonly writesPerSecond?: number | null;
  readonly conflicts?: number | null;
  readonly parkedRows?: number | null;
  /** Clock against the median of the nodes, milliseconds; positive is ahead. */
  readonly clockOffsetMs?: number | null;
  /** WAL that slots hold on this server, bytes. */
  readonly retainedBytes?: number | null;
  readonly slotsUsed?: number | null;
  readonly slotsMax?: number | null;
}

export interface TopologyEdge {
  readonly from: string;
  readonly to: string;
  readonly state: LinkState;
  readonly lagMs?: number | null;
  readonly lagBytes?: number | null;
  readonly rowsPerSecond?: number | null;
  /** The server's or the network's own words where the state is not `on-time`. */
  readonly detail?: string | null;
  /** When the state began, ISO 8601. */
  readonly since?: string | null;
}
