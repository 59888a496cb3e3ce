import { sleep } from '../core/abort.ts';
import { PgweaveError } from '../core/errors.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { installedMesh, sameMesh, type InstalledMesh } from './checks.ts';
import type { NodeSessions } from './connect.ts';
import { currentLsn, waitConfirmed } from './edges.ts';
import { subscriptionName } from './names.ts';
import type { MeshNode } from './nodes.ts';
import { leaveTableSql } from './sql/table.ts';

/** Number of the advisory lock that collect() tries and that holds collection off. Source: sql/core.ts. */
const collectLock = 4714;

export interface MeshTableRow {
  readonly name: string;
  /** Quoted, qualified. */
  readonly rel: string;
  readonly base: string;
  readonly mode: string;
  readonly sent: readonly string[];
  readonly keys: readonly string[];
}

export async function meshTables(session: Session): Promise<MeshTableRow[]> {
  return await session.query<{ name: string; rel: string; base: string; mode: string; sent: string[]; keys: string[] }>(`select t.name, pg_catalog.format('%I.%I', n.nspname, c.relname) as rel, t.base, t.mode, t.sent, t.keys
    from _mesh.tbl t join pg_catalog.pg_class c on c.oid = t.rel join pg_catalog.pg_namespace n on n.oid = c.relnamespace order by t.name`);
}

/** A generated function of a table, such as `_mesh."reemit_orders"`. */
export function tableFunction(kind: string, base: string): string {
  return `_mesh.${quoteIdent(`${kind}_${base}`)}`;
}

/** The mesh of each node; throws where one has none, or where they differ. */
export async function meshOf(sessions: NodeSessions, nodes: readonly MeshNode[]): Promise<Map<string, InstalledMesh>> {
  const found = new Map<string, InstalledMesh>();
  for (const node of nodes) {
    const mesh = await installedMesh(sessions.of(node));
    if (!mesh) throw new PgweaveError('no-mesh', `node ${node.name} holds no mesh`, { hint: 'Run pgweave mesh apply-schema and setup-replication first.' });
    found.set(node.name, mesh);
  }
  sameMesh(found);
  return found;
}

/** Waits until every node has applied what every other one had written when this was called. */
export async function drain(sessions: NodeSessions, nodes: readonly MeshNode[], options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined }): Promise<void> {
  await Promise.all(nodes.map(async (from) => {
    const target = await currentLsn(sessions.of(from));
    for (const to of nodes) {
      if (to.name === from.name) continue;
      await waitConfirmed(sessions.of(from), subscriptionName(to.name, from.name), target, { timeoutMs: options.timeoutMs, signal: options.signal, what: `node ${to.name} (changes of ${from.name})` });
    }
  }));
}

/** Keeps tombstones from being collected on these nodes while `work` runs: what is told again must find them. */
export async function withoutCollection<T>(sessions: NodeSessions, nodes: readonly MeshNode[], work: () => Promise<T>): Promise<T> {
  const held: MeshNode[] = [];
  try {
    for (const node of nodes) {
      await sessions.of(node).query('select pg_catalog.pg_advisory_lock($1, 0)', [collectLock]);
      held.push(node);
    }
    return await work();
  } finally {
    for (const node of held) await sessions.of(node).query('select pg_catalog.pg_advisory_unlock($1, 0)', [collectLock]).catch(() => undefined);
  }
}

/** Enters a member as joining, and waits out a collection that began before: from then on no node drops a tombstone. */
export async function registerJoining(session: Session, node: MeshNode): Promise<void> {
  await session.query(`insert into _mesh.node (id, name, state) values ($1, $2, 'joining') on conflict (id) do update set state = 'joining', acked = '{}', closed = '{}', ready = false, seen_at = null`, [node.id, node.name]);
  await session.transaction(() => session.query('select pg_catalog.pg_advisory_xact_lock($1, 0)', [collectLock]));
}

/** From now on the node refuses writes of applications; those under way are waited for. */
export async function closeGate(session: Session, why: string): Promise<void> {
  await session.query('select _mesh.refuse_writes($1)', [why]);
  for (const { rel } of await meshTables(session)) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        // Conflicts with every writer, so it is granted once those that may have passed the gate have ended.
        await session.transaction(async () => {
          await session.query(`set local lock_timeout = '2s'`);
          await session.query(`lock table ${rel} in share row exclusive mode`);
        });
        break;
      } catch (error) {
        if (sqlstateOf(error) !== sqlstate.lockNotAvailable || attempt >= 15) throw error;
        await sleep(100);
      }
    }
  }
}

/** Takes the mesh off a node; its tables and rows stay, with their triggers gone. Subscriptions and slots are dropped elsewhere. */
export async function takeOff(session: Session, keepColumns = false): Promise<void> {
  const tables = await meshTables(session);
  await session.transaction(async () => {
    const publications = await session.query<{ pubname: string }>(`select p.pubname from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid where r.prrelid = '_mesh.journal'::regclass`);
    for (const { pubname } of publications) await session.query(`drop publication ${quoteIdent(pubname)}`);
    for (const t of tables) await session.query(leaveTableSql({ table: t.rel, base: t.base }, true));
    // Functions of the mesh take rows of the tables, so they go before the columns.
    await session.query('drop schema _mesh cascade');
    if (!keepColumns) for (const t of tables) await session.query(leaveTableSql({ table: t.rel, base: t.base }));
  });
}

/** Slots and subscriptions of this database that belong to edges of the mesh. */
export async function edgeNames(session: Session): Promise<{ readonly slots: string[]; readonly subscriptions: string[] }> {
  const slots = await session.query<{ slot_name: string }>(`select slot_name from pg_catalog.pg_replication_slots where database = pg_catalog.current_database() and slot_name ~ '^sub_.+_from_'`);
  const subscriptions = await session.query<{ subname: string }>(`select s.subname from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid where d.datname = pg_catalog.current_database() and s.subname ~ '^sub_.+_from_'`);
  return { slots: slots.map((s) => s.slot_name), subscriptions: subscriptions.map((s) => s.subname) };
}

/** Sets the node's members: everybody given, as active. */
export async function setMembers(session: Session, nodes: readonly MeshNode[], joining?: MeshNode): Promise<void> {
  for (const n of nodes) {
    await session.query(`insert into _mesh.node (id, name, state) values ($1, $2, $3) on conflict (id) do update set name = excluded.name, state = excluded.state`, [n.id, n.name, n.name === joining?.name ? 'joining' : 'active']);
  }
}

