import { formatBytes, formatCount } from '../../core/units.ts';
import type { MeshStatus, NodeStatus } from '../../mesh/status.ts';
import type { VerifyResult } from '../../mesh/verify.ts';

/** Columns as wide as their widest cell; the last one as it comes. */
function aligned(rows: readonly (readonly string[])[], gap = 2): string[] {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows.map((row) => row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]! + gap))).join('').trimEnd());
}

/** `pgweave mesh status` for people. */
export function renderMeshStatus(status: MeshStatus): string[] {
  const lines = aligned(status.nodes.map((n) => [n.node, n.reachable ? `PostgreSQL ${(n.version ?? '').split(' ')[0]!}` : 'unreachable', n.address, n.clockSkewMs === undefined ? '' : `clock ${n.clockSkewMs >= 0 ? '+' : ''}${n.clockSkewMs} ms`,
    n.member ? `${n.tables.length} tables   ${sum(n, 'hidden')} hidden rows   ${sum(n, 'tombstones')} tombstones   journal ${formatBytes(n.journalBytes)}   housekeeping ${n.maintainedSecondsAgo === undefined ? 'never' : `${formatCount(n.maintainedSecondsAgo)} s ago`}` : n.reachable ? 'no member' : '']));
  const edges = status.nodes.flatMap((n) => n.slots.map((s) => [`${n.node} → ${/^sub_(.+)_from_/.exec(s.name)?.[1] ?? s.name}`, s.active ? 'streaming' : 'not connected', `${formatBytes(s.lagBytes)} behind${s.replayLagMs === undefined ? '' : ` (${s.replayLagMs} ms)`}`, s.walStatus === 'reserved' ? '' : s.walStatus]));
  if (edges.length > 0) lines.push('', ...aligned(edges).map((l) => `  ${l}`));
  const conflicts = new Map<string, number>();
  for (const n of status.nodes) for (const [kind, count] of Object.entries(n.conflicts)) conflicts.set(kind, (conflicts.get(kind) ?? 0) + count);
  if (conflicts.size > 0) lines.push('', `conflicts of the last day, as all nodes logged them: ${[...conflicts].map(([k, n]) => `${k} ${formatCount(n)}`).join(', ')}`);
  if (status.healthy) return [...lines, '', `Healthy: ${status.nodes.length} nodes, ${edges.length} edges.`];
  return [...lines, '', `${status.issues.length} ${status.issues.length === 1 ? 'issue' : 'issues'}:`, ...status.issues.flatMap((i) => [`  ${i.node}: ${i.issue}`, `    ${i.fix}`])];
}

function sum(node: NodeStatus, what: 'hidden' | 'tombstones'): string {
  return formatCount(node.tables.reduce((a, t) => a + t[what], 0));
}

/** As many differing keys are shown. */
const shown = 20;

export function renderVerify(result: VerifyResult, nodes: number): string[] {
  const rows = aligned(result.tables.map((t) => [t.table, `${formatCount(t.rows)} rows`, t.hidden > 0n ? `${formatCount(t.hidden)} hidden` : '', t.differences === 0 ? 'equal' : `${t.differences} differ`]));
  if (result.equal) return [...rows, `All ${nodes} nodes hold the same rows.`];
  const keys = result.differences.slice(0, shown).map((d) => `  ${d.table} ${d.key}: ${Object.entries(d.held).map(([node, held]) => `${node} ${held === undefined ? 'missing' : held.startsWith('p') ? 'hidden' : `stamp ${held.split(':')[1]}`}`).join(', ')}`);
  return [...rows, ...keys, ...(result.differences.length > shown ? [`  … and ${result.differences.length - shown} more`] : []), 'pgweave mesh repair brings them together.'];
}
