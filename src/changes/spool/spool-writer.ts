import { closeSync, fdatasync as fdatasyncCallback, fsyncSync, openSync, rmSync, writev as writevCallback } from 'node:fs';
import { promisify } from 'node:util';
import { PgweaveError } from '../../core/errors.ts';
import { failpoint, failpointSync } from '../../core/failpoints.ts';
import type { Lsn } from '../../pg/lsn.ts';
import { FrameScan } from './frame-scan.ts';
import { encodeStart, recordHead, recordHeader, recordKind } from './records.ts';
import { cutTorn, segmentPath, type Recovered } from './segments.ts';

const fdatasync = promisify(fdatasyncCallback);
const writeBuffers = promisify(writevCallback);
/** Buffers of one write; systems take 1,024. */
const mostBuffers = 512;
const mostBytes = 8 * 1024 * 1024;

/** A place in the spool: behind it the next record begins. */
export interface SpoolPosition {
  readonly segment: number;
  readonly offset: number;
}

export interface SpoolWriterOptions {
  readonly folder: string;
  /** A segment that has grown to this is the last one's predecessor. */
  readonly segmentBytes: number;
  readonly recovered: Recovered;
  readonly startLsn: Lsn;
  /** Something can be read that could not before. */
  readonly onWritten: () => void;
  /** Something may be acknowledged that might not before. */
  readonly onSynced: () => void;
  readonly onError: (error: PgweaveError) => void;
}

interface Operation {
  readonly segment: number;
  readonly buffers: readonly Buffer[];
  readonly bytes: number;
  /** Position behind it. */
  readonly end: number;
  readonly ackLsn: Lsn;
}

/**
 * Appends records to segment files in the background, in order. Many small records become one write and one fdatasync; only after that what they hold may be
 * acknowledged.
 */
export class SpoolWriter {
  readonly #options: SpoolWriterOptions;
  readonly #scan: FrameScan;
  readonly #sizes = new Map<number, number>();
  #segment: number;
  /** Where the next record goes; -1 before the first. */
  #offset = -1;
  #waiting: Operation[] = [];
  #pendingBytes = 0;
  #written: SpoolPosition;
  #syncedLsn: Lsn;
  #fd: { readonly segment: number; readonly fd: number } | undefined;
  #working: Promise<void> | undefined;
  #failed = false;
  #torn: Recovered['torn'];

  constructor(options: SpoolWriterOptions) {
    this.#options = options;
    const { segments, ackLsn, torn } = options.recovered;
    this.#torn = torn;
    for (const { number, bytes } of segments) this.#sizes.set(number, bytes);
    const last = segments.at(-1);
    this.#segment = Math.max(last?.number ?? 0, torn?.number ?? 0);
    this.#written = { segment: last?.number ?? this.#segment + 1, offset: last?.bytes ?? 0 };
    const known = ackLsn > options.startLsn ? ackLsn : options.startLsn;
    this.#scan = new FrameScan(known);
    this.#syncedLsn = known;
  }

  /** Everything before it is on disk for good, or did not concern us. */
  get syncedLsn(): Lsn {
    return this.#syncedLsn;
  }

  /** The same for everything that was appended. */
  get appendedLsn(): Lsn {
    return this.#scan.ackLsn;
  }

  /** Up to here files can be read. */
  get written(): SpoolPosition {
    return this.#written;
  }

  /** Behind the last record that was appended. */
  get end(): SpoolPosition {
    return this.#offset < 0 ? this.#written : { segment: this.#segment, offset: this.#offset };
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** Bytes in all segments, with what is about to be written. */
  get totalBytes(): number {
    let sum = 0;
    for (const bytes of this.#sizes.values()) sum += bytes;
    return sum;
  }

  /** Numbers of all segments, ascending. */
  get segments(): number[] {
    return [...this.#sizes.keys()];
  }

  /** A new connection to the source. */
  connection(): void {
    this.#scan.connection();
    this.#append(recordKind.connection, []);
  }

  /**
   * Appends whole frames. Keepalives alone are written only where `keepalives` says so: what they acknowledge must be on disk too, since a slot that is further than
   * its spool means that changes are missing.
   */
  frames(bytes: Buffer, start: number, end: number, keepalives: boolean): void {
    if (this.#offset >= this.#options.segmentBytes) this.#roll();
    const before = this.#scan.ackLsn;
    const data = this.#scan.scan(bytes, start, end);
    if (data || (keepalives && this.#scan.ackLsn > before)) this.#append(recordKind.frames, [bytes.subarray(start, end)]);
    else this.#scan.forget(before);
  }

  #roll(): void {
    this.#segment += 1;
    this.#offset = 0;
    this.#sizes.set(this.#segment, 0);
    this.#push(recordKind.start, [encodeStart({ ackLsn: this.#scan.ackLsn }), ...this.#scan.stateFrames()]);
  }

  #append(kind: number, payload: readonly Buffer[]): void {
    if (this.#offset < 0) this.#roll();
    this.#push(kind, payload);
  }

  #push(kind: number, payload: readonly Buffer[]): void {
    const head = recordHeader(kind, payload);
    let bytes = recordHead;
    for (const part of payload) bytes += part.length;
    this.#offset += bytes;
    this.#sizes.set(this.#segment, this.#offset);
    this.#pendingBytes += bytes;
    this.#waiting.push({ segment: this.#segment, buffers: [head, ...payload], bytes, end: this.#offset, ackLsn: this.#scan.ackLsn });
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  async #work(): Promise<void> {
    // A pause for as long as it takes to come here again: what arrives in the same turn is written together.
    await Promise.resolve();
    try {
      while (this.#waiting.length > 0 && !this.#failed) {
        const group = this.#group();
        const last = group.at(-1)!;
        const fd = await this.#open(last.segment);
        await failpoint('spool.before-write');
        let buffers = group.flatMap((o) => o.buffers);
        while (buffers.length > 0) buffers = rest(buffers, (await writeBuffers(fd, buffers)).bytesWritten);
        this.#pendingBytes -= group.reduce((sum, o) => sum + o.bytes, 0);
        this.#written = { segment: last.segment, offset: last.end };
        await failpoint('spool.after-write');
        this.#options.onWritten();
        await failpoint('spool.before-sync');
        await fdatasync(fd);
        await failpoint('spool.after-sync');
        this.#syncedLsn = last.ackLsn > this.#syncedLsn ? last.ackLsn : this.#syncedLsn;
        this.#options.onSynced();
      }
    } catch (error) {
      this.#failed = true;
      this.#options.onError(new PgweaveError('spool-failed', `cannot write the spool in ${this.#options.folder}: ${(error as Error).message}`, {
        hint: 'Free space there, or name another folder once this one is drained. Nothing is lost: what is not on disk was not acknowledged.', cause: error,
      }));
    }
  }

  /** The first records that wait, all of one segment, as many as fit into one write. */
  #group(): Operation[] {
    const { segment } = this.#waiting[0]!;
    let count = 0;
    let buffers = 0;
    let bytes = 0;
    for (const o of this.#waiting) {
      if (count > 0 && (o.segment !== segment || buffers + o.buffers.length > mostBuffers || bytes + o.bytes > mostBytes)) break;
      count += 1;
      buffers += o.buffers.length;
      bytes += o.bytes;
    }
    return this.#waiting.splice(0, count);
  }

  async #open(segment: number): Promise<number> {
    if (this.#fd?.segment === segment) return this.#fd.fd;
    if (this.#torn) {
      cutTorn(this.#options.folder, this.#torn);
      this.#torn = undefined;
    }
    await failpoint('spool.roll');
    this.#closeFile();
    const fd = openSync(segmentPath(this.#options.folder, segment), 'wx', 0o600);
    this.#fd = { segment, fd };
    syncFolder(this.#options.folder);
    return fd;
  }

  #closeFile(): void {
    if (!this.#fd) return;
    closeSync(this.#fd.fd);
    this.#fd = undefined;
  }

  /** Removes segments below `needed`; nothing in them is wanted any more. Never the one that is being written. */
  prune(needed: number): void {
    for (const number of this.#sizes.keys()) {
      if (number >= needed || number >= this.#written.segment || number === this.#segment) continue;
      failpointSync('spool.before-prune');
      rmSync(segmentPath(this.#options.folder, number), { force: true });
      this.#sizes.delete(number);
      failpointSync('spool.after-prune');
    }
  }

  /** Writes what waits and closes the file. */
  async close(): Promise<void> {
    while (this.#working) await this.#working;
    this.#closeFile();
  }
}

function rest(buffers: Buffer[], written: number): Buffer[] {
  let left = written;
  let i = 0;
  while (i < buffers.length && left >= buffers[i]!.length) {
    left -= buffers[i]!.length;
    i += 1;
  }
  const out = buffers.slice(i);
  if (left > 0 && out[0]) out[0] = out[0].subarray(left);
  return out;
}

/** So that the name of a new file outlives a crash of the machine. */
function syncFolder(folder: string): void {
  if (process.platform === 'win32') return;
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
