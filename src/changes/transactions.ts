import { interruptedError, PgweaveError } from '../core/errors.ts';
import type { Relation } from '../pgoutput/messages.ts';
import type { Lsn } from '../pg/lsn.ts';
import type { Change, ChangePart, LargeTransaction, SourceTransaction } from './change-log.ts';
import { changesIn, relationsIn } from './frame-changes.ts';
import { appendRun, frameEnd, messageOffset, payloadKind, payloadOffset, type FrameRun } from './frames.ts';
import { messageKind } from '../pgoutput/decoder.ts';
import type { RelationHistory } from './relation-history.ts';
import type { SpillFile } from './spill-file.ts';

/** What one part of a large transaction holds at most, roughly. */
const partBytes = 2 * 1024 * 1024;

/** What is known of a transaction from its first message on, save for streamed ones. */
export interface TransactionHead {
  readonly xid: number;
  readonly commitLsn: Lsn;
  readonly commitTime: bigint;
  readonly origin: string | undefined;
  readonly gid: string | undefined;
}

/** Frames of a transaction, and how to read them. */
export interface TransactionBody {
  readonly runs: readonly FrameRun[];
  readonly bytes: number;
  readonly changeCount: number;
  readonly relations: RelationHistory;
  readonly version: number;
  readonly inStream: boolean;
  readonly aborted?: ReadonlySet<number> | undefined;
  readonly spill?: SpillFile | undefined;
}

/** A transaction held in memory. */
export class MemoryTransaction implements SourceTransaction {
  readonly xid: number;
  readonly commitLsn: Lsn;
  readonly commitTime: bigint;
  readonly origin: string | undefined;
  readonly gid: string | undefined;
  readonly endLsn: Lsn;
  readonly bytes: number;
  readonly changeCount: number;
  readonly #body: TransactionBody;

  constructor(head: TransactionHead, endLsn: Lsn, body: TransactionBody) {
    this.xid = head.xid;
    this.commitLsn = head.commitLsn;
    this.commitTime = head.commitTime;
    this.origin = head.origin;
    this.gid = head.gid;
    this.endLsn = endLsn;
    this.bytes = body.bytes;
    this.changeCount = body.changeCount;
    this.#body = body;
  }

  changes(): Iterable<Change> {
    const { runs, relations, version, inStream, aborted } = this.#body;
    return changesIn(runs, { relations, version, inStream, ...(aborted ? { aborted } : {}) });
  }
}

/** A whole transaction that is given out in parts: its frames are in memory, in a file, or in both, first the file. */
export class StoredTransaction implements LargeTransaction {
  readonly xid: number;
  readonly commitLsn: Lsn;
  readonly commitTime: bigint;
  readonly origin: string | undefined;
  readonly gid: string | undefined;
  readonly endLsn: Lsn;
  readonly #body: TransactionBody;
  readonly #onDone: () => void;
  #taken = false;
  #done = false;

  /** `onDone` is called once when its memory and file are given back. */
  constructor(head: TransactionHead, endLsn: Lsn, body: TransactionBody, onDone: () => void) {
    this.xid = head.xid;
    this.commitLsn = head.commitLsn;
    this.commitTime = head.commitTime;
    this.origin = head.origin;
    this.gid = head.gid;
    this.endLsn = endLsn;
    this.#body = body;
    this.#onDone = onDone;
  }

  async *parts(signal?: AbortSignal): AsyncGenerator<ChangePart, void, void> {
    if (this.#taken) throw new RangeError('the parts of a large transaction can be read once');
    this.#taken = true;
    const { relations, version, inStream, aborted, runs, spill } = this.#body;
    const earlier = new Map<number, Relation>();
    const part = (partRuns: readonly FrameRun[]): ChangePart => {
      const context = { relations, version, inStream, earlier: new Map(earlier), ...(aborted ? { aborted } : {}) };
      relationsIn(partRuns, inStream, (r) => earlier.set(r.oid, relations.intern(r)));
      return { bytes: partRuns.reduce((sum, r) => sum + r.end - r.start, 0), changeCount: countChanges(partRuns), changes: () => changesIn(partRuns, context) };
    };
    try {
      if (spill) {
        for await (const read of spill.read(partBytes)) {
          if (signal?.aborted) throw interruptedError();
          yield part(read);
        }
      }
      for (const piece of pieces(runs)) {
        if (signal?.aborted) throw interruptedError();
        yield part([piece]);
      }
    } finally {
      this.abandon();
    }
  }

  /** Gives memory and file back; a reader in the middle of its parts may go on to the end of the one in hand. */
  abandon(): void {
    if (this.#done) return;
    this.#done = true;
    this.#onDone();
    void this.#body.spill?.close();
  }
}

/** A transaction of which more arrives while it is read; known to be committed from its first message on. */
export class ArrivingTransaction implements LargeTransaction {
  readonly xid: number;
  readonly commitLsn: Lsn;
  readonly commitTime: bigint;
  readonly gid: string | undefined;
  readonly origin: string | undefined;
  readonly #relations: RelationHistory;
  readonly #release: (bytes: number) => void;
  #waiting: { readonly runs: FrameRun[]; readonly bytes: number; readonly changeCount: number; readonly version: number }[] = [];
  #waitingBytes = 0;
  #endLsn: Lsn | undefined;
  #failure: PgweaveError | undefined;
  #wake: (() => void) | undefined;
  #taken = false;
  #ended = false;
  #abandoned = false;

  /** `release` is told of bytes that need no memory here any more. */
  constructor(head: TransactionHead, relations: RelationHistory, release: (bytes: number) => void) {
    this.xid = head.xid;
    this.commitLsn = head.commitLsn;
    this.commitTime = head.commitTime;
    this.origin = head.origin;
    this.gid = head.gid;
    this.#relations = relations;
    this.#release = release;
  }

  get endLsn(): Lsn {
    if (this.#endLsn === undefined || !this.#ended) throw new RangeError('the end of a large transaction is known after its last part');
    return this.#endLsn;
  }

  /** Bytes that wait to be read. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** The end is here although nobody has begun to read: it can be given out like any other, with `takeWhole`. */
  get whole(): { readonly bytes: number } | undefined {
    return this.#endLsn === undefined || this.#taken || this.#failure ? undefined : { bytes: this.#waitingBytes };
  }

  takeWhole(): MemoryTransaction {
    const [first] = this.#waiting;
    if (this.#endLsn === undefined || this.#taken || !first) throw new RangeError('the transaction is not whole, or its parts are being read');
    const runs: FrameRun[] = [];
    let changeCount = 0;
    for (const w of this.#waiting) {
      for (const run of w.runs) appendRun(runs, run);
      changeCount += w.changeCount;
    }
    const bytes = this.#waitingBytes;
    this.#taken = true;
    this.#drop();
    return new MemoryTransaction(this, this.#endLsn, { runs, bytes, changeCount, relations: this.#relations, version: first.version, inStream: false });
  }

  /** Adds frames; `version` of the relations held where they begin. */
  push(runs: FrameRun[], bytes: number, changeCount: number, version: number): void {
    if (this.#abandoned) {
      this.#release(bytes);
      return;
    }
    this.#waiting.push({ runs, bytes, changeCount, version });
    this.#waitingBytes += bytes;
    this.#wakeUp();
  }

  end(endLsn: Lsn): void {
    this.#endLsn = endLsn;
    this.#wakeUp();
  }

  /** Its rest will not come, or the log goes back. */
  fail(error: PgweaveError): void {
    this.#failure ??= error;
    this.#drop();
    this.#wakeUp();
  }

  /** What has not been read is given back; a reader in the middle of its parts fails. */
  abandon(): void {
    this.fail(transactionInterrupted());
  }

  async *parts(signal?: AbortSignal): AsyncGenerator<ChangePart, void, void> {
    if (this.#taken) throw new RangeError('the parts of a large transaction can be read once');
    this.#taken = true;
    const relations = this.#relations;
    const onAbort = () => this.#wakeUp();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for (;;) {
        if (signal?.aborted) throw interruptedError();
        if (this.#failure) throw this.#failure;
        const next = this.#next();
        if (next) {
          try {
            yield { bytes: next.bytes, changeCount: next.changeCount, changes: () => changesIn(next.runs, { relations, version: next.version, inStream: false }) };
          } finally {
            this.#release(next.bytes);
          }
        } else if (this.#endLsn !== undefined) {
          this.#ended = true;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      // A reader that stops half way does not want the rest: it must not fill the memory.
      this.#abandoned = !this.#ended;
      this.#drop();
    }
  }

  /** Several small arrivals are one part, so that a reader that is behind works in large ones. */
  #next(): { runs: FrameRun[]; bytes: number; changeCount: number; version: number } | undefined {
    const first = this.#waiting.shift();
    if (!first) return undefined;
    const runs = [...first.runs];
    let { bytes, changeCount } = first;
    while (this.#waiting.length > 0 && bytes + this.#waiting[0]!.bytes <= partBytes) {
      const more = this.#waiting.shift()!;
      for (const run of more.runs) appendRun(runs, run);
      bytes += more.bytes;
      changeCount += more.changeCount;
    }
    this.#waitingBytes -= bytes;
    return { runs, bytes, changeCount, version: first.version };
  }

  #drop(): void {
    this.#waiting = [];
    if (this.#waitingBytes > 0) this.#release(this.#waitingBytes);
    this.#waitingBytes = 0;
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

/** Cuts runs where a part gets too large, between frames. */
function* pieces(runs: readonly FrameRun[]): Generator<FrameRun, void, void> {
  for (const { bytes, start, end } of runs) {
    let from = start;
    for (let at = start; at < end;) {
      at = frameEnd(bytes, at);
      if (at - from >= partBytes || at >= end) {
        yield { bytes, start: from, end: at };
        from = at;
      }
    }
  }
}

/** Row changes, truncates and logical messages in runs. */
function countChanges(runs: readonly FrameRun[]): number {
  let count = 0;
  for (const { bytes, start, end } of runs) {
    for (let at = start; at < end; at = frameEnd(bytes, at)) {
      if (bytes[at + payloadOffset] === payloadKind.xlogData && isChange(bytes[at + messageOffset]!)) count += 1;
    }
  }
  return count;
}

/** Whether a message of this kind is a change that the log gives out. */
export function isChange(kind: number): boolean {
  return kind === messageKind.insert || kind === messageKind.update || kind === messageKind.delete || kind === messageKind.truncate || kind === messageKind.message;
}

export function transactionInterrupted(cause?: unknown): PgweaveError {
  return new PgweaveError('transaction-interrupted', 'the connection to the source broke inside a large transaction', { retry: 'backoff', hint: 'It is received again from its beginning.', ...(cause === undefined ? {} : { cause }) });
}
