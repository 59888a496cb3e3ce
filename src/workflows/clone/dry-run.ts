import { largeObjectCount } from '../../catalog/special-objects.ts';
import { readSequenceValues } from '../../catalog/sequence-values.ts';
import { readTableStateMap } from '../../changes/table-states.ts';
import { hasChangesSchema } from '../../changes/target-schema.ts';
import { sampleRead } from '../../copy/sample.ts';
import { openSnapshot } from '../../copy/snapshot.ts';
import { planCopy } from '../../copy/table-plan.ts';
import { PgweaveError } from '../../core/errors.ts';
import { checkJobName } from '../../core/job-folder.ts';
import { tableKey } from '../../core/tables.ts';
import { withDatabase } from '../../pg/conninfo.ts';
import { readColumnsOut } from '../../schema/columns-out.ts';
import { dumpSchema } from '../../schema/dump.ts';
import { refuseClashes } from '../../schema/renames.ts';
import { describeObject, planSchema } from '../../schema/statements.ts';
import { checkEnds, openEnd, type End } from './ends.ts';
import { placedFilters } from './filtered-stream.ts';
import { inTheWay, knownMode, selectionOf, someNames } from './job.ts';
import type { ClonePlan, PlanOptions } from './options.ts';
import { indexesByTable } from './restore-keys.ts';
import { copyPlanOptions, tablespacesOf } from './schema.ts';

/** How long the sample reads. */
const sampleMs = 2000;

/** What {@link clone} would do with these options, with sizes and an estimate. Writes nothing on either side, and no slot is made. */
export async function planClone(options: PlanOptions): Promise<ClonePlan> {
  const job = checkJobName(options.job ?? 'default');
  const signal = options.signal ?? new AbortController().signal;
  const source = await openEnd(options.source, 'source', job, signal);
  await using sourceSession = source.session;
  const { end: target, missing } = await openTarget(options, job, signal);
  await using targetSession = target.session;
  checkEnds(source, target, options.mode);
  const chosen = await selectionOf({ ...options, job }, source);
  const { selection } = chosen;
  await using snapshot = await openSnapshot(options.source, { job, signal });
  const dump = await dumpSchema({ source: sourceSession, snapshot: snapshot.id, dumper: options.dumper ?? 'auto', job, signal });
  const plan = await planSchema(dump.text, { includeTable: (table) => selection.choose(table) !== 'skip', tablespaces: await tablespacesOf(target, options), columnsOut: await readColumnsOut(snapshot.session, chosen.excluded), owners: options.owners ?? true, privileges: options.privileges ?? true });
  const indexes = indexesByTable(plan);
  const tables = await planCopy(snapshot.session, copyPlanOptions(options, source, target, selection));
  const resumes = !missing && (options.resume ?? true) && (await knownMode(target, job)) !== undefined;
  const states = resumes && (await hasChangesSchema(targetSession)) ? await readTableStateMap(targetSession, job) : new Map<string, never>();
  const done = (key: string) => ['copied', 'streaming', 'paused'].includes(states.get(key)?.state.name ?? 'pending');
  const left = tables.filter((t) => !done(tableKey(t)));
  const bytes = left.reduce((sum, t) => sum + t.bytes, 0);
  const sample = bytes > 0 ? await sampleRead(options.source, left, { job, budgetMs: sampleMs, signal }) : undefined;
  const perConnection = sample && sample.tableBytes > 0 ? sample.tableBytes / (Math.max(1, sample.elapsedMs) / 1000) : undefined;
  // One table in one part cannot use more than one connection.
  const connections = Math.min(options.jobs ?? 4, left.reduce((sum, t) => sum + t.parts.length, 0));
  const existing = resumes || missing ? [] : await inTheWay(source, target, chosen);
  if (!resumes && !missing) await refuseClashes(sourceSession, targetSession, chosen.renames, (table) => selection.choose(table) !== 'skip');
  return {
    format: 1, job, mode: options.mode ?? 'clone', source: source.facts, target: { ...target.facts, database: options.target.database }, makesDatabase: missing, resumes,
    tables: tables.map((t) => ({ schema: t.schema, name: t.name, bytes: t.bytes, rows: t.rows, parts: t.parts.length, indexes: indexes.get(tableKey(t))?.length ?? 0, format: t.binary ? 'binary' as const : 'text' as const, done: done(tableKey(t)) })),
    bytes, indexes: plan.indexes.length, schemaObjects: plan.preData.length + plan.indexes.length + plan.attach.length + plan.foreignKeys.length + plan.postData.length,
    sequences: (await readSequenceValues(sourceSession)).length, largeObjects: (await sourceSession.one<{ count: number }>(largeObjectCount())).count,
    existing: someNames(existing), leftOut: plan.leftOut.map((l) => ({ object: describeObject(l.object), reason: l.reason })),
    rowFilters: options.mode === 'follow' ? await placedFilters(sourceSession, chosen.resolved) : [],
    estimate: perConnection === undefined ? null : { bytesPerSecond: Math.round(perConnection * connections), copyMs: Math.round((bytes / (perConnection * connections)) * 1000), sampledBytes: sample!.tableBytes },
  };
}

/** The target; where its database is yet to be made, its server seen from another one. */
async function openTarget({ target, madeThrough }: PlanOptions, job: string, signal: AbortSignal): Promise<{ end: End; missing: boolean }> {
  try {
    return { end: await openEnd(target, 'target', job, signal), missing: false };
  } catch (error) {
    if (madeThrough === undefined || !(error instanceof PgweaveError) || error.code !== 'no-such-database') throw error;
    return { end: await openEnd(withDatabase(target, madeThrough), 'target', job, signal), missing: true };
  }
}
