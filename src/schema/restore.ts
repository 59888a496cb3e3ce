import { sleep, throwIfAborted } from '../core/abort.ts';
import { errorMessage } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { failpoint } from '../core/failpoints.ts';
import type { Session } from '../pg/session.ts';
import { isConnectionLoss, sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import type { Ledger } from './ledger.ts';
import type { ForeignKeyStatement, IndexStatement, SchemaPlan, Statement } from './plan.ts';
import { alreadyThere, restoreError, tolerable } from './restore-error.ts';
import { describeObject } from './statements.ts';

export interface RestoreContext {
  readonly ledger: Ledger;
  readonly emit: Emit;
  readonly signal?: AbortSignal | undefined;
  /** Owners that cannot be given yet are left for later without a word: {@link restoreOwners} tries again. */
  readonly ownersLater?: boolean;
  /** Called after each statement that is done, also where an earlier run did it. */
  readonly onDone?: (statement: Statement) => void;
}

/** Statements sent in one go, with their ledger lines, in one transaction: saves round trips to a far target. */
const batchStatements = 40;
const batchCharacters = 60_000;

/**
 * Settings of a session that restores: bodies of functions are not checked, as in pg_dump's own scripts. Everything else is in every session of ours.
 */
export async function prepareRestore(session: Session): Promise<void> {
  await session.query('set check_function_bodies = off');
}

/** Restores one phase on one session in order. What the ledger knows is skipped. Throws `restore-failed` with object, SQL and fix. */
export async function restorePhase(session: Session, plan: SchemaPlan, phase: 'pre-data' | 'attach' | 'post-data', context: RestoreContext): Promise<void> {
  const statements = phase === 'pre-data' ? plan.preData : phase === 'attach' ? plan.attach : plan.postData;
  await restoreStatements(session, statements, context);
}

/**
 * Gives objects their owners where that was not possible at first: whoever gets an object in a schema must be allowed to create there, and privileges on schemas are restored late.
 * What is not possible now either is a warning.
 */
export async function restoreOwners(session: Session, plan: SchemaPlan, context: RestoreContext): Promise<void> {
  await restoreStatements(session, plan.preData.filter((statement) => givesOwner(statement) && !context.ledger.done(statement.key)), context);
}

function givesOwner({ object }: Statement): boolean {
  return object.kind.startsWith('owner of ');
}

/** Restores statements in order, in batches; where a batch fails, its statements run one by one so that the error names the one. */
export async function restoreStatements(session: Session, statements: readonly Statement[], context: RestoreContext): Promise<void> {
  await prepareRestore(session);
  let batch: Statement[] = [];
  let length = 0;
  const flush = async () => {
    if (batch.length > 0) await runBatch(session, batch, context);
    batch = [];
    length = 0;
  };
  for (const statement of statements) {
    if (context.ledger.done(statement.key)) {
      context.onDone?.(statement);
      continue;
    }
    // What may fail or takes long (a refresh) runs alone.
    const alone = statement.tolerate === 'always' || statement.object.kind === 'extension' || statement.object.kind === 'rows of materialized view';
    if (alone || batch.length >= batchStatements || length + statement.sql.length > batchCharacters) await flush();
    batch.push(statement);
    length += statement.sql.length;
    if (alone) await flush();
  }
  await flush();
}

async function runBatch(session: Session, batch: readonly Statement[], context: RestoreContext): Promise<void> {
  throwIfAborted(context.signal);
  if (batch.length > 1 && (await tryTogether(session, batch, context))) {
    await failpoint('restore-batch');
    return;
  }
  for (const statement of batch) await runStatement(session, statement, context);
}

/** False where one of them failed: then none is done. */
async function tryTogether(session: Session, batch: readonly Statement[], context: RestoreContext): Promise<boolean> {
  const { ledger } = context;
  try {
    await inTransaction(session, ...batch.flatMap((statement) => [statement.sql, ledger.lineSql(statement.key)]));
  } catch (error) {
    if (isConnectionLoss(error)) throw restoreError(error, batch[0]!);
    return false;
  }
  ledger.confirm(...batch.map((statement) => statement.key));
  for (const statement of batch) context.onDone?.(statement);
  return true;
}

/** Runs one statement and writes its ledger line in the same transaction. `tolerated`: it failed in a way that is only a warning. */
export async function runStatement(session: Session, statement: Statement, context: RestoreContext): Promise<'done' | 'skipped' | 'tolerated'> {
  const { ledger, emit } = context;
  if (ledger.done(statement.key)) {
    context.onDone?.(statement);
    return 'skipped';
  }
  throwIfAborted(context.signal);
  let result: 'done' | 'tolerated' = 'done';
  try {
    await retryingInternal(context.signal, () => inTransaction(session, statement.sql, ledger.lineSql(statement.key)));
  } catch (error) {
    if (alreadyThere(error, statement)) await ledger.mark(session, statement.key, 'was there');
    else {
      if (!tolerable(error, statement)) throw restoreError(error, statement);
      if (context.ownersLater && givesOwner(statement)) {
        context.onDone?.(statement);
        return 'tolerated';
      }
      emit({ type: 'warning', code: 'restore-tolerated', message: `${describeObject(statement.object)}: ${errorMessage(error)}`, hint: 'The restore went on without it.' });
      await ledger.mark(session, statement.key, `tolerated: ${errorMessage(error)}`);
      result = 'tolerated';
    }
  }
  ledger.confirm(statement.key);
  context.onDone?.(statement);
  await failpoint('restore-statement');
  return result;
}

/**
 * `tuple concurrently updated` (XX000) meets who changes a row of a catalog that another session changes at the same moment: roles, memberships and privileges of databases and
 * parameters are the whole server's. Trying again is all it takes.
 */
export async function retryingInternal<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (sqlstateOf(error) !== 'XX000' || attempt > 5) throw error;
      await sleep(50 * attempt, signal);
    }
  }
}

/** One round trip. After an error the transaction is rolled back and the session can go on. */
async function inTransaction(session: Session, ...statements: readonly string[]): Promise<void> {
  try {
    await session.query(['begin', ...statements, 'commit'].join(';\n'));
  } catch (error) {
    if (!isConnectionLoss(error)) await session.query('rollback').catch(() => undefined);
    throw error;
  }
}

/**
 * Builds one index (or adds an exclusion constraint). For pools of sessions: several at once on one table, see {@link IndexStatement.lock}. The session's
 * settings (maintenance_work_mem, parallel workers) are the caller's.
 */
export async function buildIndex(session: Session, index: IndexStatement, context: RestoreContext): Promise<'done' | 'skipped' | 'tolerated'> {
  return runStatement(session, index, context);
}

/** Turns the built unique indexes of a table into its keys; run when all builds of the table are done. */
export async function addKeys(session: Session, indexes: readonly IndexStatement[], context: RestoreContext): Promise<void> {
  for (const { constraint } of indexes) if (constraint) await runStatement(session, constraint, context);
}

/**
 * Adds one foreign key. For pools of sessions: the key is added NOT VALID, which holds both tables for a moment only, then validated beside others. Where rows of
 * the source do not fit (they were loaded with triggers off there), the key stays NOT VALID and a warning says so. `validate: false` leaves all NOT VALID.
 */
export async function addForeignKey(session: Session, key: ForeignKeyStatement, context: RestoreContext & { readonly validate?: boolean }): Promise<void> {
  const { ledger, emit } = context;
  if (!key.inSteps) {
    await runStatement(session, key, context);
    return;
  }
  await runStatement(session, { ...key, sql: key.inSteps.add }, { ...context, onDone: () => undefined });
  const validation: Statement = { ...key, key: `validate ${key.key}`, sql: key.inSteps.validate };
  if (context.validate !== false && !ledger.done(validation.key)) {
    try {
      await runStatement(session, validation, { ...context, onDone: () => undefined });
    } catch (error) {
      const cause = (error as { cause?: unknown }).cause;
      if (sqlstateOf(cause) !== sqlstate.foreignKeyViolation) throw error;
      emit({
        type: 'warning', code: 'foreign-key-not-valid', message: `${describeObject(key.object)} stays NOT VALID: ${errorMessage(cause)}${(cause as { detail?: string }).detail ? ` (${(cause as { detail?: string }).detail})` : ''}`,
        hint: `New rows are checked; rows of the source break it. Mend them, then: ${key.inSteps.validate};`,
      });
      await ledger.mark(session, validation.key, 'rows break the key');
      ledger.confirm(validation.key);
    }
  }
  context.onDone?.(key);
}
