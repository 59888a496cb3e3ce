import type { ApplyColumn, ApplyTarget } from '../../catalog/apply-target.ts';
import { PgweaveError } from '../../core/errors.ts';
import { tableKey } from '../../core/tables.ts';
import { displayName, qualifiedName, quoteIdent } from '../../pg/identifiers.ts';
import type { Relation } from '../../pgoutput/messages.ts';

/** One column of the source's relation and where it goes. Columns are matched by name; their order may differ [hard case 51]. */
export interface PlanColumn {
  readonly quoted: string;
  readonly target: ApplyColumn;
  /** Part of INSERT and COPY: all but generated columns, whose values arise on the target [4]. */
  readonly written: boolean;
  /** Part of SET: not GENERATED ALWAYS AS IDENTITY either, which can only be set to its default [5]. */
  readonly settable: boolean;
  /** Type of the values on the wire where they are binary and the target's column is of another one; else undefined: the target's own. */
  readonly wireType: string | undefined;
}

/** Which rows of the source go, where the source sends all of them: evaluated on the target with each change. */
export interface RowFilter {
  /** In parentheses; only `true` counts. */
  readonly where: string;
  /** Columns that it reads. */
  readonly columns: readonly string[];
}

/** How changes of one relation, as the source describes it now, are written to its table on the target. Pure data; made by {@link makePlan}. */
export interface TablePlan {
  readonly key: string;
  readonly relation: Relation;
  readonly target: ApplyTarget;
  /** Qualified and quoted. */
  readonly name: string;
  /** `only "s"."t"` for a plain table, whose inheritance children are tables of their own in the stream [44]; partitioned tables without `only` [6]. */
  readonly nameOnly: string;
  readonly columns: readonly PlanColumn[];
  /** Positions of the written columns. */
  readonly written: readonly number[];
  /** Positions of the columns that identify a row; empty where none do (REPLICA IDENTITY FULL without a key on the target, or NOTHING). */
  readonly keyColumns: readonly number[];
  /** A search by the key finds an index. */
  readonly keyIndexed: boolean;
  /** The target has columns of its own, whose values a delete followed by an insert would lose. */
  readonly keepsOwnColumns: boolean;
  /** Changes of many rows can be written by COPY and set statements. */
  readonly setWise: boolean;
  /** Rows are told apart here, row by row (filtered-rows.ts); undefined where the source has done so, or all go. */
  readonly filter: RowFilter | undefined;
  /** Distinguishes statements and scratch tables of this plan from others'. */
  readonly id: number;
}

/** The target cannot take the relation as it is: pauses the table. `ddl`: what to run on the target, where that can be told. */
export class PlanError extends PgweaveError {
  readonly ddl: readonly string[];

  constructor(code: string, message: string, hint: string, ddl: readonly string[] = []) {
    super(code, message, { hint, retry: 'manual', details: { ddl } });
    this.name = 'PlanError';
    this.ddl = ddl;
  }
}

/** What the source's catalog says of a column that the target lacks, for the DDL that adds it. */
export interface SourceColumn {
  readonly name: string;
  /** As `format_type` writes it. */
  readonly type: string;
  readonly notNull: boolean;
  /** Default expression; undefined where there is none. */
  readonly defaultSql: string | undefined;
}

let planCount = 0;

const notReplicated: ApplyColumn = { name: '', type: 'text', typeOid: 25, baseType: 'text', baseTypeOid: 25, bareType: 'text', collation: undefined, isArray: false, generated: true, identityAlways: false, notNull: false, hasDefault: false, comparable: false };

export interface PlanOptions {
  /** Values come in binary form. */
  readonly binary: boolean;
  /** Columns that are not replicated. */
  readonly excluded?: readonly string[] | undefined;
  readonly filter?: RowFilter | undefined;
}

/** @throws PlanError `target-table-missing`, `target-column-missing`, `filter-column-missing`, `filter-needs-key`. `missing` describes columns that the target lacks. */
export function makePlan(relation: Relation, target: ApplyTarget | undefined, missing: readonly SourceColumn[], { binary, excluded = [], filter }: PlanOptions): TablePlan {
  const shown = displayName(relation.schema, relation.name);
  if (!target) {
    throw new PlanError('target-table-missing', `table ${shown} does not exist on the target`, `Create it there as it is on the source, then: pgweave table ${shown} --copy-again`);
  }
  const byName = new Map(target.columns.map((column) => [column.name, column]));
  const absent = relation.columns.filter((column) => !byName.has(column.name) && !excluded.includes(column.name));
  if (absent.length > 0) {
    const ddl = absent.map((column) => addColumnSql(relation, target, column.name, missing.find((m) => m.name === column.name)));
    throw new PlanError('target-column-missing', `the source's ${shown} has ${absent.length === 1 ? 'a column' : 'columns'} that the target lacks: ${absent.map((c) => quoteIdent(c.name)).join(', ')}`, `Run on the target: ${ddl.join(' ')} Then: pgweave table ${shown} --retry`, ddl);
  }
  const unread = filter?.columns.filter((name) => excluded.includes(name) || !relation.columns.some((c) => c.name === name)) ?? [];
  if (unread.length > 0) throw new PlanError('filter-column-missing', `the row filter of ${shown} reads ${unread.join(', ')}, which the source does not send`, `Begin the job anew with another filter, or leave the table out: pgweave table ${shown} --drop`);
  planCount += 1;
  const columns = relation.columns.map((column): PlanColumn => {
    const found = excluded.includes(column.name) ? undefined : byName.get(column.name);
    // A column that is not replicated: sent, and never written.
    if (!found) return { quoted: quoteIdent(column.name), target: notReplicated, written: false, settable: false, wireType: undefined };
    const to = found;
    // Types of the server's own have the same OID everywhere; users' types are matched by their column, and their binary form is the same where their definition is.
    const differs = binary && column.typeOid < firstUserOid && column.typeOid !== to.baseTypeOid && builtinTypes.has(column.typeOid);
    return { quoted: quoteIdent(column.name), target: to, written: !to.generated, settable: !to.generated && !to.identityAlways, wireType: differs ? builtinTypes.get(column.typeOid) : undefined };
  });
  const written = columns.flatMap((column, i) => (column.written ? [i] : []));
  const keyColumns = keyOf(relation, target);
  if (filter && keyColumns.length === 0 && relation.replicaIdentity === 'full') {
    throw new PlanError('filter-needs-key', `the rows of ${shown} have no key on the target by which those that leave the row filter could be found`, `Add a primary key on both sides, then: pgweave table ${shown} --copy-again`);
  }
  const named = new Set(relation.columns.filter((c) => !excluded.includes(c.name)).map((c) => c.name));
  const only = target.kind === 'r' ? 'only ' : '';
  const name = qualifiedName(target.schema, target.name);
  return {
    key: tableKey(relation), relation, target, name, nameOnly: `${only}${name}`, columns, written, keyColumns, filter, id: planCount,
    keyIndexed: keyColumns.some((i) => target.indexedFirst.includes(relation.columns[i]!.name)),
    keepsOwnColumns: target.columns.some((c) => !named.has(c.name) && !c.generated) || target.columns.some((c) => c.identityAlways),
    setWise: filter === undefined && (target.kind === 'r' || target.kind === 'p') && !target.rowSecurity && written.length > 0 && !columns.some((c) => c.wireType !== undefined),
  };
}

/** Identity key as the source marks it; for REPLICA IDENTITY FULL a key of the target, where all of its columns are sent. */
function keyOf(relation: Relation, target: ApplyTarget): number[] {
  if (relation.replicaIdentity !== 'full') return relation.columns.flatMap((column, i) => (column.key ? [i] : []));
  const position = new Map(relation.columns.map((column, i) => [column.name, i]));
  const usable = target.keys.find((key) => key.columns.every((name) => position.has(name)));
  return usable ? usable.columns.map((name) => position.get(name)!).sort((a, b) => a - b) : [];
}

function addColumnSql(relation: Relation, target: ApplyTarget, name: string, known: SourceColumn | undefined): string {
  const type = known?.type ?? builtinTypes.get(relation.columns.find((c) => c.name === name)!.typeOid) ?? 'TYPE';
  const byDefault = known?.defaultSql === undefined ? '' : ` default ${known.defaultSql}`;
  // NOT NULL without a default would fail on rows that are there.
  const notNull = known?.notNull && known.defaultSql !== undefined ? ' not null' : '';
  return `alter table ${qualifiedName(target.schema, target.name)} add column ${quoteIdent(name)} ${type}${byDefault}${notNull};`;
}

/** OIDs from here on are given out by each server for itself. Source: src/include/access/transam.h. */
const firstUserOid = 16_384;

/** Types whose binary form can be cast to what the target has. OIDs are fixed: src/include/catalog/pg_type.dat. */
const builtinTypes: ReadonlyMap<number, string> = new Map([
  [16, 'pg_catalog.bool'], [17, 'pg_catalog.bytea'], [20, 'pg_catalog.int8'], [21, 'pg_catalog.int2'], [23, 'pg_catalog.int4'], [25, 'pg_catalog.text'], [114, 'pg_catalog.json'], [700, 'pg_catalog.float4'],
  [701, 'pg_catalog.float8'], [1042, 'pg_catalog.bpchar'], [1043, 'pg_catalog.varchar'], [1082, 'pg_catalog.date'], [1083, 'pg_catalog.time'], [1114, 'pg_catalog.timestamp'], [1184, 'pg_catalog.timestamptz'],
  [1186, 'pg_catalog.interval'], [1700, 'pg_catalog.numeric'], [2950, 'pg_catalog.uuid'], [3802, 'pg_catalog.jsonb'],
]);

/** Types for which `=` between two values holds exactly where their bytes are equal: bool, bytea, integers, oid, date, timestamps, uuid. */
const exactlyEqual: ReadonlySet<number> = new Set([16, 17, 20, 21, 23, 26, 1082, 1083, 1114, 1184, 2950]);

/** The column's values come, and belong to a column of the target. */
export function isSent(column: PlanColumn): boolean {
  return column.target !== notReplicated;
}

/** `$n`, with a cast where the wire's type is not the column's. */
export function parameter(column: PlanColumn, n: number): string {
  return column.wireType === undefined ? `$${n}` : `$${n}::${column.wireType}`;
}

export function insertSql(plan: TablePlan): string {
  if (plan.written.length === 0) return `insert into ${plan.name} default values`;
  const names = plan.written.map((i) => plan.columns[i]!.quoted).join(', ');
  return `insert into ${plan.name} (${names}) overriding system value values (${plan.written.map((i, n) => parameter(plan.columns[i]!, n + 1)).join(', ')})`;
}

export function copySql(plan: TablePlan, binary: boolean): string {
  return `copy ${plan.name} (${plan.written.map((i) => plan.columns[i]!.quoted).join(', ')}) from stdin${binary ? ' (format binary)' : ''}`;
}

/** `sets`: positions to set; parameters are those, then the key's (or, without a key, those of `where`). */
export function updateSql(plan: TablePlan, sets: readonly number[], where: string): string {
  return `update ${plan.nameOnly} set ${sets.map((i, n) => `${plan.columns[i]!.quoted} = ${parameter(plan.columns[i]!, n + 1)}`).join(', ')} where ${where}`;
}

export function deleteSql(plan: TablePlan, where: string): string {
  return `delete from ${plan.nameOnly} where ${where}`;
}

/** Condition on the identity key; parameters from `first` on. `alias`: of the table, with its dot. */
export function keyCondition(plan: TablePlan, first: number, alias = ''): string {
  return plan.keyColumns.map((i, n) => `${alias}${plan.columns[i]!.quoted} = ${parameter(plan.columns[i]!, first + n)}`).join(' and ');
}

/**
 * Condition that holds for exactly one of the rows equal to an old row, where no key tells rows apart [2]: NULLs by IS NULL, types whose equality says
 * less than their bytes (or that have none) as text, and of several equal rows one. `isNull[i]` for each column; parameters, from `first` on, are the
 * columns that are not NULL. A column generated on the target is left out: its value follows from the others.
 */
export function wholeRowCondition(plan: TablePlan, isNull: readonly boolean[], first: number): string {
  let n = first;
  const parts = plan.columns.flatMap((column, i): string[] => {
    if (!column.written) return [];
    if (isNull[i]) return [`${column.quoted} is null`];
    const here = n;
    n += 1;
    if (exactlyEqual.has(column.target.baseTypeOid)) return [`${column.quoted} = ${parameter(column, here)}`];
    // Through its type, so that the value may have come in either form.
    return [`(${column.quoted}::pg_catalog.text) collate "C" = ($${here}::${column.wireType ?? column.target.baseType})::pg_catalog.text`];
  });
  const condition = parts.length === 0 ? 'true' : parts.join(' and ');
  return `(tableoid, ctid) = (select tableoid, ctid from ${plan.nameOnly} where ${condition} limit 1)`;
}

/** Two plans write alike: the source described the table anew, but nothing that concerns us changed. */
export function sameRelation(a: Relation, b: Relation): boolean {
  return a.schema === b.schema && a.name === b.name && a.replicaIdentity === b.replicaIdentity && a.columns.length === b.columns.length
    && a.columns.every((column, i) => { const other = b.columns[i]!; return column.name === other.name && column.key === other.key && column.typeOid === other.typeOid && column.typeModifier === other.typeModifier; });
}
