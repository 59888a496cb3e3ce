import { Option, type Command } from 'commander';
import { setMaxListeners } from 'node:events';
import { exitCodes, PgweaveError } from '../core/errors.ts';
import type { ChangeLog } from '../changes/change-log.ts';
import { jobObjectName } from '../core/job-folder.ts';
import { formatCount, parseSize } from '../core/units.ts';
import { publicUri } from '../pg/conninfo.ts';
import { displayName } from '../pg/identifiers.ts';
import type { FollowOptions, FollowResult } from '../workflows/follow.ts';
import type { Direction, Turn } from '../workflows/switchover/turn-around.ts';
import { claimJob, jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { refuseInstance } from './instance.ts';
import { addRunOptions, runJob, type RunFlags, type RunningJob } from './run-job.ts';

/** Flags of `follow` and of the streaming half of `clone --follow`. */
export interface FollowFlags {
  readonly untilCaughtUp?: boolean;
  readonly origin: 'any' | 'none';
  readonly spool?: string;
  readonly spoolLimit?: number;
  readonly addColumns?: boolean;
}

/** Adds --until-caught-up, --origin, --spool, --spool-limit and --add-columns. */
export function addFollowOptions(command: Command): Command {
  return command
    .option('--until-caught-up', 'end once the target has everything that the source held when the streaming began')
    .addOption(new Option('--origin <which>', 'none: leave out what was itself replicated to the source (both directions at once)').choices(['any', 'none']).default('any'))
    .option('--spool <folder>', 'keep received changes in this folder, so that the source can recycle its WAL')
    .addOption(new Option('--spool-limit <size>', 'most bytes in the spool').argParser(parseSize))
    .option('--add-columns', 'add columns to the target that were added on the source, instead of pausing the table');
}

export function followCommand(): Command {
  const command = jobCommand('follow', 'stream changes of a job that was cloned; goes on where it stopped', 'pgweave follow --job shop\npgweave follow --job shop --until-caught-up          (exit 0 once the target has it all)');
  return addRunOptions(addFollowOptions(command)).action((flags: CommonOptions & RunFlags & FollowFlags) =>
    runAction(flags, async (context) => {
      refuseInstance(context, 'follow');
      const source = context.source();
      const target = context.target();
      claimJob(context, source, target);
      const result = await runJob(context, 'follow', flags, { source: publicUri(source), target: publicUri(target), ...followConfig(flags) }, (job) => followThrough(flags, context, job, { source, target, job: context.job }));
      return reportFollow(result, flags, context);
    }),
  );
}

/** What the API shows of the configuration. */
export function followConfig(flags: FollowFlags): Record<string, unknown> {
  return { origin: flags.origin, spool: flags.spool ?? null, addColumns: flags.addColumns === true, untilCaughtUp: flags.untilCaughtUp === true };
}

/** Where received changes are kept; undefined: in memory. */
export function spoolOf(flags: FollowFlags): FollowOptions['spool'] {
  return flags.spool === undefined ? undefined : { folder: flags.spool, ...(flags.spoolLimit === undefined ? {} : { maxBytes: flags.spoolLimit }) };
}

/** Follows through switchovers: where one was undone it goes on, where the way back was opened it turns around. `log`: one that receives already. */
export async function followThrough(flags: FollowFlags, context: JobContext, job: RunningJob, ends: Direction, log?: ChangeLog): Promise<FollowResult> {
  const { currentDirection, turnAround } = await import('../workflows/switchover/turn-around.ts');
  let direction = await currentDirection(ends, context.signal);
  // Begun again after a switchover: the one that opened the way told another process.
  if (direction.reversed) job.emit({ type: 'way-back', open: true, slot: jobObjectName(direction.job) });
  for (let receiving = log; ; receiving = undefined) {
    const { source, target } = direction;
    // On the way back, what the forward stream wrote on the new primary must stay out.
    const switching: { promise: Promise<void> } = { promise: Promise.resolve() };
    let result: FollowResult;
    try {
      result = await runFollow(direction.reversed ? { ...flags, origin: 'none' } : flags, context, job, { source, target, job: direction.job, reversed: direction.reversed }, receiving, switching);
    } finally {
      // A switchover of this process gives writes back or tells its last steps before anything else happens, the process' end included.
      await switching.promise;
    }
    if (!result.switchedOver) return result;
    const turned = await turnAround(direction, job.emit, context.signal);
    if (!turned || turned.reversed) job.emit({ type: 'phase', phase: 'switched-over' });
    if (!turned || (flags.untilCaughtUp && turned.reversed)) return result;
    direction = { ...turned, reversed: turned.reversed ? !direction.reversed : direction.reversed };
  }
}

/** Follows, with the API's and the dashboard's actions on the running follower. `switching` gets the switchover that was begun from here. */
async function runFollow(flags: FollowFlags, context: JobContext, job: RunningJob, direction: Turn, log: ChangeLog | undefined, switching: { promise: Promise<void> }): Promise<FollowResult> {
  const { Follower } = await import('../workflows/follow.ts');
  const { reversed, ...ends } = direction;
  await using follower = await Follower.open({
    ...ends, origin: flags.origin, untilCaughtUp: flags.untilCaughtUp === true, addColumns: flags.addColumns === true, signal: context.signal, onEvent: job.emit, folder: context.folder,
    spool: spoolOf(flags), ...(log === undefined ? {} : { log }),
  });
  job.allow({
    pause: () => follower.pause(),
    resume: () => Promise.resolve(follower.resume()),
    async checks() {
      const { switchoverChecks } = await import('../workflows/switchover/checks.ts');
      return await switchoverChecks({ ...ends, native: false, signal: context.signal });
    },
    async switchover(request, signal) {
      refuseWrongWay(request.back === true, reversed, context.job);
      const { runSwitchover } = await import('../workflows/run-switchover.ts');
      const { keptRules } = await import('../core/selection/index.ts');
      const stop = AbortSignal.any([signal, context.signal]);
      // Every session of a comparison listens to it.
      setMaxListeners(0, stop);
      const run = runSwitchover({
        ...ends, signal: stop, onEvent: job.emit, rules: keptRules(context.folder), ...(request.timeoutMs === undefined ? {} : { timeoutMs: request.timeoutMs }), ...(request.lock === undefined ? {} : { lock: request.lock }),
        ...(request.sequenceBuffer === undefined ? {} : { sequenceBuffer: BigInt(request.sequenceBuffer) }), ...(request.verify === undefined ? {} : { verify: request.verify }), ...(request.reverse === undefined ? {} : { reverse: request.reverse }),
      });
      switching.promise = run.then(() => undefined, () => undefined);
      await run;
    },
    async table(action, table) {
      const { tableCommand } = await import('../workflows/table.ts');
      await tableCommand({ ...ends, table, action, folder: context.folder, signal: context.signal });
    },
  });
  return await follower.run();
}

/** As the command line: the way back is taken by asking for it, and only where there is one. */
function refuseWrongWay(back: boolean, reversed: boolean, job: string): void {
  if (back && !reversed) throw new PgweaveError('no-way-back', `job ${job} was not switched over, so there is no way back to take`, { hint: 'A switchover keeps it open with "reverse".', retry: 'never' });
  if (!back && reversed) throw new PgweaveError('switched-over-already', `job ${job} was switched over, and its way back is open`, { hint: `To return: ask with "back", or run pgweave switchover --job ${job} --back`, retry: 'never' });
}

/** Prints how it ended and gives the exit code. */
export function reportFollow(result: FollowResult, flags: FollowFlags, context: JobContext, show = true): number {
  const named = context.job === 'default' ? '' : ` --job ${context.job}`;
  if (show && context.json) printJson({ format: 1, ...result, switchedOver: result.switchedOver ?? null });
  else if (show) {
    print(`${formatCount(result.transactions)} transactions, ${formatCount(result.rows)} rows applied. The target has everything up to ${result.appliedLsn}.`);
    for (const { table, reason } of result.paused) print(`  ${displayName(table.schema, table.name)} is paused: ${reason}`, `  pgweave table ${displayName(table.schema, table.name)}${named} --retry | --skip-transaction | --copy-again`);
    if (result.switchedOver) print(result.switchedOver.wayBack === null ? 'Switched over; this job is done.' : `Switched over. The way back streams as job ${result.switchedOver.wayBack}.`);
    else if (!result.caughtUp) print(`Stopped. Go on: pgweave follow${named}`);
  }
  if (!result.caughtUp && !result.switchedOver && (flags.untilCaughtUp || context.signal.aborted)) return exitCodes.interrupted;
  // Changes of a paused table wait on the target: that is not everything.
  return flags.untilCaughtUp && result.paused.length > 0 ? exitCodes.failed : exitCodes.done;
}
