/** `pgweave/pgoutput`: the decoder of PostgreSQL's logical replication plugin alone. No I/O, no dependencies. */
export { decodeMessage, messageKind, PgoutputDecoder } from './decoder.ts';
export { PgoutputError } from './error.ts';
export { columnArrays, columnValue, readColumns, type ColumnArrays } from './tuple.ts';
export * from './messages.ts';
export { formatLsn, parseLsn, type Lsn } from '../pg/lsn.ts';
