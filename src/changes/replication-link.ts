import type { Socket } from 'node:net';
import { PgweaveError } from '../core/errors.ts';
import { failpointSync } from '../core/failpoints.ts';
import { maxLsn, zeroLsn, type Lsn } from '../pg/lsn.ts';
import type { ReplicationStream } from '../pg/replication-session.ts';
import { ServerError } from '../pg/server-error.ts';
import { FrameBuffer } from './frame-buffer.ts';
import { frameKind, payloadKind, payloadOffset } from './frames.ts';
import type { Liveness } from './liveness.ts';
import { SocketReader, type SocketReaderOptions } from './socket-reader.ts';
import { standbyStatusFrame } from './standby-status.ts';

/** Where received frames go, and what may be acknowledged for them. */
export interface FrameSink {
  /** Takes whole CopyData frames, XLogData and keepalives in the order in which they came. */
  accept(bytes: Buffer, start: number, end: number): void;
  /** Nothing more should come until the link is told of room. */
  readonly full: boolean;
  /** Received. */
  readonly receivedLsn: Lsn;
  /** Durable: may be acknowledged. */
  readonly durableLsn: Lsn;
}

/** How often a status may go out because the durable position moved. */
const progressEveryMs = 1000;
/** A polite end takes at most this long. */
const finishWithinMs = 3000;
/**
 * A walsender whose client does not read is stuck in a write and cannot be ended: a fast shutdown of the source waits for it, and so does a checkpoint that wants
 * to invalidate its slot. Our statuses keep it from timing out, so we must let go ourselves.
 */
const holdAtMostMs = 30_000;

/** One connection in CopyBoth mode: reads frames into a sink, acknowledges what the sink calls durable, notices a dead server. Source: documentation, "Streaming Replication Protocol". */
export class ReplicationLink {
  readonly backendPid: number;
  /** Resolves when the connection is over, with the reason. */
  readonly closed: Promise<Error>;
  readonly #socket: Socket;
  readonly #sink: FrameSink;
  readonly #buffer = new FrameBuffer();
  readonly #reader: SocketReader;
  readonly #liveness: Liveness;
  #close!: (reason: Error) => void;
  #ended = false;
  #finishing = false;
  #statusTimer: NodeJS.Timeout | undefined;
  #statusAt = Number.NEGATIVE_INFINITY;
  #acknowledgedLsn: Lsn = zeroLsn;
  #askedAt = Number.NEGATIVE_INFINITY;
  #serverLsn: Lsn = zeroLsn;

  constructor(stream: ReplicationStream, sink: FrameSink, liveness: Liveness, options: SocketReaderOptions = {}) {
    this.backendPid = stream.backendPid;
    this.#socket = stream.socket;
    this.#sink = sink;
    this.#liveness = liveness;
    this.closed = new Promise((resolve) => {
      this.#close = resolve;
    });
    this.#socket.on('error', (error) => this.#end(error));
    this.#socket.on('end', () => this.#end(lost('the server closed the connection')));
    this.#socket.on('close', () => this.#end(lost('the connection was closed')));
    this.#statusTimer = setInterval(() => this.#tick(), Math.min(liveness.statusEveryMs, progressEveryMs, 250));
    this.#reader = new SocketReader(this.#socket, this.#buffer, () => this.#onBytes(), options);
    if (stream.rest.length > 0) {
      this.#buffer.append(stream.rest);
      this.#onBytes();
    }
    if (sink.full) this.#reader.hold();
    this.sendStatus();
  }

  /** The newest flush position that was sent to the server. */
  get acknowledgedLsn(): Lsn {
    return this.#acknowledgedLsn;
  }

  /** How far the server has sent, by its own account. */
  get serverLsn(): Lsn {
    return this.#serverLsn;
  }

  get reader(): SocketReader {
    return this.#reader;
  }

  /** Ends the connection if the sink is full: the source must not be kept waiting. It is made again when there is room. */
  letGo(): void {
    if (this.#reader.heldSince !== undefined) this.#end(new PgweaveError('held-too-long', 'the reader is too slow to keep the connection', { retry: 'backoff' }));
  }

  /** The sink has room again. */
  room(): void {
    if (!this.#ended && !this.#sink.full) this.#reader.release();
  }

  sendStatus(replyRequested = false): void {
    if (this.#ended) return;
    // Read once: what is sent is what is remembered.
    const flushLsn = this.#sink.durableLsn;
    failpointSync('receive.before-ack');
    this.#socket.write(standbyStatusFrame({ writeLsn: maxLsn(this.#sink.receivedLsn, flushLsn), flushLsn, replyRequested }));
    failpointSync('receive.after-ack');
    this.#acknowledgedLsn = maxLsn(this.#acknowledgedLsn, flushLsn);
    this.#statusAt = performance.now();
  }

  /** Tells the server what is durable and takes leave, so that the slot is free at once. What still arrives is thrown away. */
  async finish(): Promise<void> {
    if (this.#ended) return;
    this.sendStatus();
    this.#finishing = true;
    this.#reader.release();
    // CopyDone, Terminate.
    this.#socket.end(Buffer.from([0x63, 0, 0, 0, 4, 0x58, 0, 0, 0, 4]));
    const deadline = setTimeout(() => this.destroy(), finishWithinMs);
    await this.closed;
    clearTimeout(deadline);
  }

  destroy(reason: Error = lost('the connection was given up')): void {
    this.#end(reason);
  }

  #end(reason: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#statusTimer);
    this.#reader.end();
    this.#socket.destroy();
    this.#close(reason);
  }

  /** On a timer of its own, so that neither a full sink nor a slow reader delays it [hard case 21]. */
  #tick(): void {
    try {
      const now = performance.now();
      const silence = now - this.#reader.lastByteAt;
      if (silence > this.#liveness.deadAfterMs) {
        this.#end(lost(`no word from the server for ${Math.round(silence / 1000)} s`));
        return;
      }
      if (now - (this.#reader.heldSince ?? now) > holdAtMostMs) {
        this.letGo();
        return;
      }
      const since = now - this.#statusAt;
      if (silence > this.#liveness.askAfterMs && now - this.#askedAt > this.#liveness.askAfterMs) {
        this.#askedAt = now;
        this.sendStatus(true);
      } else if (since >= this.#liveness.statusEveryMs || (since >= Math.min(progressEveryMs, this.#liveness.statusEveryMs) && this.#sink.durableLsn > this.#acknowledgedLsn)) {
        this.sendStatus();
      }
    } catch (error) {
      this.#end(error as Error);
    }
  }

  #onBytes(): void {
    try {
      this.#takeFrames();
      if (!this.#ended && !this.#finishing && this.#sink.full) this.#reader.hold();
    } catch (error) {
      this.#end(error as Error);
    }
  }

  #takeFrames(): void {
    let run: Buffer | undefined;
    let start = 0;
    let end = 0;
    let replyRequested = false;
    const flush = () => {
      if (run && !this.#finishing) {
        failpointSync('receive.frames');
        this.#sink.accept(run, start, end);
      }
      run = undefined;
    };
    this.#buffer.takeFrames((bytes, from, to) => {
      if (bytes[from] !== frameKind.copyData) {
        flush();
        this.#other(bytes, from, to);
        return;
      }
      if (run !== bytes || end !== from) {
        flush();
        run = bytes;
        start = from;
      }
      end = to;
      const payload = bytes[from + payloadOffset];
      if (payload === payloadKind.keepalive && to - from >= 23) {
        this.#serverLsn = maxLsn(this.#serverLsn, bytes.readBigUInt64BE(from + 6) as Lsn);
        replyRequested ||= bytes[from + 22] === 1;
      } else if (payload !== payloadKind.xlogData || to - from < 31) {
        throw new PgweaveError('protocol-violation', 'the source sent a frame that is neither data nor keepalive', { retry: 'backoff' });
      }
    });
    flush();
    // After what came with it was taken, so that the answer speaks of it too.
    if (replyRequested) this.sendStatus();
  }

  #other(bytes: Buffer, start: number, end: number): void {
    switch (bytes[start]) {
      case frameKind.error: return this.#end(ServerError.parse(bytes.subarray(start + 5, end)));
      case frameKind.copyDone: return this.#finishing ? undefined : this.#end(lost('the server ended the stream'));
      default: // Notices, parameter statuses, and what follows CopyDone say nothing that we need.
    }
  }
}

function lost(why: string): PgweaveError {
  return new PgweaveError('connection-lost', why, { retry: 'backoff' });
}
