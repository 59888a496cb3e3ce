import { Applier } from '../changes/apply/applier.ts';
import { controlFollower, runningFollower, type ControlAction } from '../changes/control.ts';
import { beginCopy, dropTable as dropFromJob, endCopy, failCopy, retryTable, skipTransaction } from '../changes/table-commands.ts';
import { readTableState, type TableRecord } from '../changes/table-states.ts';
import { ensureChangesSchema } from '../changes/target-schema.ts';
import { PgweaveError } from '../core/errors.ts';
import type { Emit, TableState } from '../core/events.ts';
import type { JobFolder } from '../core/job-folder.ts';
import type { TableRef } from '../core/tables.ts';
import { isWayBack } from '../core/way-back.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { displayName, quoteIdent } from '../pg/identifiers.ts';
import { formatLsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { ControlDesk } from './follow/control-desk.ts';
import { keptSelection } from '../copy/kept-selection.ts';
import { applierFilters } from './follow/row-filters.ts';
import { tableRules } from './follow/table-rules.ts';
import { publicationNamesOf } from './publications.ts';

export type TableAction = 'retry' | 'skip-transaction' | 'copy-again' | 'add' | 'drop';

export interface TableOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly table: TableRef;
  /** Absent: only look. */
  readonly action?: TableAction | undefined;
  /** The job's folder, where the rules are kept by which it was cloned. */
  readonly folder?: JobFolder;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: Emit;
}

export interface TableResult {
  readonly table: TableRef;
  /** Null where the table is not, or no longer, part of the job. */
  readonly state: TableState | null;
  readonly rowKey: string | null;
  readonly sqlstate: string | null;
  /** Changes that wait on the target. */
  readonly waiting: number;
  /** LSN of the snapshot that its rows were copied in. */
  readonly copiedLsn: string | null;
  /** Done by the running follower, or by this call since none runs. */
  readonly by: 'follower' | 'here' | null;
  /** Set by skip-transaction. */
  readonly skippedLsn: string | null;
}

/** A table may be large; whoever waits can interrupt. */
const copyTimeoutMs = 7 * 24 * 3_600_000;

/**
 * Settles one table of a job: by the follower where one runs, from whichever machine, else here. Resolves when done; the state tells whether a retry went through.
 * Throws `unknown-table`, `table-not-paused`, `table-not-copied`, `nothing-to-skip`.
 */
export async function tableCommand(options: TableOptions): Promise<TableResult> {
  const { job, table, action, signal } = options;
  await using target = await Session.open(options.target, { role: 'table', job, side: 'the target', signal });
  await target.query('set default_transaction_read_only = off');
  await ensureChangesSchema(target);
  const known = await readTableState(target, job, table);
  if (action === undefined) return await look(target, options, null, null, known);
  if (!known && action !== 'add' && action !== 'copy-again') {
    throw new PgweaveError('unknown-table', `job "${job}" has no table ${displayName(table.schema, table.name)}`, { hint: `To take it in: pgweave table ${displayName(table.schema, table.name)} --add`, retry: 'never' });
  }
  if (known && action === 'add' && (known.state.name === 'streaming' || known.state.name === 'copied')) {
    throw new PgweaveError('table-there', `job "${job}" has ${displayName(table.schema, table.name)} already, ${known.state.name}`, { hint: 'To copy it anew: --copy-again', retry: 'never' });
  }
  const asked: Exclude<TableAction, 'add'> = action === 'add' ? 'copy-again' : action;
  if (asked === 'copy-again' && isWayBack(job)) await refuseLossyCopy(target, job, table);
  if (await runningFollower(target, job)) {
    const { answer } = await controlFollower(target, job, { action: asked satisfies ControlAction, table }, { timeoutMs: copyTimeoutMs, signal });
    return await look(target, options, 'follower', typeof answer['skippedLsn'] === 'string' ? answer['skippedLsn'] : null);
  }
  const skipped = await actHere(options, asked);
  return await look(target, options, 'here', skipped);
}

/** On the way back the target is the old source: emptying a table there would lose what the new primary was never given. */
async function refuseLossyCopy(target: Session, job: string, table: TableRef): Promise<void> {
  const kept = await keptSelection(target, job);
  const own = kept.excludedColumns(table);
  if (own.length === 0 && kept.rowCondition(table) === undefined) return;
  const shown = displayName(table.schema, table.name);
  throw new PgweaveError('copy-would-lose', `${shown} cannot be copied again on the way back: ${own.length > 0 ? `${own.map(quoteIdent).join(', ')} of the old source would be lost` : 'rows of the old source that the job leaves out would be lost'}`, {
    hint: `Mend what differs instead: pgweave verify --job ${job} --tables ${shown} --repair, with the ends of the way back as --source and --target.`, retry: 'never',
  });
}

async function look(target: Session, options: TableOptions, by: TableResult['by'], skippedLsn: string | null, known?: TableRecord): Promise<TableResult> {
  const { job, table } = options;
  const record = known ?? (await readTableState(target, job, table));
  const { waiting } = await target.one<{ waiting: bigint }>('select coalesce(pg_catalog.sum(change_count), 0)::pg_catalog.int8 as waiting from pgweave.parked_changes where job = $1 and schema_name = $2 and table_name = $3', [job, table.schema, table.name]);
  return {
    table: { schema: table.schema, name: table.name }, state: record?.state ?? null, rowKey: record?.rowKey ?? null, sqlstate: record?.sqlstate ?? null, waiting: Number(waiting), copiedLsn: record?.copiedLsn === undefined ? null : formatLsn(record.copiedLsn), by, skippedLsn,
  };
}

/** The filters by which waiting changes are taken; the source knows which of them it applies itself. */
async function filtersHere(options: TableOptions, target: Session): Promise<(table: TableRef) => string | undefined> {
  const { source, job, signal } = options;
  await using session = await Session.open(source, { role: 'table', job, side: 'the source', signal });
  return await applierFilters(session, job, Object.values(publicationNamesOf(job)), await tableRules(options, session, target));
}

/** No follower runs: an applier without a log, under the follower's lock, does the same. */
async function actHere(options: TableOptions, action: Exclude<TableAction, 'add'>): Promise<string | null> {
  const { source, target, job, table, signal } = options;
  const emit: Emit = options.onEvent ?? (() => undefined);
  const desk = await ControlDesk.open({ target, job, emit });
  const held: { session: Session | undefined } = { session: undefined };
  const control = async () => (held.session = held.session && !held.session.lost ? held.session : await Session.open(target, { role: 'table control', job, side: 'the target' }));
  const { tables, mapTo, excludedColumns } = await keptSelection(await control(), job);
  const rowFilter = tables.some((t) => t.where !== undefined) ? await filtersHere(options, await control()) : undefined;
  // Parked changes may have come in either form: statements take them by each value's own.
  const applier = new Applier({ target, job, binary: false, emit, control, addColumns: false, unknownTables: 'pause', mapTable: mapTo, excludedColumns, rowFilter, signal });
  let running: Promise<void> | undefined;
  try {
    await applier.open();
    running = applier.run();
    running.catch(() => undefined);
    switch (action) {
      case 'retry':
        await retryTable(applier, table);
        return null;
      case 'skip-transaction': return (await skipTransaction(applier, table)).skippedLsn;
      case 'copy-again': {
        const { recopyTable } = await import('./follow/recopy.ts');
        await beginCopy(applier, table);
        try {
          await using session = await Session.open(source, { role: 'table', job, side: 'the source', signal });
          await recopyTable({ source, target, job, emit, signal, rules: await tableRules(options, session, await control()) }, table);
        } catch (error) {
          await failCopy(applier, table, error).catch(() => undefined);
          throw error;
        }
        await endCopy(applier, table);
        return null;
      }
      case 'drop': {
        const { unpublishTable } = await import('./follow/recopy.ts');
        await unpublishTable(source, job, table);
        await dropFromJob(applier, table);
        return null;
      }
      default:
        action satisfies never;
        return null;
    }
  } finally {
    applier.stop();
    await running?.catch(() => undefined);
    await applier.close();
    await desk.close();
    await held.session?.close();
  }
}
