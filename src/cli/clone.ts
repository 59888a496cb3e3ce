import { Option, type Command } from 'commander';
import { exitCodes, usageError } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import type { JobFolder } from '../core/job-folder.ts';
import { databaseJob } from '../core/selection/database-jobs.ts';
import { describeRules, keepRules, type SelectionRules } from '../core/selection/index.ts';
import { formatBytes, formatCount, formatDuration, parseSize } from '../core/units.ts';
import { displayName } from '../pg/identifiers.ts';
import { publicUri, withDatabase, type ConnectionSpec } from '../pg/conninfo.ts';
import { formatLsn } from '../pg/lsn.ts';
import { defaultSplitBytes } from '../workflows/clone/options.ts';
import type { CloneHooks, CloneOptions, ClonePlan, CloneResult } from '../workflows/clone.ts';
import type { FollowResult } from '../workflows/follow.ts';
import { handOver } from './clone-sync.ts';
import { addFollowOptions, followConfig, followThrough, reportFollow, spoolOf, type FollowFlags } from './follow.ts';
import { CopySpool } from './copy-spool.ts';
import { chooseInteractively } from './interactive.ts';
import { settleRules, windowLines, type SettledRules } from './settle-rules.ts';
import { syncLines } from './sync.ts';
import { addSubscriptionOptions, insertOnlyTables, subscriptionOptions, type SubscriptionFlags } from './subscription-options.ts';
import type { SyncResult } from '../workflows/sync.ts';
import { claimFolder, jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { addRunOptions, runJob, type RunFlags, type RunningJob } from './run-job.ts';
import { addSelectionOptions, selectionRules, type SelectionOptions } from './selection-options.ts';

interface CloneFlags extends CommonOptions, RunFlags, SelectionOptions, SubscriptionFlags, FollowFlags {
  readonly origin: 'any' | 'none';
  readonly config?: string;
  readonly follow?: boolean;
  readonly sync?: boolean;
  readonly jobs: number;
  readonly indexJobs?: number;
  readonly splitTablesLargerThan: number;
  readonly copyFormat: 'auto' | 'text';
  readonly statistics: 'analyze' | 'vacuum' | 'none';
  readonly dryRun?: boolean;
  readonly dropExisting?: boolean;
  /** False with --no-resume, and so on. */
  readonly resume: boolean;
  readonly roles: boolean;
  readonly owner: boolean;
  readonly privileges: boolean;
  readonly tablespaces: boolean;
}

export function cloneCommand(): Command {
  const command = jobCommand('clone', 'copy schema and data; the same command again goes on where it stopped', 'pgweave clone --source postgresql://app@old/shop --target postgresql://app@new/shop\npgweave clone --dry-run --source … --target …          (what would be done, and how long it may take)')
    .option('--follow', 'make a slot first and stream the changes after the copy')
    .option('--sync', 'make a slot first and hand over to a native subscription after the copy')
    .option('--jobs <n>', 'parallel copies', parseCount, 4)
    .option('--index-jobs <n>', 'parallel index builds (default: as many as --jobs)', parseCount)
    .addOption(new Option('--split-tables-larger-than <size>', 'copy larger tables in several parts; 0 for never').argParser(parseSize).default(defaultSplitBytes, '2GB'))
    .addOption(new Option('--copy-format <format>', 'auto: binary where all types of a table allow it').choices(['auto', 'text']).default('auto'))
    .addOption(new Option('--statistics <what>', 'what to do for the planner at the end').choices(['analyze', 'vacuum', 'none']).default('analyze'))
    .option('--dry-run', 'print the plan with sizes and an estimate, change nothing')
    .option('--drop-existing', 'drop tables of the same name on the target')
    .option('--no-resume', 'forget what earlier runs of this job did')
    .option('--no-roles', 'create no roles')
    .option('--no-owner', 'leave all objects to the connected role')
    .option('--no-privileges', 'copy no grants')
    .option('--no-tablespaces', 'put everything into the default tablespace');
  addFollowOptions(addSubscriptionOptions(command, { clone: true }));
  return addSelectionOptions(addRunOptions(command)).action((flags: CloneFlags) => runAction(flags, (context) => runClone(flags, context)));
}

function parseCount(text: string): number {
  if (!/^\d{1,4}$/.test(text) || Number(text) < 1) throw usageError(`not a number of jobs: "${text}"`, 'Give a whole number from 1.');
  return Number(text);
}

/** What the API shows of the configuration. */
function cloneConfig(flags: CloneFlags, source: ConnectionSpec, target: ConnectionSpec, rules: SelectionRules): Record<string, unknown> {
  return {
    source: publicUri(source), target: publicUri(target), then: flags.follow ? 'follow' : flags.sync ? 'sync' : 'nothing', selection: describeRules(rules), jobs: flags.jobs, indexJobs: flags.indexJobs ?? flags.jobs,
    splitTablesLargerThan: flags.splitTablesLargerThan === 0 ? 'never' : formatBytes(flags.splitTablesLargerThan), copyFormat: flags.copyFormat, statistics: flags.statistics, roles: flags.roles, owner: flags.owner, privileges: flags.privileges,
    ...(flags.follow ? followConfig(flags) : {}),
  };
}

/** One database of the job. */
interface Piece {
  readonly job: string;
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly databases: readonly string[];
}

async function runClone(flags: CloneFlags, context: JobContext): Promise<number> {
  if (flags.follow && flags.sync) throw usageError('--follow and --sync exclude one another', 'Follow with pgweave itself (--follow), or with a native subscription (--sync).');
  const source = context.source();
  const target = context.target();
  let given = selectionRules(flags, context.config());
  if (flags.dryRun) {
    const { planClone } = await import('../workflows/clone.ts');
    const { rules, several } = await settleRules(context, source, target, given, { startOver: !flags.resume, peek: true, insertOnly: insertOnlyTables(flags) });
    const plans: ClonePlan[] = [];
    for (const piece of piecesOf(context, source, target, several?.names)) plans.push(await planClone({ ...optionsFor(flags, piece, rules, context), ...(several ? { madeThrough: target.database } : {}) }));
    if (context.json) printJson(plans.length === 1 ? plans[0] : { format: 1, databases: plans });
    else print(...windowLines(rules), ...plans.flatMap((plan, i) => [...(i > 0 ? [''] : []), ...planText(plan)]));
    return exitCodes.done;
  }
  given = (await chooseInteractively(context, { source, target, rules: given, verb: flags.follow || flags.sync ? 'copy and follow' : 'copy', jobs: flags.jobs })) ?? given;
  const { rules, several } = await settleRules(context, source, target, given, { startOver: !flags.resume, insertOnly: insertOnlyTables(flags) });
  const config = cloneConfig(flags, source, target, rules);
  if (several) return await runJob(context, 'clone', flags, config, (job) => {
    tellWindows(job.emit, rules);
    return cloneDatabases(flags, context, job, source, target, rules, several);
  });
  const done = await runJob(context, 'clone', flags, config, async (job): Promise<Done | { readonly follow: FollowResult }> => {
    tellWindows(job.emit, rules);
    const piece = { job: context.job, source, target, databases: [source.database] };
    // After a switchover that kept the way back open the same command goes on there: nothing is copied.
    const { currentDirection } = await import('../workflows/switchover/turn-around.ts');
    if (flags.follow && (await currentDirection(piece, context.signal)).reversed) return { follow: await followThrough(flags, context, job, piece) };
    const spooling = new CopySpool(flags, context, piece, job.emit);
    try {
      const result = await clonePiece(flags, piece, rules, context, context.folder, job.emit, spooling.hooks);
      if (!flags.follow) return result;
      job.emit({ type: 'log', level: 'info', message: doneText(result, source)[0]! });
      return { ...result, follow: await followThrough(flags, context, job, piece, spooling.log) };
    } finally {
      await spooling.close();
    }
  });
  if (!('clone' in done)) return reportFollow(done.follow, flags, context);
  if (context.json) printJson(doneJson(done));
  else if (!done.follow) print(...doneText(done, source));
  return done.follow ? reportFollow(done.follow, flags, context, !context.json) : exitCodes.done;
}

/** Says once what each time window was turned into. */
function tellWindows(emit: Emit, rules: SelectionRules): void {
  for (const message of windowLines(rules)) emit({ type: 'log', level: 'info', message });
}

/** What became of one database. */
interface Done {
  readonly clone: CloneResult;
  readonly sync: SyncResult | undefined;
  readonly follow?: FollowResult;
}

async function clonePiece(flags: CloneFlags, piece: Piece, rules: SelectionRules, context: JobContext, folder: JobFolder, emit: Emit, hooks?: CloneHooks): Promise<Done> {
  const { clone } = await import('../workflows/clone.ts');
  const result = await clone({ ...optionsFor(flags, piece, rules, context), onEvent: emit, ...(hooks === undefined ? {} : { hooks }) });
  if (!flags.sync) return { clone: result, sync: undefined };
  return { clone: result, sync: await handOver(flags, { ...piece, rules, folder, signal: context.signal, emit }) };
}

/** One job a database, one view over all; what fails is told at the end and done by the next run. */
async function cloneDatabases(flags: CloneFlags, context: JobContext, job: RunningJob, source: ConnectionSpec, target: ConnectionSpec, rules: SelectionRules, several: NonNullable<SettledRules['several']>): Promise<number> {
  const { runInstance } = await import('../workflows/instance.ts');
  const { names: databases, rulesOf } = several;
  const outcomes = await runInstance<Done>({
    source, target, job: context.job, folder: context.folder, dir: flags.dir, databases, resume: flags.resume, signal: context.signal, onEvent: job.emit,
    run: (database, emit) => {
      claimFolder(database.folder, database.source, database.target);
      keepRules(database.folder, rulesOf.get(database.name) ?? rules, { startOver: true });
      return clonePiece(flags, { job: database.job, source: database.source, target: database.target, databases }, rules, context, database.folder, emit);
    },
  });
  const failed = outcomes.filter((o) => o.status === 'failed');
  if (flags.follow && failed.length === 0) await followDatabases(flags, context, job, source, target, outcomes.map((o) => ({ name: o.name, job: o.job })));
  job.emit({ type: 'phase', phase: failed.length > 0 ? 'failed' : flags.follow ? 'stopped' : 'done', detail: `${outcomes.length - failed.length} of ${outcomes.length} databases` });
  if (context.json) printJson({ format: 1, job: context.job, databases: outcomes.map((o) => ({ ...o, result: o.result && doneJson(o.result) })) });
  else {
    for (const o of outcomes) {
      print(o.status === 'already-done' ? `${o.name} (job ${o.job}): done by an earlier run.` : o.error ? `${o.name} (job ${o.job}): failed: ${o.error.message}${o.error.hint === null ? '' : `\n  ${o.error.hint}`}` : `${o.name} (job ${o.job}):`);
      if (o.result) print(...doneText(o.result, withDatabase(source, o.name)).map((line) => `  ${line}`));
    }
    if (failed.length > 0) print(`${failed.length} of ${outcomes.length} databases failed: ${failed.map((o) => o.name).join(', ')}. The same command does what is left.`);
  }
  return failed.length > 0 ? exitCodes.failed : exitCodes.done;
}

/** One stream a database, all at once, until stopped; the first that fails ends all. */
async function followDatabases(flags: CloneFlags, context: JobContext, job: RunningJob, source: ConnectionSpec, target: ConnectionSpec, databases: readonly { readonly name: string; readonly job: string }[]): Promise<void> {
  const { follow } = await import('../workflows/follow.ts');
  const { databaseFolder } = await import('../workflows/instance.ts');
  const stop = new AbortController();
  const signal = AbortSignal.any([context.signal, stop.signal]);
  const streams = databases.map(async ({ name, job: own }) => {
    try {
      await follow({ source: withDatabase(source, name), target: withDatabase(target, name), job: own, folder: databaseFolder(own, flags.dir), origin: flags.origin, untilCaughtUp: flags.untilCaughtUp === true, addColumns: flags.addColumns === true, spool: spoolOf(flags), signal, onEvent: job.emit });
    } catch (error) {
      stop.abort();
      throw error;
    }
  });
  const failed = (await Promise.allSettled(streams)).find((s) => s.status === 'rejected');
  if (failed) throw failed.reason;
}

function doneJson(done: Done): unknown {
  return { ...(resultJson(done.clone) as object), ...(done.sync === undefined ? {} : { sync: done.sync }), ...(done.follow === undefined ? {} : { follow: { ...done.follow, switchedOver: done.follow.switchedOver ?? null } }) };
}

function doneText(done: Done, source: ConnectionSpec): string[] {
  return [...resultText(done.clone, done.sync !== undefined), ...(done.sync === undefined ? [] : syncLines(done.sync, source))];
}

/** The URI's database alone, or each of several. Slots belong to a server, so that each database needs a job of its own. */
function piecesOf(context: JobContext, source: ConnectionSpec, target: ConnectionSpec, databases: readonly string[] | undefined): Piece[] {
  if (!databases) return [{ job: context.job, source, target, databases: [source.database] }];
  return databases.map((name) => ({ job: databaseJob(context.job, name), source: withDatabase(source, name), target: withDatabase(target, name), databases }));
}

function optionsFor(flags: CloneFlags, piece: Piece, rules: SelectionRules, context: JobContext): CloneOptions {
  return {
    source: piece.source, target: piece.target, job: piece.job, mode: flags.sync ? 'sync' : flags.follow ? 'follow' : 'clone', jobs: flags.jobs, splitBytes: flags.splitTablesLargerThan, format: flags.copyFormat, statistics: flags.statistics,
    dropExisting: flags.dropExisting === true, resume: flags.resume, roles: flags.roles, owners: flags.owner, privileges: flags.privileges, tablespaces: flags.tablespaces, rules, scope: { database: piece.source.database, databases: piece.databases }, signal: context.signal,
    ...(flags.indexJobs === undefined ? {} : { indexJobs: flags.indexJobs }), ...insertOnlyOf(flags),
  };
}

/** The tables of --insert-only. */
function insertOnlyOf(flags: CloneFlags): Pick<CloneOptions, 'insertOnly'> {
  const { insertOnly } = subscriptionOptions(flags);
  return insertOnly === undefined ? {} : { insertOnly };
}

function resultJson(result: CloneResult): unknown {
  return { ...result, stream: result.stream === undefined ? null : { ...result.stream, lsn: formatLsn(result.stream.lsn) } };
}

function resultText(result: CloneResult, handedOver: boolean): string[] {
  const lines: string[] = [];
  if (result.alreadyDone) lines.push(`${result.source.database} is on the target already: ${formatCount(result.tables)} tables. Nothing was done.`);
  else {
    lines.push(`${result.source.database}: ${formatCount(result.tables)} tables, ${formatCount(result.rows)} rows (${formatBytes(result.bytes)}), ${formatCount(result.indexes)} indexes, ${formatCount(result.sequences)} sequences${result.largeObjects > 0 ? `, ${formatCount(result.largeObjects)} large objects` : ''} copied in ${formatDuration(result.elapsedMs)}.${result.resumed ? ' An earlier run had done the rest.' : ''}`);
    if (result.leftOut.length > 0) lines.push(`${result.leftOut.length === 1 ? '1 object was' : `${formatCount(result.leftOut.length)} objects were`} left out by the selection.`);
  }
  if (result.warnings.length > 0) lines.push(`${formatCount(result.warnings.length)} ${result.warnings.length === 1 ? 'warning' : 'warnings'}; see above.`);
  if (handedOver) return lines;
  if (result.stream) lines.push(`Changes since ${formatLsn(result.stream.lsn)} wait in slot ${result.stream.slot} on the source, which keeps its WAL for them. Next: pgweave follow`);
  else lines.push('Next: pgweave verify, and pgweave compare for the schemas.');
  return lines;
}

function planText(plan: ClonePlan): string[] {
  const place = (s: ClonePlan['source']) => `PostgreSQL ${s.version}  ${s.host}:${s.port}/${s.database}`;
  const lines = [`source  ${place(plan.source)}`, `target  ${place(plan.target)}`, ''];
  const left = plan.tables.filter((t) => !t.done);
  lines.push(`${formatCount(left.length)} tables to copy, ${formatBytes(plan.bytes)}; ${formatCount(plan.indexes)} indexes; ${formatCount(plan.sequences)} sequences; ${formatCount(plan.largeObjects)} large objects; ${formatCount(plan.schemaObjects)} statements of schema.`);
  if (plan.makesDatabase) lines.push(`Database "${plan.target.database}" is not on the target yet and will be made.`);
  if (plan.resumes) lines.push(`The job has begun: ${formatCount(plan.tables.length - left.length)} tables are in already.`);
  if (plan.existing.length > 0) lines.push(`In the way on the target: ${plan.existing.slice(0, 8).join(', ')}${plan.existing.length > 8 ? `, and ${formatCount(plan.existing.length - 8)} more` : ''}. clone refuses them, --drop-existing drops them.`);
  if (plan.leftOut.length > 0) lines.push(`${plan.leftOut.length === 1 ? '1 object is' : `${formatCount(plan.leftOut.length)} objects are`} left out by the selection.`);
  for (const { table, because } of plan.rowFilters.filter((f) => f.by === 'pgweave')) lines.push(`The row filter of ${table} is applied by pgweave, and the source sends all changes of the table: ${because}.`);
  const shown = [...left].sort((a, b) => b.bytes - a.bytes).slice(0, 15);
  if (shown.length > 0) {
    lines.push('');
    const width = Math.min(50, Math.max(5, ...shown.map((t) => displayName(t.schema, t.name).length)));
    lines.push(`  ${'table'.padEnd(width)}  ${'size'.padStart(9)}  ${'rows'.padStart(13)}  parts  indexes  format`);
    for (const t of shown) lines.push(`  ${displayName(t.schema, t.name).padEnd(width)}  ${formatBytes(t.bytes).padStart(9)}  ${(t.rows < 0 ? 'unknown' : `~${formatCount(t.rows)}`).padStart(13)}  ${String(t.parts).padStart(5)}  ${String(t.indexes).padStart(7)}  ${t.format}`);
    if (left.length > shown.length) lines.push(`  and ${formatCount(left.length - shown.length)} smaller ones`);
  }
  lines.push('');
  if (plan.estimate) lines.push(`Rows: at least ${formatDuration(plan.estimate.copyMs)} at ${formatBytes(plan.estimate.bytesPerSecond)}/s, as read from the source just now (${formatBytes(plan.estimate.sampledBytes)}); a slower target or network makes it longer, and indexes come on top.`);
  lines.push('Nothing was changed.');
  return lines;
}
