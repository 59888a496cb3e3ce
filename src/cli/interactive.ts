import { autocompleteMultiselect, cancel, confirm, intro, isCancel, log, multiselect, note, spinner } from '@clack/prompts';
import { serverDatabases } from '../catalog/selection.ts';
import { interruptedError } from '../core/errors.ts';
import { hasRules, keptRules, selectDatabases, type SelectionRules } from '../core/selection/index.ts';
import { exactly } from '../core/selection/names.ts';
import { instanceJobs } from '../workflows/instance.ts';
import { tableFromKey, tableKey, type TableRef } from '../core/tables.ts';
import { formatBytes, formatCount, formatDuration } from '../core/units.ts';
import { describeConnection, withDatabase, type ConnectionSpec } from '../pg/conninfo.ts';
import { displayName } from '../pg/identifiers.ts';
import { Session } from '../pg/session.ts';
import type { JobContext } from './common.ts';

export interface InteractiveOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly rules: SelectionRules;
  /** What will be done: `copy`, `follow`, `check`. */
  readonly verb: string;
  readonly jobs?: number;
}

/** Tables shown at once for choosing. */
const shownRows = 12;
/** How long each database is read for its estimate. */
const sampleMs = 700;

/**
 * On a terminal, where neither flag nor file nor an earlier run says what to move: asks for databases and for tables to leave out, shows sizes and a measured estimate, and asks for
 * a last word. Undefined where nothing had to be asked. Throws `interrupted` where the user turns back; nothing is changed by then.
 */
export async function chooseInteractively(context: JobContext, options: InteractiveOptions): Promise<SelectionRules | undefined> {
  if (!context.interactive || hasRules(options.rules) || keptRules(context.folder) || instanceJobs(context.folder)) return undefined;
  const { source, target, rules, verb } = options;
  intro(`pgweave: ${verb} ${describeConnection(source)} → ${describeConnection(target)}`);
  const databases = await chooseDatabases(context, source, rules);
  const { databaseSize, estimateCopy } = await import('../workflows/estimate.ts');
  const leftOut = new Map<string, Set<string>>();
  for (const database of databases) {
    const size = await databaseSize(withDatabase(source, database), context.job, context.signal);
    if (size.tables.length === 0) continue;
    const chosen = answered<string[]>(await autocompleteMultiselect<string>({
      message: `Tables of ${database} to leave out (Tab marks one, Enter with none marked takes all ${formatCount(size.tables.length)})`, required: false, maxItems: shownRows,
      options: size.tables.map((t) => ({ value: tableKey(t), label: displayName(t.schema, t.name), hint: `${formatBytes(t.bytes)}${t.rows >= 0 ? `, about ${formatCount(Math.round(t.rows))} rows` : ''}` })),
    }));
    leftOut.set(database, new Set(chosen));
  }
  const waiting = spinner();
  waiting.start('Measuring');
  const lines: string[] = [];
  let total = 0;
  for (const database of databases) {
    const without = leftOut.get(database) ?? new Set<string>();
    const { bytes, ms } = await estimateCopy(withDatabase(source, database), { job: context.job, jobs: options.jobs ?? 4, takes: (t) => !without.has(tableKey(t)), budgetMs: sampleMs, signal: context.signal });
    total += bytes;
    lines.push(`${database.padEnd(24)} ${formatBytes(bytes).padStart(9)}   ${ms === null ? 'no rows' : `about ${formatDuration(ms)} for the rows`}${without.size === 0 ? '' : `   without ${[...without].map((key) => named(tableFromKey(key))).join(', ')}`}`);
  }
  waiting.stop('Measured by reading a sample');
  note([...lines, ...(databases.length > 1 ? [`${'together'.padEnd(24)} ${formatBytes(total).padStart(9)}`] : [])].join('\n'), 'Summary');
  if (!answered(await confirm({ message: `Go on with ${databases.length === 1 ? 'this' : `these ${databases.length} databases`}?`, initialValue: true }))) {
    cancel('Nothing was changed.');
    throw interruptedError('Nothing was changed.');
  }
  if (verb !== 'check') log.info('The same command goes on from wherever it stops; it will not ask again.');
  const alone = databases.length === 1 && databases[0] === source.database;
  return {
    ...rules, includeDatabases: alone ? [] : databases.map(exactly),
    excludeTables: databases.flatMap((database) => [...(leftOut.get(database) ?? [])].map((key) => ({ database: exactly(database), schema: exactly(tableFromKey(key).schema), name: exactly(tableFromKey(key).name) }))),
  };
}

async function chooseDatabases(context: JobContext, source: ConnectionSpec, rules: SelectionRules): Promise<string[]> {
  await using session = await Session.open(source, { role: 'choose', job: context.job, side: 'the source', signal: context.signal });
  const all = await serverDatabases(session);
  const ordinary = selectDatabases({ ...rules, allDatabases: true, includeDatabases: [] }, [...all, { name: source.database, isTemplate: false, allowsConnections: true }], source.database);
  const names = [...new Set([source.database, ...ordinary])];
  if (names.length === 1) return names;
  const sizes = new Map((await session.query<{ name: string; bytes: bigint | null }>(`select datname as name, case when pg_catalog.has_database_privilege(oid, 'connect') then pg_catalog.pg_database_size(oid) end as bytes from pg_catalog.pg_database`)).map((r) => [r.name, r.bytes]));
  return answered<string[]>(await multiselect<string>({
    message: 'Databases (space marks, Enter goes on)', required: true, initialValues: [source.database], maxItems: shownRows,
    options: names.map((name) => ({ value: name, label: name, hint: sizes.get(name) === null || sizes.get(name) === undefined ? 'no access' : formatBytes(Number(sizes.get(name))) })),
  }));
}

function named(table: TableRef): string {
  return displayName(table.schema, table.name);
}

function answered<T>(answer: T | symbol): T {
  if (!isCancel(answer)) return answer as T;
  cancel('Nothing was changed.');
  throw interruptedError('Nothing was changed.');
}
