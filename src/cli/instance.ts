import { usageError } from '../core/errors.ts';
import { databasesOfJob, type SelectionRules } from '../core/selection/index.ts';
import { withDatabase } from '../pg/conninfo.ts';
import { databaseFolder, instanceJobs } from '../workflows/instance.ts';
import { jobContext, type CommonOptions, type JobContext } from './common.ts';

/** One database of a job that spans several, and the job that moves it. */
export interface DatabaseJob {
  readonly name: string;
  readonly job: string;
  readonly status: string;
}

/** Those of the job's databases that the rules choose; undefined where the job is about one database. Throws a usage error for a name that is none of them. */
export function chosenDatabases(context: JobContext, rules: SelectionRules): DatabaseJob[] | undefined {
  const jobs = instanceJobs(context.folder);
  if (!jobs) return undefined;
  const names = databasesOfJob(rules, jobs.map((j) => j.name));
  return jobs.filter((j) => names.includes(j.name));
}

/** What a command on one of the job's databases works with: its own job and folder, and that database at the ends of the whole job. */
export async function databaseContext(flags: CommonOptions, context: JobContext, { name, job }: DatabaseJob): Promise<JobContext> {
  const one = await jobContext({ ...flags, job, dir: databaseFolder(job, flags.dir).path }, context.signal);
  return { ...one, source: () => withDatabase(context.source(), name), target: () => withDatabase(context.target(), name) };
}

/** Throws a usage error where the job spans several databases: `command` is for one of them. */
export function refuseInstance(context: JobContext, command: string): void {
  const jobs = instanceJobs(context.folder);
  if (!jobs) return;
  const { dir } = context.options;
  const lines = jobs.map(({ job }) => `pgweave ${command} --job ${job}${dir === undefined ? '' : ` --dir ${databaseFolder(job, dir).path}`}`);
  throw usageError(`job "${context.job}" spans ${jobs.length} databases, each of which is a job of its own: ${jobs.map((j) => j.name).join(', ')}`, lines.join('\n'));
}
