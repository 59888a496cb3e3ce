import type { Relation, Tuple } from '../pgoutput/messages.ts';
import type { Lsn } from '../pg/lsn.ts';

/**
 * What stands between receiving changes and applying them: a log of committed source transactions in commit order. Implementations: memory with
 * backpressure on the source (receive.ts), and segment files on disk (spool/). The reader pulls; whatever it confirms may be recycled at the source.
 */
export interface ChangeLog extends AsyncDisposable {
  /**
   * The next transactions: waits until there is at least one, then returns what is there up to `maxBytes` (always at least one). May be called again
   * before what it returned is confirmed. Rejects with `interrupted` when the signal fires, and with the log's own error once it can never go on:
   * slot lost, another system behind the address, spool full.
   */
  read(options: ReadOptions): Promise<Batch>;

  /**
   * Everything up to and including the transaction that ends at `endLsn` is durable at the reader's side: only this lets the source recycle WAL
   * and the spool drop segments. Never goes backwards; cheap; does no I/O of its own.
   */
  confirm(endLsn: Lsn): void;

  /**
   * Forgets what was read but not confirmed: the next `read` begins after the last confirmed transaction. For a reader that rolled a large transaction
   * back, or lost its target. The memory log reconnects for it, so use it after failures only.
   */
  rewind(): Promise<void>;

  position(): ChangeLogPosition;

  /**
   * Resolves once everything that the source wrote before `lsn` has been received and confirmed, also where nothing of it concerned us. Asks the server for its
   * position meanwhile, so that an idle source resolves at once too. Rejects as `read` does.
   */
  waitUntilConfirmed(lsn: Lsn, signal?: AbortSignal): Promise<void>;

  /** Stops receiving, tells the source what was confirmed, closes connections and files. Running reads reject with `interrupted`. */
  close(): Promise<void>;

  /** Of a spool, once closed: everything that it acknowledged to the source was confirmed, so that nothing needs it any more. */
  readonly drained?: boolean;
}

export interface ReadOptions {
  /** Bytes of messages after which no further transaction is added. A transaction that alone is larger, or has not arrived in whole, comes as a batch of kind `large`. */
  readonly maxBytes: number;
  readonly maxTransactions?: number;
  readonly signal?: AbortSignal | undefined;
}

export type Batch =
  | {
      readonly kind: 'transactions';
      /** In commit order, never empty. Held wholly in memory; stay valid as long as they are referenced. */
      readonly transactions: readonly SourceTransaction[];
      readonly bytes: number;
      /** Messages in all of them: row changes, truncates, logical messages. */
      readonly changeCount: number;
      /** More is waiting already: the reader is behind. Where false the reader should commit what it has at once. */
      readonly more: boolean;
    }
  | { readonly kind: 'large'; readonly transaction: LargeTransaction };

interface TransactionFacts {
  readonly xid: number;
  /** Start of the commit record. A table whose snapshot LSN is above it has the transaction's rows already. */
  readonly commitLsn: Lsn;
  /** Microseconds since 2000-01-01 UTC. */
  readonly commitTime: bigint;
  /** Name of the replication origin that the transaction itself was replicated from; undefined where it was written on the source. */
  readonly origin: string | undefined;
  /** Set where it was prepared and then committed with COMMIT PREPARED. */
  readonly gid: string | undefined;
}

/** A committed transaction of the source that is held in memory. */
export interface SourceTransaction extends TransactionFacts {
  /** First byte after the commit record: what `confirm` takes and what the replication origin stores. */
  readonly endLsn: Lsn;
  readonly bytes: number;
  readonly changeCount: number;
  /** Decodes anew at each call, in source order. Throws PgoutputError where the bytes are malformed. */
  changes(): Iterable<Change>;
}

/** A transaction that is too big for memory or still arriving. One pass only. */
export interface LargeTransaction extends TransactionFacts {
  /**
   * Its changes in source order, in parts that fit into memory. Throws `transaction-interrupted` (retry: backoff) where the connection broke before its end
   * arrived: roll the target transaction back and read again, the log has then already gone back to its beginning.
   */
  parts(signal?: AbortSignal): AsyncIterable<ChangePart>;
  /** Known when `parts` has ended; throws RangeError before. */
  readonly endLsn: Lsn;
}

export interface ChangePart {
  readonly bytes: number;
  readonly changeCount: number;
  /** Decodes anew at each call. */
  changes(): Iterable<Change>;
}

/**
 * One change, with the relation as it was at that point of the log. A `Relation` object stays the same as long as the source describes the table the
 * same way, over reconnects too, so that plans can be kept by it in a WeakMap.
 */
export type Change =
  | { readonly type: 'insert'; readonly relation: Relation; readonly newTuple: Tuple }
  | { readonly type: 'update'; readonly relation: Relation; readonly oldKind: 'key' | 'full' | undefined; readonly oldTuple: Tuple | undefined; readonly newTuple: Tuple }
  | { readonly type: 'delete'; readonly relation: Relation; readonly oldKind: 'key' | 'full'; readonly oldTuple: Tuple }
  | { readonly type: 'truncate'; readonly relations: readonly Relation[]; readonly cascade: boolean; readonly restartIdentity: boolean }
  /** A transactional logical message with our prefix (sentinel.ts); others are filtered out. */
  | { readonly type: 'message'; readonly lsn: Lsn; readonly prefix: string; readonly content: Buffer };

export interface ChangeLogPosition {
  /** Everything that the source wrote before it has been received in whole, or did not concern us. */
  readonly receivedLsn: Lsn;
  readonly confirmedLsn: Lsn;
  /** The source's own end of WAL as last heard. */
  readonly sourceLsn: Lsn;
  readonly connected: boolean;
  /** Received and not yet read. */
  readonly waitingBytes: number;
  readonly waitingTransactions: number;
  /** Bytes on disk, where the log is a spool. */
  readonly spoolBytes?: number;
}

/** Prefix of our transactional logical messages. */
export const messagePrefix = 'pgweave';
