import { PgweaveError } from '../core/errors.ts';
import { qualifiedName } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { adoptSql } from './adopt-sql.ts';
import { faultsError, installedMesh, type InstalledMesh, type NodeFault } from './checks.ts';
import { findTables, type FoundTable } from './describe-table.ts';
import type { MeshNode } from './nodes.ts';
import { planDigest } from './sql/table.ts';
import { planName, type TablePlan } from './table-plan.ts';

interface MemberTable {
  readonly name: string;
  readonly plain: string;
  readonly mode: string;
  readonly counters: readonly string[];
  readonly digest: string;
  /** Columns in the member's physical order. */
  readonly columns: readonly string[];
}

/**
 * Takes tables of a node that joins into the mesh, as the members keep them: all that are not in it there yet. They must be there, with the same columns,
 * and empty. Throws, with nothing changed, where one is missing, differs or holds rows.
 */
export async function adoptAsMembers(target: Session, node: MeshNode, members: readonly Session[], mesh: InstalledMesh): Promise<void> {
  const own = await installedMesh(target);
  const orders = await Promise.all(members.map(memberTables));
  const model = orders[0]!.filter((t) => !own?.tables.has(t.name));
  if (model.length === 0) return;
  const found = await findTables(target, node, {
    tables: model.map((t) => t.plain), byColumn: model.filter((t) => t.mode === 'column').map((t) => t.plain), counters: model.flatMap((t) => t.counters.map((c) => `${t.plain}.${c}`)),
  }, new Set()).catch((error: unknown) => {
    if (error instanceof PgweaveError && error.code === 'no-such-table') throw new PgweaveError('no-schema', `${error.message}, which the mesh has`, { exitCode: 2, hint: 'Create the tables there as the members have them, without columns that begin with _mesh_ and empty, or name generated.sql with --schema.' });
    throw error;
  });
  const faults: NodeFault[] = [];
  const plans: TablePlan[] = [];
  for (const table of found) {
    for (const fault of table.faults) faults.push({ node: node.name, fault: `${planName(table.plan)}: ${fault}`, fix: 'docs/mesh.md tells what a mesh cannot keep.' });
    const [row] = await target.query(`select 1 from ${qualified(table)} limit 1`);
    if (row) faults.push({ node: node.name, fault: `table ${planName(table.plan)} holds rows`, fix: 'A joining node gets its rows from the donor: empty the tables first.' });
    // Values travel in the order that the tables had where they were adopted first: on one of the members.
    const plan = orders.map((tables) => tables.find((t) => t.name === planName(table.plan))).flatMap((t) => (t ? [inOrder(table.plan, t.columns)] : [])).find((p) => planDigest(p) === model.find((t) => t.name === planName(p))?.digest);
    if (plan) plans.push(plan);
    else faults.push({ node: node.name, fault: `defines ${planName(table.plan)} otherwise than the members`, fix: 'Names, types, keys, unique indexes and checks must be the same on every node.' });
  }
  if (faults.length > 0) throw faultsError('adopt-refused', faults);
  await target.transaction(async () => {
    await target.query(`select pg_catalog.set_config('pgweave.node_id', $1, true), pg_catalog.set_config('pgweave.node_name', $2, true)`, [String(node.id), node.name]);
    await target.query(adoptSql(plans, found.flatMap((t) => t.identityAlways.map((column) => ({ plan: t.plan, column }))), own ? undefined : mesh.maxDriftMs));
  });
}

async function memberTables(member: Session): Promise<MemberTable[]> {
  return await member.query<MemberTable & { columns: string[] }>(`select t.name, n.nspname || '.' || c.relname as plain, t.mode, t.counters, t.digest,
      (select pg_catalog.array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a where a.attrelid = t.rel and a.attnum > 0 and not a.attisdropped and a.attname not in ('_mesh_w', '_mesh_m')) as columns
    from _mesh.tbl t join pg_catalog.pg_class c on c.oid = t.rel join pg_catalog.pg_namespace n on n.oid = c.relnamespace order by t.name`);
}

function inOrder(plan: TablePlan, order: readonly string[]): TablePlan {
  const place = (name: string) => (order.includes(name) ? order.indexOf(name) : order.length);
  return { ...plan, columns: [...plan.columns].sort((a, b) => place(a.name) - place(b.name)) };
}

const qualified = (table: FoundTable) => qualifiedName(table.plan.schema, table.plan.name);
