import type { Lsn } from '../pg/lsn.ts';

/** 2000-01-01 in milliseconds since 1970: PostgreSQL's epoch. */
const postgresEpochMs = 946_684_800_000;

/** Milliseconds since 1970 of a time in microseconds since 2000. */
export function unixMs(postgresMicroseconds: bigint): number {
  return Number(postgresMicroseconds) / 1000 + postgresEpochMs;
}

export interface StandbyStatus {
  /** Received. */
  readonly writeLsn: Lsn;
  /** Durable: what the slot's confirmed_flush_lsn becomes, and the only one that lets WAL go. */
  readonly flushLsn: Lsn;
  /** The server answers with a keepalive at once. */
  readonly replyRequested: boolean;
}

/**
 * A CopyData frame with a standby status update. Source: PostgreSQL documentation, "Streaming Replication Protocol":
 * 'd' int32 length, 'r' lsn write, lsn flush, lsn apply, int64 microseconds since 2000, int8 reply requested.
 */
export function standbyStatusFrame(status: StandbyStatus, nowMs: number = Date.now()): Buffer {
  const frame = Buffer.alloc(39);
  frame[0] = 0x64;
  frame.writeInt32BE(38, 1);
  frame[5] = 0x72;
  frame.writeBigUInt64BE(status.writeLsn, 6);
  frame.writeBigUInt64BE(status.flushLsn, 14);
  frame.writeBigUInt64BE(status.flushLsn, 22);
  frame.writeBigInt64BE(BigInt(Math.round((nowMs - postgresEpochMs) * 1000)), 30);
  frame[38] = status.replyRequested ? 1 : 0;
  return frame;
}
