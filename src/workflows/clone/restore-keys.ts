import type { TableIndexes } from '../../copy/index-queue.ts';
import { errorMessage } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoints.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { quoteLiteral } from '../../pg/identifiers.ts';
import { sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';
import { Session } from '../../pg/session.ts';
import type { IndexStatement, SchemaPlan, Statement } from '../../schema/plan.ts';
import { addForeignKey, addKeys, buildIndex, type RestoreContext } from '../../schema/restore.ts';
import type { End } from './ends.ts';

/** The plan's indexes by table. */
export function indexesByTable(plan: SchemaPlan): Map<string, IndexStatement[]> {
  const byTable = new Map<string, IndexStatement[]>();
  for (const index of plan.indexes) {
    const key = tableKey(index.table);
    const list = byTable.get(key);
    if (list) list.push(index);
    else byTable.set(key, [index]);
  }
  return byTable;
}

/** What the index queue has to do for a table; what the ledger knows is left out. */
export function tableIndexes(table: TableRef, bytes: number, indexes: readonly IndexStatement[], context: RestoreContext): TableIndexes {
  const { ledger } = context;
  const open = (statement: Statement | undefined): statement is Statement => statement !== undefined && !ledger.done(statement.key);
  return {
    table, bytes,
    builds: indexes.filter((index) => open(index)).map((index) => ({
      name: index.name, lock: index.lock,
      build: async (session: Session, again: boolean) => {
        if (again) await askLedger(session, context, [index]);
        await buildIndex(session, index, context);
      },
    })),
    attach: indexes.some((index) => open(index.constraint)) ? [
      async (session: Session, again: boolean) => {
        if (again) await askLedger(session, context, indexes.flatMap((index) => index.constraint ?? []));
        await addKeys(session, indexes, context);
      },
    ] : [],
  };
}

/** After a connection was lost only the target knows whether the last transaction was committed. */
async function askLedger(session: Session, { ledger }: RestoreContext, statements: readonly Statement[]): Promise<void> {
  const keys = statements.map((s) => quoteLiteral(s.key).trim()).join(', ');
  const rows = await session.query<{ key: string }>(`select key from pgweave.ledger where job = ${quoteLiteral(ledger.job).trim()} and key in (${keys})`);
  ledger.confirm(...rows.map((row) => row.key));
}

/**
 * Adds the foreign keys NOT VALID one after another, which is a matter of moments, then validates several at once. A validation reads both tables under locks that let other
 * validations go on.
 */
export async function addForeignKeys(target: End, plan: SchemaPlan, jobs: number, context: RestoreContext, signal: AbortSignal): Promise<void> {
  for (const key of plan.foreignKeys) await addForeignKey(target.session, key, { ...context, validate: false });
  await failpoint('clone.foreign-keys-added');
  const queue = plan.foreignKeys.filter((key) => key.inSteps);
  const worker = async () => {
    await using session = await Session.open(target.spec, { role: 'keys', job: context.ledger.job, side: 'the target', signal });
    for (let key = queue.shift(); key; key = queue.shift()) await validateKey(session, key, context);
  };
  await Promise.all(Array.from({ length: Math.min(jobs, queue.length) }, worker));
}

async function validateKey(session: Session, key: SchemaPlan['foreignKeys'][number], context: RestoreContext): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await addForeignKey(session, key, context);
      return;
    } catch (error) {
      if (sqlstateOf((error as { cause?: unknown }).cause) !== sqlstate.deadlockDetected || attempt >= 5) throw error;
      context.emit({ type: 'log', level: 'debug', message: `trying again: ${errorMessage(error)}` });
    }
  }
}

