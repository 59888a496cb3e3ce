import type { Command } from 'commander';
import { exitCodes, usageError } from '../core/errors.ts';
import { keepRules, type SelectionRules } from '../core/selection/index.ts';
import type { Emit } from '../core/events.ts';
import { displayName } from '../pg/identifiers.ts';
import { describeConnection, type ConnectionSpec } from '../pg/conninfo.ts';
import { syncStateWords, type SyncState } from '../catalog/subscriptions.ts';
import type { SyncCopy, SyncOptions, SyncResult } from '../workflows/sync.ts';
import { claimFolder, jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { chooseInteractively } from './interactive.ts';
import { settleRules, windowLines, type SettledRules } from './settle-rules.ts';
import { addSelectionOptions, selectionRules, type SelectionOptions } from './selection-options.ts';
import { addSubscriptionOptions, insertOnlyTables, subscriptionOptions, type SubscriptionFlags } from './subscription-options.ts';

interface SyncFlags extends CommonOptions, SelectionOptions, SubscriptionFlags {
  readonly config?: string;
  readonly deferCopy?: boolean;
  readonly copyNow?: boolean;
  /** False with --no-copy. */
  readonly copy: boolean;
  readonly wait?: boolean;
  readonly resume: boolean;
}

export function syncCommand(): Command {
  const command = jobCommand('sync', 'follow with a native subscription', 'pgweave clone --sync --source postgresql://app@old/shop --target postgresql://app@new/shop   (the fast copy, then this)\npgweave sync --source postgresql://app@old/shop --target postgresql://app@new/shop           (PostgreSQL copies)\npgweave status --watch')
    .option('--defer-copy', 'make everything, copy nothing yet')
    .option('--copy-now', 'copy what was deferred, or subscribed without a copy')
    .option('--no-copy', 'only what changes from now on')
    .option('--wait', 'until every table streams')
    .option('--no-resume', 'take the selection given now instead of the one that the job began with');
  addSubscriptionOptions(command);
  return addSelectionOptions(command).action((flags: SyncFlags) => runAction(flags, (context) => run(flags, context)));
}

async function run(flags: SyncFlags, context: JobContext): Promise<number> {
  const modes = [flags.deferCopy === true, flags.copyNow === true, !flags.copy].filter(Boolean).length;
  if (modes > 1) throw usageError('--defer-copy, --copy-now and --no-copy exclude one another', 'Give one of them, or none: then PostgreSQL copies now, unless pgweave has copied already.');
  const copy: SyncCopy = flags.deferCopy ? 'defer' : flags.copyNow ? 'now' : flags.copy ? 'auto' : 'none';
  const source = context.source();
  const target = context.target();
  let given = selectionRules(flags, context.config());
  given = (await chooseInteractively(context, { source, target, rules: given, verb: 'follow' })) ?? given;
  const options: Omit<SyncOptions, 'source' | 'target' | 'job'> = { ...subscriptionOptions(flags), copy, wait: flags.wait === true, signal: context.signal };
  const { sync } = await import('../workflows/sync.ts');
  const { rules, several } = await settleRules(context, source, target, given, { startOver: !flags.resume, insertOnly: insertOnlyTables(flags) });
  for (const message of windowLines(rules)) reporter(context)({ type: 'log', level: 'info', message });
  if (!several) {
    const result = await sync({ ...options, source, target, job: context.job, rules, onEvent: reporter(context) });
    if (context.json) printJson(result);
    else print(...syncLines(result, source));
    return exitCodes.done;
  }
  return await syncDatabases(context, source, target, rules, several, flags, (database, emit, rules, databases) =>
    sync({ ...options, source: database.source, target: database.target, job: database.job, rules, scope: { database: database.name, databases }, onEvent: emit }));
}

async function syncDatabases(
  context: JobContext, source: ConnectionSpec, target: ConnectionSpec, rules: SelectionRules, several: NonNullable<SettledRules['several']>, flags: SyncFlags,
  work: (database: { name: string; job: string; source: ConnectionSpec; target: ConnectionSpec }, emit: Emit, rules: SelectionRules, databases: readonly string[]) => Promise<SyncResult>,
): Promise<number> {
  const { runInstance } = await import('../workflows/instance.ts');
  const { names: databases, rulesOf } = several;
  const outcomes = await runInstance<SyncResult>({
    source, target, job: context.job, folder: context.folder, dir: flags.dir, databases, create: false, resume: false, signal: context.signal, onEvent: reporter(context),
    run: (database, emit) => {
      claimFolder(database.folder, database.source, database.target);
      keepRules(database.folder, rulesOf.get(database.name) ?? rules, { startOver: true });
      return work(database, emit, rules, databases);
    },
  });
  if (context.json) printJson({ format: 1, job: context.job, databases: outcomes });
  else {
    for (const o of outcomes) {
      if (o.result) print(`${o.name} (job ${o.job}):`, ...syncLines(o.result, source).map((line) => `  ${line}`));
      else print(`${o.name} (job ${o.job}): ${o.status}${o.error ? `: ${o.error.message}${o.error.hint === null ? '' : `\n  ${o.error.hint}`}` : ''}`);
    }
  }
  return outcomes.some((o) => o.status === 'failed') ? exitCodes.failed : exitCodes.done;
}

function reporter(context: JobContext): Emit {
  return (event) => {
    if (event.type === 'warning') process.stderr.write(`warning: ${event.message}\n${event.hint === undefined ? '' : `  ${event.hint}\n`}`);
    if (event.type === 'log' && event.level !== 'debug' && !context.json) process.stderr.write(`${event.message}\n`);
  };
}

const said: Readonly<Record<SyncResult['outcome'], string>> = {
  'handed-over': 'PostgreSQL follows from exactly where the copy ended', copying: 'PostgreSQL copies the tables now, then follows', deferred: 'everything is made; nothing is copied until pgweave sync --copy-now', 'from-now': 'PostgreSQL follows what changes from now on; rows of before were not copied',
  reconciled: 'was there already and is as asked for',
};

export function syncLines(result: SyncResult, source: ConnectionSpec): string[] {
  const counts = new Map<SyncState, number>();
  for (const t of result.tables) counts.set(t.state, (counts.get(t.state) ?? 0) + 1);
  const named = result.job === 'default' ? '' : ` --job ${result.job}`;
  const out = [`subscription ${result.subscription}: ${said[result.outcome]}${result.startLsn === null ? '' : ` (${result.startLsn})`}`, `${result.tables.length} tables: ${[...counts].map(([state, n]) => `${n} ${syncStateWords[state]}`).join(', ') || 'none subscribed'}`];
  if (result.missing.length > 0) out.push(`left out, not on the target: ${result.missing.map((t) => displayName(t.schema, t.name)).join(', ')}`);
  if (result.notEmpty.length > 0) out.push(`not copied, since the target has rows: ${result.notEmpty.map((t) => displayName(t.schema, t.name)).join(', ')}. To copy one again: empty it on the target, then pgweave sync --copy-now${named}`);
  out.push(`No pgweave process is needed now: the target follows ${describeConnection(source)} by itself.`, result.outcome === 'deferred' ? `Next: pgweave sync${named} --copy-now` : `Next: pgweave status${named} --watch, then pgweave verify${named}, then pgweave switchover${named}`);
  return out;
}
