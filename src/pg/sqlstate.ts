import { PgweaveError } from '../core/errors.ts';

/** SQLSTATE codes that decisions rest on. Source: PostgreSQL documentation, appendix A. */
export const sqlstate = {
  connectionException: '08000',
  connectionFailure: '08006',
  featureNotSupported: '0A000',
  invalidPassword: '28P01',
  invalidAuthorization: '28000',
  uniqueViolation: '23505',
  foreignKeyViolation: '23503',
  exclusionViolation: '23P01',
  undefinedTable: '42P01',
  undefinedColumn: '42703',
  undefinedObject: '42704',
  undefinedFunction: '42883',
  duplicateObject: '42710',
  duplicateTable: '42P07',
  duplicateSchema: '42P06',
  duplicateDatabase: '42P04',
  insufficientPrivilege: '42501',
  invalidCatalogName: '3D000',
  serializationFailure: '40001',
  deadlockDetected: '40P01',
  lockNotAvailable: '55P03',
  objectInUse: '55006',
  objectNotInPrerequisiteState: '55000',
  queryCanceled: '57014',
  adminShutdown: '57P01',
  crashShutdown: '57P02',
  cannotConnectNow: '57P03',
  diskFull: '53100',
  outOfMemory: '53200',
  tooManyConnections: '53300',
  readOnlySqlTransaction: '25006',
} as const;

/** The SQLSTATE of an error that came from a server, else undefined. */
export function sqlstateOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { code } = error as { code?: unknown };
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

const transient = new Set<string>([
  sqlstate.serializationFailure, sqlstate.deadlockDetected, sqlstate.adminShutdown, sqlstate.crashShutdown, sqlstate.cannotConnectNow,
  sqlstate.tooManyConnections, sqlstate.connectionException, sqlstate.connectionFailure, sqlstate.lockNotAvailable,
]);
const socketCodes = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN', 'ENOENT']);

/** True where the connection is gone or could not be made: a new connection may work. */
export function isConnectionLoss(error: unknown): boolean {
  const state = sqlstateOf(error);
  if (state !== undefined) return state.startsWith('08') || state === sqlstate.adminShutdown || state === sqlstate.crashShutdown || state === sqlstate.cannotConnectNow;
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code === 'string' && (socketCodes.has(code) || code === 'connection-lost')) return true;
  // node-postgres gives no code for these two.
  return typeof message === 'string' && /^(Connection terminated|Client has encountered a connection error)/.test(message);
}

/** True where the same statement may work if tried again: deadlock, serialization, restart, connection loss. */
export function isTransient(error: unknown): boolean {
  const state = sqlstateOf(error);
  return (state !== undefined && transient.has(state)) || isConnectionLoss(error);
}

/** As {@link isTransient}, and also where connecting itself failed in a way that may pass: refused, no answer, starting up, too many connections. */
export function mayWorkAgain(error: unknown): boolean {
  return isTransient(error) || (error instanceof PgweaveError && error.retry === 'backoff');
}
