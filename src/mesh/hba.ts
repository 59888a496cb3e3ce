import { isIPv4, isIPv6 } from 'node:net';
import type { MeshNode } from './nodes.ts';

export const authMethods = ['scram-sha-256', 'md5'] as const;
export type AuthMethod = (typeof authMethods)[number];

/** Lines for pg_hba.conf of each node that let the other nodes in. */
export function hbaText(nodes: readonly MeshNode[], method: AuthMethod = 'scram-sha-256'): string {
  return nodes.map((node) => {
    const peers = nodes.filter((n) => n.name !== node.name);
    const lines = peers.map((peer) => ['host', field(node.db), field(node.user), address(peer.hostForNodes ?? peer.host), method].map((part, i) => (i < 4 ? part.padEnd([8, 16, 16, 24][i]!) : part)).join(' '));
    return [`# --- ${node.name} (${node.host}): add to its pg_hba.conf, then: select pg_reload_conf();`, `# ${['TYPE', 'DATABASE', 'USER', 'ADDRESS', 'METHOD'].map((part, i) => part.padEnd([6, 16, 16, 24, 0][i]!)).join(' ').trimEnd()}`, ...lines].join('\n');
  }).join('\n\n').concat('\n');
}

/** Names that hold anything special, or that mean something to pg_hba.conf, are quoted. Source: PostgreSQL documentation, "The pg_hba.conf File". */
function field(name: string): string {
  return /^[A-Za-z_][A-Za-z0-9_$]*$/.test(name) && !['all', 'replication', 'sameuser', 'samerole', 'samegroup'].includes(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

function address(host: string): string {
  return isIPv4(host) ? `${host}/32` : isIPv6(host) ? `${host}/128` : host;
}
