import { slabBytes, relayCopy } from '../copy/relay.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { WireConnection } from '../pg/wire-connection.ts';
import { meshTables, tableFunction } from './members.ts';
import { nodeSpec, type MeshNode } from './nodes.ts';

/**
 * Loads rows and ghosts of a donor into a node that is joining: one snapshot of the donor, one transaction on the node, no triggers. Whatever the
 * node held before goes. Returns the rows of tables that were copied.
 */
export async function loadFromDonor(donor: MeshNode, donorSession: Session, target: MeshNode, onTable: (name: string, rows: number) => void, signal: AbortSignal | undefined): Promise<number> {
  const tables = await meshTables(donorSession);
  await using source = await WireConnection.open(nodeSpec(donor), { role: 'mesh copy', side: `node ${donor.name}`, signal });
  await using sink = await WireConnection.open(nodeSpec(target), { role: 'mesh copy', side: `node ${target.name}`, signal });
  const slab = Buffer.allocUnsafe(slabBytes);
  let total = 0;
  await source.query('begin isolation level repeatable read read only');
  await sink.query(`begin; set local session_replication_role = 'replica'`);
  const ghosts = tables.map((t) => tableFunction('ghost', t.base));
  await sink.query(`truncate ${[...tables.map((t) => t.rel), ...ghosts, '_mesh.journal', '_mesh.conflict', '_mesh.applied', '_mesh.closed'].join(', ')}`);
  for (const [i, table] of tables.entries()) {
    const columns = await copyColumns(donorSession, table.rel);
    const { rows } = await relayCopy(source, sink, { copyOut: `copy (select ${columns} from ${table.rel}) to stdout`, copyIn: `copy ${table.rel} (${columns}) from stdin` }, () => undefined, slab);
    const ghostColumns = await copyColumns(donorSession, ghosts[i]!);
    await relayCopy(source, sink, { copyOut: `copy (select ${ghostColumns} from ${ghosts[i]!} where _mesh_kind in ('d', 'p')) to stdout`, copyIn: `copy ${ghosts[i]!} (${ghostColumns}) from stdin` }, () => undefined, slab);
    total += rows;
    onTable(table.name, rows);
  }
  const { rows } = await source.query('select coalesce(pg_catalog.pg_sequence_last_value(\'_mesh.clock\'::regclass), 1), _mesh.wall()');
  const clock = rows[0]!.map((v) => BigInt(v!)).reduce((a, b) => (a > b ? a : b));
  await sink.query(`select _mesh.raise_clock(${clock}); commit`);
  await source.query('commit');
  for (const table of tables) await sink.query(`analyze ${table.rel}`);
  return total;
}

/** Columns of a table that COPY carries, by name, since the order may differ between nodes. */
async function copyColumns(session: Session, table: string): Promise<string> {
  const rows = await session.query<{ attname: string }>(`select attname from pg_catalog.pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum`, [table]);
  return rows.map((r) => quoteIdent(r.attname)).join(', ');
}
