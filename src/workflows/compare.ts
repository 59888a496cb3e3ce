import { PgweaveError, exitCodes } from '../core/errors.ts';
import type { TableRef } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { diffSchemas, type AttributeDifference, type SchemaDifference } from '../schema/compare/diff.ts';
import type { CatalogObject } from '../schema/compare/model.ts';
import { describeCatalogObject } from '../schema/compare/names.ts';
import { readSchema } from '../schema/compare/read.ts';
import { loadParser } from '../schema/compare/sql-equal.ts';

export interface CompareOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job?: string;
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
  /** Objects read from the catalogs, columns and constraints counted too. */
  readonly objects: number;
}

export interface ComparedObject {
  /** `missing`: on the source alone; `extra`: on the target alone. */
  readonly change: 'missing' | 'extra' | 'different';
  readonly kind: string;
  /** For people: `index public.orders_idx on public.orders`. */
  readonly object: string;
  /** Names as the catalog holds them. */
  readonly schema: string | null;
  readonly name: string;
  readonly table: TableRef | null;
  /** What differs, with both values; empty unless `different`. */
  readonly attributes: readonly AttributeDifference[];
  /** Columns, indexes and so on of a table that is missing or extra as a whole. */
  readonly parts: readonly { readonly kind: string; readonly object: string }[];
}

export interface CompareResult {
  readonly format: 1;
  readonly equal: boolean;
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

/** Compares two schemas object by object, as the catalogs tell them. Writes nothing. Publications, subscriptions, roles' own attributes and what sequences stand at are not compared. */
export async function compare(options: CompareOptions): Promise<CompareResult> {
  const { signal } = options;
  const common = { role: 'compare', signal, ...(options.job === undefined ? {} : { job: options.job }) };
  await using source = await Session.open(options.source, { ...common, side: 'the source' });
  await using target = await Session.open(options.target, { ...common, side: 'the target' });
  for (const [side, session] of [['source', source], ['target', target]] as const) {
    if (session.serverVersion < oldest) throw new PgweaveError('version-unsupported', `the ${side} is PostgreSQL ${session.serverVersionText}; schemas are compared from 14 on`, { hint: 'Compare two dumps instead: pg_dump --schema-only on both sides, then diff.', exitCode: exitCodes.failed });
  }
  await loadParser();
  const [ofSource, ofTarget] = await Promise.all([readSchema(source), readSchema(target)]);
  const { differences, notes } = diffSchemas(ofSource, ofTarget, {
    sourceVersion: source.serverVersion, targetVersion: target.serverVersion, owners: options.owners ?? true, privileges: options.privileges ?? true, comments: options.comments ?? true,
  });
  const count = (change: SchemaDifference['change']) => differences.filter((difference) => difference.change === change).length;
  return {
    format: 1, equal: differences.length === 0, source: side(source, ofSource.size), target: side(target, ofTarget.size), missing: count('missing'), extra: count('extra'), different: count('different'),
    differences: differences.map(compared), notes: notes.map(compared),
  };
}

function side(session: Session, objects: number): ComparedSide {
  return { host: session.host.host, port: session.host.port, database: session.spec.database, version: session.serverVersionText.split(' ')[0]!, objects };
}

function compared({ change, object, attributes, parts }: SchemaDifference): ComparedObject {
  const named = (part: CatalogObject) => ({ kind: part.kind, object: describeCatalogObject(part) });
  return { change, kind: object.kind, object: describeCatalogObject(object), schema: object.schema ?? null, name: object.name, table: object.table ?? null, attributes, parts: parts.map(named) };
}
