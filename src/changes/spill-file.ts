import { openSync, closeSync, unlinkSync, read as readCallback, writev as writevCallback } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { failpoint } from '../core/failpoints.ts';
import { PgweaveError } from '../core/errors.ts';
import { makeFolder } from '../core/make-folder.ts';
import { FrameBuffer } from './frame-buffer.ts';
import { appendRun, type FrameRun } from './frames.ts';

const readAt = promisify(readCallback);
const writeBuffers = promisify(writevCallback);
let counter = 0;

/**
 * Frames of one transaction on disk, while it is too big for memory and not yet known to be committed. Written in the background, in order; read once from the
 * beginning. Not durable: after a crash the source sends the transaction again.
 */
export class SpillFile {
  readonly #path: string;
  readonly #fd: number;
  readonly #onWritten: () => void;
  readonly #unlinked: boolean;
  #waiting: Buffer[] = [];
  #pendingBytes = 0;
  #writing: Promise<void> | undefined;
  #error: unknown;
  #closed = false;
  #reading = false;

  /** `onWritten` is called when bytes have left memory, and when writing has failed. */
  constructor(folder: string, onWritten: () => void) {
    counter += 1;
    this.#path = join(folder, `spill-${process.pid}-${counter}`);
    this.#onWritten = onWritten;
    try {
      makeFolder(folder);
      this.#fd = openSync(this.#path, 'wx+', 0o600);
    } catch (error) {
      throw spillError(error, this.#path);
    }
    // Without a name nothing is left over, whatever ends the process.
    this.#unlinked = process.platform !== 'win32';
    if (this.#unlinked) unlinkSync(this.#path);
  }

  /** Bytes handed to `append` that are still in memory. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  append(runs: readonly FrameRun[]): void {
    for (const { bytes, start, end } of runs) {
      this.#waiting.push(bytes.subarray(start, end));
      this.#pendingBytes += end - start;
    }
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0 && !this.#closed && this.#error === undefined) {
      let buffers = this.#waiting.splice(0, 64);
      const bytes = buffers.reduce((sum, b) => sum + b.length, 0);
      try {
        await failpoint('spill.before-write');
        while (buffers.length > 0) buffers = withoutFirst(buffers, (await writeBuffers(this.#fd, buffers)).bytesWritten);
      } catch (error) {
        this.#error = spillError(error, this.#path);
      }
      this.#pendingBytes -= bytes;
      this.#onWritten();
    }
  }

  /** Why writing failed, if it did. */
  get error(): unknown {
    return this.#error;
  }

  /** All that was appended, in runs of about `partBytes`; the file is closed at the end. */
  async *read(partBytes: number): AsyncGenerator<FrameRun[], void, void> {
    this.#reading = true;
    try {
      await this.#writing;
      if (this.#error !== undefined) throw this.#error;
      const buffer = new FrameBuffer();
      let position = 0;
      for (;;) {
        const runs: FrameRun[] = [];
        let got = 0;
        let read = 1;
        while (read > 0 && got < partBytes) {
          const into = buffer.room();
          read = (await readAt(this.#fd, into, buffer.filled, into.length - buffer.filled, position)).bytesRead;
          position += read;
          got += read;
          buffer.wrote(read);
          buffer.takeFrames((bytes, start, end) => appendRun(runs, { bytes, start, end }));
        }
        if (runs.length > 0) yield runs;
        if (read === 0) return;
      }
    } finally {
      this.#reading = false;
      await this.close();
    }
  }

  /** Closes and removes the file; what was not read is gone. */
  async close(): Promise<void> {
    if (this.#closed || this.#reading) return;
    this.#closed = true;
    this.#waiting = [];
    await this.#writing;
    closeSync(this.#fd);
    if (!this.#unlinked) unlinkSync(this.#path);
  }
}

function withoutFirst(buffers: Buffer[], bytes: number): Buffer[] {
  let left = bytes;
  let i = 0;
  while (i < buffers.length && left >= buffers[i]!.length) {
    left -= buffers[i]!.length;
    i += 1;
  }
  const rest = buffers.slice(i);
  if (left > 0 && rest[0]) rest[0] = rest[0].subarray(left);
  return rest;
}

function spillError(error: unknown, path: string): PgweaveError {
  return new PgweaveError('spill-failed', `cannot put a large transaction aside on disk at ${path}: ${(error as Error).message}`, {
    hint: 'Free space in the state folder, or name another with --dir. Nothing is lost: the source sends the transaction again.', cause: error,
  });
}
