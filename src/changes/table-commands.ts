import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { TableState } from '../core/events.ts';
import type { TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import { formatLsn } from '../pg/lsn.ts';
import type { Applier } from './apply/applier.ts';
import { skipFirstParked } from './apply/parked.ts';
import type { Gate } from './apply/table-gates.ts';
import { recordTableEvent, removeTableState } from './table-states.ts';

/**
 * What a person does about a paused table, on an applier that runs or was opened for this alone (workflows/table.ts). Each is safe to repeat. The changes that wait are
 * applied in source order; where one fails again the table stays paused, at that transaction.
 */

/** Applies the changes that wait for a table. Resolves when they are through, or the table is paused again; the state tells. */
export async function retryTable(applier: Applier, table: TableRef): Promise<TableState> {
  await applier.atBoundary(() => applier.gates.load());
  const gate = gateOf(applier, table);
  if (gate.record.state.name === 'streaming' && !gate.parked) return gate.record.state;
  if (gate.record.state.name !== 'paused' && !gate.parked) {
    throw new PgweaveError('table-not-paused', `${displayName(table.schema, table.name)} is ${gate.record.state.name}: there is nothing to retry`, { retry: 'never' });
  }
  if (gate.record.copiedLsn === undefined) {
    throw new PgweaveError('table-not-copied', `${displayName(table.schema, table.name)} was never copied whole: its changes have nothing to apply to`, { hint: `pgweave table ${displayName(table.schema, table.name)} --copy-again`, retry: 'never' });
  }
  await applier.drain(gate);
  return gate.record.state;
}

/** Forgets what the first transaction that waits does to this table, then goes on as `retryTable`. */
export async function skipTransaction(applier: Applier, table: TableRef): Promise<{ readonly skippedLsn: string; readonly state: TableState }> {
  gateOf(applier, table);
  const skipped = await applier.atBoundary(() => skipFirstParked(applier.control, applier.job, table));
  if (skipped === undefined) throw new PgweaveError('nothing-to-skip', `no change waits for ${displayName(table.schema, table.name)}`, { retry: 'never' });
  return { skippedLsn: formatLsn(skipped), state: await retryTable(applier, table) };
}

/** From now on the table's changes are parked: its rows are about to be copied anew. An unknown table joins the job. */
export function beginCopy(applier: Applier, table: TableRef): Promise<void> {
  return applier.atBoundary(async () => {
    await recordTableEvent(applier.control, applier.job, table, { type: 'copy-again' });
    await recordTableEvent(applier.control, applier.job, table, { type: 'copy-started' });
    await applier.gates.load();
    applier.gates.announce(applier.gates.get(table)!);
  });
}

/** The table's rows are in, its state is `copied` on the target: changes from its snapshot on are applied, older ones dropped. */
export async function endCopy(applier: Applier, table: TableRef): Promise<void> {
  await applier.atBoundary(() => applier.gates.load());
  const gate = applier.gates.get(table)!;
  applier.gates.announce(gate);
  await applier.drain(gate);
}

/** Pauses a table whose copy failed for good. */
export function failCopy(applier: Applier, table: TableRef, error: unknown): Promise<void> {
  return applier.atBoundary(() => applier.gates.record(applier.gates.get(table)!, { type: 'failed', reason: `copying ${displayName(table.schema, table.name)} failed: ${errorMessage(error)}`, lsn: undefined }));
}

/** Takes a table out of the job. Its rows on the target stay. */
export async function dropTable(applier: Applier, table: TableRef): Promise<void> {
  gateOf(applier, table);
  await applier.atBoundary(async () => {
    await removeTableState(applier.control, applier.job, table);
    applier.gates.leave(table);
  });
}

/** Takes many tables out at once; those that the job does not know are passed over. */
export async function dropTables(applier: Applier, tables: readonly TableRef[]): Promise<void> {
  await applier.atBoundary(async () => {
    for (const table of tables) {
      await removeTableState(applier.control, applier.job, table);
      applier.gates.leave(table);
    }
  });
}

function gateOf(applier: Applier, table: TableRef): Gate {
  const gate = applier.gates.get(table);
  if (!gate) throw new PgweaveError('unknown-table', `job "${applier.job}" has no table ${displayName(table.schema, table.name)}`, { hint: 'pgweave status --all-tables lists what it has.', retry: 'never' });
  return gate;
}
