import { messageKind } from '../../pgoutput/decoder.ts';
import { maxLsn, type Lsn } from '../../pg/lsn.ts';
import { frameEnd, frameKind, messageOffset, payloadKind, payloadOffset } from '../frames.ts';

/**
 * Follows a stream of frames as far as a writer of segments must: what may be acknowledged once all of it is on disk, and the frames that bring a reader to the
 * same point who has not seen what came before.
 */
export class FrameScan {
  #ackLsn: Lsn;
  /** Begin or Begin Prepare of the transaction under way. */
  #begin: Buffer | undefined;
  /** The transaction whose stream block is under way. */
  #streamXid: number | undefined;
  readonly #relations = new Map<number, Buffer>();
  /** Relation messages by streamed transaction: they hold for others once it has committed. */
  readonly #streamed = new Map<number, Map<number, Buffer>>();

  constructor(ackLsn: Lsn) {
    this.#ackLsn = ackLsn;
  }

  /** Everything before it has been seen in whole, or did not concern us. */
  get ackLsn(): Lsn {
    return this.#ackLsn;
  }

  /**
   * For a reader who begins here. It gets the ends of transactions whose beginnings it has not: whoever lets a reader begin here knows that they are applied already
   * (SpoolLog prunes no segment in which one began that is not).
   */
  stateFrames(): Buffer[] {
    const frames = [...this.#relations.values()];
    for (const [xid, relations] of this.#streamed) frames.push(streamStart(xid, true), ...relations.values(), streamStop);
    if (this.#begin) frames.push(this.#begin);
    if (this.#streamXid !== undefined) frames.push(streamStart(this.#streamXid, !this.#streamed.has(this.#streamXid)));
    return frames;
  }

  /** A new connection describes every table anew before its first change. */
  connection(): void {
    this.#begin = undefined;
    this.#streamXid = undefined;
    this.#relations.clear();
    this.#streamed.clear();
  }

  /** The last frames were keepalives, and are not kept. */
  forget(ackLsn: Lsn): void {
    this.#ackLsn = ackLsn;
  }

  /** Takes whole frames; false where they were keepalives alone. */
  scan(bytes: Buffer, start: number, end: number): boolean {
    let data = false;
    for (let at = start; at < end;) {
      const next = frameEnd(bytes, at);
      if (bytes[at + payloadOffset] === payloadKind.xlogData) {
        data = true;
        this.#message(bytes, at, next);
      } else if (!this.#begin) {
        this.#ackLsn = maxLsn(this.#ackLsn, bytes.readBigUInt64BE(at + 6) as Lsn);
      }
      at = next;
    }
    return data;
  }

  #message(bytes: Buffer, at: number, end: number): void {
    const m = at + messageOffset;
    switch (bytes[m]) {
      case messageKind.begin: case messageKind.beginPrepare:
        this.#begin = Buffer.from(bytes.subarray(at, end));
        return;
      // The position behind the record stands at the same place in all of these: after kind, flags and one LSN.
      case messageKind.commit: case messageKind.prepare: case messageKind.commitPrepared: case messageKind.rollbackPrepared:
        this.#begin = undefined;
        this.#ack(bytes, m + 10);
        return;
      case messageKind.streamStart:
        this.#streamXid = bytes.readUInt32BE(m + 1);
        return;
      case messageKind.streamStop:
        this.#streamXid = undefined;
        return;
      case messageKind.streamCommit: {
        const xid = bytes.readUInt32BE(m + 1);
        for (const [oid, frame] of this.#streamed.get(xid) ?? []) this.#relations.set(oid, withoutXid(frame));
        this.#streamed.delete(xid);
        this.#ack(bytes, m + 14);
        return;
      }
      case messageKind.streamPrepare:
        this.#streamed.delete(bytes.readUInt32BE(m + 26));
        this.#ack(bytes, m + 10);
        return;
      case messageKind.streamAbort:
        if (bytes.readUInt32BE(m + 1) === bytes.readUInt32BE(m + 5)) this.#streamed.delete(bytes.readUInt32BE(m + 1));
        return;
      case messageKind.relation:
        this.#relation(bytes, at, end);
        return;
      default:
    }
  }

  #ack(bytes: Buffer, at: number): void {
    this.#ackLsn = maxLsn(this.#ackLsn, bytes.readBigUInt64BE(at) as Lsn);
  }

  #relation(bytes: Buffer, at: number, end: number): void {
    const m = at + messageOffset;
    const frame = Buffer.from(bytes.subarray(at, end));
    if (this.#streamXid === undefined) {
      this.#relations.set(bytes.readUInt32BE(m + 1), frame);
      return;
    }
    const known = this.#streamed.get(this.#streamXid) ?? new Map<number, Buffer>();
    known.set(bytes.readUInt32BE(m + 5), frame);
    this.#streamed.set(this.#streamXid, known);
  }
}

function xlogData(message: Buffer): Buffer {
  const frame = Buffer.alloc(messageOffset + message.length);
  frame[0] = frameKind.copyData;
  frame.writeInt32BE(frame.length - 1, 1);
  frame[payloadOffset] = payloadKind.xlogData;
  message.copy(frame, messageOffset);
  return frame;
}

function streamStart(xid: number, first: boolean): Buffer {
  const message = Buffer.alloc(6);
  message[0] = messageKind.streamStart;
  message.writeUInt32BE(xid, 1);
  message[5] = first ? 1 : 0;
  return xlogData(message);
}

const streamStop = xlogData(Buffer.of(messageKind.streamStop));

/** A Relation message as it stands outside of stream blocks. */
function withoutXid(frame: Buffer): Buffer {
  return xlogData(Buffer.concat([frame.subarray(messageOffset, messageOffset + 1), frame.subarray(messageOffset + 5)]));
}
