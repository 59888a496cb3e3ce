import type { Socket } from 'node:net';
import { PgweaveError } from '../core/errors.ts';
import { ServerError } from './server-error.ts';
import type { Session } from './session.ts';

/**
 * The frontend/backend protocol, spoken without waiting for answers. Messages are written into slabs and go out with `flush`; answers arrive in order.
 * Work is cut into units: each unit ends with exactly one ReadyForQuery: a simple query (a COPY included), or an extended sequence closed by Sync.
 * Source: PostgreSQL documentation, "Message Flow" and "Message Formats".
 */
export interface UnitResult {
  /** Statements that ended with CommandComplete before an error, if any: tells which one of several failed. */
  readonly completed: number;
  /** Rows that each of these affected; 0 where its tag carries no count. */
  readonly counts: readonly number[];
  /** Rows of the last statements that gave any, as text. */
  readonly rows: readonly (readonly (string | null)[])[];
  readonly error: ServerError | undefined;
}

interface OpenUnit {
  completed: number;
  counts: number[];
  rows: (string | null)[][];
  error: ServerError | undefined;
  readonly resolve: (result: UnitResult) => void;
  readonly reject: (error: Error) => void;
}

/** Slabs of 64 KB: large enough that a write call costs nothing, small enough to stay in the cache. */
const slabBytes = 65_536;
/** Slabs kept for reuse once they were sent: new ones each time made the collector run for memory that is not even on its heap. */
const mostSpareSlabs = 64;
/** Values above this are handed to the socket as they are instead of being copied. */
const largeValueBytes = 16_384;

export class Pipeline {
  readonly #socket: Socket;
  #slab: Buffer = Buffer.allocUnsafeSlow(slabBytes);
  readonly #spare: Buffer[] = [];
  #at = 0;
  #frameAt = -1;
  #units: OpenUnit[] = [];
  #firstUnit = 0;
  #partial: Buffer | undefined;
  #failure: Error | undefined;
  #closing = false;
  #onLost: ((error: Error) => void) | undefined;

  /** Takes over a session's authenticated socket. The session cannot be used afterwards. */
  constructor(session: Session) {
    this.#socket = session.takeSocket();
    this.#socket.setNoDelay(true);
    this.#socket.on('data', (chunk: Buffer) => {
      try {
        this.#receive(chunk);
      } catch (error) {
        this.#fail(error as Error);
      }
    });
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('close', () => this.#fail(new PgweaveError('connection-lost', 'the connection to the target was lost', { retry: 'backoff' })));
    this.#socket.resume();
  }

  /** Why the connection can no longer be used. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Units whose answer is awaited. */
  get pending(): number {
    return this.#units.length - this.#firstUnit;
  }

  /** Bytes written and not yet taken by the kernel. */
  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  onLost(listener: (error: Error) => void): void {
    this.#onLost = listener;
  }

  /** A simple query; may hold several statements. Never rejects for an error of the server: that is in the result. */
  query(text: string): Promise<UnitResult> {
    const bytes = Buffer.byteLength(text);
    this.#head(0x51, bytes + 5);
    this.#text(text, bytes);
    this.#u8(0);
    return this.#unit();
  }

  /** Begins a COPY … FROM STDIN; `copyBytes`… and `endCopy` follow. Errors come with `endCopy`'s result. */
  beginCopy(text: string): void {
    const bytes = Buffer.byteLength(text);
    this.#head(0x51, bytes + 5);
    this.#text(text, bytes);
    this.#u8(0);
  }

  endCopy(): Promise<UnitResult> {
    this.#endFrame();
    this.#head(0x63, 4);
    return this.#unit();
  }

  /** Room for `length` more bytes of COPY data, in one frame with what stands before. Returns the slab; write at `at` and then call `advance`. */
  copyRoom(length: number): Buffer {
    if (this.#frameAt < 0 || this.#at + length > this.#slab.length) {
      this.#endFrame();
      if (this.#at + length + 5 > this.#slab.length) this.#newSlab(length + 5);
      this.#frameAt = this.#at;
      this.#slab[this.#at] = 0x64;
      this.#at += 5;
    }
    return this.#slab;
  }

  /** Where the next byte goes, after `copyRoom` or `room`. */
  get at(): number {
    return this.#at;
  }

  advance(to: number): void {
    this.#at = to;
  }

  /** A large value inside a COPY, in a frame of its own and not copied: `bytes` must stay as it is until it was sent. */
  copyLarge(bytes: Buffer): void {
    this.#endFrame();
    this.#head(0x64, bytes.length + 4);
    this.#large(bytes);
  }

  /** Parse: a named statement whose parameter types the server infers. */
  parse(name: string, text: string): void {
    const nameBytes = Buffer.byteLength(name);
    const textBytes = Buffer.byteLength(text);
    this.#head(0x50, 4 + nameBytes + 1 + textBytes + 1 + 2);
    this.#text(name, nameBytes);
    this.#u8(0);
    this.#text(text, textBytes);
    this.#u8(0);
    this.#u16(0);
  }

  /** Close of a named statement. */
  closeStatement(name: string): void {
    const bytes = Buffer.byteLength(name);
    this.#head(0x43, 4 + 1 + bytes + 1);
    this.#u8(0x53);
    this.#text(name, bytes);
    this.#u8(0);
  }

  /**
   * Bind to the unnamed portal and Execute. `values[i]`: null, or bytes at `offsets[i]` of `sources[i]` with `lengths[i]`; `formats[i]` 0 text, 1 binary.
   */
  execute(name: string, parameters: Parameters): void {
    const { count, sources, offsets, lengths, formats } = parameters;
    const nameBytes = Buffer.byteLength(name);
    let length = 4 + 1 + nameBytes + 1 + 2 + 2 * count + 2 + 2;
    for (let i = 0; i < count; i += 1) length += 4 + (sources[i] === null ? 0 : lengths[i]!);
    this.#head(0x42, length);
    this.#u8(0);
    this.#text(name, nameBytes);
    this.#u8(0);
    this.#u16(count);
    this.#room(2 * count);
    for (let i = 0; i < count; i += 1) {
      this.#slab[this.#at] = 0;
      this.#slab[this.#at + 1] = formats[i]!;
      this.#at += 2;
    }
    this.#u16(count);
    for (let i = 0; i < count; i += 1) {
      const source = sources[i];
      if (!source) this.#u32(0xffffffff);
      else {
        const size = lengths[i]!;
        const from = offsets[i]!;
        this.#u32(size);
        if (size > largeValueBytes) this.#large(source.subarray(from, from + size));
        else {
          this.#room(size);
          copyBytes(source, from, size, this.#slab, this.#at);
          this.#at += size;
        }
      }
    }
    this.#u16(0);
    // Execute: unnamed portal, all rows.
    this.#head(0x45, 4 + 1 + 4);
    this.#u8(0);
    this.#u32(0);
  }

  /** Ends an extended sequence. */
  sync(): Promise<UnitResult> {
    this.#head(0x53, 4);
    return this.#unit();
  }

  /** Hands everything written so far to the socket. */
  flush(): void {
    this.#endFrame();
    if (this.#at > 0) this.#newSlab(0);
  }

  /** Says good-bye and closes. Open units reject. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (!this.#failure) this.#socket.end(Buffer.from([0x58, 0, 0, 0, 4]));
    this.#fail(new PgweaveError('connection-closed', 'the connection to the target is closed'));
    // The server closes its end; where it does not, nothing is left hanging.
    setTimeout(() => this.#socket.destroy(), 2000).unref();
  }

  destroy(): void {
    this.#closing = true;
    this.#fail(new PgweaveError('connection-closed', 'the connection to the target is closed'));
    this.#socket.destroy();
  }

  #unit(): Promise<UnitResult> {
    const promise = new Promise<UnitResult>((resolve, reject) => {
      if (this.#failure) reject(this.#failure);
      else this.#units.push({ completed: 0, counts: [], rows: [], error: undefined, resolve, reject });
    });
    // Several units fail at once when the connection is lost; whoever awaits the first hears of it.
    promise.catch(() => undefined);
    return promise;
  }

  #head(kind: number, length: number): void {
    this.#endFrame();
    this.#room(5);
    this.#slab[this.#at] = kind;
    this.#at += 1;
    this.#u32(length);
  }

  #room(length: number): void {
    if (this.#at + length > this.#slab.length) this.#newSlab(length);
  }

  #newSlab(length: number): void {
    const full = this.#slab;
    if (this.#at > 0 && !this.#failure) {
      this.#socket.write(full.subarray(0, this.#at), (error) => {
        if (!error && full.length === slabBytes && this.#spare.length < mostSpareSlabs) this.#spare.push(full);
      });
    }
    this.#slab = (length <= slabBytes ? this.#spare.pop() : undefined) ?? Buffer.allocUnsafeSlow(Math.max(slabBytes, length));
    this.#at = 0;
  }

  #endFrame(): void {
    if (this.#frameAt < 0) return;
    this.#slab.writeUInt32BE(this.#at - this.#frameAt - 1, this.#frameAt + 1);
    this.#frameAt = -1;
  }

  #large(bytes: Buffer): void {
    if (this.#at > 0) this.#newSlab(0);
    if (!this.#failure) this.#socket.write(bytes);
  }

  #text(text: string, bytes: number): void {
    this.#room(bytes);
    this.#slab.write(text, this.#at, bytes, 'utf8');
    this.#at += bytes;
  }

  #u8(value: number): void {
    this.#room(1);
    this.#slab[this.#at] = value;
    this.#at += 1;
  }

  #u16(value: number): void {
    this.#room(2);
    this.#slab.writeUInt16BE(value, this.#at);
    this.#at += 2;
  }

  #u32(value: number): void {
    this.#room(4);
    this.#slab.writeUInt32BE(value, this.#at);
    this.#at += 4;
  }

  #receive(chunk: Buffer): void {
    let bytes = chunk;
    if (this.#partial) {
      bytes = Buffer.concat([this.#partial, chunk]);
      this.#partial = undefined;
    }
    let at = 0;
    while (bytes.length - at >= 5) {
      const length = bytes.readUInt32BE(at + 1);
      if (bytes.length - at < length + 1) break;
      this.#message(bytes[at]!, bytes, at + 5, at + 1 + length);
      at += length + 1;
    }
    if (at < bytes.length) this.#partial = Buffer.from(bytes.subarray(at));
  }

  #message(kind: number, bytes: Buffer, start: number, end: number): void {
    const unit = this.#units[this.#firstUnit];
    switch (kind) {
      case 0x43: // CommandComplete
        if (unit) {
          unit.counts.push(trailingNumber(bytes, end - 2));
          unit.completed += 1;
        }
        return;
      case 0x44: // DataRow
        unit?.rows.push(readRow(bytes, start));
        return;
      case 0x45: { // ErrorResponse
        const error = ServerError.parse(bytes.subarray(start, end));
        if (unit) unit.error ??= error;
        // FATAL: the server closes the connection next; its reason is worth more than the loss.
        if (error.severity === 'FATAL' || error.severity === 'PANIC' || !unit) this.#fail(error);
        return;
      }
      case 0x5a: // ReadyForQuery
        if (!unit) return;
        this.#firstUnit += 1;
        if (this.#firstUnit > 256) {
          this.#units.splice(0, this.#firstUnit);
          this.#firstUnit = 0;
        }
        unit.resolve(unit);
        return;
      default:
        // ParseComplete, BindComplete, CloseComplete, NoData, RowDescription, CopyInResponse, notices, parameters: nothing to do.
    }
  }

  #fail(error: Error): void {
    if (this.#failure) return;
    this.#failure = error;
    const open = this.#units.slice(this.#firstUnit);
    this.#units = [];
    this.#firstUnit = 0;
    for (const unit of open) unit.reject(error);
    if (!this.#closing) {
      this.#socket.destroy();
      this.#onLost?.(error);
    }
  }
}

/** Parameters of one Bind; the arrays are reused for many rows. A source of null is NULL. */
export interface Parameters {
  count: number;
  readonly sources: (Buffer | null)[];
  readonly offsets: number[];
  readonly lengths: number[];
  readonly formats: number[];
}

export function emptyParameters(): Parameters {
  return { count: 0, sources: [], offsets: [], lengths: [], formats: [] };
}

let fromBuffer: Buffer | undefined;
let fromView: DataView = new DataView(new ArrayBuffer(0));
let toBuffer: Buffer | undefined;
let toView: DataView = fromView;

/** Copies bytes. For short values a loop is several times faster than Buffer.copy, and fewer, larger steps than single bytes; both views are kept, since the buffers seldom change. */
export function copyBytes(from: Buffer, at: number, length: number, to: Buffer, toAt: number): void {
  if (length > 96) {
    from.copy(to, toAt, at, at + length);
    return;
  }
  if (from !== fromBuffer) {
    fromBuffer = from;
    fromView = new DataView(from.buffer, from.byteOffset, from.length);
  }
  if (to !== toBuffer) {
    toBuffer = to;
    toView = new DataView(to.buffer, to.byteOffset, to.length);
  }
  let i = 0;
  for (; i + 4 <= length; i += 4) toView.setInt32(toAt + i, fromView.getInt32(at + i, true), true);
  for (; i < length; i += 1) to[toAt + i] = from[at + i]!;
}

/** The number at the end of a command tag, such as 3 of `UPDATE 3`; `last` is its last byte. */
function trailingNumber(bytes: Buffer, last: number): number {
  let value = 0;
  let scale = 1;
  for (let at = last; bytes[at]! >= 0x30 && bytes[at]! <= 0x39; at -= 1) {
    value += (bytes[at]! - 0x30) * scale;
    scale *= 10;
  }
  return value;
}

function readRow(bytes: Buffer, start: number): (string | null)[] {
  const count = bytes.readUInt16BE(start);
  const row: (string | null)[] = [];
  let at = start + 2;
  for (let i = 0; i < count; i += 1) {
    const length = bytes.readInt32BE(at);
    at += 4;
    if (length < 0) row.push(null);
    else {
      row.push(bytes.toString('utf8', at, at + length));
      at += length;
    }
  }
  return row;
}
