import { PgweaveError } from '../../core/errors.ts';
import { messageKind } from '../../pgoutput/decoder.ts';
import { formatLsn, maxLsn, type Lsn } from '../../pg/lsn.ts';
import { appendRun, frameEnd, messageOffset, payloadKind, payloadOffset, type FrameRun } from '../frames.ts';
import type { LogMessage } from './log-message.ts';

/** A message that is ready to be published, but for its place in the stream. */
export interface BuiltMessage extends LogMessage {
  /** What JetStream knows repetitions by: the position, and for a part that is not the last a name of its own. */
  readonly id: string;
  readonly data: Buffer;
}

export interface MessageBuilderOptions {
  readonly log: string;
  /** The log reaches to here: what ends at or before `last` is in the stream, or before its beginning. */
  readonly last: Lsn;
  readonly to: Lsn;
  /** A message has at most so many bytes of frames. */
  readonly messageBytes: number;
  /** Names this run of the publisher in the ids of parts. */
  readonly run: string;
  readonly emit: (message: BuiltMessage) => void;
}

/** Frames of one transaction, or of a piece of it, with the descriptions of tables that they need and do not hold. */
class Piece {
  readonly needs = new Map<number, Buffer>();
  readonly own = new Map<number, Buffer>();
  runs: FrameRun[] = [];
  bytes = 0;

  add(bytes: Buffer, start: number, end: number): void {
    appendRun(this.runs, { bytes, start, end });
    this.bytes += end - start;
  }
}

interface Open {
  /** In the stream already. */
  readonly skip: boolean;
  readonly commitLsn: Lsn;
  piece: Piece;
  changes: number;
  /** Parts that were emitted. */
  parts: number;
}

/**
 * Makes messages of the frames of a slot: whole transactions in groups, large ones in parts as they arrive. For protocol version 1: what lies between Begin and Commit
 * is committed. Frames are kept as they came, and not decoded; transactions without changes are left out.
 */
export class MessageBuilder {
  readonly #options: MessageBuilderOptions;
  readonly #relations = new Map<number, Buffer>();
  #open: Open | undefined;
  #done: Piece[] = [];
  #doneBytes = 0;
  /** `last` before the transactions in `#done`. */
  #after: Lsn;
  #last: Lsn;
  #to: Lsn;
  /** `to` of the newest message: what is not whole yet does not move it, nor back. */
  #emittedTo: Lsn;

  constructor(options: MessageBuilderOptions) {
    this.#options = options;
    this.#after = options.last;
    this.#last = options.last;
    this.#to = options.to;
    this.#emittedTo = options.to;
  }

  /** Everything before it was taken in whole, or did not concern us. */
  get to(): Lsn {
    return this.#to;
  }

  get last(): Lsn {
    return this.#last;
  }

  /** Whole transactions wait for `flush`. */
  get waiting(): boolean {
    return this.#done.length > 0;
  }

  get open(): boolean {
    return this.#open !== undefined;
  }

  get pendingBytes(): number {
    return this.#doneBytes + (this.#open?.piece.bytes ?? 0);
  }

  /** A new connection: what was incomplete comes again, and tables are described anew. */
  connection(): void {
    this.#open = undefined;
    this.#relations.clear();
  }

  /** Takes whole frames. */
  frames(bytes: Buffer, start: number, end: number): void {
    for (let at = start; at < end;) {
      const next = frameEnd(bytes, at);
      if (bytes[at + payloadOffset] === payloadKind.xlogData) this.#message(bytes, at, next);
      else if (!this.#open) this.#to = maxLsn(this.#to, bytes.readBigUInt64BE(at + 6) as Lsn);
      at = next;
    }
  }

  /** Emits the whole transactions that wait. */
  flush(): void {
    if (this.#done.length === 0) return;
    const data = Buffer.concat(chunks(this.#done));
    this.#done = [];
    this.#doneBytes = 0;
    this.#group(data, 0, this.#after, undefined);
    this.#after = this.#last;
  }

  /** Emits a position; there must be nothing waiting or open. */
  position(): void {
    this.#emit({ kind: 'position', after: this.#last, last: this.#last, to: this.#to, part: 0, more: false, data: Buffer.alloc(0), id: `position ${formatLsn(this.#to)} ${this.#options.run}` });
  }

  #message(bytes: Buffer, at: number, end: number): void {
    const m = at + messageOffset;
    const kind = bytes[m]!;
    const open = this.#open;
    switch (kind) {
      case messageKind.begin: {
        if (open) throw violation('a transaction inside another');
        const commitLsn = bytes.readBigUInt64BE(m + 1) as Lsn;
        this.#open = { skip: commitLsn < this.#last, commitLsn, piece: new Piece(), changes: 0, parts: 0 };
        this.#open.piece.add(bytes, at, end);
        return;
      }
      case messageKind.commit: {
        if (!open) throw violation('a commit without a transaction');
        this.#open = undefined;
        this.#commit(open, bytes, at, end, bytes.readBigUInt64BE(m + 10) as Lsn);
        return;
      }
      case messageKind.relation: {
        const oid = bytes.readUInt32BE(m + 1);
        const frame = Buffer.from(bytes.subarray(at, end));
        this.#relations.set(oid, frame);
        open?.piece.own.set(oid, frame);
        if (open && !open.skip) this.#add(open, bytes, at, end);
        return;
      }
      case messageKind.insert: case messageKind.update: case messageKind.delete:
        if (!open) throw violation('a change outside of a transaction');
        if (!open.skip) this.#change(open, bytes, at, end, [bytes.readUInt32BE(m + 1)]);
        return;
      case messageKind.truncate: {
        if (!open) throw violation('a change outside of a transaction');
        const oids = Array.from({ length: bytes.readInt32BE(m + 1) }, (_, i) => bytes.readUInt32BE(m + 6 + 4 * i));
        if (!open.skip) this.#change(open, bytes, at, end, oids);
        return;
      }
      case messageKind.message:
        // One that is not transactional stands between transactions and concerns nobody here.
        if (open && !open.skip) this.#change(open, bytes, at, end, []);
        return;
      case messageKind.origin: case messageKind.type:
        if (open && !open.skip) this.#add(open, bytes, at, end);
        return;
      default: throw violation(`a message of kind ${kind} that was not asked for`);
    }
  }

  #change(open: Open, bytes: Buffer, at: number, end: number, oids: readonly number[]): void {
    for (const oid of oids) {
      if (open.piece.own.has(oid) || open.piece.needs.has(oid)) continue;
      const frame = this.#relations.get(oid);
      if (!frame) throw violation(`a change of the table with oid ${oid}, which it has not described`);
      open.piece.needs.set(oid, frame);
    }
    open.changes += 1;
    this.#add(open, bytes, at, end);
  }

  #add(open: Open, bytes: Buffer, at: number, end: number): void {
    open.piece.add(bytes, at, end);
    if (open.piece.bytes < this.#options.messageBytes) return;
    // Too large for one message: what came is given out while the rest arrives.
    this.flush();
    const data = Buffer.concat(chunks([open.piece]));
    open.piece = new Piece();
    open.parts = this.#group(data, open.parts, this.#last, open);
  }

  #commit(open: Open, bytes: Buffer, at: number, end: number, endLsn: Lsn): void {
    const given = !open.skip && open.changes > 0;
    if (given) open.piece.add(bytes, at, end);
    // What goes out first must not say that this transaction is in the stream: a publisher that ended in between would go on behind it.
    if (given && open.parts === 0 && this.#doneBytes + open.piece.bytes > this.#options.messageBytes) this.flush();
    this.#to = maxLsn(this.#to, endLsn);
    if (!given) return;
    if (open.parts > 0) {
      const after = this.#last;
      this.#last = endLsn;
      this.#group(Buffer.concat(chunks([open.piece])), open.parts, after, undefined);
      this.#after = endLsn;
      return;
    }
    this.#last = endLsn;
    this.#done.push(open.piece);
    this.#doneBytes += open.piece.bytes;
  }

  /** Emits the bytes of a group, in parts where they are too many. `open`: the group goes on. Returns how many parts the group has now. */
  #group(data: Buffer, firstPart: number, after: Lsn, open: Open | undefined): number {
    const { messageBytes, run } = this.#options;
    let part = firstPart;
    for (let at = 0; ;) {
      const end = Math.min(data.length, at + messageBytes);
      const more = open !== undefined || end < data.length;
      // Only the last part says that the group is in the stream.
      this.#emit({
        kind: 'changes', after, last: more ? after : this.#last, to: more ? this.#emittedTo : maxLsn(this.#last, this.#to), part, more, data: data.subarray(at, end),
        id: more ? `part ${run} ${formatLsn(open?.commitLsn ?? this.#last)} ${part}` : `changes ${formatLsn(this.#last)}`,
      });
      part += 1;
      at = end;
      if (at >= data.length) return part;
    }
  }

  #emit(message: Omit<BuiltMessage, 'log'>): void {
    this.#emittedTo = message.to;
    this.#options.emit({ ...message, log: this.#options.log });
  }
}

/** The frames of several pieces in order, each description of a table before the first piece that needs it. */
function chunks(pieces: readonly Piece[]): Buffer[] {
  const out: Buffer[] = [];
  const given = new Map<number, Buffer>();
  for (const piece of pieces) {
    for (const [oid, frame] of piece.needs) {
      if (given.get(oid) !== frame) out.push(frame);
      given.set(oid, frame);
    }
    for (const run of piece.runs) out.push(run.bytes.subarray(run.start, run.end));
    for (const [oid, frame] of piece.own) given.set(oid, frame);
  }
  return out;
}

function violation(what: string): PgweaveError {
  return new PgweaveError('protocol-violation', `the source sent ${what}`, { retry: 'never', hint: 'Please report it with the server\'s version.' });
}
