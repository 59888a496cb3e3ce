import { PgweaveError } from '../core/errors.ts';

const slabBytes = 1024 * 1024;
const leastRoom = 64 * 1024;

/**
 * Collects received bytes in slabs and finds whole protocol frames in them. Bytes that were handed out are never overwritten, so that views on them live as
 * long as they are referenced; a frame cut by the end of a slab is moved to the next one, once.
 */
export class FrameBuffer {
  #slab: Buffer = Buffer.allocUnsafeSlow(slabBytes);
  /** First byte that belongs to no complete frame yet. */
  #parsed = 0;
  #filled = 0;

  /** The buffer to read into, at offset `filled`. Has at least 64 KiB of room. */
  room(): Buffer {
    if (this.#slab.length - this.#filled < leastRoom || this.#needed() > this.#slab.length) this.#renew(leastRoom);
    return this.#slab;
  }

  /** The next `room` begins a new slab: what can be parsed should be parsed before, so that only a cut frame is moved. */
  get crowded(): boolean {
    return this.#slab.length - this.#filled < leastRoom;
  }

  get filled(): number {
    return this.#filled;
  }

  /** `bytes` were written at `filled`. */
  wrote(bytes: number): void {
    this.#filled += bytes;
  }

  /** Copies a chunk in. */
  append(chunk: Buffer): void {
    if (this.#slab.length - this.#filled < chunk.length || this.#needed() > this.#slab.length) this.#renew(chunk.length);
    chunk.copy(this.#slab, this.#filled);
    this.#filled += chunk.length;
  }

  /**
   * Hands every complete frame to `visit`, as offsets in one buffer. Throws `protocol-violation` for a length that cannot be. Where `visit` throws, frames before
   * it count as taken.
   */
  takeFrames(visit: (bytes: Buffer, start: number, end: number) => void): void {
    for (;;) {
      const end = this.#frameEnd();
      if (end === undefined || end > this.#filled) return;
      const start = this.#parsed;
      this.#parsed = end;
      visit(this.#slab, start, end);
    }
  }

  /** Where the frame at `parsed` would end; undefined while its head is incomplete. */
  #frameEnd(): number | undefined {
    const at = this.#parsed;
    if (this.#filled - at < 5) return undefined;
    const slab = this.#slab;
    const length = (slab[at + 1]! << 24) | (slab[at + 2]! << 16) | (slab[at + 3]! << 8) | slab[at + 4]!;
    if (length < 4) throw new PgweaveError('protocol-violation', `the server sent a frame with the length ${length}`, { retry: 'backoff' });
    return at + 1 + length;
  }

  /** Offset that the slab must reach so that the frame under way fits. */
  #needed(): number {
    return this.#frameEnd() ?? 0;
  }

  #renew(room: number): void {
    const rest = this.#filled - this.#parsed;
    const frame = this.#needed() - this.#parsed;
    const next = Buffer.allocUnsafeSlow(Math.max(slabBytes, rest + room, frame + leastRoom));
    this.#slab.copy(next, 0, this.#parsed, this.#filled);
    this.#slab = next;
    this.#parsed = 0;
    this.#filled = rest;
  }
}
