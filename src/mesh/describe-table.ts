import { PgweaveError } from '../core/errors.ts';
import { displayName, qualifiedName } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import type { NodeFault } from './checks.ts';
import type { MeshNode } from './nodes.ts';
import { sequenceOf, type KeySequence } from './sequences.ts';
import { planDigest } from './sql/table.ts';
import { isComparable, isExactNumber } from './sql/types.ts';
import { planName, type PlanColumn, type TablePlan } from './table-plan.ts';
import { triggerFaults } from './table-faults.ts';

/** A table that exists, as the mesh would keep it. */
export interface FoundTable {
  readonly plan: TablePlan;
  /** Why it cannot be in a mesh. */
  readonly faults: readonly string[];
  readonly sequences: readonly KeySequence[];
  readonly identityAlways: readonly string[];
  readonly estimate: number;
}

/** How tables are to be merged. */
export interface MergeChoice {
  /** `table` or `schema.table`; undefined: every ordinary table of schema public. */
  readonly tables?: readonly string[] | undefined;
  readonly byColumn?: readonly string[] | undefined;
  readonly counters?: readonly string[] | undefined;
}

/** Whether a name from the command line means this table. */
function named(list: readonly string[] | undefined, schema: string, table: string): boolean {
  return list?.some((n) => n === `${schema}.${table}` || (schema === 'public' && n === table)) ?? false;
}

/** Tables of a node that are meant, without those that are `known`. Throws where one that is named is not there. */
export async function findTables(session: Session, node: MeshNode, choice: MergeChoice, known: ReadonlySet<string>): Promise<FoundTable[]> {
  const rows = await session.query<{ schema: string; name: string; kind: string; persistence: string; child: boolean; estimate: bigint; oid: number }>(`select n.nspname as schema, c.relname as name, c.relkind::text as kind, c.relpersistence::text as persistence, c.oid,
      exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid or i.inhparent = c.oid) as child, greatest(c.reltuples, 0)::int8 as estimate
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p') and n.nspname not in ('_mesh', 'information_schema', 'pg_catalog') and n.nspname !~ '^pg_' order by 1, 2`);
  const missing = (choice.tables ?? []).filter((t) => !rows.some((r) => named([t], r.schema, r.name)));
  if (missing.length > 0) throw new PgweaveError('no-such-table', `node ${node.name} has no table ${missing.join(', ')}`, { exitCode: 2, hint: 'Write schema.table; a name without a schema means public.' });
  const out: FoundTable[] = [];
  for (const row of rows) {
    const wanted = choice.tables ? named(choice.tables, row.schema, row.name) : row.schema === 'public' && row.kind === 'r';
    if (!wanted || known.has(displayName(row.schema, row.name))) continue;
    out.push(await describe(session, row, choice));
  }
  return out;
}

async function describe(session: Session, row: { schema: string; name: string; kind: string; persistence: string; child: boolean; estimate: bigint; oid: number }, choice: MergeChoice): Promise<FoundTable> {
  const faults: string[] = [];
  const table = qualifiedName(row.schema, row.name);
  if (row.kind !== 'r' || row.child) faults.push('partitioned and inheriting tables cannot be in a mesh');
  if (row.persistence !== 'p') faults.push('unlogged and temporary tables cannot be in a mesh');
  // Functions are quoted with $mesh$.
  if (/\$mesh\$/.test(row.schema + row.name)) faults.push('a name with $mesh$ in it cannot be in a mesh');
  const columns = await session.query<{ name: string; type: string; generated: string; identity: string; not_null: boolean; domain_not_null: boolean }>(`select a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.attgenerated::text as generated, a.attidentity::text as identity,
      a.attnotnull as not_null, t.typtype = 'd' and t.typnotnull as domain_not_null
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum`, [row.oid]);
  const indexes = await session.query<{ name: string; primary: boolean; columns: (string | null)[]; partial: boolean; expression: boolean; immediate: boolean; nulls: boolean }>(`select i.indexrelid::regclass::text as name, i.indisprimary as primary, i.indpred is not null as partial, i.indexprs is not null as expression, i.indimmediate as immediate,
      i.indnullsnotdistinct as nulls, (select pg_catalog.array_agg(a.attname::text order by k.o) from pg_catalog.unnest(i.indkey::int2[]) with ordinality k(n, o) left join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n where k.o <= i.indnkeyatts) as columns
    from pg_catalog.pg_index i where i.indrelid = $1 and i.indisunique order by 1`, [row.oid]);
  const constraints = await session.query<{ contype: string; conname: string }>(`select contype::text as contype, conname::text as conname from pg_catalog.pg_constraint where conrelid = $1 order by 2`, [row.oid]);
  const primary = indexes.find((i) => i.primary);
  if (!primary) faults.push('has no primary key');
  if (primary && !primary.immediate) faults.push('its primary key is deferrable');
  const uniques: string[][] = [];
  for (const i of indexes) {
    if (i.primary) continue;
    const why = i.partial ? 'partial' : i.expression ? 'on an expression' : !i.immediate ? 'deferrable' : i.nulls ? 'NULLS NOT DISTINCT' : undefined;
    if (why !== undefined) faults.push(`unique index ${i.name} is ${why}: it cannot be kept across nodes`);
    else uniques.push(i.columns as string[]);
  }
  for (const c of constraints) if (c.contype === 'x') faults.push(`exclusion constraint ${c.conname} cannot be kept across nodes`);
  for (const c of columns) {
    if (c.domain_not_null) faults.push(`column ${c.name} is of a domain that is NOT NULL; put NOT NULL on the column instead`);
    if (c.name.startsWith('_mesh_')) faults.push(`column ${c.name} has a name of the mesh's own`);
    if (c.name.includes('$mesh$')) faults.push(`column ${c.name} cannot be in a mesh: $mesh$ is in its name`);
  }
  faults.push(...(await triggerFaults(session, table)));
  const key = (primary?.columns ?? []) as string[];
  const full = (c: string) => [`${row.schema}.${row.name}.${c}`, ...(row.schema === 'public' ? [`${row.name}.${c}`] : [])];
  const isCounter = (c: string) => choice.counters?.some((x) => full(c).includes(x)) ?? false;
  const byColumn = named(choice.byColumn, row.schema, row.name) || columns.some((c) => isCounter(c.name));
  const planned = columns.map((c): PlanColumn => {
    if (isCounter(c.name) && !isExactNumber(c.type)) faults.push(`counter ${c.name} must be smallint, integer, bigint or numeric; it is ${c.type}`);
    if (isCounter(c.name) && !c.not_null) faults.push(`counter ${c.name} may be NULL, which is no sum: set it NOT NULL with a default of 0`);
    if (key.includes(c.name) && !isComparable(c.type)) faults.push(`columns of type ${c.type} cannot be a key`);
    return { name: c.name, type: c.type, generated: c.generated !== '', merge: key.includes(c.name) ? 'key' : isCounter(c.name) ? 'counter' : byColumn ? 'lww' : 'row' };
  });
  const sequences: KeySequence[] = [];
  for (const c of key) {
    const sequence = await sequenceOf(session, table, c);
    if (sequence) sequences.push(sequence);
  }
  return {
    plan: { schema: row.schema, name: row.name, columns: planned, key, uniques, mode: byColumn ? 'column' : 'row', checks: constraints.some((c) => c.contype === 'c'), audit: false }, faults, estimate: Number(row.estimate),
    sequences, identityAlways: columns.filter((c) => c.identity === 'a').map((c) => c.name),
  };
}

/** Where the tables of a node are not those of another. Physical order of columns may differ; names, types and keys may not. */
export function definitionFaults(node: string, tables: readonly FoundTable[], model: readonly FoundTable[], modelName: string): NodeFault[] {
  const faults: NodeFault[] = [];
  const digest = (t: FoundTable) => planDigest({ ...t.plan, columns: [...t.plan.columns].sort((a, b) => (a.name < b.name ? -1 : 1)) });
  const names = new Set([...tables, ...model].map((t) => planName(t.plan)));
  for (const name of names) {
    const here = tables.find((t) => planName(t.plan) === name);
    const there = model.find((t) => planName(t.plan) === name);
    if (!here) faults.push({ node, fault: `lacks table ${name}, which ${modelName} has`, fix: 'Create it there, with the same columns.' });
    else if (!there) faults.push({ node, fault: `has table ${name}, which ${modelName} lacks`, fix: 'Create it there, with the same columns.' });
    else if (digest(here) !== digest(there)) faults.push({ node, fault: `defines ${name} otherwise than ${modelName}`, fix: 'Names, types, keys and checks must be the same on every node.' });
  }
  return faults;
}
