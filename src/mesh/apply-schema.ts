import { readFileSync } from 'node:fs';
import { errorMessage, PgweaveError, usageError } from '../core/errors.ts';
import { faultsError, installedMesh, serverFaults } from './checks.ts';
import { NodeSessions, openNode } from './connect.ts';
import { nodeNamed, type MeshNode } from './nodes.ts';

export interface ApplyOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Applies the text of generated.sql to one node, in one transaction: all of it or nothing. */
export async function applySchema(node: MeshNode, sql: string, options: ApplyOptions = {}): Promise<void> {
  await using session = await openNode(node, options.signal);
  const faults = await serverFaults(session, node, 1);
  if (faults.length > 0) throw faultsError('node-unfit', faults);
  await refuseExisting(session, node);
  try {
    await session.transaction(async () => {
      await session.query(`select pg_catalog.set_config('pgweave.node_id', $1, true), pg_catalog.set_config('pgweave.node_name', $2, true)`, [String(node.id), node.name]);
      await session.query(sql);
    });
  } catch (error) {
    throw new PgweaveError('schema-failed', `the schema cannot be applied to node ${node.name}: ${errorMessage(error)}`, { cause: error, hint: 'The transaction was rolled back; the node is as it was.', details: { node: node.name } });
  }
}

/** Applies a file to one node. */
export async function applySchemaFromFile(node: MeshNode, path: string, options: ApplyOptions = {}): Promise<void> {
  await applySchema(node, readSql(path), options);
}

/** Applies a file to all nodes, or to one. All are checked before the first is changed. */
export async function applySchemaToAll(nodes: readonly MeshNode[], path: string, options: ApplyOptions & { readonly node?: string | undefined; readonly onNode?: (name: string) => void } = {}): Promise<string[]> {
  const sql = readSql(path);
  const wanted = options.node === undefined ? nodes : [nodeNamed(nodes, options.node)];
  {
    await using sessions = await NodeSessions.open(wanted, options.signal);
    const faults = (await Promise.all(wanted.map((n) => serverFaults(sessions.of(n), n, nodes.length)))).flat();
    if (faults.length > 0) throw faultsError('node-unfit', faults);
    for (const node of wanted) await refuseExisting(sessions.of(node), node);
  }
  const done: string[] = [];
  for (const node of wanted) {
    try {
      await applySchema(node, sql, options);
    } catch (error) {
      if (done.length === 0 || !(error instanceof PgweaveError)) throw error;
      const rest = wanted.map((n) => n.name).filter((n) => !done.includes(n));
      throw new PgweaveError(error.code, error.message, { cause: error, exitCode: error.exitCode, hint: `${error.hint ?? ''} ${done.join(', ')} ${done.length === 1 ? 'has' : 'have'} the schema already: once the cause is gone, run ${rest.map((n) => `pgweave mesh apply-schema --node ${n}`).join('; ')}.`.trim(), details: { ...error.details, done } });
    }
    done.push(node.name);
    options.onNode?.(node.name);
  }
  return wanted.map((n) => n.name);
}

async function refuseExisting(session: Awaited<ReturnType<typeof openNode>>, node: MeshNode): Promise<void> {
  const mesh = await installedMesh(session);
  if (!mesh) return;
  throw new PgweaveError('mesh-exists', `node ${node.name} holds a mesh already: it calls itself ${mesh.name}, with ${mesh.tables.size} tables`, {
    hint: 'Nothing was changed. To add tables to it: pgweave mesh adopt. To begin anew: pgweave mesh remove-node, then drop the tables.', details: { node: node.name, tables: [...mesh.tables.keys()] },
  });
}

function readSql(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw usageError(`cannot read ${path}: ${errorMessage(error)}`, 'Write it with pgweave mesh generate, or name another file with --schema.');
  }
}
