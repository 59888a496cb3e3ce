import { interruptedError, PgweaveError, usageError } from '../core/errors.ts';
import { fanOut, type Emit } from '../core/events.ts';
import { failpoint } from '../core/failpoints.ts';
import { checkJobName } from '../core/job-folder.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { analyzeTables } from '../copy/analyze.ts';
import { IndexQueue } from '../copy/index-queue.ts';
import { carrySequences } from '../copy/sequences.ts';
import { openSnapshot, type SourceSnapshot } from '../copy/snapshot.ts';
import { sequenceOnTarget } from '../catalog/sequences.ts';
import { planTables, readTableStateMap } from '../changes/table-states.ts';
import { readDatabaseProperties, restoreDatabaseProperties } from '../schema/database.ts';
import { dropExisting, existingRelations } from '../schema/existing.ts';
import { describeObject } from '../schema/statements.ts';
import { renameTables, warnOfTexts } from '../schema/renames.ts';
import { readRoles, restoreRoles } from '../schema/roles.ts';
import { restoreOwners, restorePhase, type RestoreContext } from '../schema/restore.ts';
import { copyData } from './clone/copy-data.ts';
import { checkEnds, openEnd, type End } from './clone/ends.ts';
import { acceptSchemas } from './clone/existing.ts';
import { beginJob, type BegunJob } from './clone/job.ts';
import type { CloneOptions, CloneResult } from './clone/options.ts';
import { addForeignKeys, tableIndexes } from './clone/restore-keys.ts';
import { planOf, sourceTables, type ClonedSchema } from './clone/schema.ts';
import { streamedTables } from './clone/filtered-stream.ts';
import { openLaterSnapshot, startStream, type StreamStart } from './clone/stream-start.ts';
import { watchSlot } from './clone/watch-slot.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import type { Session } from '../pg/session.ts';
import { ensurePublications, type JobPublications } from './publications.ts';
import { refuseSwitchedOver } from './switchover/record.ts';
import { publishSelection } from './sync.ts';

export type { CloneHooks, CloneOptions, ClonePlan, CloneResult } from './clone/options.ts';
export type { StreamStart } from './clone/stream-start.ts';
export { createDatabaseIfMissing } from './clone/create-database.ts';
export { planClone } from './clone/dry-run.ts';

/**
 * Copies a database: roles, schema, rows, large objects, indexes, keys, sequences, everything that pg_dump knows of. With mode `follow` or `sync` a slot and publications are
 * made first, so that a stream of changes fits to the copy without a gap. What is done is recorded on the target in the transaction that does it: after any interruption the same call
 * goes on. Throws PgweaveError; `interrupted` when the signal fires.
 */
export async function clone(options: CloneOptions): Promise<CloneResult> {
  const job = checkJobName(options.job ?? 'default');
  const jobs = wholeNumber(options.jobs ?? 4, 'jobs');
  const indexJobs = wholeNumber(options.indexJobs ?? jobs, 'index jobs');
  const signal = options.signal ?? new AbortController().signal;
  const warnings: { code: string; message: string; hint: string | null }[] = [];
  const emit: Emit = fanOut(options.onEvent ?? (() => undefined), (event) => {
    if (event.type === 'warning') warnings.push({ code: event.code, message: event.message, hint: event.hint ?? null });
  });
  const began = Date.now();
  const opened: End[] = [];
  const open = async (spec: ConnectionSpec, side: 'source' | 'target') => {
    const end = await openEnd(spec, side, job, signal);
    opened.push(end);
    return end;
  };
  try {
    emit({ type: 'phase', phase: 'preparing' });
    const source = await open(options.source, 'source');
    const target = await open(options.target, 'target');
    checkEnds(source, target, options.mode);
    await refuseSwitchedOver(target.session, job);
    emit({ type: 'servers', source: source.facts, target: target.facts });
    const run = new CloneRun({ ...options, job, jobs, indexJobs, signal, onEvent: emit }, source, target, open);
    const counts = await run.run();
    return { format: 1, job, mode: options.mode ?? 'clone', source: source.facts, target: target.facts, ...counts, warnings, elapsedMs: Date.now() - began };
  } catch (error) {
    if (signal.aborted) throw error instanceof PgweaveError && error.code === 'interrupted' ? error : interruptedError();
    throw error;
  } finally {
    await Promise.all(opened.map((end) => end.session.close()));
  }
}

function wholeNumber(value: number, what: string): number {
  if (!Number.isInteger(value) || value < 1 || value > 1000) throw usageError(`not a number of ${what}: ${value}`, 'Give a whole number from 1 to 1000.');
  return value;
}

type RunOptions = CloneOptions & Required<Pick<CloneOptions, 'job' | 'jobs' | 'indexJobs' | 'signal' | 'onEvent'>>;
type Counts = Pick<CloneResult, 'resumed' | 'alreadyDone' | 'schemaObjects' | 'tables' | 'rows' | 'bytes' | 'indexes' | 'sequences' | 'largeObjects' | 'leftOut' | 'stream'>;

/** One run of a clone, step after step. */
class CloneRun {
  readonly #options: RunOptions;
  readonly #open: (spec: ConnectionSpec, side: 'source' | 'target') => Promise<End>;
  #source: End;
  #target: End;
  readonly #emit: Emit;
  readonly #signal: AbortSignal;

  /** `open` makes connections that are closed with the run. */
  constructor(options: RunOptions, source: End, target: End, open: (spec: ConnectionSpec, side: 'source' | 'target') => Promise<End>) {
    this.#options = options;
    this.#open = open;
    this.#source = source;
    this.#target = target;
    this.#emit = options.onEvent;
    this.#signal = options.signal;
  }

  async run(): Promise<Counts> {
    const { mode = 'clone', roles = true } = this.#options;
    const job = await beginJob(this.#options, this.#source, this.#target);
    if (job.finished) return await this.#alreadyDone(job);
    await failpoint('clone.begun');
    const context: RestoreContext = { ledger: job.schemaLedger, emit: this.#emit, signal: this.#signal };
    if (roles) await restoreRoles(this.#target.session, await readRoles(this.#source.session), context);

    const tables = await sourceTables(this.#source, job, this.#options);
    let stream: StreamStart | undefined;
    let snapshot: SourceSnapshot | undefined;
    if (mode !== 'clone') {
      const started = await startStream({ source: this.#source, target: this.#target.session, ledger: job.ledger, job: this.#options.job, publish: this.#publish(tables), emit: this.#emit, signal: this.#signal });
      stream = started.start;
      snapshot = started.snapshot;
      await this.#options.hooks?.onStreamStart?.(stream);
    }
    const nextSnapshot = () => (mode === 'clone' ? openSnapshot(this.#source.spec, { job: this.#options.job, signal: this.#signal }) : openLaterSnapshot({ source: this.#source, job: this.#options.job, signal: this.#signal }));
    snapshot ??= await nextSnapshot();
    // Where changes are kept from now on, whoever receives them watches.
    await using _watch = stream && !this.#options.hooks?.onStreamStart ? watchSlot({ source: this.#source.spec, job: this.#options.job, slot: stream.slot, emit: this.#emit }) : undefined;
    try {
      await failpoint('clone.snapshot-ready');
      this.#emit({ type: 'phase', phase: 'schema' });
      const schema = await planOf(this.#source, this.#target, job, snapshot, this.#options);
      await this.#preData(schema, job, context);
      const copied = await this.#data(schema, job, context, snapshot, nextSnapshot);
      const sequences = await this.#finish(schema, job, context);
      return {
        resumed: job.resumed, alreadyDone: false, schemaObjects: schema.objects, tables: copied.tables, rows: copied.rows, bytes: copied.bytes, indexes: copied.indexes, sequences, largeObjects: copied.largeObjects,
        leftOut: schema.plan.leftOut.map((left) => ({ object: describeObject(left.object), reason: left.reason })), stream,
      };
    } finally {
      await snapshot.close();
    }
  }

  /** Row filters are applied by the source. A native subscription gets what the publication says: with column lists too, and nothing that would harm the source. */
  #publish(tables: readonly TableRef[]): (source: Session) => Promise<JobPublications> {
    const { mode, job, rules, scope, insertOnly } = this.#options;
    if (mode !== 'sync') return async (source) => ensurePublications(source, { job, tables: await streamedTables(source, { job, rules, scope }, tables), both: true });
    return (source) => publishSelection(source, { job, rules, scope, ...(insertOnly === undefined ? {} : { insertOnly }) });
  }

  async #alreadyDone(job: BegunJob): Promise<Counts> {
    const { mode = 'clone' } = this.#options;
    let stream: StreamStart | undefined;
    if (mode !== 'clone') stream = (await startStream({ source: this.#source, target: this.#target.session, ledger: job.ledger, job: this.#options.job, publish: this.#publish(await sourceTables(this.#source, job, this.#options)), emit: this.#emit, signal: this.#signal })).start;
    const states = await readTableStateMap(this.#target.session, this.#options.job);
    return { resumed: true, alreadyDone: true, schemaObjects: 0, tables: states.size, rows: 0, bytes: 0, indexes: 0, sequences: 0, largeObjects: 0, leftOut: [], stream };
  }

  async #preData(schema: ClonedSchema, job: BegunJob, context: RestoreContext): Promise<void> {
    const { session } = this.#target;
    if (!job.ledger.hasStep('pre-data')) {
      if (!job.ledger.hasStep('cleared')) {
        const existing = await existingRelations(session, schema.plan, job.renames.map((r) => r.to));
        if (existing.length > 0 && !this.#options.dropExisting) job.refuse(existing);
        if (this.#options.dropExisting) {
          const dropped = await dropExisting(session, schema.plan, existing);
          if (dropped > 0) this.#emit({ type: 'log', level: 'info', message: `dropped ${dropped} relations of the same name on the target` });
        }
        await job.ledger.markStep(session, 'cleared');
      }
      await acceptSchemas(session, schema.plan, context.ledger);
      let done = 0;
      await restorePhase(session, schema.plan, 'pre-data', {
        ...context, ownersLater: true,
        onDone: () => {
          done += 1;
          this.#emit({ type: 'schema-objects', done, total: schema.plan.preData.length });
        },
      });
      // Whatever would keep tables from their names is better found before the rows are copied.
      await renameTables(session, job.renames, undefined);
      await failpoint('clone.pre-data-restored');
      await job.ledger.markStep(session, 'pre-data');
    }
    this.#emit({ type: 'schema-objects', done: schema.plan.preData.length, total: schema.plan.preData.length });
  }

  async #data(schema: ClonedSchema, job: BegunJob, context: RestoreContext, first: SourceSnapshot, nextSnapshot: () => Promise<SourceSnapshot>): Promise<{ tables: number; rows: number; bytes: number; indexes: number; largeObjects: number }> {
    const { jobs, indexJobs } = this.#options;
    this.#emit({ type: 'phase', phase: 'copying' });
    const plans = await schema.tables(first);
    const states = await readTableStateMap(this.#target.session, this.#options.job);
    const inPlace = (table: TableRef) => ['copied', 'streaming', 'paused'].includes(states.get(tableKey(table))?.state.name ?? 'pending');
    await planTables(this.#target.session, this.#options.job, plans);
    this.#emit({ type: 'tables-planned', tables: plans.map((p) => ({ schema: p.schema, name: p.name, bytes: p.bytes, rows: p.rows, parts: p.parts.length, indexes: schema.indexes.get(tableKey(p))?.length ?? 0, state: states.get(tableKey(p))?.state ?? { name: 'pending' } })) });
    this.#emit({ type: 'indexes-planned', total: schema.plan.indexes.length });
    await using queue = new IndexQueue({ target: this.#target.spec, job: this.#options.job, jobs: indexJobs, emit: this.#emit, signal: this.#signal });
    const bytesOf = new Map(plans.map((p) => [tableKey(p), p.bytes]));
    const startIndexes = (table: TableRef) => {
      const indexes = schema.indexes.get(tableKey(table));
      if (indexes) queue.add(tableIndexes(table, bytesOf.get(tableKey(table)) ?? 0, indexes, context));
    };
    const waiting = new Set(plans.filter((p) => !inPlace(p)).map(tableKey));
    for (const index of schema.plan.indexes) {
      if (context.ledger.done(index.key)) this.#emit({ type: 'index', table: index.table, index: index.name, status: 'done' });
    }
    for (const [key, [index]] of schema.indexes) if (index && !waiting.has(key)) startIndexes(index.table);
    const outcome = await copyData({
      source: this.#source, target: this.#target, job: this.#options.job, jobs, ledger: job.ledger, first, nextSnapshot, streamFollows: this.#options.mode !== undefined && this.#options.mode !== 'clone',
      plan: async (snapshot) => (snapshot === first ? plans : await schema.tables(snapshot)).filter((p) => waiting.has(tableKey(p))),
      onCopied: (table) => {
        waiting.delete(tableKey(table));
        startIndexes(table);
      },
      indexes: queue, owners: this.#options.owners ?? true, privileges: this.#options.privileges ?? true, emit: this.#emit, signal: this.#signal,
    });
    await failpoint('clone.rows-copied');
    this.#emit({ type: 'phase', phase: 'indexes' });
    await queue.drain();
    await failpoint('clone.indexes-built');
    return { tables: plans.length, rows: outcome.rows, bytes: outcome.bytes, indexes: queue.built, largeObjects: outcome.largeObjects };
  }

  /** Everything that wants the rows to be there. Returns the number of sequences set. */
  async #finish(schema: ClonedSchema, job: BegunJob, context: RestoreContext): Promise<number> {
    const { statistics = 'analyze', privileges = true, owners = true, jobs, indexJobs } = this.#options;
    this.#emit({ type: 'phase', phase: 'finishing' });
    this.#source = await this.#alive(this.#source, 'source');
    this.#target = await this.#alive(this.#target, 'target');
    const { session } = this.#target;
    const { plan } = schema;
    await restorePhase(session, plan, 'attach', context);
    await failpoint('clone.attached');
    if (statistics !== 'none' && !job.ledger.hasStep('analyzed')) {
      // Before foreign keys are checked and materialized views filled: both are planned with these statistics.
      await analyzeTables({ target: this.#target.spec, job: this.#options.job, jobs, tables: schema.analyze, mode: statistics, signal: this.#signal });
      await job.ledger.markStep(session, 'analyzed');
    }
    await addForeignKeys(this.#target, plan, indexJobs, context, this.#signal);
    await failpoint('clone.foreign-keys');
    // A materialized view is refreshed as its owner: with our `row_security = off` a forced policy would be an error where the source has its owner's rows.
    await session.query('set row_security = on');
    await restorePhase(session, plan, 'post-data', context);
    await restoreOwners(session, plan, context);
    await failpoint('clone.post-data');
    if (job.renames.length > 0 && !job.ledger.hasStep('renamed')) {
      await warnOfTexts(session, job.renames, this.#emit);
      await renameTables(session, job.renames, () => job.ledger.markStep(session, 'renamed'));
      await failpoint('clone.renamed');
    }
    const newNames = new Map(job.renames.map((r) => [tableKey(r.from), r.to]));
    const { set } = await carrySequences(this.#source.session, session, { exact: true, select: (sequence) => sequence.ownedBy === null || schema.selection.choose(sequence.ownedBy) === 'copy', mapTo: (sequence) => sequenceOnTarget(sequence, sequence.ownedBy, (table) => newNames.get(tableKey(table)) ?? table) });
    await restoreDatabaseProperties(session, await readDatabaseProperties(this.#source.session), context, { privileges, owners, connectionLimit: (this.#options.mode ?? 'clone') === 'clone' });
    // Everything before was committed without waiting for the disk; this commit waits, and with it all that came before.
    await session.query('set synchronous_commit = on');
    await job.ledger.markStep(session, 'finished');
    if ((this.#options.mode ?? 'clone') === 'clone') this.#emit({ type: 'phase', phase: 'done' });
    return set.length;
  }

  /** One side's session, opened again where it was lost while rows were copied on other connections. */
  async #alive(end: End, side: 'source' | 'target'): Promise<End> {
    if (!end.session.lost && (await end.session.query('select 1').then(() => true, () => false))) return end;
    return await this.#open(this.#options[side], side);
  }
}
