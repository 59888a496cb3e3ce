import { PgweaveError } from '../core/errors.ts';
import type { Session } from '../pg/session.ts';
import type { NodeSessions } from './connect.ts';
import type { MeshNode } from './nodes.ts';

/** Something about a node that keeps it out of a mesh, with its fix. */
export interface NodeFault {
  readonly node: string;
  readonly fault: string;
  readonly fix: string;
}

/** A mesh needs `origin = none` and `run_as_owner`, both of version 16. */
const oldestVersion = 160_000;

export function faultsError(code: string, faults: readonly NodeFault[]): PgweaveError {
  const lines = faults.map((f) => `${f.node}: ${f.fault}`);
  return new PgweaveError(code, lines.length === 1 ? lines[0]! : `${lines.length} things are wrong; nothing was changed\n${lines.map((l) => `  ${l}`).join('\n')}`, { hint: [...new Set(faults.map((f) => f.fix))].join(' '), details: { faults } });
}

/** What a server must have before it can be a node among `count`; reads only. `workersOff`: a clone that was started without replication workers. */
export async function serverFaults(session: Session, node: MeshNode, count: number, workersOff = false): Promise<NodeFault[]> {
  const faults: NodeFault[] = [];
  const add = (fault: string, fix: string) => void faults.push({ node: node.name, fault, fix });
  if (session.serverVersion < oldestVersion) {
    add(`runs PostgreSQL ${session.serverVersionText}; a mesh needs 16 or newer`, 'Upgrade that server (pgweave clone --follow moves it without downtime).');
    return faults;
  }
  const row = await session.one<{ wal_level: string; super: boolean; slots: number; senders: number; workers: number; processes: number; origins: number | null; used_slots: number; replica: boolean; standby: boolean }>(`
    select pg_catalog.current_setting('wal_level') as wal_level, r.rolsuper as super, pg_catalog.current_setting('max_replication_slots')::int4 as slots, pg_catalog.current_setting('max_wal_senders')::int4 as senders,
      pg_catalog.current_setting('max_logical_replication_workers')::int4 as workers, pg_catalog.current_setting('max_worker_processes')::int4 as processes, pg_catalog.current_setting('max_active_replication_origins', true)::int4 as origins,
      (select pg_catalog.count(*) from pg_catalog.pg_replication_slots s where s.database is distinct from pg_catalog.current_database() or s.slot_name !~ '^sub_.+_from_')::int4 as used_slots, pg_catalog.has_parameter_privilege('session_replication_role', 'SET') as replica, pg_catalog.pg_is_in_recovery() as standby
    from pg_catalog.pg_roles r where r.rolname = current_user`);
  const peers = count - 1;
  if (row.standby) add('is a standby in recovery', 'Name the primary.');
  if (row.wal_level !== 'logical') add(`has wal_level = ${row.wal_level}`, `alter system set wal_level = 'logical', then restart the server.`);
  if (!row.super) add(`role ${node.user} is no superuser`, 'Setting up a mesh makes subscriptions, a role for apply workers and triggers that switch session_replication_role: give nodes.json a superuser.');
  if (row.slots - row.used_slots < peers) add(`max_replication_slots = ${row.slots}${row.used_slots > 0 ? `, of which others use ${row.used_slots}` : ''}: fewer than ${peers} are left`, `alter system set max_replication_slots = ${Math.max(20, peers * 2 + row.used_slots)}, then restart.`);
  if (row.senders < peers) add(`max_wal_senders = ${row.senders}, fewer than ${peers}`, `alter system set max_wal_senders = ${Math.max(20, peers * 2)}, then restart.`);
  if (row.workers < peers && !workersOff) add(`max_logical_replication_workers = ${row.workers}, fewer than ${peers}`, `alter system set max_logical_replication_workers = ${peers + 4}, then restart.`);
  // Of version 18 on; before it, max_replication_slots bounds origins.
  if (row.origins !== null && row.origins < peers) add(`max_active_replication_origins = ${row.origins}, fewer than ${peers}`, `alter system set max_active_replication_origins = ${Math.max(20, peers * 2)}, then restart.`);
  if (row.processes <= peers) add(`max_worker_processes = ${row.processes}, not more than ${peers}`, `alter system set max_worker_processes = ${peers + 12}, then restart.`);
  return faults;
}

/** How far a node's clock is from this program's, in milliseconds, with half the round trip as its error. */
export async function clockOffset(session: Session): Promise<{ readonly offsetMs: number; readonly errorMs: number }> {
  let best = { offsetMs: 0, errorMs: Number.POSITIVE_INFINITY };
  // The shortest of three round trips bounds the error best.
  for (let i = 0; i < 3; i += 1) {
    const before = Date.now();
    const start = performance.now();
    const { us } = await session.one<{ us: bigint }>(`select (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::int8 as us`);
    const tripMs = performance.now() - start;
    if (tripMs / 2 < best.errorMs) best = { offsetMs: Number(us / 1000n) - (before + tripMs / 2), errorMs: tripMs / 2 };
  }
  return best;
}

/** Nodes whose clocks are too far from the others' (the median): their changes would be refused. */
export async function clockFaults(sessions: NodeSessions, nodes: readonly MeshNode[], maxDriftMs: number): Promise<NodeFault[]> {
  const offsets = await Promise.all(nodes.map(async (n) => ({ node: n.name, ...(await clockOffset(sessions.of(n))) })));
  const sorted = offsets.map((o) => o.offsetMs).sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)]!;
  // Half the drift: two nodes may be off in opposite directions.
  return offsets.filter((o) => Math.abs(o.offsetMs - median) - o.errorMs > maxDriftMs / 2)
    .map((o) => ({ node: o.node, fault: `its clock is ${((o.offsetMs - median) / 1000).toFixed(1)} s off the others'`, fix: 'Set the clock right (NTP); changes of a node whose clock is ahead would be refused.' }));
}

/** Nodes whose databases are encoded otherwise than the first one's: a character that another encoding lacks would stop an edge for ever. */
export async function encodingFaults(sessions: NodeSessions, nodes: readonly MeshNode[]): Promise<NodeFault[]> {
  const found = await Promise.all(nodes.map(async (n) => ({ node: n.name, ...(await sessions.of(n).one<{ encoding: string }>(`select pg_catalog.current_setting('server_encoding') as encoding`)) })));
  return found.filter((f) => f.encoding !== found[0]!.encoding).map((f) => ({ node: f.node, fault: `its database is encoded in ${f.encoding}, that of ${found[0]!.node} in ${found[0]!.encoding}`, fix: 'All databases of a mesh need one encoding: create that database anew.' }));
}

/** What is known of `_mesh` in a database, if it is there. */
export interface InstalledMesh {
  readonly id: number | undefined;
  readonly name: string | undefined;
  readonly format: number;
  readonly maxDriftMs: number;
  /** Name of a table in the mesh → digest of its definition. */
  readonly tables: ReadonlyMap<string, string>;
  readonly members: readonly { readonly id: number; readonly name: string; readonly state: string }[];
}

export async function installedMesh(session: Session): Promise<InstalledMesh | undefined> {
  const { there } = await session.one<{ there: boolean }>(`select pg_catalog.to_regclass('_mesh.journal') is not null as there`);
  if (!there) return undefined;
  const [format] = await session.query<{ version: number }>('select version from _mesh.format');
  const tables = await session.query<{ name: string; digest: string }>('select name, digest from _mesh.tbl');
  const members = await session.query<{ id: bigint; name: string; state: string }>('select id, name, state from _mesh.node order by id');
  const { name, drift } = await session.one<{ name: string; drift: bigint }>('select _mesh.my_name() as name, _mesh.max_drift() as drift');
  const self = members.find((m) => m.name === name);
  return { id: self === undefined ? undefined : Number(self.id), name, format: format?.version ?? 0, maxDriftMs: Number(drift) / 1000, tables: new Map(tables.map((t) => [t.name, t.digest])), members: members.map((m) => ({ id: Number(m.id), name: m.name, state: m.state })) };
}

/** Throws where nodes do not hold the same mesh: another format, other tables, other definitions, another name. */
export function sameMesh(found: ReadonlyMap<string, InstalledMesh>): void {
  const faults: NodeFault[] = [];
  const [first] = found;
  if (!first) return;
  const [firstName, model] = first;
  for (const [node, mesh] of found) {
    if (mesh.name !== node) faults.push({ node, fault: `calls itself ${mesh.name ?? 'nothing'} in its database`, fix: 'The name in nodes.json must be the one that apply-schema was run with.' });
    if (mesh.format !== model.format) faults.push({ node, fault: `has mesh format ${mesh.format}, ${firstName} has ${model.format}`, fix: 'Generate with one version of pgweave for all nodes.' });
    for (const name of new Set([...mesh.tables.keys(), ...model.tables.keys()])) {
      const here = mesh.tables.get(name);
      const there = model.tables.get(name);
      if (here !== there) faults.push({ node, fault: here === undefined ? `lacks table ${name}, which ${firstName} has` : there === undefined ? `has table ${name}, which ${firstName} lacks` : `defines table ${name} otherwise than ${firstName}`, fix: 'Apply the same generated.sql to every node.' });
    }
  }
  if (faults.length > 0) throw faultsError('mesh-mismatch', faults);
}
