/**
 * What the server sends in CopyBoth mode. Integers are big-endian.
 * Source: PostgreSQL documentation, "Streaming Replication Protocol" and "Message Formats".
 *
 *   frame       'd' int32 length (of itself and what follows), then one of
 *     XLogData  'w' lsn of the data, lsn end of WAL, int64 time, then a message of pgoutput
 *     keepalive 'k' lsn end of WAL, int64 time, int8 reply requested
 *   others      'c' CopyDone, 'E' ErrorResponse, 'N' NoticeResponse, 'S' ParameterStatus, 'C' CommandComplete, 'Z' ReadyForQuery: kind, int32 length, body
 *
 * Whole 'd' frames are also the form in which changes are kept, in memory as on disk: nothing is copied or decoded before the applier asks.
 */
export const frameKind = { copyData: 0x64, copyDone: 0x63, error: 0x45, notice: 0x4e, parameterStatus: 0x53 } as const;

export const payloadKind = { xlogData: 0x77, keepalive: 0x6b } as const;

/** Offset of a CopyData frame's payload, whose first byte is its kind. */
export const payloadOffset = 5;

/** Offset of pgoutput's message in an XLogData frame. */
export const messageOffset = 30;

/** Bytes of a whole keepalive frame. */
export const keepaliveLength = 23;

/** Offset behind the frame that begins at `at`. */
export function frameEnd(bytes: Buffer, at: number): number {
  return at + 1 + ((bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!);
}

/** A run of whole frames. Never overwritten once handed out. */
export interface FrameRun {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

/** Joins runs that lie side by side in one buffer. */
export function appendRun(runs: FrameRun[], run: FrameRun): void {
  const last = runs.at(-1);
  if (last && last.bytes === run.bytes && last.end === run.start) runs[runs.length - 1] = { bytes: run.bytes, start: last.start, end: run.end };
  else runs.push(run);
}
