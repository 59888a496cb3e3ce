import { confirm, isCancel } from '@clack/prompts';
import { rmSync } from 'node:fs';
import type { Command } from 'commander';
import { exitCodes, interruptedError, PgweaveError, usageError } from '../core/errors.ts';
import type { CleanupPlan, CleanupResult, Leftover } from '../workflows/cleanup.ts';
import { describeConnection, type ConnectionSpec } from '../pg/conninfo.ts';
import { instanceJobs } from '../workflows/instance.ts';
import { jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { databaseContext } from './instance.ts';

interface CleanupFlags extends CommonOptions {
  readonly all?: boolean;
  readonly force?: boolean;
  readonly dryRun?: boolean;
}

export function cleanupCommand(): Command {
  return jobCommand('cleanup', 'list and remove every slot, publication, subscription, origin and table that pgweave made', 'pgweave cleanup --job shop --dry-run\npgweave cleanup --target postgresql://app@new/shop     (the source is gone)')
    .option('--all', 'of every job, not of this job alone')
    .option('--force', 'end the process that uses a slot, then remove the slot')
    .option('--dry-run', 'list only')
    .action((flags: CleanupFlags) => runAction(flags, (context) => cleanup(flags, context)));
}

async function cleanup(flags: CleanupFlags, context: JobContext): Promise<number> {
  const jobs = instanceJobs(context.folder);
  if (!jobs) {
    const { code, document } = await cleanupJob(flags, context);
    if (context.json) printJson(document);
    return code;
  }
  // Each database is a job of its own; the whole's folder, which names them, goes last.
  const outcomes: (Outcome & { readonly name: string })[] = [];
  for (const database of jobs) {
    if (!context.json) print(`database ${database.name}`);
    try {
      outcomes.push({ name: database.name, ...(await cleanupJob(flags, await databaseContext(flags, context, database))) });
    } catch (error) {
      // One that cannot be looked at keeps nobody from the others.
      if (!(error instanceof PgweaveError) || error.code !== 'cleanup-nothing-reachable') throw error;
      if (!context.json) print(`not looked at: ${error.message}`);
      outcomes.push({ name: database.name, code: exitCodes.failed, over: false, document: { error: { code: error.code, message: error.message, hint: error.hint ?? null } } });
    }
  }
  const complete = outcomes.every((o) => o.over);
  if (complete) rmSync(context.folder.path, { recursive: true, force: true });
  if (context.json) printJson({ format: 1, job: context.job, databases: outcomes.map(({ name, document }) => ({ name, ...document })) });
  return Math.max(...outcomes.map((o) => o.code));
}

interface Outcome {
  readonly code: number;
  /** Nothing is left of the job, and both sides were looked at. */
  readonly over: boolean;
  readonly document: object;
}

async function cleanupJob(flags: CleanupFlags, context: JobContext): Promise<Outcome> {
  const { planCleanup, runCleanup } = await import('../workflows/cleanup.ts');
  const source = optional(() => context.source());
  const target = optional(() => context.target());
  if (!source && !target) throw usageError('no source and no target given', 'Give --source, --target or both; a job that ran on this machine remembers them.');
  const options = { source, target, job: context.job, all: flags.all === true, signal: context.signal };
  const plan = await planCleanup(options);
  if (!context.json) print(...planText(plan, context.job));
  if (flags.dryRun || plan.leftovers.length === 0) {
    const over = !flags.dryRun && plan.unreachable.length === 0;
    if (over && source && target) forgetFolder(context, source, target);
    return { code: plan.unreachable.length > 0 ? exitCodes.failed : exitCodes.done, over, document: { ...plan, removed: [], failed: [] } };
  }
  if (!flags.yes) {
    if (!context.interactive) throw usageError('cleanup removes things and was not confirmed', 'Add --yes to remove what is listed, or --dry-run to list only.');
    const answer = await confirm({ message: `Remove these ${plan.leftovers.length}?`, initialValue: false });
    if (isCancel(answer)) throw interruptedError('Nothing was removed.');
    if (!answer) {
      print('Nothing was removed.');
      return { code: exitCodes.done, over: false, document: { ...plan, removed: [], failed: [] } };
    }
  }
  const result = await runCleanup(plan, { ...options, force: flags.force === true });
  const complete = result.failed.length === 0 && plan.unreachable.length === 0;
  // The folder is the last trace: it names both ends, so it stays while something is left to remove.
  if (complete && source && target) rmSync(context.folder.path, { recursive: true, force: true });
  if (!context.json) print(...resultText(result, plan));
  return { code: complete ? exitCodes.done : exitCodes.failed, over: complete && source !== undefined && target !== undefined, document: { ...plan, ...result } };
}

/** A job that left nothing at the ends that its folder names is over: the folder would only keep its name from others. */
function forgetFolder({ folder }: JobContext, source: ConnectionSpec, target: ConnectionSpec): void {
  const known = folder.identity();
  if (known?.source === describeConnection(source) && known.target === describeConnection(target)) rmSync(folder.path, { recursive: true, force: true });
}

function optional(resolve: () => ConnectionSpec): ConnectionSpec | undefined {
  try {
    return resolve();
  } catch (error) {
    if (error instanceof PgweaveError && error.code === 'no-connection') return undefined;
    throw error;
  }
}

function line(l: Leftover): string {
  return `  ${l.side}  ${l.kind.padEnd(12)}  ${l.name.padEnd(28)}  ${l.detail}`;
}

function planText(plan: CleanupPlan, job: string): string[] {
  const lines = plan.leftovers.length === 0 ? [`Nothing of job ${job} is left.`] : [`${plan.leftovers.length} left of job ${job}:`, ...plan.leftovers.map(line)];
  for (const u of plan.unreachable) lines.push(`warning: the ${u.side} was not looked at: ${u.reason}`);
  for (const note of plan.notes) lines.push(`note: ${note}`);
  return lines;
}

function resultText(result: CleanupResult, plan: CleanupPlan): string[] {
  const lines = [`${result.removed.length} removed.`];
  for (const f of result.failed) lines.push(`not removed: ${f.leftover.kind} ${f.leftover.name} on the ${f.leftover.side}: ${f.reason}`, `  by hand: ${f.leftover.sql}`);
  if (result.failed.some((f) => f.leftover.usedBy !== null)) lines.push('A slot is in use: stop the follower first, or add --force.');
  for (const u of plan.unreachable) lines.push(`Run it again once the ${u.side} can be reached: a slot left on a server keeps its WAL for ever.`);
  return lines;
}
