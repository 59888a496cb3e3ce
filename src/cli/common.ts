import { Command, CommanderError, Option } from 'commander';
import { setMaxListeners } from 'node:events';
import { errorMessage, exitCodes, interruptedError, isInterrupted, PgweaveError } from '../core/errors.ts';
import type { JobConfig } from '../core/selection/job-config.ts';
import { checkJobName, defaultJobFolder, JobFolder } from '../core/job-folder.ts';
import { redact } from '../core/redact.ts';
import { describeConnection, parseConninfo, publicUri, type ConnectionSpec } from '../pg/conninfo.ts';

/** Options that every command knows, as commander parses them. */
export interface CommonOptions {
  readonly source?: string;
  readonly sourceUri?: string;
  readonly target?: string;
  readonly destUri?: string;
  readonly job: string;
  readonly dir?: string;
  readonly config?: string;
  readonly json?: boolean;
  readonly yes?: boolean;
  /** False with --no-interactive. */
  readonly interactive: boolean;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly logFormat: 'auto' | 'human' | 'json';
}

/** Adds --source and --target with their other names. */
export function addConnectionOptions(command: Command, sides: readonly ('source' | 'target')[] = ['source', 'target']): Command {
  if (sides.includes('source')) {
    command.addOption(new Option('--source <uri>', 'the database to copy from: a URI or a key/value string').env('PGWEAVE_SOURCE'));
    command.addOption(new Option('--source-uri <uri>', 'the same as --source').hideHelp());
  }
  if (sides.includes('target')) {
    command.addOption(new Option('--target <uri>', 'the database to copy to: a URI or a key/value string').env('PGWEAVE_TARGET'));
    command.addOption(new Option('--dest-uri <uri>', 'the same as --target').hideHelp());
  }
  return command;
}

/** Adds --job, --dir, --config and what concerns output and questions. */
export function addCommonOptions(command: Command): Command {
  return command
    .option('--job <name>', 'name of the job; names the slot, publication and origin pgweave_<job>', 'default')
    .option('--dir <folder>', 'state folder of the job (default: $XDG_STATE_HOME/pgweave/<job>)')
    .option('--config <file>', 'configuration file: YAML, TOML or JSON, by its extension')
    .option('--json', 'print one JSON document on standard output')
    .option('--yes', 'ask nothing, go on')
    .option('--no-interactive', 'ask nothing; where an answer is needed, fail')
    .addOption(new Option('--log-level <level>', 'least level of the log').choices(['debug', 'info', 'warn', 'error']).default('info'))
    .addOption(new Option('--log-format <format>', 'auto: human on a terminal, JSON otherwise').choices(['auto', 'human', 'json']).default('auto'));
}

/** A command with the common options, connection options and an example below its help. */
export function jobCommand(name: string, summary: string, example: string): Command {
  const command = new Command(name).summary(summary).description(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`);
  addCommonOptions(addConnectionOptions(command));
  return command.addHelpText('after', `\nExample:\n${example.split('\n').map((line) => `  ${line}`).join('\n')}`);
}

/** What a command's action works with. */
export interface JobContext {
  readonly options: CommonOptions;
  readonly job: string;
  readonly folder: JobFolder;
  readonly json: boolean;
  /** Whether questions may be asked: a terminal on both sides, no --yes, no --no-interactive, no --json. */
  readonly interactive: boolean;
  /** Fires at the first Ctrl-C or SIGTERM. */
  readonly signal: AbortSignal;
  /** What the file of --config says; undefined without one. Throws usage errors. */
  config(): JobConfig | undefined;
  /** The connection given by flag or environment, else the one the job remembers (without its password). Throws a usage error where there is none. */
  source(): ConnectionSpec;
  target(): ConnectionSpec;
}

function connection(side: 'source' | 'target', given: string | undefined, remembered: string | undefined, job: string): ConnectionSpec {
  const text = given ?? remembered;
  if (text === undefined || text === '') {
    throw new PgweaveError('no-connection', `no ${side} given`, {
      hint: `Give --${side} postgresql://user@host/database or set PGWEAVE_${side.toUpperCase()}; job "${job}" does not know its ${side} yet.`, exitCode: exitCodes.usage, retry: 'never',
    });
  }
  return parseConninfo(text);
}

export async function jobContext(options: CommonOptions, signal: AbortSignal): Promise<JobContext> {
  const job = checkJobName(options.job);
  const folder = new JobFolder(job, options.dir ?? defaultJobFolder(job));
  const json = options.json === true;
  // Loaded only where it is needed: what checks and parses such files takes longer to load than all the rest.
  const reader = options.config === undefined ? undefined : await import('../core/selection/job-config.ts');
  // Read where it is asked for: other commands have configuration files of another kind.
  const config = () => (options.config === undefined ? undefined : reader?.readJobConfig(options.config));
  return {
    options, job, folder, json, signal, config,
    interactive: process.stdin.isTTY && process.stdout.isTTY && options.interactive && options.yes !== true && !json,
    source: () => connection('source', options.source ?? options.sourceUri ?? config()?.source, folder.identity()?.sourceUri, job),
    target: () => connection('target', options.target ?? options.destUri ?? config()?.target, folder.identity()?.targetUri, job),
  };
}

/** Records the job's two ends in its folder; refuses a job begun with others, unless it begins `anew`. */
export function claimJob(context: JobContext, source: ConnectionSpec, target: ConnectionSpec, options: { readonly anew?: boolean } = {}): void {
  claimFolder(context.folder, source, target, options);
}

/** {@link claimJob} for the job of one database of several. */
export function claimFolder(folder: JobFolder, source: ConnectionSpec, target: ConnectionSpec, options: { readonly anew?: boolean } = {}): void {
  folder.claim({ source: describeConnection(source), target: describeConnection(target), sourceUri: publicUri(source), targetUri: publicUri(target) }, options);
}

/** Writes lines to standard output. */
export function print(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** One JSON document on standard output; bigints become strings. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? item.toString() : item), 2)}\n`);
}

/** How people see an error: what was wrong, then what to do. Never a stack trace, unless PGWEAVE_TRACE is set. */
export function errorText(error: unknown): string {
  const lines = [`pgweave: ${errorMessage(error)}`];
  const hint = error instanceof PgweaveError ? error.hint : undefined;
  if (hint !== undefined) lines.push(...hint.split('\n').map((line) => `  ${line}`));
  if (!(error instanceof PgweaveError)) {
    const { detail, hint: serverHint, code } = error as { detail?: string; hint?: string; code?: string };
    if (detail) lines.push(`  ${redact(detail)}`);
    if (serverHint) lines.push(`  ${redact(serverHint)}`);
    if (code) lines.push(`  SQLSTATE or system code ${code}. PGWEAVE_TRACE=1 shows where it came from.`);
    else lines.push('  This is a fault that pgweave did not foresee. PGWEAVE_TRACE=1 shows where it came from.');
  }
  if (process.env['PGWEAVE_TRACE'] && error instanceof Error && error.stack) lines.push(redact(error.stack));
  return lines.join('\n');
}

export function exitCodeOf(error: unknown): number {
  return error instanceof PgweaveError ? error.exitCode : exitCodes.failed;
}

/**
 * Runs a command's action: hands it a context, turns the first Ctrl-C or SIGTERM into an abort (the second ends the process at once), prints
 * errors, sets the exit code. `work` returns an exit code, or nothing for 0.
 */
export async function runAction(options: CommonOptions, work: (context: JobContext) => Promise<number | void>): Promise<void> {
  const abort = new AbortController();
  // Every session of the job listens to it.
  setMaxListeners(0, abort.signal);
  let signals = 0;
  const onSignal = () => {
    signals += 1;
    if (signals > 1) process.exit(exitCodes.interrupted);
    abort.abort(interruptedError());
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    const code = await work(await jobContext(options, abort.signal));
    process.exitCode = code ?? exitCodes.done;
  } catch (error) {
    const shown = abort.signal.aborted && !isInterrupted(error) && !(error instanceof PgweaveError) ? interruptedError() : error;
    process.stderr.write(`${errorText(shown)}\n`);
    if (options.json) {
      const known = shown instanceof PgweaveError ? shown : undefined;
      printJson({ error: { code: known?.code ?? 'unexpected', message: errorMessage(shown), hint: known?.hint ?? null } });
    }
    process.exitCode = exitCodeOf(shown);
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

/** Runs the program and gives the exit code for what commander itself refuses (2) or answers (0). */
export async function runProgram(program: Command, argv: readonly string[]): Promise<void> {
  const override = (command: Command) => {
    command.exitOverride();
    command.showHelpAfterError('(see --help)');
    command.configureOutput({ outputError: (text, write) => write(redact(text.replace(/^error: /, 'pgweave: '))) });
    for (const sub of command.commands) override(sub);
  };
  override(program);
  try {
    await program.parseAsync([...argv]);
  } catch (error) {
    if (!(error instanceof CommanderError)) {
      process.stderr.write(`${errorText(error)}\n`);
      process.exitCode = exitCodeOf(error);
    } else process.exitCode = error.exitCode === 0 ? exitCodes.done : exitCodes.usage;
  }
}
