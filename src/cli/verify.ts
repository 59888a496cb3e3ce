import { Option, type Command } from 'commander';
import { exitCodes, usageError } from '../core/errors.ts';
import { fingerprint, type JobFolder } from '../core/job-folder.ts';
import { databaseJob } from '../core/selection/database-jobs.ts';
import { hasRules, keptRules, noRules, selectsDatabases, type SelectionRules } from '../core/selection/index.ts';
import { mergeRules, parseTables } from '../core/selection/rules.ts';
import { formatCount, parseDuration } from '../core/units.ts';
import { describeConnection, withDatabase, type ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { databaseFolder, instanceJobs } from '../workflows/instance.ts';
import type { TableReport, VerifyReport } from '../workflows/verify.ts';
import { jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { chosenDatabases } from './instance.ts';
import { paintFor } from './render/layout.ts';
import { renderVerified } from './render/verified.ts';
import { addSelectionOptions, selectionRules, type SelectionOptions } from './selection-options.ts';

interface VerifyFlags extends CommonOptions, SelectionOptions {
  readonly config?: string;
  readonly tables?: readonly string[];
  readonly jobs: number;
  readonly sample?: number;
  readonly repair?: boolean;
  /** False with --no-values. */
  readonly values: boolean;
  readonly resume: boolean;
  readonly lagTimeout: number;
}

export function verifyCommand(): Command {
  const command = jobCommand('verify', 'prove that source and target hold the same rows', 'pgweave verify\npgweave verify --tables public.prices --repair\npgweave verify --source postgresql://app@old/shop --target postgresql://app@new/shop --json')
    .option('--tables <names>', 'compare these tables only, separated by commas', (value: string, before: readonly string[] | undefined) => [...(before ?? []), value])
    .option('--jobs <n>', 'tables or parts read at once, each with a connection on both sides', parseCount, 4)
    .option('--sample <percent>', 'compare only a share of the rows, chosen by their key', parsePercent)
    .option('--repair', 'make the rows that differ on the target as they are on the source')
    .option('--no-values', 'name rows and columns that differ, show no values but keys')
    .option('--no-resume', 'compare all tables anew, also those that an interrupted run had found equal')
    .addOption(new Option('--lag-timeout <duration>', 'how long a native subscription may take to catch up').argParser(parseDuration).default(60_000, '1m'));
  return addSelectionOptions(command).action((flags: VerifyFlags) => runAction(flags, (context) => runVerify(flags, context)));
}

function parseCount(text: string): number {
  if (!/^\d{1,3}$/.test(text) || Number(text) < 1) throw usageError(`not a number of jobs: "${text}"`, 'Give a whole number from 1.');
  return Number(text);
}

function parsePercent(text: string): number {
  const percent = Number(text.replace(/\s*%$/, ''));
  if (!(percent > 0 && percent <= 100)) throw usageError(`not a share: "${text}"`, 'Give per cent above 0, up to 100, such as --sample 5.');
  return percent;
}

/** One database of the job. */
interface Piece {
  readonly job: string;
  readonly folder: JobFolder;
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly databases: readonly string[];
}

async function runVerify(flags: VerifyFlags, context: JobContext): Promise<number> {
  const given = selectionRules(flags, context.config());
  const pieces = await piecesOf(flags, context, given);
  if (pieces.length > 1) {
    const { rulesByDatabase } = await import('../catalog/selection.ts');
    // For its refusal of names that match nothing in any of them: nothing compared is nothing proved.
    await rulesByDatabase(context.source(), mergeRules(given, { ...noRules, includeTables: (flags.tables ?? []).flatMap(parseTables) }), pieces.map((p) => p.source.database), { job: context.job, signal: context.signal });
  }
  const reports: VerifyReport[] = [];
  for (const piece of pieces) reports.push(await verifyPiece(flags, piece, given, context));
  if (context.json) printJson(reports.length === 1 ? reports[0] : { format: 1, ok: reports.every((r) => r.ok), databases: reports.map((report, i) => ({ name: pieces[i]!.source.database, report })) });
  else {
    const paint = paintFor(process.stdout);
    for (const [i, report] of reports.entries()) {
      if (pieces.length > 1) print(...(i > 0 ? [''] : []), paint('bold', `database ${pieces[i]!.source.database}`));
      print(...renderVerified(report, { paint, values: flags.values, flags: commandFlags(flags, pieces[i]!, context) }));
    }
  }
  return reports.every((r) => r.ok) ? exitCodes.done : exitCodes.checkFailed;
}

async function verifyPiece(flags: VerifyFlags, piece: Piece, given: SelectionRules, context: JobContext): Promise<VerifyReport> {
  const { verify } = await import('../workflows/verify.ts');
  // A job of this name may have been begun with other databases: its rules are not ours then.
  const identity = piece.folder.identity();
  const ours = identity?.source === describeConnection(piece.source) && identity.target === describeConnection(piece.target);
  const kept = ours ? (keptRules(piece.folder) ?? keptRules(context.folder)) : undefined;
  const tables = { ...noRules, includeTables: (flags.tables ?? []).flatMap(parseTables) };
  // Flags say which of the job's tables to look at; what the job moves is what it began with.
  const only = mergeRules(tables, kept && hasRules(given) ? { ...noRules, includeTables: given.includeTables, excludeTables: given.excludeTables } : noRules);
  const options = { rules: kept ?? given, only, scope: { database: piece.source.database, databases: piece.databases } };
  const memory = new RunMemory(piece.folder, fingerprint(JSON.stringify([describeConnection(piece.source), describeConnection(piece.target), options, flags.sample ?? null, flags.repair === true])), flags.resume);
  const progress = new ProgressLine(context.json);
  try {
    const report = await verify({
      ...options, source: piece.source, target: piece.target, job: piece.job, jobs: flags.jobs, sample: flags.sample, repair: flags.repair === true, values: flags.values, lagTimeoutMs: flags.lagTimeout, known: memory.known, signal: context.signal,
      onTable: (table) => memory.add(table), onProgress: (p) => progress.show(`verify   ${formatCount(p.tablesDone)} of ${formatCount(p.tables)} tables   ${p.blocks === 0 ? 100 : Math.floor((p.blocksDone / p.blocks) * 100)} %`),
      onEvent: (event) => { if (event.type === 'warning') process.stderr.write(`warning: ${event.message}\n`); },
    });
    memory.forget();
    return report;
  } catch (error) {
    memory.save();
    throw error;
  } finally {
    progress.clear();
  }
}

/** The databases of the job: as an earlier run recorded them, as flags choose them, else the URI's own. */
async function piecesOf(flags: VerifyFlags, context: JobContext, given: SelectionRules): Promise<Piece[]> {
  const jobs = chosenDatabases(context, given);
  if (jobs) return jobs.map(({ name, job }) => ({ job, folder: databaseFolder(job, flags.dir), source: withDatabase(context.source(), name), target: withDatabase(context.target(), name), databases: instanceJobs(context.folder)!.map((j) => j.name) }));
  const source = context.source();
  const target = context.target();
  if (!selectsDatabases(given)) return [{ job: context.job, folder: context.folder, source, target, databases: [source.database] }];
  const { resolveDatabases } = await import('../catalog/selection.ts');
  await using session = await Session.open(source, { role: 'verify', job: context.job, side: 'the source', signal: context.signal });
  const databases = await resolveDatabases(session, given);
  return databases.map((name) => {
    const job = databaseJob(context.job, name);
    return { job, folder: databaseFolder(job, flags.dir), source: withDatabase(source, name), target: withDatabase(target, name), databases };
  });
}

function commandFlags(flags: VerifyFlags, piece: Piece, context: JobContext): string {
  const job = piece.job === 'default' ? '' : ` --job ${piece.job}`;
  const ends = context.folder.identity() === undefined ? ' --source … --target …' : '';
  return `${job}${flags.dir === undefined || piece.job !== context.job ? '' : ` --dir ${flags.dir}`}${ends}`;
}

/** Tables that this run has found equal, kept in the job's folder, so that a run that is interrupted goes on with the others. */
class RunMemory {
  readonly #folder: JobFolder;
  readonly #of: string;
  readonly #tables: TableReport[];
  #savedAt = Date.now();

  constructor(folder: JobFolder, of: string, resume: boolean) {
    this.#folder = folder;
    this.#of = of;
    const kept = resume ? (folder.read('verify.json') as { of: string | null; tables: TableReport[] } | undefined) : undefined;
    this.#tables = kept?.of === of ? kept.tables : [];
    this.known = [...this.#tables];
  }

  readonly known: readonly TableReport[];

  add(table: TableReport): void {
    this.#tables.push(table);
    if (Date.now() - this.#savedAt > 2000) this.save();
  }

  save(): void {
    if (this.#tables.length === 0) return;
    this.#savedAt = Date.now();
    this.#folder.write('verify.json', { format: 1, of: this.#of, tables: this.#tables });
  }

  /** The run has come to its end: the next one begins anew. */
  forget(): void {
    if (this.#folder.read('verify.json') !== undefined) this.#folder.write('verify.json', { format: 1, of: null, tables: [] });
  }
}

/** One line on a terminal's stderr, written over again and again; nothing elsewhere. */
class ProgressLine {
  readonly #shown: boolean;
  #last = 0;

  constructor(json: boolean) {
    this.#shown = process.stderr.isTTY && !json;
  }

  show(text: string): void {
    if (!this.#shown || Date.now() - this.#last < 100) return;
    this.#last = Date.now();
    process.stderr.write(`\r\u001b[K${text}`);
  }

  clear(): void {
    if (this.#shown && this.#last > 0) process.stderr.write('\r\u001b[K');
  }
}
