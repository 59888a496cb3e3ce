import { closeSync, openSync, read as readCallback } from 'node:fs';
import { promisify } from 'node:util';
import { FrameBuffer } from '../frame-buffer.ts';
import { decodeStart, recordHead, recordIsSound, recordKind } from './records.ts';
import { damaged, segmentPath } from './segments.ts';
import type { SpoolPosition } from './spool-writer.ts';

const readAt = promisify(readCallback);

/** What is read goes here, in order. */
export interface SpoolReaderSink {
  /** A segment begins: what follows lies in it. */
  segment(number: number): void;
  /** A new connection of the process that wrote: what was incomplete comes again. */
  connection(): void;
  frames(bytes: Buffer, start: number, end: number): void;
}

/** Reads segments from the beginning of one on, up to a limit that moves. */
export class SpoolReader {
  readonly #folder: string;
  readonly #sink: SpoolReaderSink;
  #position: SpoolPosition;
  #fd: number | undefined;
  #buffer = new FrameBuffer();
  /** Bytes read from the file, at or beyond the position. */
  #read = 0;
  /** Nothing was read yet: the first segment says what came before it. */
  #fresh = true;

  constructor(folder: string, sink: SpoolReaderSink, segment: number) {
    this.#folder = folder;
    this.#sink = sink;
    this.#position = { segment, offset: 0 };
  }

  /** Behind the last record that went to the sink. */
  get position(): SpoolPosition {
    return this.#position;
  }

  /** Records up to `position` went to the sink in another way. */
  skipTo(position: SpoolPosition): void {
    if (position.segment !== this.#position.segment) this.#closeFile();
    this.#position = position;
    this.#buffer = new FrameBuffer();
    this.#read = position.offset;
    this.#fresh = false;
  }

  /**
   * Reads once, up to `limit` (what has been written) and `segments` (those that there are, ascending), and hands on what is whole. False where there was nothing.
   * Throws `spool-damaged`.
   */
  async step(limit: SpoolPosition, segments: readonly number[]): Promise<boolean> {
    const { segment } = this.#position;
    const end = segment < limit.segment ? Number.POSITIVE_INFINITY : limit.offset;
    if (this.#read >= end) return false;
    this.#fd ??= openSync(segmentPath(this.#folder, segment), 'r');
    const into = this.#buffer.room();
    const { bytesRead } = await readAt(this.#fd, into, this.#buffer.filled, Math.min(into.length - this.#buffer.filled, end - this.#read), this.#read);
    if (bytesRead === 0) {
      if (this.#read > this.#position.offset || segment >= limit.segment) throw damaged(segmentPath(this.#folder, segment), this.#position.offset);
      return this.#next(segments);
    }
    this.#read += bytesRead;
    this.#buffer.wrote(bytesRead);
    this.#take();
    return true;
  }

  /** A segment that is not the last was read to its end. */
  #next(segments: readonly number[]): boolean {
    const next = segments.find((n) => n > this.#position.segment);
    if (next === undefined) return false;
    this.#closeFile();
    this.#position = { segment: next, offset: 0 };
    this.#buffer = new FrameBuffer();
    this.#read = 0;
    return true;
  }

  #take(): void {
    const { segment } = this.#position;
    let { offset } = this.#position;
    try {
      this.#buffer.takeFrames((bytes, start, end) => {
        if (!recordIsSound(bytes, start, end)) throw damaged(segmentPath(this.#folder, segment), offset);
        this.#record(bytes, start, end, segment, offset);
        offset += end - start;
        this.#position = { segment, offset };
      });
    } catch (error) {
      throw (error as { code?: string }).code === 'protocol-violation' && offset === this.#position.offset ? damaged(segmentPath(this.#folder, segment), offset) : error;
    }
  }

  #record(bytes: Buffer, start: number, end: number, segment: number, offset: number): void {
    const at = start + recordHead;
    switch (bytes[start]) {
      case recordKind.start: {
        const found = offset === 0 ? decodeStart(bytes, at, end) : undefined;
        if (!found) throw damaged(segmentPath(this.#folder, segment), offset);
        this.#sink.segment(segment);
        if (this.#fresh && end > found.framesAt) this.#sink.frames(bytes, found.framesAt, end);
        this.#fresh = false;
        return;
      }
      case recordKind.connection:
        this.#sink.connection();
        return;
      case recordKind.frames:
        this.#sink.frames(bytes, at, end);
        return;
      default: throw damaged(segmentPath(this.#folder, segment), offset);
    }
  }

  #closeFile(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  close(): void {
    this.#closeFile();
  }
}
