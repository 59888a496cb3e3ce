import { sampleRead } from '../copy/sample.ts';
import { openSnapshot } from '../copy/snapshot.ts';
import { planCopy } from '../copy/table-plan.ts';
import type { TableRef } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';

/** Tables above it are read in several parts, as clone does. */
const splitBytes = 2 * 1024 ** 3;

export interface DatabaseSize {
  readonly tables: readonly (TableRef & { readonly bytes: number; readonly rows: number })[];
  readonly bytes: number;
}

/** Tables that hold rows, largest first, with their sizes without indexes. */
export async function databaseSize(source: ConnectionSpec, job: string, signal: AbortSignal): Promise<DatabaseSize> {
  await using snapshot = await openSnapshot(source, { job, signal });
  const plans = await planCopy(snapshot.session, { splitBytes, format: 'auto', sameEncoding: true, selection: { choose: () => 'copy' } });
  const tables = plans.map((p) => ({ schema: p.schema, name: p.name, bytes: p.bytes, rows: p.rows })).sort((a, b) => b.bytes - a.bytes);
  return { tables, bytes: tables.reduce((sum, t) => sum + t.bytes, 0) };
}

/** How long copying a database's rows takes, from reading its largest tables for `budgetMs`; null where there is nothing to measure. Indexes come on top. */
export async function estimateCopy(source: ConnectionSpec, options: { readonly job: string; readonly jobs: number; readonly takes: (table: TableRef) => boolean; readonly budgetMs: number; readonly signal: AbortSignal }): Promise<{ readonly bytes: number; readonly ms: number | null }> {
  await using snapshot = await openSnapshot(source, { job: options.job, signal: options.signal });
  const plans = await planCopy(snapshot.session, { splitBytes, format: 'auto', sameEncoding: true, selection: { choose: (t) => (options.takes(t) ? 'copy' : 'skip') } });
  const bytes = plans.reduce((sum, p) => sum + p.bytes, 0);
  const sample = bytes > 0 ? await sampleRead(source, plans, { job: options.job, budgetMs: options.budgetMs, signal: options.signal }) : undefined;
  if (!sample || sample.tableBytes === 0) return { bytes, ms: null };
  const connections = Math.min(options.jobs, plans.reduce((sum, p) => sum + p.parts.length, 0));
  return { bytes, ms: Math.round((bytes / (sample.tableBytes * connections)) * Math.max(1, sample.elapsedMs)) };
}
