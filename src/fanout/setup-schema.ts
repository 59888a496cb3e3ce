import { tableKey } from '../core/tables.ts';
import { dumpSchema } from '../schema/dump.ts';
import type { SchemaPlan, Statement } from '../schema/plan.ts';
import { isDuplicate, restoreError, tolerable } from '../schema/restore-error.ts';
import { planSchema } from '../schema/statements.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { isConnectionLoss } from '../pg/sqlstate.ts';
import type { FanoutTarget } from './config.ts';
import { resolveTables, schemaFaults, type SchemaFault } from './tables.ts';

/**
 * Makes the tables that a target lacks, as the source has them, without rows, owners, roles and grants. What is there is left alone, tables and types alike; columns that tables lack are returned. A
 * renamed table has to be made by hand: its copy would bear the source's name.
 */
export async function setUpSchema(source: ConnectionSpec, target: FanoutTarget, signal: AbortSignal): Promise<{ readonly made: number; readonly left: readonly SchemaFault[] }> {
  await using onSource = await Session.open(source, { role: 'fanout', job: target.name, side: 'the source', signal });
  await using onTarget = await Session.open(target.connection, { role: 'fanout', job: target.name, side: `target ${target.name}`, signal });
  const tables = await resolveTables(onSource, target);
  const faults = await schemaFaults(onTarget, tables);
  const missing = new Set(faults.filter((f) => f.column === undefined).map((f) => tableKey(f.table)));
  const make = new Set(tables.chosen.filter((s) => missing.has(tableKey(s.mapTo)) && tableKey(s.mapTo) === tableKey(s.table)).map((s) => tableKey(s.table)));
  if (make.size > 0) {
    const { text } = await dumpSchema({ source: onSource, dumper: 'auto', job: target.name, signal });
    const plan = await planSchema(text, { includeTable: (table, root) => make.has(tableKey(root ?? table)) || make.has(tableKey(table)), owners: false, privileges: false });
    await onTarget.query('set check_function_bodies = off');
    await onTarget.transaction(async () => {
      for (const statement of statementsOf(plan)) await run(onTarget, statement);
    });
  }
  return { made: make.size, left: await schemaFaults(onTarget, tables) };
}

function* statementsOf(plan: SchemaPlan): Iterable<Statement> {
  yield* plan.preData;
  for (const index of plan.indexes) {
    yield index;
    if (index.constraint) yield index.constraint;
  }
  yield* plan.attach;
  yield* plan.foreignKeys;
  yield* plan.postData;
}

/** Types, functions, sequences and views that are there already, from an earlier table or by hand, serve as they are. */
async function run(target: Session, statement: Statement): Promise<void> {
  await target.query('savepoint one');
  try {
    await target.query(statement.sql);
    await target.query('release savepoint one');
  } catch (error) {
    const passes = isDuplicate(error) || tolerable(error, statement);
    if (isConnectionLoss(error) || !passes) throw restoreError(error, statement);
    await target.query('rollback to savepoint one');
  }
}
