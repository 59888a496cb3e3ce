import { NodeSessions } from './connect.ts';
import { drain, meshOf, meshTables, tableFunction, withoutCollection } from './members.ts';
import { nodeNamed, type MeshNode } from './nodes.ts';
import { compareAll, type KeyDifference, type VerifyOptions, type VerifyResult } from './verify.ts';

export interface RepairOptions extends VerifyOptions {
  /** Whose values hold where nodes have different values under one stamp. Default: what most nodes have, then the first in nodes.json. */
  readonly from?: string | undefined;
  readonly onStep?: ((step: string) => void) | undefined;
}

export interface RepairResult {
  readonly before: VerifyResult;
  readonly after: VerifyResult;
  /** Rows that were told again by nodes, and rows that were stamped anew. */
  readonly toldAgain: number;
  readonly stampedAnew: number;
}

/**
 * Brings nodes together that a loss, or a write that went past the triggers, has left apart. First every node tells what it holds of the keys that
 * differ, and the merge decides as ever; where values differ under one stamp the merge cannot, and one node's row is written anew.
 */
export async function repairMesh(nodes: readonly MeshNode[], options: RepairOptions = {}): Promise<RepairResult> {
  if (options.from !== undefined) nodeNamed(nodes, options.from);
  await using sessions = await NodeSessions.open(nodes, options.signal);
  await meshOf(sessions, nodes);
  const timeoutMs = options.timeoutMs ?? 120_000;
  const before = await compareAll(sessions, nodes, options);
  if (before.equal) return { before, after: before, toldAgain: 0, stampedAnew: 0 };
  options.onStep?.(`${before.differences.length} keys differ`);
  const tables = new Map((await meshTables(sessions.of(nodes[0]!))).map((t) => [t.name, t]));
  let toldAgain = 0;
  await withoutCollection(sessions, nodes, async () => {
    for (const [table, found] of byTable(before.differences)) {
      const { base } = tables.get(table)!;
      for (const node of nodes) {
        const { n } = await sessions.of(node).one<{ n: bigint }>(`select ${tableFunction('reemit', base)}($1) as n`, [found.map((d) => d.key)]);
        toldAgain += Number(n);
      }
    }
    await drain(sessions, nodes, { timeoutMs, signal: options.signal });
  });
  options.onStep?.(`${toldAgain} rows told again`);
  let after = await compareAll(sessions, nodes, options);
  let stampedAnew = 0;
  if (!after.equal) {
    for (const [table, found] of byTable(after.differences)) {
      const { base } = tables.get(table)!;
      for (const [source, differing] of bySource(found, nodes, options.from)) {
        const { n } = await sessions.of(source).one<{ n: bigint }>(`select ${tableFunction('touch', base)}($1) as n`, [differing.map((d) => d.key)]);
        stampedAnew += Number(n);
      }
    }
    options.onStep?.(`${stampedAnew} rows stamped anew`);
    after = await compareAll(sessions, nodes, options);
  }
  return { before, after, toldAgain, stampedAnew };
}

function byTable(differences: readonly KeyDifference[]): Map<string, KeyDifference[]> {
  const out = new Map<string, KeyDifference[]>();
  for (const d of differences) out.set(d.table, [...(out.get(d.table) ?? []), d]);
  return out;
}

/** For each differing key the node whose row is to hold: the one asked for if it has the row, else the majority's. */
function bySource(differences: readonly KeyDifference[], nodes: readonly MeshNode[], from: string | undefined): Map<string, KeyDifference[]> {
  const out = new Map<string, KeyDifference[]>();
  for (const d of differences) {
    const holders = nodes.map((n) => n.name).filter((n) => d.held[n]?.startsWith('l:'));
    const votes = (n: string) => holders.filter((o) => d.held[o] === d.held[n]).length;
    const source = from !== undefined && holders.includes(from) ? from : [...holders].sort((a, b) => votes(b) - votes(a))[0];
    if (source !== undefined) out.set(source, [...(out.get(source) ?? []), d]);
  }
  return out;
}
