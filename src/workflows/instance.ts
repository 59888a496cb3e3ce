import { join } from 'node:path';
import { errorMessage, interruptedError, isInterrupted, PgweaveError } from '../core/errors.ts';
import type { Emit, JobEvent } from '../core/events.ts';
import { defaultJobFolder, JobFolder } from '../core/job-folder.ts';
import { makeFolder } from '../core/make-folder.ts';
import { databaseJob } from '../core/selection/database-jobs.ts';
import type { TableRef } from '../core/tables.ts';
import { withDatabase, type ConnectionSpec } from '../pg/conninfo.ts';
import { createDatabaseIfMissing } from './clone/create-database.ts';

/** One database of a job that spans several. */
export interface InstanceDatabase {
  readonly name: string;
  readonly job: string;
  readonly folder: JobFolder;
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  /** Its place, from 1. */
  readonly number: number;
  readonly of: number;
}

export interface InstanceOptions<Result> {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  /** The folder of the whole job: keeps what is done. */
  readonly folder: JobFolder;
  /** Folders of the single jobs lie in `<dir>/<job>` where the folder was given by hand. */
  readonly dir?: string | undefined;
  readonly databases: readonly string[];
  /** False leaves databases that the target lacks to fail: an empty one would be of no use. Default true. */
  readonly create?: boolean;
  /** False begins every database anew. Default true. */
  readonly resume?: boolean;
  readonly run: (database: InstanceDatabase, emit: Emit) => Promise<Result>;
  readonly signal: AbortSignal;
  readonly onEvent: Emit;
}

export interface InstanceOutcome<Result> {
  readonly name: string;
  readonly job: string;
  readonly status: 'done' | 'already-done' | 'failed';
  readonly result: Result | undefined;
  readonly error: { readonly code: string; readonly message: string; readonly hint: string | null } | undefined;
}

interface Checkpoint {
  format: 1;
  databases: Record<string, { job: string; status: 'running' | 'done' | 'failed' }>;
}

const file = 'instance.json';

/** The databases of a job and where their single jobs are, as the folder keeps them; undefined where the job is about one database. */
export function instanceJobs(folder: JobFolder): { name: string; job: string; status: string }[] | undefined {
  const found = folder.read(file) as Checkpoint | undefined;
  return found && Object.entries(found.databases).map(([name, entry]) => ({ name, ...entry }));
}

export function databaseFolder(job: string, dir: string | undefined): JobFolder {
  return new JobFolder(job, dir === undefined ? defaultJobFolder(job) : join(dir, job));
}

/**
 * Runs a job for each database, one after the other. One that fails is recorded and the rest goes on; a later run does those that are not done. Databases that came or went since are told.
 * Databases that the target lacks are made there as the source has them, unless `create` is false.
 */
export async function runInstance<Result>(options: InstanceOptions<Result>): Promise<InstanceOutcome<Result>[]> {
  const { folder, databases, signal, onEvent } = options;
  makeFolder(folder.path);
  const kept = options.resume === false ? undefined : (folder.read(file) as Checkpoint | undefined);
  const checkpoint: Checkpoint = kept ?? { format: 1, databases: {} };
  if (kept) {
    const added = databases.filter((name) => !(name in kept.databases));
    const gone = Object.keys(kept.databases).filter((name) => !databases.includes(name));
    if (added.length > 0) onEvent({ type: 'log', level: 'info', message: `new since the job began: ${added.join(', ')}` });
    if (gone.length > 0) onEvent({ type: 'warning', code: 'scope-changed', message: `no longer part of the job: ${gone.join(', ')}`, hint: 'What was made for them stays; pgweave cleanup --job NAME removes it.' });
  }
  const outcomes: InstanceOutcome<Result>[] = [];
  const jobs = new Set<string>();
  for (const [i, name] of databases.entries()) {
    if (signal.aborted) throw interruptedError();
    const job = databaseJob(options.job, name);
    if (jobs.has(job)) throw new PgweaveError('job-names-collide', `two databases would get the job name "${job}"`, { hint: 'Move one of them alone, with a --job of its own.', exitCode: 2 });
    jobs.add(job);
    if (checkpoint.databases[name]?.status === 'done') {
      onEvent({ type: 'log', level: 'info', message: `database ${name} (${i + 1} of ${databases.length}) is done already` });
      outcomes.push({ name, job, status: 'already-done', result: undefined, error: undefined });
      continue;
    }
    const database: InstanceDatabase = { name, job, folder: databaseFolder(job, options.dir), source: withDatabase(options.source, name), target: withDatabase(options.target, name), number: i + 1, of: databases.length };
    checkpoint.databases[name] = { job, status: 'running' };
    folder.write(file, checkpoint);
    onEvent({ type: 'phase', phase: 'copying', detail: `database ${name}, ${i + 1} of ${databases.length}` });
    try {
      if (options.create !== false) await createDatabaseIfMissing(database.source, database.target, options.target.database, { job, emit: onEvent, signal });
      const result = await options.run(database, prefixed(name, onEvent));
      checkpoint.databases[name] = { job, status: 'done' };
      outcomes.push({ name, job, status: 'done', result, error: undefined });
    } catch (error) {
      if (signal.aborted || isInterrupted(error)) throw error;
      const known = error instanceof PgweaveError ? error : undefined;
      checkpoint.databases[name] = { job, status: 'failed' };
      outcomes.push({ name, job, status: 'failed', result: undefined, error: { code: known?.code ?? 'unexpected', message: errorMessage(error), hint: known?.hint ?? null } });
      onEvent({ type: 'warning', code: 'database-failed', message: `database ${name} failed: ${errorMessage(error)}`, ...(known?.hint === undefined ? {} : { hint: known.hint }) });
    }
    folder.write(file, checkpoint);
  }
  return outcomes;
}

/** Events of one database as those of a whole: tables are called by their database too, so that one view shows all; its own phases are not the whole's. */
function prefixed(database: string, emit: Emit): Emit {
  const named = (table: TableRef): TableRef => ({ ...table, schema: `${database}.${table.schema}` });
  return (event: JobEvent) => {
    switch (event.type) {
      case 'phase': return;
      case 'tables-planned': return emit({ ...event, tables: event.tables.map((t) => ({ ...t, schema: `${database}.${t.schema}` })) });
      case 'table-state':
      case 'table-removed':
      case 'copy-progress':
      case 'copy-part':
      case 'index':
      case 'table-changes': return emit({ ...event, table: named(event.table) });
      case 'warning': return emit({ ...event, message: `${database}: ${event.message}` });
      case 'log': return emit({ ...event, message: `${database}: ${event.message}` });
      default: return emit(event);
    }
  };
}
