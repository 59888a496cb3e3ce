import type { ColumnDependentRow } from '../catalog/column-dependents.ts';
import type { TableRef } from '../core/tables.ts';

/**
 * The phases of a restore, in their order. `pre-data`: everything that rows need (and the dump's order before keys); `indexes`: one statement an index or key,
 * run as soon as a table's rows are in; `attach`: indexes and keys of partitioned tables, and ATTACH PARTITION of indexes; `foreign-keys`; `post-data`: the rest.
 */
export type SchemaPhase = 'pre-data' | 'indexes' | 'attach' | 'foreign-keys' | 'post-data';

/** What a statement is about. Names are as the catalog holds them, unquoted. */
export interface SchemaObject {
  /** In SQL's words, lower case: `table`, `index`, `primary key`, `materialized view`, `grant`, `comment`. */
  readonly kind: string;
  readonly schema: string | undefined;
  /** With argument types for functions: `add(integer, integer)`. */
  readonly name: string;
}

/**
 * What may go wrong without ending the restore; it becomes a warning. `extension-comment`: only its owner may comment on an extension [hard case 13];
 * `privilege`: lacking privilege or a role that is not there; `unpopulated`: a matview that reads one that is not populated; `always`: nothing depends on it (settings, security labels).
 */
export type Tolerance = 'extension-comment' | 'privilege' | 'unpopulated' | 'always';

export interface Statement {
  /** Stable across runs: the line of the ledger that says it is done. */
  readonly key: string;
  readonly phase: SchemaPhase;
  readonly sql: string;
  readonly object: SchemaObject;
  /** The table (or matview) that the object belongs to: of an index, trigger, policy, grant, owned sequence. */
  readonly table: TableRef | undefined;
  readonly tolerate: Tolerance | undefined;
  /** DROP … IF EXISTS … CASCADE of what it makes; undefined for relations, which `dropExisting` finds by name, and for what goes with a table. */
  readonly drop?: string | undefined;
}

/** CREATE INDEX, or a key that has to be added by ALTER TABLE. */
export interface IndexStatement extends Statement {
  readonly phase: 'indexes';
  readonly table: TableRef;
  /** The index's name; it is in the table's schema. */
  readonly name: string;
  /**
   * `share`: CREATE INDEX; several at once on one table. `exclusive`: ALTER TABLE … ADD CONSTRAINT that cannot be made of an index (EXCLUDE, WITHOUT OVERLAPS);
   * other builds on the table wait for it and it for them, so run it when the table's other builds are done.
   */
  readonly lock: 'share' | 'exclusive';
  /** Makes the built index a primary key or unique constraint. Takes ACCESS EXCLUSIVE for a moment: run it when all of the table's builds are done. */
  readonly constraint: Statement | undefined;
}

export interface ForeignKeyStatement extends Statement {
  readonly phase: 'foreign-keys';
  readonly table: TableRef;
  readonly name: string;
  readonly referenced: TableRef;
  /**
   * The same in two steps, so that checks of several tables run at once and a key whose rows do not fit can stay NOT VALID.
   * Undefined where it is NOT VALID on the source, or the table is partitioned (not possible before PostgreSQL 18).
   */
  readonly inSteps: { readonly add: string; readonly validate: string } | undefined;
}

/** Something of the dump that is not restored, and why, for the report. */
export interface LeftOut {
  readonly object: SchemaObject;
  readonly table: TableRef | undefined;
  /** `table left out`, `depends on public.orders, which is left out`, `publication`. */
  readonly reason: string;
}

/** A relation that the plan creates. */
export interface PlannedRelation extends TableRef {
  readonly kind: 'table' | 'partitioned table' | 'foreign table' | 'view' | 'materialized view' | 'sequence';
}

export interface SchemaPlan {
  readonly preData: readonly Statement[];
  readonly indexes: readonly IndexStatement[];
  readonly attach: readonly Statement[];
  readonly foreignKeys: readonly ForeignKeyStatement[];
  /** Tablespaces that the dump names and the target lacks, or of which the role may not make use. */
  readonly lackingTablespaces: readonly string[];
  /** Ends with refreshes of materialized views (with their indexes behind them) and event triggers. */
  readonly postData: readonly Statement[];
  readonly relations: readonly PlannedRelation[];
  readonly leftOut: readonly LeftOut[];
}

/**
 * Decides for each table of the dump. `root`: of a partition, the table at the top, which was chosen already (partitions of a table that is left out are not
 * asked about: they go with it).
 */
export type TableFilter = (table: TableRef, root: TableRef | undefined) => boolean;

/** Columns that the target does not get, and what rests on them on the source. Plain data: it is kept with the dump that it fits to. */
export interface ColumnsOut {
  /** By tableKey, in an order in which PostgreSQL lets them go. */
  readonly columns: Readonly<Record<string, readonly string[]>>;
  readonly dependents: readonly ColumnDependentRow[];
}

export interface PlanOptions {
  readonly includeTable?: TableFilter;
  /** Names of populated materialized views in the order in which to refresh them (catalog/matviews.ts, read in the dump's snapshot). */
  readonly refresh?: readonly TableRef[];
  /** Columns that the target does not get, with what rests on them (read in the dump's snapshot). */
  readonly columnsOut?: ColumnsOut | undefined;
  /** Tablespaces that may be used on the target: what lies in others goes to the default one. Default none. */
  readonly tablespaces?: ReadonlySet<string>;
  /** False leaves out ALTER … OWNER TO. Default true. */
  readonly owners?: boolean;
  /** False leaves out GRANT, REVOKE and ALTER DEFAULT PRIVILEGES. Default true. */
  readonly privileges?: boolean;
}
