import { readColumnDependents } from '../catalog/column-dependents.ts';
import { leftOutDependents } from '../catalog/left-out-dependents.ts';
import { selectableTables } from '../catalog/selection.ts';
import { notedRules } from '../copy/kept-selection.ts';
import { PgweaveError, exitCodes } from '../core/errors.ts';
import { describeRules, excludedColumns, hasRules, matchTables, noRules, unmatchedError, type SelectionRules } from '../core/selection/index.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { diffSchemas, type AttributeDifference, type SchemaDifference } from '../schema/compare/diff.ts';
import { expectedSchemas, type LeftOutObject, type SchemaRules } from '../schema/compare/expected.ts';
import type { CatalogObject } from '../schema/compare/model.ts';
import { describeCatalogObject } from '../schema/compare/names.ts';
import { readSchema } from '../schema/compare/read.ts';
import { loadParser } from '../schema/compare/sql-equal.ts';

export interface CompareOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job?: string;
  /** What the job moves, and under which names; default what a clone of the job wrote down on the target. */
  readonly rules?: SelectionRules | undefined;
  /** Names in the rules that match nothing are a usage error. Default false: the source may have changed since the job began. */
  /** Names in the rules that match nothing are a usage error. Default false: the source may have changed since the job began. */
  readonly strict?: boolean;
  /** Default true: owners count. */
  readonly owners?: boolean;
  /** Default true: privileges and default privileges count. */
  readonly privileges?: boolean;
  /** Default true: comments count. */
  readonly comments?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface ComparedSide {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly version: string;
  /** Objects compared, columns and constraints counted too. */
  readonly objects: number;
}

export interface ComparedObject {
  /** `missing`: on the source alone; `extra`: on the target alone. */
  readonly change: 'missing' | 'extra' | 'different';
  readonly kind: string;
  /** For people: `index public.orders_idx on public.orders`. */
  readonly object: string;
  /** Names as the catalog holds them: the target's where it is there alone, else the source's. */
  readonly schema: string | null;
  readonly name: string;
  readonly table: TableRef | null;
  /** Its names on the target, where the job's rules give it others there; else null. */
  readonly onTarget: Pick<ComparedObject, 'object' | 'schema' | 'name' | 'table'> | null;
  /** What differs, with both values; empty unless `different`. */
  readonly attributes: readonly AttributeDifference[];
  /** Columns, indexes and so on of a table that is missing or extra as a whole. */
  readonly parts: readonly { readonly kind: string; readonly object: string }[];
}

export interface CompareResult {
  readonly format: 1;
  readonly equal: boolean;
  /** The rules that were applied: what they leave out or rename on the target is no difference. */
  readonly rules: readonly string[];
  readonly source: ComparedSide;
  readonly target: ComparedSide;
  readonly missing: number;
  readonly extra: number;
  readonly different: number;
  readonly differences: readonly ComparedObject[];
  /** Differences that do not count: versions of extensions. */
  readonly notes: readonly ComparedObject[];
}

/** Oldest major version whose catalogs are read. */
const oldest = 140_000;

/** Compares two schemas object by object, as the catalogs tell them and as a job's rules have them. Writes nothing. Publications, subscriptions, roles' own attributes and what sequences stand at are not compared. */
export async function compare(options: CompareOptions): Promise<CompareResult> {
  const { signal } = options;
  const common = { role: 'compare', signal, ...(options.job === undefined ? {} : { job: options.job }) };
  await using source = await Session.open(options.source, { ...common, side: 'the source' });
  await using target = await Session.open(options.target, { ...common, side: 'the target' });
  for (const [side, session] of [['source', source], ['target', target]] as const) {
    if (session.serverVersion < oldest) throw new PgweaveError('version-unsupported', `the ${side} is PostgreSQL ${session.serverVersionText}; schemas are compared from 14 on`, { hint: 'Compare two dumps instead: pg_dump --schema-only on both sides, then diff.', exitCode: exitCodes.failed });
  }
  await loadParser();
  const rules = ofSchema(options.rules ?? (options.job === undefined ? undefined : await notedRules(target, options.job)) ?? noRules);
  const applied = hasRules(rules) ? await schemaRules(source, rules, options.strict ?? false) : undefined;
  const [ofSource, ofTarget] = await Promise.all([readSchema(source), readSchema(target)]);
  const expected = applied ? expectedSchemas(ofSource, ofTarget, applied) : { source: ofSource, target: ofTarget, names: undefined };
  const { differences, notes } = diffSchemas(expected.source, expected.target, {
    ...(expected.names ? { names: expected.names } : {}), sourceVersion: source.serverVersion, targetVersion: target.serverVersion, owners: options.owners ?? true, privileges: options.privileges ?? true, comments: options.comments ?? true,
  });
  const count = (change: SchemaDifference['change']) => differences.filter((difference) => difference.change === change).length;
  return {
    format: 1, equal: differences.length === 0, rules: describeRules(rules), source: side(source, expected.source.size), target: side(target, expected.target.size), missing: count('missing'), extra: count('extra'), different: count('different'),
    differences: differences.map(compared), notes: notes.map(compared),
  };
}

function side(session: Session, objects: number): ComparedSide {
  return { host: session.host.host, port: session.host.port, database: session.spec.database, version: session.serverVersionText.split(' ')[0]!, objects };
}

function compared({ change, object, onTarget, attributes, parts }: SchemaDifference): ComparedObject {
  const named = (part: CatalogObject) => ({ kind: part.kind, object: describeCatalogObject(part) });
  const names = (of: CatalogObject) => ({ object: describeCatalogObject(of), schema: of.schema ?? null, name: of.name, table: of.table ?? null });
  const there = onTarget && names(onTarget);
  return { change, kind: object.kind, ...names(object), onTarget: there && there.object !== describeCatalogObject(object) ? there : null, attributes, parts: parts.map(named) };
}

/** The rules that concern one database's schema: not those about rows. */
function ofSchema(rules: SelectionRules): SelectionRules {
  const { includeTables, excludeTables, excludeColumns, maps } = rules;
  return { ...noRules, includeTables, excludeTables, excludeColumns, maps };
}

/** What rules mean for the schema of this source: new names, columns and tables that the target does not get, and what rests on these. */
async function schemaRules(source: Session, rules: SelectionRules, strict: boolean): Promise<SchemaRules> {
  const { selection, unmatched } = matchTables(rules, source.spec.database, await selectableTables(source));
  if (strict && unmatched.length > 0) throw unmatchedError(unmatched);
  const columns = excludedColumns(selection);
  const dependents = await readColumnDependents(source, columns);
  const without = new Set([...selection].filter(([, s]) => s.mode === 'skip').map(([key]) => key));
  for (const { kind, schema, name } of dependents) if (kind === 'view') without.add(tableKey({ schema, name }));
  const renames = [...selection.values()].filter((s) => s.mode !== 'skip' && tableKey(s.mapTo) !== tableKey(s.table)).map((s) => ({ from: s.table, to: s.mapTo }));
  const parts = new Set<string>(['index', 'constraint', 'policy', 'trigger', 'rule', 'statistics'] satisfies LeftOutObject['kind'][]);
  const leftOut = [...dependents.filter(({ kind }) => parts.has(kind)) as LeftOutObject[], ...(await leftOutDependents(source, without))];
  return { renames, columns, leftOut };
}
