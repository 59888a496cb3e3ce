import { PgweaveError } from '../core/errors.ts';
import { decodeMessage, messageKind } from '../pgoutput/decoder.ts';
import type { Relation } from '../pgoutput/messages.ts';
import { messagePrefix, type Change } from './change-log.ts';
import { frameEnd, messageOffset, payloadKind, payloadOffset, type FrameRun } from './frames.ts';
import type { RelationHistory } from './relation-history.ts';

/** What is needed, beside the bytes, to read the changes of a transaction or of a part of one. */
export interface DecodeContext {
  readonly relations: RelationHistory;
  /** Version of `relations` where the bytes begin. */
  readonly version: number;
  /** The bytes were received inside stream blocks: their messages carry the id of the subtransaction. */
  readonly inStream: boolean;
  /** Subtransactions that were rolled back: their changes are left out. */
  readonly aborted?: ReadonlySet<number>;
  /** Descriptions from earlier parts of the same streamed transaction. */
  readonly earlier?: ReadonlyMap<number, Relation>;
}

/** The changes in runs of whole frames, decoded one at a time as they are asked for. */
export function changesIn(runs: readonly FrameRun[], context: DecodeContext): Iterable<Change> {
  return { [Symbol.iterator]: () => new FrameChanges(runs, context) };
}

class FrameChanges implements Iterator<Change, undefined> {
  readonly #runs: readonly FrameRun[];
  readonly #context: DecodeContext;
  #run = 0;
  #bytes: Buffer;
  #at: number;
  #end: number;
  /** Descriptions met on the way. */
  #own: Map<number, Relation> | undefined;
  #lastOid = -1;
  #lastRelation: Relation | undefined;
  // One result object for all: a loop reads `value` before it asks for the next.
  readonly #result: { done: boolean; value: Change | undefined } = { done: false, value: undefined };

  constructor(runs: readonly FrameRun[], context: DecodeContext) {
    this.#runs = runs;
    this.#context = context;
    const first = runs[0];
    this.#bytes = first?.bytes ?? Buffer.alloc(0);
    this.#at = first?.start ?? 0;
    this.#end = first?.end ?? 0;
  }

  next(): IteratorResult<Change, undefined> {
    const result = this.#result;
    for (;;) {
      if (this.#at >= this.#end && !this.#nextRun()) {
        result.done = true;
        result.value = undefined;
        return result as IteratorResult<Change, undefined>;
      }
      const at = this.#at;
      const end = frameEnd(this.#bytes, at);
      this.#at = end;
      if (this.#bytes[at + payloadOffset] !== payloadKind.xlogData) continue;
      const change = this.#change(at + messageOffset, end);
      if (change === undefined) continue;
      result.value = change;
      return result as IteratorResult<Change, undefined>;
    }
  }

  #nextRun(): boolean {
    this.#run += 1;
    const run = this.#runs[this.#run];
    if (!run) return false;
    this.#bytes = run.bytes;
    this.#at = run.start;
    this.#end = run.end;
    return true;
  }

  #change(start: number, end: number): Change | undefined {
    const { inStream, aborted } = this.#context;
    const kind = this.#bytes[start];
    if (kind === messageKind.type || kind === messageKind.origin) return undefined;
    const m = decodeMessage(this.#bytes, start, end, inStream);
    switch (m.type) {
      case 'relation':
        // Kept also where its subtransaction was rolled back: the server does not send it again.
        this.#own ??= new Map();
        this.#own.set(m.oid, this.#context.relations.intern(m));
        this.#lastOid = -1;
        return undefined;
      case 'insert':
        if (aborted && m.xid !== undefined && aborted.has(m.xid)) return undefined;
        return { type: 'insert', relation: this.#relation(m.relation), newTuple: m.newTuple };
      case 'update':
        if (aborted && m.xid !== undefined && aborted.has(m.xid)) return undefined;
        return { type: 'update', relation: this.#relation(m.relation), oldKind: m.oldKind, oldTuple: m.oldTuple, newTuple: m.newTuple };
      case 'delete':
        if (aborted && m.xid !== undefined && aborted.has(m.xid)) return undefined;
        return { type: 'delete', relation: this.#relation(m.relation), oldKind: m.oldKind, oldTuple: m.oldTuple };
      case 'truncate':
        if (aborted && m.xid !== undefined && aborted.has(m.xid)) return undefined;
        return { type: 'truncate', relations: m.relations.map((oid) => this.#relation(oid)), cascade: m.cascade, restartIdentity: m.restartIdentity };
      case 'message':
        if (!m.transactional || m.prefix !== messagePrefix || (aborted && m.xid !== undefined && aborted.has(m.xid))) return undefined;
        return { type: 'message', lsn: m.lsn, prefix: m.prefix, content: m.content };
      default:
        throw new PgweaveError('protocol-violation', `a message of type ${m.type} inside a transaction`, { retry: 'never' });
    }
  }

  #relation(oid: number): Relation {
    if (oid === this.#lastOid) return this.#lastRelation!;
    const { relations, version, earlier } = this.#context;
    const relation = this.#own?.get(oid) ?? earlier?.get(oid) ?? relations.at(oid, version);
    if (!relation) throw new PgweaveError('protocol-violation', `a change of the table with oid ${oid}, which the source has not described`, { retry: 'never' });
    this.#lastOid = oid;
    this.#lastRelation = relation;
    return relation;
  }
}

/** The descriptions of tables in runs of frames, in order. For parts of streamed transactions, whose later parts rest on them. */
export function relationsIn(runs: readonly FrameRun[], inStream: boolean, visit: (relation: Relation) => void): void {
  for (const { bytes, start, end: runEnd } of runs) {
    for (let at = start; at < runEnd;) {
      const end = frameEnd(bytes, at);
      if (bytes[at + payloadOffset] === payloadKind.xlogData && bytes[at + messageOffset] === messageKind.relation) {
        const m = decodeMessage(bytes, at + messageOffset, end, inStream);
        if (m.type === 'relation') visit(m);
      }
      at = end;
    }
  }
}
