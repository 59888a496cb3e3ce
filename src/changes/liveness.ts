/** How often we speak and how long silence may last, all in milliseconds. */
export interface Liveness {
  /** A standby status goes out at least this often. */
  readonly statusEveryMs: number;
  /** After this long without a byte from the server we ask for a reply. */
  readonly askAfterMs: number;
  /** After this long without a byte, although we read, the connection is given up. */
  readonly deadAfterMs: number;
}

const longestStatusMs = 10_000;

/**
 * Derived from the server's wal_sender_timeout (0: the server waits for ever). The server gives a connection up that it has not heard of for that long, and asks
 * for a reply after half of it (walsender.c, WalSndKeepaliveIfNecessary); a status every quarter survives two lost or late ones. 10 s at most, as
 * wal_receiver_status_interval. The other way round we wait twice as long as the server would: a walsender that reads its way through a large transaction of
 * another database may be silent for a while.
 */
export function livenessFor(walSenderTimeoutMs: number): Liveness {
  const timeout = walSenderTimeoutMs > 0 ? walSenderTimeoutMs : 60_000;
  return {
    statusEveryMs: Math.max(10, Math.min(longestStatusMs, Math.floor(timeout / 4))),
    askAfterMs: Math.max(20, Math.min(30_000, Math.floor(timeout / 2))),
    deadAfterMs: Math.max(1000, Math.min(600_000, timeout * 2)),
  };
}
