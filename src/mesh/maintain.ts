import { errorMessage } from '../core/errors.ts';
import { openNode } from './connect.ts';
import type { MeshNode } from './nodes.ts';

export interface MaintainResult {
  readonly node: string;
  /** Tombstones collected, or undefined where the node could not be reached. */
  readonly collected: bigint | undefined;
  readonly error: string | undefined;
}

/** One round of housekeeping on every node that answers: heartbeat, collection of tombstones, the journal emptied. Meant to run some times a minute. */
export async function maintainAll(nodes: readonly MeshNode[], signal?: AbortSignal): Promise<MaintainResult[]> {
  return await Promise.all(nodes.map(async (node): Promise<MaintainResult> => {
    try {
      await using session = await openNode(node, signal);
      const { n } = await session.one<{ n: bigint }>('select _mesh.maintain() as n');
      return { node: node.name, collected: n, error: undefined };
    } catch (error) {
      return { node: node.name, collected: undefined, error: errorMessage(error) };
    }
  }));
}
