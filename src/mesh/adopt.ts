import { errorMessage, PgweaveError } from '../core/errors.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { adoptSql } from './adopt-sql.ts';
import { encodingFaults, faultsError, installedMesh, serverFaults, type NodeFault } from './checks.ts';
import { NodeSessions } from './connect.ts';
import { definitionFaults, findTables, type FoundTable } from './describe-table.ts';
import { defaultMaxDriftMs } from './generate.ts';
import { tableFunction } from './members.ts';
import { objectBase } from './names.ts';
import type { MeshNode } from './nodes.ts';
import { interleave, sequenceStep } from './sequences.ts';
import { planName } from './table-plan.ts';

export interface AdoptOptions {
  /** `table` or `schema.table`; default: every ordinary table of schema public. */
  readonly tables?: readonly string[] | undefined;
  /** Tables that are merged column by column. */
  readonly byColumn?: readonly string[] | undefined;
  /** Counters, as `table.column` or `schema.table.column`; their tables are merged column by column. */
  readonly counters?: readonly string[] | undefined;
  /** Lets each node draw other numbers from the sequences of keys: in steps of 512, beginning at the node's number. */
  readonly interleaveSequences?: boolean | undefined;
  readonly maxDriftMs?: number | undefined;
  /** Only look: nothing is changed. */
  readonly dryRun?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface AdoptResult {
  readonly tables: readonly string[];
  /** What was (or would be) run on each node, but for its number and name. */
  readonly sql: string;
  /** Estimated rows by node and table: where several nodes hold rows, they must be the same ones. */
  readonly rows: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** How long a table may be busy: whoever waits behind us waits as long. */
const lockTimeout = '10s';
/** A sequence that would end after so few numbers on each node is refused. */
const leastRoom = 100_000n;

/**
 * Takes existing tables into the mesh: on every node the same tables must exist, with the same columns. Rows that are there count as equal on all nodes,
 * older than any write; nodes that lack them are told them, by setup-replication or, in a mesh that runs, at once. All nodes or none: checked first, then
 * changed in a transaction each, which are committed together.
 */
export async function adoptTables(nodes: readonly MeshNode[], options: AdoptOptions = {}): Promise<AdoptResult> {
  await using sessions = await NodeSessions.open(nodes, options.signal);
  const faults: NodeFault[] = (await Promise.all(nodes.map((n) => serverFaults(sessions.of(n), n, nodes.length)))).flat();
  if (faults.length > 0) throw faultsError('node-unfit', faults);
  const installed = new Map<string, boolean>();
  const found = new Map<string, FoundTable[]>();
  for (const node of nodes) {
    const mesh = await installedMesh(sessions.of(node));
    installed.set(node.name, mesh !== undefined);
    if (mesh && mesh.name !== node.name) faults.push({ node: node.name, fault: `calls itself ${mesh.name ?? 'nothing'} in its database`, fix: 'Correct nodes.json.' });
    const tables = await findTables(sessions.of(node), node, options, new Set(mesh?.tables.keys() ?? []));
    found.set(node.name, tables);
    for (const t of tables) for (const fault of t.faults) faults.push({ node: node.name, fault: `${planName(t.plan)}: ${fault}`, fix: 'docs/mesh.md tells what a mesh cannot keep.' });
  }
  faults.push(...(await encodingFaults(sessions, nodes)));
  if (new Set(installed.values()).size > 1) faults.push({ node: [...installed].find(([, there]) => !there)![0], fault: 'holds no mesh, others do', fix: 'Bring it in with pgweave mesh add-node first.' });
  const [model] = found.values();
  for (const [node, tables] of found) faults.push(...definitionFaults(node, tables, model!, nodes[0]!.name));
  const sequences = model!.flatMap((t) => t.sequences.map((q) => q.name));
  for (const [node, tables] of found) {
    for (const q of tables.flatMap((t) => t.sequences)) if (options.interleaveSequences && q.room < leastRoom) faults.push({ node, fault: `sequence ${q.name} has room for ${q.room} more numbers only, in steps of ${sequenceStep}`, fix: 'Make the column and its sequence bigint.' });
  }
  if (sequences.length > 0 && options.interleaveSequences !== true) {
    faults.push({ node: nodes[0]!.name, fault: `keys are drawn from sequences (${sequences.join(', ')}): nodes would give out the same numbers, and the newer row would overwrite the older`, fix: 'Adopt with --interleave-sequences, or make the keys uuid.' });
  }
  if (faults.length > 0) throw faultsError('adopt-refused', faults);
  if (model!.length === 0) throw new PgweaveError('nothing-to-adopt', 'there is no table to adopt', { exitCode: 2, hint: 'Name tables with --table; tables that are in the mesh already are left out.' });
  const fresh = [...installed.values()].every((there) => !there);
  const plans = model!.map((t) => t.plan);
  const sql = adoptSql(plans, model!.flatMap((t) => t.identityAlways.map((column) => ({ plan: t.plan, column }))), fresh ? (options.maxDriftMs ?? defaultMaxDriftMs) : undefined);
  const rows = Object.fromEntries([...found].map(([node, tables]) => [node, Object.fromEntries(tables.map((t) => [planName(t.plan), t.estimate]))]));
  const result: AdoptResult = { tables: plans.map(planName), sql, rows };
  if (options.dryRun) return result;
  await applyToAll(sessions, nodes, sql, sequences);
  // In a mesh that runs nobody else tells what the tables held before.
  if (!fresh) for (const node of nodes) for (const plan of plans) await sessions.of(node).query(`select ${tableFunction('reemit', objectBase(plan.schema, plan.name))}()`);
  return result;
}

/** On all nodes or on none: each in a transaction, and none is committed before all are ready. */
async function applyToAll(sessions: NodeSessions, nodes: readonly MeshNode[], sql: string, sequences: readonly string[]): Promise<void> {
  for (const node of nodes) {
    const session = sessions.of(node);
    try {
      await session.query('begin');
      await session.query(`set local lock_timeout = '${lockTimeout}'`);
      await session.query(`select pg_catalog.set_config('pgweave.node_id', $1, true), pg_catalog.set_config('pgweave.node_name', $2, true)`, [String(node.id), node.name]);
      await session.query(sql);
      for (const sequence of sequences) await interleave(session, sequence, node.id);
    } catch (error) {
      for (const other of nodes) await sessions.of(other).query('rollback').catch(() => undefined);
      const busy = sqlstateOf(error) === sqlstate.lockNotAvailable;
      throw new PgweaveError(busy ? 'table-busy' : 'schema-failed', busy ? `tables of node ${node.name} stayed locked by others for ${lockTimeout}` : `the tables of node ${node.name} cannot be adopted: ${errorMessage(error)}`, { cause: error, hint: busy ? 'Every node is as it was. Wait for long transactions (pg_stat_activity) to end, and run the command again.' : 'Every node is as it was.' });
    }
  }
  const done: string[] = [];
  for (const node of nodes) {
    try {
      await sessions.of(node).query('commit');
      done.push(node.name);
    } catch (error) {
      throw new PgweaveError('half-adopted', `node ${node.name} was lost while the transactions were committed: ${errorMessage(error)}`, { cause: error, retry: 'manual', hint: `${done.length === 0 ? 'No node has' : `${done.join(', ')} ${done.length === 1 ? 'has' : 'have'}`} adopted for certain. Look at _mesh.tbl on each node.` });
    }
  }
}
