import type { Socket } from 'node:net';
import { descriptorDrain, type DescriptorDrain } from '../pg/descriptor-drain.ts';
import type { FrameBuffer } from './frame-buffer.ts';

/**
 * Live, more than this within `liveWindowMs` means that reads should be gathered. Some 3 MB/s: on a busy machine a backlog comes no faster, and read row by row it makes
 * the machine busier still (measured at load 12: a million inserts took twice as long as by a subscription).
 */
const burstBytes = 32 * 1024;
const liveWindowMs = 10;
/** A gathering that brings less than this was the last: we have caught up. */
const caughtUpBytes = 8 * 1024;

/**
 * Until the next gathering, by what the last one brought: long while far behind, short where latency may still matter. Measured: 10 to 40 ms are alike at full speed,
 * event-driven reads cost the walsender more than twice its time.
 */
function pauseAfter(bytes: number): number {
  return bytes >= 256 * 1024 ? 25 : bytes >= 64 * 1024 ? 10 : 5;
}

/** One gathering ends here, so that timers and other sockets get their turn; the rest follows at once. */
const gatherAtMostBytes = 4 * 1024 * 1024;

export interface SocketReaderOptions {
  /** For tests and for sockets whose descriptor cannot be read. */
  readonly descriptor?: 'use' | 'avoid';
}

/**
 * Moves bytes from a socket into a FrameBuffer and says when there are new ones. Event-driven while the sender is slower than us, in gatherings while
 * it is not. `hold` stops reading altogether, which the sender feels through TCP: this is the backpressure.
 */
export class SocketReader {
  readonly #socket: Socket;
  readonly #buffer: FrameBuffer;
  readonly #onBytes: () => void;
  readonly #drain: DescriptorDrain | undefined;
  #mode: 'live' | 'gather' = 'live';
  /** `performance.now()` when reading was stopped. */
  #heldSince: number | undefined;
  #ended = false;
  #timer: NodeJS.Timeout | undefined;
  #windowStart = 0;
  #windowBytes = 0;
  /** Bytes of the gathering under way, in the form without a descriptor. */
  #gathered = 0;
  #reads = 0;
  #gatherings = 0;
  #lastByteAt = performance.now();

  constructor(socket: Socket, buffer: FrameBuffer, onBytes: () => void, options: SocketReaderOptions = {}) {
    this.#socket = socket;
    this.#buffer = buffer;
    this.#onBytes = onBytes;
    this.#drain = options.descriptor === 'avoid' ? undefined : descriptorDrain(socket);
    socket.on('data', (chunk: Buffer) => this.#chunk(chunk));
    socket.resume();
  }

  /** `performance.now()` when the last byte came, or when we last chose not to read. */
  get lastByteAt(): number {
    return this.#heldSince === undefined ? this.#lastByteAt : performance.now();
  }

  /** `performance.now()` since when nothing is read; undefined while it is. */
  get heldSince(): number | undefined {
    return this.#heldSince;
  }

  get mode(): 'live' | 'gather' {
    return this.#mode;
  }

  /** For benchmarks: how often the socket was read, and gathered. */
  get counts(): { readonly reads: number; readonly gatherings: number } {
    return { reads: this.#reads, gatherings: this.#gatherings };
  }

  /** Stops reading until `release`. */
  hold(): void {
    if (this.#heldSince !== undefined || this.#ended) return;
    this.#heldSince = performance.now();
    if (this.#mode === 'live') this.#socket.pause();
    clearTimeout(this.#timer);
  }

  release(): void {
    if (this.#heldSince === undefined || this.#ended) return;
    this.#heldSince = undefined;
    this.#lastByteAt = performance.now();
    if (this.#mode === 'live') this.#socket.resume();
    else this.#schedule(0);
  }

  /** Ends reading for good; the socket is somebody else's to close. */
  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
  }

  #chunk(chunk: Buffer): void {
    if (this.#ended) return;
    this.#reads += 1;
    this.#lastByteAt = performance.now();
    this.#buffer.append(chunk);
    if (this.#mode === 'gather') {
      this.#gathered += chunk.length;
      return;
    }
    if (this.#lastByteAt - this.#windowStart > liveWindowMs) {
      this.#windowStart = this.#lastByteAt;
      this.#windowBytes = 0;
    }
    this.#windowBytes += chunk.length;
    this.#onBytes();
    // Bytes may lie in the stream's own buffer while it is paused: they come first.
    if (this.#windowBytes > burstBytes && this.#heldSince === undefined && !this.#ended && this.#socket.readableLength === 0) this.#gather();
  }

  #gather(): void {
    this.#mode = 'gather';
    if (this.#drain) this.#drain.stop();
    else this.#socket.pause();
    this.#schedule(pauseAfter(this.#windowBytes));
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#drain) this.#gatherByDescriptor(this.#drain);
      else this.#gatherByEvents();
    }, ms);
  }

  #gatherByDescriptor(drain: DescriptorDrain): void {
    this.#gatherings += 1;
    let total = 0;
    let got = 1;
    while (got > 0 && total < gatherAtMostBytes) {
      if (total > 0 && this.#buffer.crowded) {
        this.#onBytes();
        if (this.#ended || this.#heldSince !== undefined) break;
      }
      const into = this.#buffer.room();
      got = drain.read(into, this.#buffer.filled);
      if (got > 0) {
        this.#reads += 1;
        this.#buffer.wrote(got);
        total += got;
      }
    }
    if (total > 0) {
      this.#lastByteAt = performance.now();
      this.#onBytes();
    }
    if (this.#ended) return;
    // Node notices the end by itself once it reads again.
    if (got < 0 || total < caughtUpBytes) this.#live();
    else if (this.#heldSince === undefined) this.#schedule(total >= gatherAtMostBytes ? 0 : pauseAfter(total));
  }

  /** The same with public means: flow until a turn of the event loop brings nothing, then pause. */
  #gatherByEvents(): void {
    this.#gatherings += 1;
    this.#gathered = 0;
    let seen = 0;
    const look = () => {
      if (this.#ended) return;
      if (this.#gathered > seen && this.#gathered < gatherAtMostBytes) {
        seen = this.#gathered;
        setImmediate(look);
        return;
      }
      const total = this.#gathered;
      if (total >= caughtUpBytes) this.#socket.pause();
      if (total > 0) this.#onBytes();
      if (this.#ended) return;
      if (total < caughtUpBytes) this.#live();
      else if (this.#heldSince === undefined) this.#schedule(pauseAfter(total));
    };
    this.#socket.resume();
    // Two turns: resuming takes one, the first read another.
    setImmediate(() => setImmediate(look));
  }

  #live(): void {
    this.#mode = 'live';
    this.#windowBytes = 0;
    if (this.#drain) this.#drain.start();
    if (this.#heldSince !== undefined) this.#socket.pause();
    else this.#socket.resume();
  }
}
