import { errorMessage, PgweaveError } from '../core/errors.ts';
import { Session } from '../pg/session.ts';
import { nodeSpec, type MeshNode } from './nodes.ts';

/** Settings of a session that writes to tables in a mesh or reads their state: no empty search_path, since defaults and checks of users may rely on it; what is set up must outlast a crash. */
const meshSettings = `set search_path = public; set extra_float_digits = 1; set synchronous_commit = on`;

/** Connects to one node. Throws a PgweaveError that names the node. */
export async function openNode(node: MeshNode, signal?: AbortSignal): Promise<Session> {
  const session = await Session.open(nodeSpec(node), { role: 'mesh', side: `node ${node.name}`, signal });
  try {
    await session.query(meshSettings);
    return session;
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** Sessions to several nodes, closed together. */
export class NodeSessions implements AsyncDisposable {
  readonly #sessions: ReadonlyMap<string, Session>;

  private constructor(sessions: ReadonlyMap<string, Session>) {
    this.#sessions = sessions;
  }

  /** Connects to all nodes; throws one error that names every node that cannot be reached. */
  static async open(nodes: readonly MeshNode[], signal?: AbortSignal): Promise<NodeSessions> {
    const sessions = new Map<string, Session>();
    const faults: { node: string; error: unknown }[] = [];
    await Promise.all(nodes.map(async (node) => {
      try {
        sessions.set(node.name, await openNode(node, signal));
      } catch (error) {
        faults.push({ node: node.name, error });
      }
    }));
    const all = new NodeSessions(sessions);
    if (faults.length === 0) return all;
    await all.close();
    const first = faults[0]!.error;
    if (faults.length === 1) throw first;
    throw new PgweaveError('nodes-unreachable', `${faults.length} nodes cannot be reached:\n${faults.map((f) => `  ${f.node}: ${errorMessage(f.error)}`).join('\n')}`, {
      hint: 'Nothing was changed. Start these servers, or correct their addresses in nodes.json.', details: { nodes: faults.map((f) => f.node) },
    });
  }

  of(node: MeshNode | string): Session {
    const name = typeof node === 'string' ? node : node.name;
    const found = this.#sessions.get(name);
    if (!found) throw new RangeError(`no session to node ${name}`);
    return found;
  }

  async close(): Promise<void> {
    for (const session of this.#sessions.values()) await session.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Answers within the connection's timeout or not: round trip in milliseconds, or the reason. */
export async function ping(node: MeshNode): Promise<{ readonly node: string; readonly ok: boolean; readonly ms: number; readonly error: string | undefined }> {
  const start = performance.now();
  try {
    await using session = await openNode(node);
    await session.query('select 1');
    return { node: node.name, ok: true, ms: performance.now() - start, error: undefined };
  } catch (error) {
    return { node: node.name, ok: false, ms: performance.now() - start, error: errorMessage(error) };
  }
}
