import { errorMessage, isInterrupted, PgweaveError } from '../core/errors.ts';
import { redact } from '../core/redact.ts';
import { isConnectionLoss, sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import type { Statement } from './plan.ts';
import { describeObject } from './statements.ts';

const duplicates = new Set<string>([sqlstate.duplicateObject, sqlstate.duplicateTable, sqlstate.duplicateSchema, '42723', '42P06', '42701']);
/** A syntax or feature that an older server does not know. */
const unknown = new Set<string>(['42601', sqlstate.featureNotSupported, '22023']);

function hintFor(state: string | undefined, statement: Statement, text: string): string {
  const what = describeObject(statement.object);
  if (state === undefined) return 'Run the same command again: what is done is not done again.';
  if (statement.object.kind === 'extension') {
    if (state === sqlstate.insufficientPrivilege) return `Have it made by a role that may: create extension "${statement.object.name}". Then run the same command again.`;
    return `Install the extension's package on the target server (managed services list what they allow), or drop it from the source where nothing uses it. Then run the same command again.`;
  }
  if (duplicates.has(state)) return `Drop it on the target, or run with --drop-existing. Something else than this job made ${what}.`;
  if (state === sqlstate.insufficientPrivilege) return 'Connect to the target with a role that may do this (a superuser, or the owner of the database who is a member of the owning roles), or use --no-owner. Then run the same command again.';
  if (state === sqlstate.undefinedObject && /\brole\b/.test(text)) return 'Create the role on the target first, or leave out --no-roles, or use --no-owner.';
  if (state === sqlstate.diskFull || state === sqlstate.outOfMemory) return 'Make room on the target, then run the same command again: what is done is not done again.';
  if (state === sqlstate.undefinedFunction || state === sqlstate.undefinedTable || state === sqlstate.undefinedColumn) {
    return 'Either it was left out by the selection, or a function uses a name without its schema and relies on search_path, which is empty while restoring: ALTER FUNCTION … SET search_path on the source cures that.';
  }
  if (state === sqlstate.uniqueViolation) return 'The rows on the target are not unique: the target was written to by somebody else, or collations or a broken index on the source let duplicates in. Run REINDEX on the source to see.';
  if (state === sqlstate.foreignKeyViolation) return 'Rows of the source do not fit the key. Mend them there, or drop the constraint.';
  if (unknown.has(state)) return 'The target\'s version may not know this (a newer source, or an extension that is missing). Drop it on the source, leave the table out with --exclude-tables, or choose a newer target.';
  if (state === sqlstate.objectInUse || state === sqlstate.lockNotAvailable) return 'Another session holds a lock on the target. End it, then run the same command again.';
  return 'Run the same command again once the cause is mended: what is done is not done again.';
}

/** Says which object could not be restored, why, with which SQL, and what to do. Interruption and lost connections are passed on as what they are. */
export function restoreError(error: unknown, statement: Statement): PgweaveError {
  if (isInterrupted(error)) return error as PgweaveError;
  const text = errorMessage(error);
  const { detail } = error as { detail?: unknown };
  if (isConnectionLoss(error)) {
    return new PgweaveError('connection-lost', `the connection to the target was lost at ${describeObject(statement.object)}: ${text}`, { hint: 'Run the same command again: what is done is not done again.', retry: 'backoff', cause: error });
  }
  const state = sqlstateOf(error);
  const why = typeof detail === 'string' && detail !== '' ? `${text} (${redact(detail)})` : text;
  return new PgweaveError('restore-failed', `cannot restore ${describeObject(statement.object)}: ${why}`, {
    hint: `${hintFor(state, statement, text)}\nSQL: ${statement.sql.length > 600 ? `${statement.sql.slice(0, 600)}…` : statement.sql}`,
    cause: error, details: { object: describeObject(statement.object), sqlstate: state ?? null, sql: redact(statement.sql) },
  });
}

/** Whether an error says that something of this name is there already. */
export function isDuplicate(error: unknown): boolean {
  return duplicates.has(sqlstateOf(error) ?? '');
}

/** Whether an error says that the thing is there already and that is as good: a schema is only a place. */
export function alreadyThere(error: unknown, statement: Statement): boolean {
  return statement.object.kind === 'schema' && sqlstateOf(error) === sqlstate.duplicateSchema;
}

/** Whether an error may become a warning for this statement. */
export function tolerable(error: unknown, statement: Statement): boolean {
  const state = sqlstateOf(error);
  if (state === undefined || statement.tolerate === undefined || isConnectionLoss(error)) return false;
  switch (statement.tolerate) {
    case 'always': return true;
    case 'unpopulated': return state === sqlstate.objectNotInPrerequisiteState;
    case 'extension-comment': return state === sqlstate.insufficientPrivilege;
    // A role that is not there, a privilege that the server's version does not have (MAINTAIN before 17), or one that we may not give.
    case 'privilege': return [sqlstate.insufficientPrivilege, sqlstate.undefinedObject, '0LP01', '0P000', '0L000', '42601', '22023'].includes(state as never);
  }
}
