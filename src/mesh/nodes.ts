import { z } from 'zod';
import { rememberSecret } from '../core/redact.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { quoteConninfo } from '../pg/identifiers.ts';
import { maxNodeNameLength } from './names.ts';
import { faultsOf, inputError, readInputFile, type InputFault } from './read-file.ts';

/** A member of the mesh, as nodes.json tells it, with its password resolved. */
export interface MeshNode {
  /** 1 to 511; the low bits of every stamp. Default: the place in the file. */
  readonly id: number;
  readonly name: string;
  /** Where this program (the bastion) reaches the node. */
  readonly host: string;
  readonly port: number;
  readonly db: string;
  readonly user: string;
  readonly password: string | undefined;
  /** What the file itself says, for docker-compose.yml. */
  readonly passwordInFile: string | undefined;
  /** Not a service of docker-compose.yml. */
  readonly external: boolean;
  /** Where the other nodes reach it, if elsewhere. */
  readonly hostForNodes: string | undefined;
  readonly portForNodes: number | undefined;
  readonly sslmode: string | undefined;
}

const nodeSchema = z.strictObject({
  name: z.string({ error: 'must be a string' }).regex(/^[a-zA-Z_][a-zA-Z0-9_]*$/, 'must begin with a letter or underscore and hold letters, digits and underscores only')
    .refine((n) => n.length <= maxNodeNameLength, `is longer than ${maxNodeNameLength} characters: sub_<node>_from_<node> must fit into 63 bytes`),
  host: z.string({ error: 'must be a string' }).min(1, 'must not be empty'),
  port: z.int({ error: 'must be a whole number' }).min(1, 'must be 1 to 65535').max(65_535, 'must be 1 to 65535').optional(),
  db: z.string({ error: 'must be a string' }).min(1, 'must not be empty').refine((n) => Buffer.byteLength(n) <= 63, 'is longer than 63 bytes'),
  user: z.string({ error: 'must be a string' }).min(1, 'must not be empty').refine((n) => Buffer.byteLength(n) <= 63, 'is longer than 63 bytes'),
  password: z.string({ error: 'must be a string' }).optional(),
  external: z.boolean({ error: 'must be true or false' }).optional(),
  id: z.int({ error: 'must be a whole number' }).min(1, 'must be 1 to 511').max(511, 'must be 1 to 511').optional(),
  host_for_nodes: z.string().min(1).optional(),
  port_for_nodes: z.int().min(1).max(65_535).optional(),
  sslmode: z.enum(['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'], { error: 'must be disable, allow, prefer, require, verify-ca or verify-full' }).optional(),
});
const nodesSchema = z.array(nodeSchema, { error: 'must be a list of nodes' }).min(1, 'names no node').max(511, 'a mesh has at most 511 nodes');

/** What nodes.json may hold. */
export type NodesInput = z.input<typeof nodesSchema>;

/** Checks the content of nodes.json. Passwords: `PGWEAVE_<NODE>_PASSWORD`, else `PGCONVERGE_<NODE>_PASSWORD`, else the file's. Throws with the path of every fault. */
export function parseNodes(input: unknown, options: { readonly source?: string; readonly env?: NodeJS.ProcessEnv } = {}): MeshNode[] {
  const source = options.source ?? 'nodes';
  const env = options.env ?? process.env;
  const parsed = nodesSchema.safeParse(input);
  if (!parsed.success) throw inputError(source, faultsOf(parsed.error));
  const faults: InputFault[] = [];
  const seen = new Map<string, number>();
  const ids = new Map<number, number>();
  const addresses = new Map<string, number>();
  const nodes = parsed.data.map((node, i): MeshNode => {
    const folded = node.name.toLowerCase();
    const first = seen.get(folded);
    // Slot names are lower case only, so two names that differ in case alone would share a slot.
    if (first !== undefined) faults.push({ path: `[${i}].name`, message: `"${node.name}" is the name of node [${first}] too${parsed.data[first]!.name === node.name ? '' : ' (case does not count)'}` });
    else seen.set(folded, i);
    const id = node.id ?? i + 1;
    const firstId = ids.get(id);
    if (firstId !== undefined) faults.push({ path: `[${i}].id`, message: `${id} is the number of node [${firstId}] too; give every node an id, or none` });
    else ids.set(id, i);
    const address = `${node.host}:${node.port ?? 5432}/${node.db}`;
    const firstAddress = addresses.get(address);
    if (firstAddress !== undefined) faults.push({ path: `[${i}].host`, message: `${address} is the database of node [${firstAddress}] too` });
    else addresses.set(address, i);
    const upper = node.name.toUpperCase();
    const password = env[`PGWEAVE_${upper}_PASSWORD`] || env[`PGCONVERGE_${upper}_PASSWORD`] || node.password;
    rememberSecret(password);
    return {
      id, name: node.name, host: node.host, port: node.port ?? 5432, db: node.db, user: node.user, password: password === '' ? undefined : password, passwordInFile: node.password === '' ? undefined : node.password, external: node.external ?? false,
      hostForNodes: node.host_for_nodes, portForNodes: node.port_for_nodes, sslmode: node.sslmode,
    };
  });
  if (faults.length > 0) throw inputError(source, faults);
  return nodes;
}

export function readNodes(path: string, env: NodeJS.ProcessEnv = process.env): MeshNode[] {
  return parseNodes(readInputFile(path), { source: path, env });
}

/** The node of that name. Throws a usage error that lists the names there are. */
export function nodeNamed(nodes: readonly MeshNode[], name: string): MeshNode {
  const found = nodes.find((n) => n.name === name);
  if (!found) throw inputError('nodes', [{ path: '', message: `there is no node "${name}"; there are ${nodes.map((n) => n.name).join(', ')}` }]);
  return found;
}

/** How this program connects to a node. */
export function nodeSpec(node: MeshNode): ConnectionSpec {
  return {
    hosts: [{ host: node.host, port: node.port }], database: node.db, user: node.user, password: node.password, passwordSource: node.password === undefined ? undefined : `nodes.json or PGWEAVE_${node.name.toUpperCase()}_PASSWORD`,
    sslMode: (node.sslmode ?? 'prefer') as ConnectionSpec['sslMode'], sslRootCert: undefined, sslCert: undefined, sslKey: undefined, sslPassword: undefined, connectTimeoutMs: 10_000, targetSessionAttrs: 'any', options: undefined,
  };
}

/**
 * Where nodes reach one another, where that is not where this program reaches them: `compose` (each by its service's name, port 5432), one host for
 * all (each with its own port), or `name=host[:port],…`. Throws a usage error.
 */
export function withAddressesForNodes(nodes: readonly MeshNode[], text: string | undefined): MeshNode[] {
  if (text === undefined) return [...nodes];
  if (text === 'compose') return nodes.map((n) => (n.external ? n : { ...n, hostForNodes: n.name, portForNodes: 5432 }));
  if (!text.includes('=')) return nodes.map((n) => ({ ...n, hostForNodes: text }));
  const given = new Map<string, { host: string; port: number | undefined }>();
  for (const item of text.split(',')) {
    const match = /^\s*([A-Za-z_]\w*)=(\[[^\]]+\]|[^:\s]+)(?::(\d+))?\s*$/.exec(item);
    if (!match) throw inputError('--host-for-nodes', [{ path: '', message: `cannot read "${item}"; write name=host or name=host:port, separated by commas` }]);
    nodeNamed(nodes, match[1]!);
    given.set(match[1]!, { host: match[2]!.replace(/^\[|\]$/g, ''), port: match[3] === undefined ? undefined : Number(match[3]) });
  }
  return nodes.map((n) => {
    const address = given.get(n.name);
    return address === undefined ? n : { ...n, hostForNodes: address.host, ...(address.port === undefined ? {} : { portForNodes: address.port }) };
  });
}

/** The connection string that a subscription to this node holds. It contains the password: never show it. */
export function conninfoForNodes(node: MeshNode): string {
  const parts: [string, string | undefined][] = [
    ['host', node.hostForNodes ?? node.host], ['port', String(node.portForNodes ?? node.port)], ['dbname', node.db], ['user', node.user], ['password', node.password], ['sslmode', node.sslmode],
    // A peer that vanished without a word is noticed, and its slot is free for the next try.
    ['connect_timeout', '10'], ['keepalives_idle', '30'],
  ];
  return parts.filter((p): p is [string, string] => p[1] !== undefined).map(([key, value]) => `${key}=${quoteConninfo(value)}`).join(' ');
}
