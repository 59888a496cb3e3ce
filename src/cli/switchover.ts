import { confirm, isCancel } from '@clack/prompts';
import { Option, type Command } from 'commander';
import { interruptedError, usageError } from '../core/errors.ts';
import type { JobEvent } from '../core/events.ts';
import { formatDuration, parseDuration } from '../core/units.ts';
import { describeConnection, parseConninfo, type ConnectionSpec } from '../pg/conninfo.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import type { LockScope } from '../workflows/switchover/lock-source.ts';
import type { SwitchoverResult } from '../workflows/switchover.ts';
import { jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { refuseInstance } from './instance.ts';

interface SwitchoverFlags extends CommonOptions {
  readonly back?: boolean;
  readonly unlock?: boolean;
  readonly timeout?: number;
  readonly lock: LockScope;
  readonly sequenceBuffer: bigint;
  readonly verify?: boolean;
  readonly reverse?: boolean;
  readonly dryRun?: boolean;
  readonly targetForSource?: string;
}

export function switchoverCommand(): Command {
  return jobCommand('switchover', 'stop writes, drain, carry sequences over, hand over', 'pgweave switchover --job shop --dry-run\npgweave switchover --job shop --verify --reverse\npgweave switchover --job shop --back             (return over the way back)')
    .alias('cutover')
    .option('--reverse', 'keep the way back open: the old source follows the new one')
    .option('--back', 'return over the open way back')
    .option('--verify', 'compare all rows while both sides hold still; where they differ, undo')
    .option('--timeout <duration>', 'how long to wait for locks and for the target, each (default: 30s; 5m with a native subscription)', parseDuration)
    .addOption(new Option('--lock <scope>', 'what refuses writes: the whole database, the published tables, or nothing').choices(['database', 'tables', 'none']).default('database'))
    .addOption(new Option('--sequence-buffer <n>', 'increments that each sequence goes ahead of the source').argParser(parseBuffer).default(0n, '0'))
    .option('--target-for-source <uri>', 'for --reverse with a native subscription: the address at which the old source reaches the target')
    .option('--dry-run', 'check and say what would be done; lock nothing')
    .option('--unlock', 'after a switchover that died: let the source take writes again')
    .action((flags: SwitchoverFlags) => runAction(flags, (context) => run(flags, context)));
}

function parseBuffer(text: string): bigint {
  if (!/^\d{1,18}$/.test(text)) throw usageError(`not a number of increments: "${text}"`, 'Give a whole number, such as --sequence-buffer 5000.');
  return BigInt(text);
}

async function run(flags: SwitchoverFlags, context: JobContext): Promise<void> {
  refuseInstance(context, 'switchover');
  const { oppositeJob } = await import('../core/way-back.ts');
  const back = flags.back === true;
  const job = back ? oppositeJob(context.job) : context.job;
  const [source, target] = back ? [context.target(), context.source()] : [context.source(), context.target()];
  if (flags.unlock) {
    const { undoSwitchover } = await import('../workflows/switchover.ts');
    const undone = await undoSwitchover({ source, target, job, signal: context.signal });
    if (context.json) printJson({ undone });
    else print(undone ? 'The source takes writes again as before the switchover.' : 'No switchover is under way; nothing was changed.');
    return;
  }
  const { runSwitchover } = await import('../workflows/run-switchover.ts');
  const { keptRules } = await import('../core/selection/index.ts');
  if (context.interactive && !flags.dryRun) {
    const answer = await confirm({ message: `Refuse writes on ${describeConnection(source)} and hand over to ${describeConnection(target)}?`, initialValue: true });
    if (isCancel(answer) || !answer) throw interruptedError('Nothing was changed.');
  }
  const result = await runSwitchover({
    source, target, job, lock: flags.lock, sequenceBuffer: flags.sequenceBuffer, reverse: flags.reverse === true, verify: flags.verify === true, dryRun: flags.dryRun === true, signal: context.signal, rules: keptRules(context.folder),
    ...(flags.timeout === undefined ? {} : { timeoutMs: flags.timeout }), ...(flags.targetForSource === undefined ? {} : { targetForSource: parseConninfo(flags.targetForSource) }), onEvent: context.json ? () => undefined : showStep,
  });
  if (context.json) printJson(result);
  else print(...closingLines(result, flags, context, source, target));
}

/** ` 00.094  marker in the WAL          3A/A0113F40` */
function showStep(event: JobEvent): void {
  if (event.type === 'warning') process.stderr.write(`warning: ${event.message}\n`);
  if (event.type !== 'step' || event.status === 'running') return;
  const seconds = (event.elapsedMs / 1000).toFixed(3).padStart(6, '0');
  const word = event.status === 'ok' ? '' : `${event.status}: `;
  print(` ${seconds}  ${event.name.padEnd(30)}  ${word}${event.detail}`);
}

function closingLines(result: SwitchoverResult, flags: SwitchoverFlags, context: JobContext, from: ConnectionSpec, to: ConnectionSpec): string[] {
  if (flags.dryRun) return ['Nothing was changed.'];
  const named = context.job === 'default' ? '' : ` --job ${context.job}`;
  const [source, target] = [describeConnection(from), describeConnection(to)];
  const lines = [`Writes were refused for ${formatDuration(result.refusedMs)}. Point the application at ${target} now.`];
  if (result.wayBack && !flags.back) lines.push(`${source} follows ${target} from its first write on. To go back: pgweave switchover${named} --back`);
  else if (result.wayBack) lines.push(`${source} follows ${target} again: pgweave follow${named}`);
  else lines.push(`${source} stays closed to writes. To open it: ALTER DATABASE ${quoteIdent(from.database)} RESET default_transaction_read_only; what is left of the job: pgweave cleanup${named}`);
  return lines;
}
