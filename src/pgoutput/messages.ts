import type { Lsn } from '../pg/lsn.ts';

/**
 * Logical replication messages of the plugin pgoutput as typed views on the received bytes.
 * Source: PostgreSQL documentation, "Logical Replication Message Formats"; protocol versions 1 to 4.
 * Column values are never parsed: a tuple gives kind, offset and length of each column within `bytes`.
 */

/** Kind of one column of a tuple, as on the wire: null, unchanged TOAST value, text, binary. */
export const columnKind = { null: 0x6e, unchanged: 0x75, text: 0x74, binary: 0x62 } as const;

/**
 * A row as received; nothing is copied and no array is made until asked for. `kinds[i]`, `offsets[i]`, `lengths[i]` describe column i of the relation;
 * values are `bytes.subarray(offset, offset + length)`. Hot paths walk `bytes` from `start` to `end`, or fill arrays of their own with `readColumns`
 * (decoder.ts), instead of the three getters, which build their arrays at the first access.
 */
export interface Tuple {
  readonly bytes: Buffer;
  /** Number of columns, as many as the relation has. */
  readonly count: number;
  /** Offset in `bytes` of the first byte of the first column's kind, and of the first byte after the last column: the raw TupleData without its column count. */
  readonly start: number;
  readonly end: number;
  /** At least one column is an unchanged TOAST value, which the server did not send. */
  readonly hasUnchanged: boolean;
  readonly kinds: Uint8Array;
  readonly offsets: Uint32Array;
  readonly lengths: Uint32Array;
}

export interface RelationColumn {
  readonly name: string;
  /** Part of the replica identity key. With REPLICA IDENTITY FULL every column is. */
  readonly key: boolean;
  readonly typeOid: number;
  readonly typeModifier: number;
}

/** default: primary key; index: chosen unique index; full: all columns; nothing: none. Wire: d, i, f, n. */
export type ReplicaIdentity = 'default' | 'index' | 'full' | 'nothing';

export interface Relation {
  readonly type: 'relation';
  /** Transaction the message belongs to, in a streamed transaction (protocol 2+); else undefined. */
  readonly xid: number | undefined;
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly replicaIdentity: ReplicaIdentity;
  readonly columns: readonly RelationColumn[];
}

export interface Begin { readonly type: 'begin'; readonly finalLsn: Lsn; /** Microseconds since 2000-01-01 UTC. */ readonly commitTime: bigint; readonly xid: number }
export interface Commit { readonly type: 'commit'; readonly flags: number; /** Start of the commit record. */ readonly commitLsn: Lsn; /** First byte after it: what is acknowledged. */ readonly endLsn: Lsn; readonly commitTime: bigint }
export interface OriginMessage { readonly type: 'origin'; readonly commitLsn: Lsn; readonly name: string }
export interface TypeMessage { readonly type: 'type'; readonly xid: number | undefined; readonly oid: number; readonly schema: string; readonly name: string }
export interface Insert { readonly type: 'insert'; readonly xid: number | undefined; readonly relation: number; readonly newTuple: Tuple }
/** `oldKind` K: old values of the identity key (it changed); O: the whole old row (identity full); undefined: the key did not change. */
export interface Update { readonly type: 'update'; readonly xid: number | undefined; readonly relation: number; readonly oldKind: 'key' | 'full' | undefined; readonly oldTuple: Tuple | undefined; readonly newTuple: Tuple }
export interface Delete { readonly type: 'delete'; readonly xid: number | undefined; readonly relation: number; readonly oldKind: 'key' | 'full'; readonly oldTuple: Tuple }
export interface Truncate { readonly type: 'truncate'; readonly xid: number | undefined; readonly cascade: boolean; readonly restartIdentity: boolean; readonly relations: readonly number[] }
export interface LogicalMessage { readonly type: 'message'; readonly xid: number | undefined; readonly transactional: boolean; readonly lsn: Lsn; readonly prefix: string; readonly content: Buffer }
export interface StreamStart { readonly type: 'stream-start'; readonly xid: number; readonly firstSegment: boolean }
export interface StreamStop { readonly type: 'stream-stop' }
export interface StreamCommit { readonly type: 'stream-commit'; readonly xid: number; readonly flags: number; readonly commitLsn: Lsn; readonly endLsn: Lsn; readonly commitTime: bigint }
/** `abortLsn` and `abortTime` only with protocol 4 and streaming = parallel. A subtransaction where xid and subxid differ. */
export interface StreamAbort { readonly type: 'stream-abort'; readonly xid: number; readonly subxid: number; readonly abortLsn: Lsn | undefined; readonly abortTime: bigint | undefined }
export interface BeginPrepare { readonly type: 'begin-prepare'; readonly prepareLsn: Lsn; readonly endLsn: Lsn; readonly prepareTime: bigint; readonly xid: number; readonly gid: string }
export interface Prepare { readonly type: 'prepare'; readonly flags: number; readonly prepareLsn: Lsn; readonly endLsn: Lsn; readonly prepareTime: bigint; readonly xid: number; readonly gid: string }
export interface CommitPrepared { readonly type: 'commit-prepared'; readonly flags: number; readonly commitLsn: Lsn; readonly endLsn: Lsn; readonly commitTime: bigint; readonly xid: number; readonly gid: string }
export interface RollbackPrepared {
  readonly type: 'rollback-prepared'; readonly flags: number; readonly prepareEndLsn: Lsn; readonly rollbackEndLsn: Lsn; readonly prepareTime: bigint; readonly rollbackTime: bigint; readonly xid: number; readonly gid: string;
}
export interface StreamPrepare { readonly type: 'stream-prepare'; readonly flags: number; readonly prepareLsn: Lsn; readonly endLsn: Lsn; readonly prepareTime: bigint; readonly xid: number; readonly gid: string }

export type PgoutputMessage =
  | Begin | Commit | OriginMessage | Relation | TypeMessage | Insert | Update | Delete | Truncate | LogicalMessage
  | StreamStart | StreamStop | StreamCommit | StreamAbort | BeginPrepare | Prepare | CommitPrepared | RollbackPrepared | StreamPrepare;
