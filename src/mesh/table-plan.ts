import { displayName, quoteIdent, qualifiedName } from '../pg/identifiers.ts';
import { lockClass, objectBase } from './names.ts';
import { isHashable, isPlainText, searchPath } from './sql/types.ts';

/**
 * How a column's value is merged: `key` is the row's identity; `row` goes with the row's newest stamp; `lww` has a stamp of its own (last writer
 * wins by column); `counter` adds up what every node added.
 */
export type ColumnMerge = 'key' | 'row' | 'lww' | 'counter';

export interface PlanColumn {
  readonly name: string;
  /** As SQL writes it, such as `numeric(10,2)`. */
  readonly type: string;
  readonly merge: ColumnMerge;
  /** Generated columns are computed by every node for itself. */
  readonly generated: boolean;
}

/** What the SQL generator knows of a table that is in the mesh, whether the table was generated or adopted. */
export interface TablePlan {
  readonly schema: string;
  readonly name: string;
  /** Without `_mesh_w`, `_mesh_m`, in the order in which values travel. New columns are added at the end. */
  readonly columns: readonly PlanColumn[];
  /** Names of the primary key's columns, in its order. */
  readonly key: readonly string[];
  /** Unique keys other than the primary one. */
  readonly uniques: readonly (readonly string[])[];
  /** Whether rows are merged as a whole or column by column. */
  readonly mode: 'row' | 'column';
  /** Whether the table has CHECK constraints: a merge by column may fail them. */
  readonly checks: boolean;
  /** Whether the columns `updated_at` and `origin_node` are kept by the mesh. */
  readonly audit: boolean;
}

/** `public.orders`: how the journal names a table. */
export function planName(plan: TablePlan): string {
  return displayName(plan.schema, plan.name);
}

/** Facts derived from a plan that several generated functions need. */
export interface PlanFacts {
  readonly plan: TablePlan;
  /** Quoted, qualified name of the table. */
  readonly table: string;
  readonly base: string;
  readonly name: string;
  readonly lockClass: number;
  /** For the table's functions: where the operators of its types are. */
  readonly searchPath: string;
  /** Whether all types are built in: then functions that run with every write name what they use in full and do without a search_path, which is dear to set. */
  readonly builtIn: boolean;
  /** Columns whose values travel: not generated ones, and not `updated_at`, which follows from the stamp. */
  readonly sent: readonly PlanColumn[];
  /** Columns that INSERT lists: all but the generated ones. */
  readonly stored: readonly PlanColumn[];
  readonly keys: readonly PlanColumn[];
  readonly lww: readonly PlanColumn[];
  readonly counters: readonly PlanColumn[];
  readonly unique: boolean;
  readonly byColumn: boolean;
  /** Whether a live row may be hidden: it lost a unique key, or a merge by column fails a constraint. */
  readonly parks: boolean;
}

export function factsOf(plan: TablePlan): PlanFacts {
  const column = (name: string): PlanColumn => {
    const found = plan.columns.find((c) => c.name === name);
    if (!found) throw new RangeError(`table ${planName(plan)} has no column ${name}`);
    return found;
  };
  const byColumn = plan.mode === 'column';
  const counters = plan.columns.filter((c) => c.merge === 'counter');
  return {
    plan, table: qualifiedName(plan.schema, plan.name), base: objectBase(plan.schema, plan.name), name: planName(plan), lockClass: lockClass(plan.schema, plan.name), searchPath: searchPath(plan.columns.map((c) => c.type)), builtIn: searchPath(plan.columns.map((c) => c.type)) === 'pg_catalog, pg_temp',
    sent: plan.columns.filter((c) => !c.generated && !(plan.audit && c.name === 'updated_at')), stored: plan.columns.filter((c) => !c.generated), keys: plan.key.map(column),
    lww: plan.columns.filter((c) => c.merge === 'lww' && !c.generated), counters, unique: plan.uniques.length > 0, byColumn,
    parks: plan.uniques.length > 0 || (byColumn && (plan.checks || counters.length > 0)),
  };
}

/** The value of a column as the text that its type's output function gives, NULL as NULL. */
export function asText(expression: string, column: PlanColumn): string {
  if (isPlainText(column.type)) return `${expression}::pg_catalog.text`;
  // A cast to text may differ from the output function (char(n) loses its padding; extensions define casts): format() asks the output function.
  return `case when ${expression} is distinct from null then pg_catalog.format('%s', ${expression}) end`;
}

/** A 64-bit hash of columns by their own types' hash functions, so that 1.0 and 1.00, or two spellings of a citext, fall together. */
export function hashOf(alias: string, columns: readonly PlanColumn[]): string {
  const hashable = columns.filter((c) => isHashable(c.type));
  // Columns without a hash function count for nothing: more keys share a lock, none is missed.
  if (hashable.length === 0) return '0::bigint';
  return `pg_catalog.hash_record_extended(row(${hashable.map((c) => `${alias}.${quoteIdent(c.name)}`).join(', ')}), 0)`;
}
