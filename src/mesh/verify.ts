import { sleep } from '../core/abort.ts';
import { PgweaveError } from '../core/errors.ts';
import { NodeSessions } from './connect.ts';
import { bucketKeys, digestSettings, tableDigest } from './digest.ts';
import { drain, meshOf, meshTables, type MeshTableRow } from './members.ts';
import type { MeshNode } from './nodes.ts';

export interface VerifyOptions {
  readonly tables?: readonly string[] | undefined;
  /** How long to wait until all nodes have applied one another's changes, and for rows under change to come to rest. Default two minutes. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A key that the nodes hold differently. */
export interface KeyDifference {
  readonly table: string;
  readonly key: string;
  /** Node → `l:stamp:hash` (visible), `p:stamp:hash` (hidden), or undefined where the node has no row. */
  readonly held: Readonly<Record<string, string | undefined>>;
}

export interface VerifyResult {
  readonly equal: boolean;
  readonly tables: readonly { readonly table: string; readonly rows: bigint; readonly hidden: bigint; readonly differences: number }[];
  readonly differences: readonly KeyDifference[];
}

/** Proves that all nodes hold the same rows, hidden rows and stamps. The mesh goes on; what is still changing is looked at again until it rests. */
export async function verifyMesh(nodes: readonly MeshNode[], options: VerifyOptions = {}): Promise<VerifyResult> {
  await using sessions = await NodeSessions.open(nodes, options.signal);
  await meshOf(sessions, nodes);
  return await compareAll(sessions, nodes, options);
}

export async function compareAll(sessions: NodeSessions, nodes: readonly MeshNode[], options: VerifyOptions): Promise<VerifyResult> {
  const timeoutMs = options.timeoutMs ?? 120_000;
  for (const node of nodes) await sessions.of(node).query(digestSettings);
  await drain(sessions, nodes, { timeoutMs, signal: options.signal });
  const all = await meshTables(sessions.of(nodes[0]!));
  const wanted = options.tables ? all.filter((t) => options.tables!.some((name) => names(name, t))) : all;
  const missing = (options.tables ?? []).filter((name) => !all.some((t) => names(name, t)));
  if (missing.length > 0) throw new PgweaveError('no-such-table', `the mesh has no table ${missing.join(', ')}`, { exitCode: 2, hint: `It has ${all.map((t) => t.name).join(', ')}.` });
  const tables: VerifyResult['tables'][number][] = [];
  const differences: KeyDifference[] = [];
  for (const table of wanted) {
    const digests = await Promise.all(nodes.map((n) => tableDigest(sessions.of(n), table)));
    const suspect = new Set<number>();
    for (const bucket of new Set(digests.flatMap((d) => [...d.buckets.keys()]))) if (new Set(digests.map((d) => d.buckets.get(bucket))).size > 1) suspect.add(bucket);
    const found = suspect.size === 0 ? [] : await restingDifferences(sessions, nodes, table, [...suspect], timeoutMs, options.signal);
    differences.push(...found);
    tables.push({ table: table.name, rows: digests[0]!.rows, hidden: digests[0]!.hidden, differences: found.length });
  }
  return { equal: differences.length === 0, tables, differences };
}

/** Whether a name from the command line means this table; a name without a schema means public. */
function names(name: string, table: MeshTableRow): boolean {
  return name === table.name || `public.${name}` === table.name;
}

/** Differences that stay though the nodes have caught up in between: what differs at two looks with the same values is no change under way. */
async function restingDifferences(sessions: NodeSessions, nodes: readonly MeshNode[], table: MeshTableRow, suspect: readonly number[], timeoutMs: number, signal: AbortSignal | undefined): Promise<KeyDifference[]> {
  const end = Date.now() + timeoutMs;
  let before: Map<string, KeyDifference> | undefined;
  for (;;) {
    const keys = await Promise.all(nodes.map((n) => bucketKeys(sessions.of(n), table, suspect)));
    const now = new Map<string, KeyDifference>();
    for (const key of new Set(keys.flatMap((k) => [...k.keys()]))) {
      const held = nodes.map((n, i) => [n.name, keys[i]!.get(key)] as const);
      if (new Set(held.map(([, v]) => v)).size > 1) now.set(key, { table: table.name, key, held: Object.fromEntries(held) });
    }
    if (now.size === 0) return [];
    const resting = [...now.values()].filter((d) => JSON.stringify(before?.get(d.key)?.held) === JSON.stringify(d.held));
    if (before !== undefined && (resting.length === now.size || Date.now() > end)) return resting;
    before = now;
    await drain(sessions, nodes, { timeoutMs, signal });
    await sleep(50, signal);
  }
}
