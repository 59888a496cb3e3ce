import { Option, type Command } from 'commander';
import { sleep } from '../core/abort.ts';
import { errorMessage, exitCodes, PgweaveError } from '../core/errors.ts';
import type { JobFolder } from '../core/job-folder.ts';
import { hasRules, type SelectionRules } from '../core/selection/index.ts';
import { matchTables, unmatchedError } from '../core/selection/select.ts';
import type { JobSnapshot } from '../core/snapshot.ts';
import { isRunning, readStateFile } from '../core/state-file.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { parseDuration } from '../core/units.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import type { NativeStatus } from '../workflows/status.ts';
import { jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { chosenDatabases, databaseContext } from './instance.ts';
import { paintFor } from './render/layout.ts';
import { renderNativeStatus } from './render/native-status.ts';
import { renderStatus } from './render/status.ts';
import { addSelectionOptions, selectionRules, type SelectionOptions } from './selection-options.ts';

interface StatusFlags extends CommonOptions, SelectionOptions {
  readonly config?: string;
  readonly watch?: boolean;
  readonly interval: number;
}

export function statusCommand(): Command {
  const command = jobCommand('status', 'phase, lag, tables, throughput (from the running job, else from what it left behind)', 'pgweave status\npgweave status --watch\npgweave status --json | jq .verdict')
    .option('--watch', 'again and again until Ctrl-C')
    .addOption(new Option('--interval <duration>', 'pause between two looks with --watch').argParser(parseDuration).default(2000, '2s'));
  return addSelectionOptions(command).action((flags: StatusFlags) => runAction(flags, (context) => run(flags, context)));
}

const recordedWords: Readonly<Record<string, string>> = { done: 'copied', failed: 'failed; the same command does what is left', running: 'begun' };

/** What one look found. */
type Found = { readonly kind: 'native'; readonly status: NativeStatus } | { readonly kind: 'stream'; readonly snapshot: JobSnapshot; readonly running: boolean };

async function run(flags: StatusFlags, context: JobContext): Promise<number> {
  const rules = selectionRules(flags, context.config());
  if (!flags.watch) {
    const all = await look(flags, context, rules);
    show(all, context, rules, false);
    return exitCodes.done;
  }
  for (;;) {
    try {
      show(await look(flags, context, rules), context, rules, true);
      await sleep(flags.interval, context.signal);
    } catch (error) {
      // Ctrl-C is how watching ends.
      if (context.signal.aborted) return exitCodes.done;
      throw error;
    }
  }
}

interface Entry {
  /** The database, where the job spans several. */
  readonly name: string | undefined;
  readonly found: Found | undefined;
  readonly problem: string | undefined;
  /** What the job's own record says of it. */
  readonly recorded: string | undefined;
}

async function look(flags: StatusFlags, context: JobContext, rules: SelectionRules): Promise<Entry[]> {
  const jobs = chosenDatabases(context, rules);
  if (!jobs) {
    const found = await lookAt(context, context.job, context.folder);
    if (!found) throw new PgweaveError('no-such-job', `nothing is known of job "${context.job}"`, { hint: 'It has not begun, or ran on another machine: then give --source and --target. Its name is given with --job.' });
    return [{ name: undefined, found, problem: undefined, recorded: undefined }];
  }
  const entries: Entry[] = [];
  for (const database of jobs) {
    const { name, job, status } = database;
    const one = await databaseContext(flags, context, database);
    try {
      entries.push({ name, found: await lookAt(one, job, one.folder), problem: undefined, recorded: status });
    } catch (error) {
      if (context.signal.aborted) throw error;
      entries.push({ name, found: undefined, problem: errorMessage(error), recorded: status });
    }
  }
  return entries;
}

async function lookAt(context: JobContext, job: string, folder: JobFolder): Promise<Found | undefined> {
  const snapshot = await readStateFile(folder.path);
  if (snapshot && isRunning(snapshot)) return { kind: 'stream', snapshot, running: true };
  const ends = optionalEnds(context);
  if (ends) {
    const { nativeStatus, streamStatus } = await import('../workflows/status.ts');
    const native = await nativeStatus({ ...ends, job, signal: context.signal });
    // A target that cannot be reached says nothing of which kind the job is: what was left behind says more.
    if (native && (native.target || !snapshot)) return { kind: 'native', status: native };
    if (!snapshot) {
      const stream = await streamStatus({ ...ends, job, signal: context.signal });
      return stream && { kind: 'stream', ...stream };
    }
  }
  return snapshot ? { kind: 'stream', snapshot, running: false } : undefined;
}

function optionalEnds(context: JobContext): { source: ConnectionSpec; target: ConnectionSpec } | undefined {
  try {
    return { source: context.source(), target: context.target() };
  } catch (error) {
    if (error instanceof PgweaveError && error.code === 'no-connection') return undefined;
    throw error;
  }
}

function show(entries: readonly Entry[], context: JobContext, rules: SelectionRules, again: boolean): void {
  const chosen = entries.map((entry) => ({ ...entry, found: entry.found && only(entry.found, rules, entry.name) }));
  if (context.json) {
    const documents = chosen.map((e) => (e.found ? (e.found.kind === 'native' ? e.found.status : { ...e.found.snapshot, running: e.found.running }) : { database: e.name, recorded: e.recorded ?? null, problem: e.problem ?? null }));
    printJson(entries.length === 1 && entries[0]!.name === undefined ? documents[0] : { format: 1, job: context.job, databases: chosen.map((e, i) => ({ name: e.name, status: documents[i] })) });
    return;
  }
  const paint = paintFor(process.stdout);
  const lines: string[] = [];
  for (const entry of chosen) {
    if (lines.length > 0) lines.push('');
    if (entry.name !== undefined) lines.push(paint('bold', `database ${entry.name}`));
    if (!entry.found) lines.push(`${recordedWords[entry.recorded ?? ''] ?? 'nothing is known of it yet'}${entry.problem === undefined ? '' : ` (not looked at: ${entry.problem})`}`);
    else if (entry.found.kind === 'native') lines.push(...renderNativeStatus(entry.found.status, { paint, allTables: hasRules(rules) }));
    else lines.push(...renderStatus(entry.found.snapshot, { now: Date.now(), paint, running: entry.found.running, ...(process.stdout.isTTY ? { width: process.stdout.columns } : {}) }));
  }
  // Home and clear: the picture is drawn anew without flicker of a scrolled screen.
  if (again && process.stdout.isTTY) process.stdout.write('\u001b[H\u001b[2J');
  print(...lines, ...(again && !process.stdout.isTTY ? [''] : []));
}

/** The tables that the flags name. */
function only(found: Found, rules: SelectionRules, name: string | undefined): Found {
  if (!hasRules(rules)) return found;
  const keep = <T extends TableRef>(tables: readonly T[], database: string): T[] => {
    const { selection, unmatched } = matchTables(rules, { database, databases: [database] }, tables.map((t) => ({ schema: t.schema, name: t.name })));
    if (unmatched.length > 0 && name === undefined) throw unmatchedError(unmatched);
    return tables.filter((t) => selection.get(tableKey(t))?.mode === 'copy');
  };
  if (found.kind === 'native') return { kind: 'native', status: { ...found.status, tables: keep(found.status.tables, name ?? found.status.source?.place.split('/').pop() ?? '') } };
  return { ...found, snapshot: { ...found.snapshot, tables: keep(found.snapshot.tables, name ?? found.snapshot.source?.database ?? '') } };
}
